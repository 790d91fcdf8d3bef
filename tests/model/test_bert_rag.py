"""The whole model, as each preset and fusion builds it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ragimpute.config import ModelConfig, load_config
from ragimpute.evidence.features import NUM_FEATURES
from ragimpute.evidence.site_states_kernel import STATE_FEATURES
from ragimpute.model.bert_rag import BERTWithRAG, build
from ragimpute.model.embedding import MASK, PAD
from ragimpute.model.evidence import SITE_FEATURES
from ragimpute.model.fusion import FUSIONS
from ragimpute.presets import preset_names
from tests.model_configs import config_of

B, K, L = 2, 3, 12
LENGTH = 9  # sites of the second sample; the rest is padding


def config(fusion="enhanced_rare_variant", /, **parts):
    """A small model."""
    return ModelConfig.model_validate(
        {
            "encoder": {"dim": 16, "num_layers": 2, "num_heads": 2, "dropout": 0.0},
            "embedding": {"position_cnn": True},
            "reference": {"chunk": 24},
            "fusion": {"name": fusion, "haplotype_attention": True},
            **parts,
        }
    )


def make(fusion="enhanced_rare_variant", /, **parts):
    torch.manual_seed(0)
    return build(config(fusion, **parts)).eval()


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(*shape, generator=g)

    out = {"pos": rand(B, L).cumsum(1), "af": rand(B, L), "af_p": rand(B, L)}
    out |= {name: rand(B, L) for name in ("ref", "het", "hom")}
    pad = torch.zeros(B, L, dtype=torch.bool)
    pad[1, LENGTH:] = True
    for h in "12":
        out[f"hap_{h}"] = torch.randint(0, 3, (B, L), generator=g).masked_fill(pad, PAD)
        refs = torch.randint(0, 2, (B, K, L), generator=g)
        refs = refs.masked_fill(pad[:, None].expand_as(refs), PAD)
        refs[1, 2] = PAD  # retrieval found two only
        out[f"rag_seg_h{h}"] = refs
        out[f"rag_af_h{h}"] = rand(B, K, L)
        out[f"rag_id_h{h}"] = torch.randint(0, 50, (B, K), generator=g)
    out["window"] = torch.tensor([4, 7])
    return out


def compare(found, expected):
    """Outputs agree at the real sites."""
    assert found.keys() == expected.keys()
    for name in found:
        for b in range(B):
            n = LENGTH if b else L
            torch.testing.assert_close(
                found[name][b, :n], expected[name][b, :n], atol=1e-5, rtol=1e-5
            )


def test_outputs(batch):
    out = make()(batch)
    vectors = {f"{h}_{when}" for h in ("h1", "h2") for when in ("before", "after")}
    assert set(out) == {"h1_ori", "h2_ori", "h1_fused", "h2_fused", "genotype", *vectors}
    for name, value in out.items():
        more = (3,) if name == "genotype" else (16,) if name in vectors else ()
        assert value.shape == (B, L, *more)
        assert torch.isfinite(value).all()
    bare = make(heads={"genotype": False, "reconstruction": False})(batch)
    assert set(bare) == {"h1_ori", "h2_ori", "h1_fused", "h2_fused"}


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_gradients_reach_every_parameter(batch, fusion):
    model = make(fusion).train()
    sum(out.square().sum() for out in model(batch).values()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        # Softmax is blind to what is added to every key, and to a bias that all scores share.
        if not name.endswith(("key.bias", "fusion.bias.bias")):
            assert p.grad.abs().max() > 1e-9, name


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_order_of_what_was_retrieved_is_nothing(batch, fusion):
    model = make(fusion)
    order = torch.tensor([2, 0, 1])
    other = dict(batch)
    for h in "12":
        for name in (f"rag_seg_h{h}", f"rag_af_h{h}", f"rag_id_h{h}"):
            other[name] = batch[name][:, order]
    compare(model(other), model(batch))


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_padding_never_leaks(batch, fusion):
    model = make(fusion)
    found = model(batch)
    other = {name: value.clone() for name, value in batch.items()}
    for name in ("pos", "af", "af_p"):
        other[name][1, LENGTH:] = 0.77
    for h in "12":
        other[f"rag_af_h{h}"][1, :, LENGTH:] = 0.33
        other[f"rag_af_h{h}"][1, 2] = 0.5
    compare(model(other), found)
    # Sample 1 alone, cut to its sites and to the two haplotypes that were found.
    short = {}
    for name, value in batch.items():
        value = value[1:2]
        if name.startswith("rag_"):
            value = value[:, :2]
        short[name] = value[..., :LENGTH] if value.ndim > 1 and "id" not in name else value
    for name, value in model(short).items():
        torch.testing.assert_close(value[0], found[name][1, :LENGTH], atol=1e-5, rtol=1e-5)


def test_swapping_the_haplotypes_swaps_the_outputs(batch):
    model = make()
    out = model(batch)
    swap = str.maketrans("12", "21")
    other = model({name.translate(swap): value for name, value in batch.items()})
    compare({name.translate(swap): value for name, value in other.items()}, out)


def test_retrieval_matters_after_fusion_only(batch):
    model = make()
    other = dict(batch)
    other["rag_seg_h1"] = torch.where(
        batch["rag_seg_h1"] < 2, 1 - batch["rag_seg_h1"], batch["rag_seg_h1"]
    )
    one, two = model(batch), model(other)
    for name in ("h1_ori", "h2_ori", "h1_before"):
        assert torch.equal(one[name], two[name])
    for name in ("h1_fused", "h1_after", "genotype"):
        assert (one[name] - two[name]).abs().max() > 1e-4


def test_shares_of_genotypes_reach_the_genotypes_only(batch):
    model = make()
    out = model(batch)
    for share in ("ref", "het", "hom"):
        other = model({**batch, share: batch[share] + 0.3})
        assert (other["genotype"] - out["genotype"]).abs().max() > 1e-4
        for name in out.keys() - {"genotype"}:
            assert torch.equal(out[name], other[name])


def test_vectors_before_are_the_embedding(batch):
    model = make()
    out = model(batch)
    for h in "12":
        embedded = model.tokens.embedding(
            batch[f"hap_{h}"], batch["pos"], batch["af"], batch["af_p"]
        )
        assert torch.equal(out[f"h{h}_before"], embedded)
        allele = model.tokens.allele_fused(out[f"h{h}_after"])
        torch.testing.assert_close(allele, out[f"h{h}_fused"])


@pytest.mark.parametrize("chunk", [1, 24, 10_000])
def test_chunks_of_references_change_nothing(batch, chunk):
    model = make(reference={"chunk": chunk})
    compare(model(batch), make(reference={"chunk": 36})(batch))


def test_precomputed_references_are_the_same(batch):
    model = make()
    expected = model(batch)
    tokens = model.tokens
    asked = []

    def table(window, ids):
        h = "12"[len(asked)]
        asked.append((window, ids))
        rows = [
            model.encode_references(
                batch[f"rag_seg_h{h}"][b], batch["pos"][b], batch["af"][b],
                batch[f"rag_af_h{h}"][b],
            )
            for b in range(B)
        ]  # fmt: skip
        return torch.stack(rows)

    tokens.table = table
    compare(model(batch), expected)
    assert torch.equal(asked[0][0], batch["window"])
    assert torch.equal(asked[1][1], batch["rag_id_h2"])


def test_frozen_references_until_they_are_refreshed(batch):
    model = make(reference={"mode": "precomputed"})
    live = make()
    assert model.num_parameters() == live.num_parameters()
    expected = live(batch)
    compare(model(batch), expected)
    with torch.no_grad():
        model.tokens.embedding.token.weight.mul_(-1.0)
        live.tokens.embedding.token.weight.mul_(-1.0)
    stale, fresh = model(batch), live(batch)
    torch.testing.assert_close(stale["h1_ori"], fresh["h1_ori"])
    assert (stale["h1_fused"] - fresh["h1_fused"]).abs().max() > 1e-4
    other = make(reference={"mode": "precomputed"})
    other.load_state_dict(model.state_dict())
    compare(other(batch), stale)
    model.tokens.frozen.refresh(model.tokens.references)
    compare(model(batch), fresh)


#: Where copying is sure, in doubt, and where nothing is retrieved (sample 0, haplotype 1).
SURE, DOUBTED, NOBODY = 3, 4, 6
RESIDUAL = {
    "heads": {"genotype": False, "reconstruction": False},
    "li_stephens": {"offset": True, "features": True, "doubt": 0.01},
}


def by_site(batch, seed=0):
    """The batch with what copying says, and what was retrieved at each site."""
    g = torch.Generator().manual_seed(seed)
    out = dict(batch)
    for h in "12":
        pad = batch[f"hap_{h}"] == PAD
        logit = 4 * torch.randn(B, L, generator=g)
        logit[:, SURE], logit[:, DOUBTED] = 7.0, -1.0
        out[f"ls_logit_h{h}"] = logit.masked_fill(pad, 0.0)
        out[f"site_h{h}"] = torch.randn(B, L, len(SITE_FEATURES), generator=g)
        out[f"site_h{h}"][..., 0] = logit
        out[f"state_h{h}"] = torch.randn(B, K, L, len(STATE_FEATURES), generator=g)
        ids = torch.randint(0, 50, (B, K, L), generator=g)
        ids[1, 2, 5] = -1
        ids[0, :, NOBODY] = -1
        out[f"ls_logit_h{h}"][0, NOBODY] = 0.5
        ids = ids.masked_fill(pad[:, None], -1)
        refs = torch.randint(0, 2, (B, K, L), generator=g).masked_fill(ids < 0, PAD)
        out |= {f"rag_id_h{h}": ids, f"rag_seg_h{h}": refs}
        out[f"rag_log_mass_h{h}"] = out[f"state_h{h}"][..., 0].clone()
    return out


def learned(fusion="enhanced_rare_variant", /, **parts):
    """A model whose last layer is no longer 0, and to which tokens say something."""
    model = make(fusion, **{**RESIDUAL, **parts})
    torch.manual_seed(1)
    for name, p in model.tokens.allele_fused.named_parameters():
        nn.init.normal_(p, std=0.3 if "weight" in name else 0.1)
    if model.tokens.token_scale is not None:
        nn.init.constant_(model.tokens.token_scale, 0.5)
    return model


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_an_untrained_residual_is_li_stephens_bit_for_bit(batch, fusion):
    model, given = make(fusion, **RESIDUAL), by_site(batch)
    for training in (False, True):
        out = model.train(training)(given)
        assert set(out) == {"h1_ori", "h2_ori", "h1_fused", "h2_fused"}
        for h in ("h1", "h2"):
            assert torch.equal(out[f"{h}_ori"], given[f"ls_logit_{h}"])
            assert torch.equal(out[f"{h}_fused"], given[f"ls_logit_{h}"])


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_the_residual_leaves_alone_what_is_sure(batch, fusion):
    given = by_site(batch)
    out = learned(fusion)(given)
    for i, h in enumerate(("h1", "h2")):
        logit = given[f"ls_logit_{h}"]
        assert torch.equal(out[f"{h}_ori"], logit)
        change = out[f"{h}_fused"] - logit
        free = (torch.sigmoid(-logit.abs()) > 0.01) & (given[f"hap_{i + 1}"] != PAD)
        assert (change[~free] == 0).all()
        assert (change[free] != 0).all()
        assert torch.isfinite(change).all()
        assert not free[:, SURE].any()
        assert free[:, DOUBTED].all()
        assert free[0, NOBODY]
    sure = [given[f"ls_logit_{h}"].abs() > 4.6 for h in ("h1", "h2")]
    assert (sure[0] != sure[1]).any()


def changed_sites(model, given, name, places, value=None):
    """The (sample, site) pairs of h1_fused that change with one field at some places."""
    plain = model(given)["h1_fused"]
    field = given[name].clone()
    field[places] = field[places] + 1 if value is None else value
    other = model({**given, name: field})["h1_fused"]
    return {tuple(x) for x in ((other - plain).abs() > 1e-6).nonzero().tolist()}


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_what_was_retrieved_counts_at_its_site_where_that_is_in_doubt(batch, fusion):
    given = by_site(batch)
    model = learned(fusion, fusion={"name": fusion})  # haplotypes do not see each other
    for name in ("state_h1", "rag_log_mass_h1"):
        assert changed_sites(model, given, name, (0, 1, DOUBTED)) == {(0, DOUBTED)}, name
        assert changed_sites(model, given, name, (0, 1, SURE)) == set()
        assert changed_sites(model, given, name, (0, slice(None), NOBODY)) == set()
    flipped = 1 - given["rag_seg_h1"][0, 1, DOUBTED]
    found = changed_sites(model, given, "rag_seg_h1", (0, 1, DOUBTED), flipped)
    assert (0, DOUBTED) in found
    assert (0, SURE) not in found
    # Retrieved haplotypes are encoded along the window: their alleles at other sites count, too.
    flipped = 1 - given["rag_seg_h1"][0, 1, SURE]
    found = changed_sites(model, given, "rag_seg_h1", (0, 1, SURE), flipped)
    assert (0, DOUBTED) in found
    # What copying says of a sure site is read, and tells its neighbours something.
    found = changed_sites(model, given, "site_h1", (0, SURE))
    assert (0, DOUBTED) in found
    assert (0, SURE) not in found
    assert {sample for sample, _ in found} == {0}


def test_without_the_offset_every_site_is_fused(batch):
    given = by_site(batch)
    parts = {"li_stephens": {"features": True}, "fusion": {"name": "cross_attention"}}
    model = make("cross_attention", **{**RESIDUAL, **parts})
    assert changed_sites(model, given, "state_h1", (0, 1, SURE)) == {(0, SURE)}
    known = (given["hap_1"] != PAD).sum()
    assert torch.isfinite(model(given)["h1_ori"]).all()
    assert (model(given)["h1_fused"] != given["ls_logit_h1"]).sum() >= known


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_order_of_what_was_retrieved_by_site_is_nothing(batch, fusion):
    given, model = by_site(batch), learned(fusion)
    other = dict(given)
    order = torch.stack([torch.randperm(K, generator=torch.Generator().manual_seed(i))
                         for i in range(L)], dim=1).expand(B, K, L)  # fmt: skip
    # Tokens of a place are encoded along the window: a precomputed table has none of that.
    model.tokens.table = lambda window, ids, site: torch.sin(
        ids[..., None] + torch.arange(16) + site[:, None, None]
    )
    for h in "12":
        for name in ("rag_id", "rag_seg", "rag_af", "rag_log_mass"):
            other[f"{name}_h{h}"] = given[f"{name}_h{h}"].gather(1, order)
        index = order[..., None].expand_as(given[f"state_h{h}"])
        other[f"state_h{h}"] = given[f"state_h{h}"].gather(1, index)
    compare(model(other), model(given))


def test_looked_up_by_site_is_as_encoded(batch):
    """The table is asked for the doubtful sites alone, and gives what would be encoded."""
    given, model = by_site(batch), learned()
    expected = model(given)
    asked = []

    def table(window, ids, site):
        h = "12"[len(asked)]
        asked.append((window, ids, site))
        refs = model.tokens.references(
            given[f"rag_seg_h{h}"], given["pos"], given["af"], given[f"rag_af_h{h}"]
        )
        row = (window == 7).long()
        return refs.transpose(1, 2)[row, site]

    model.tokens.table = table
    compare(model(given), expected)
    for h, (window, ids, site) in zip("12", asked, strict=True):
        row = (window == 7).long()
        assert torch.equal(ids, given[f"rag_id_h{h}"].transpose(1, 2)[row, site])
        doubted = (given[f"ls_logit_h{h}"].abs() < 4.5951) & (given[f"hap_{h}"] != PAD)
        assert torch.equal(torch.stack([row, site], dim=1), doubted.nonzero())


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_gradients_reach_every_parameter_of_the_residual(batch, fusion):
    given, model = by_site(batch), learned(fusion).train()
    out = model(given)
    sum(out[f"{h}_fused"].square().sum() for h in ("h1", "h2")).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        if not name.endswith(("key.bias", "fusion.bias.bias")):
            assert p.grad.abs().max() > 0, name
    fresh = make(fusion, **RESIDUAL).train()
    fresh(given)["h1_fused"].square().sum().backward()
    zero = [p for p in fresh.tokens.allele_fused.parameters() if (p == 0).all()]
    last = [p for p in zero if p.dim() == 2]
    assert last
    assert all(p.grad.abs().max() > 0 for p in last)  # so that it leaves Li-Stephens


def test_no_site_is_in_doubt_or_nothing_was_retrieved(batch):
    given, model = by_site(batch), learned().train()
    sure = {**given, "ls_logit_h1": torch.full((B, L), -8.0)}
    out = model(sure)
    assert torch.equal(out["h1_fused"], sure["ls_logit_h1"])
    nobody = dict(given)
    for h in "12":
        nobody[f"rag_id_h{h}"] = torch.full((B, K, L), -1)
        nobody[f"rag_seg_h{h}"] = torch.full((B, K, L), PAD)
    out = model(nobody)
    sum(x.square().sum() for x in out.values()).backward()
    assert all(torch.isfinite(x).all() for x in out.values())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
@pytest.mark.parametrize("features", [True, False])
def test_the_residual_in_mixed_precision(batch, fusion, features):
    parts = {"li_stephens": {"offset": True, "features": features, "doubt": 0.01}}
    given, model = by_site(batch), learned(fusion, **parts)
    expected = model(given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.train()(given)
        found["h1_fused"].square().sum().backward()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].float(), value, atol=0.2, rtol=0.05)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_swapping_the_haplotypes_swaps_the_residual(batch):
    given, model = by_site(batch), learned()
    swap = str.maketrans("12", "21")
    other = model({name.translate(swap): value for name, value in given.items()})
    compare({name.translate(swap): value for name, value in other.items()}, model(given))


def copying_batch():
    """Sites in doubt of both haplotypes."""
    g = torch.Generator().manual_seed(0)
    out = {}
    for h in ("h1", "h2"):
        out[f"ls_logit_{h}"] = 3 * torch.randn(B, L, generator=g)
        out[f"evidence_{h}"] = torch.randn(B, L, NUM_FEATURES, generator=g)
        out[f"tokens_{h}"] = torch.randint(-900, 900, (B, L, 16, 8), generator=g).short()
        out[f"pos_{h}"] = torch.rand(B, L, generator=g).cumsum(1)
        out[f"pad_{h}"] = torch.zeros(B, L, dtype=torch.bool)
        out[f"pad_{h}"][1, LENGTH:] = True
    return out


@pytest.mark.parametrize("preset", ["default", "states"])
def test_untrained_copying_is_li_stephens_bit_for_bit(preset):
    model = build(config_of(preset).model)
    assert model.is_copying
    batch = copying_batch()
    out = model(batch)
    for h in ("h1", "h2"):
        assert torch.equal(out[f"{h}_ori"], batch[f"ls_logit_{h}"])
        assert torch.equal(out[f"{h}_fused"], batch[f"ls_logit_{h}"])
    nn.init.normal_(model.residual.last.weight)
    trained = model(batch)
    for h in ("h1", "h2"):
        change = trained[f"{h}_fused"] - batch[f"ls_logit_{h}"]
        pad = batch[f"pad_{h}"]
        assert (change[pad] == 0).all()
        assert (change[~pad] != 0).all()
    with pytest.raises(ValueError, match="no reference embeddings"):
        model.encode_references(*(torch.zeros(1, 1),) * 4)


@pytest.mark.parametrize("name", [n for n in preset_names() if not n.startswith("v10-")])
def test_presets_build(name):
    config = load_config(name).model
    model = build(config)
    assert model.is_copying == (config.fusion.name == "copying")
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())
    if not model.is_copying:
        assert type(model.tokens.fusion) is type(FUSIONS[config.fusion.name](8, 2, 0.1, 10.0, 0.1))
        assert len(model.tokens.encoder.layers) == config.encoder.num_layers
        assert model.tokens.references.encoder is model.tokens.encoder


def test_built_the_same_from_the_same_seed(batch):
    one, two = make(), make()
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(p, q)
    assert MASK in batch["hap_1"]
    with pytest.raises(ValueError, match="either"):
        BERTWithRAG()
