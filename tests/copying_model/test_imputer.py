"""The imputers: parameters, retrieval in large panels, and the network's part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from panel_fixtures import names
from vcf_fixtures import write_genotypes

from ragimpute import example
from ragimpute.config import load_config
from ragimpute.copying import states as panel_states
from ragimpute.copying_model import panel_fit as stretch_fits
from ragimpute.copying_model.imputer import CopyingImputer
from ragimpute.copying_model.panel_fit import FitOptions
from ragimpute.errors import InputError, ModelError, PanelError
from ragimpute.evidence import while_copying as evidence_copying
from ragimpute.imputation.imputer import make_imputer
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.model.checkpoint import LoadedModel, load_model, save_model
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare
from ragimpute.target.match import match_sites
from ragimpute.target.window import TargetWindow
from ragimpute.token_model.build_index import build_index
from tests.copying_model.test_correction import model_of
from tests.copying_model.test_mosaics import NUM_SITES, crosses, founders

FIXED = {"ne": 1e5, "err": 1e-3}
FITTED = FIXED | {"fine_tune": True}


@pytest.fixture(scope="module")
def panel(panel_h5):
    with Panel.open(panel_h5) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared(panel):
    """The example's target at the panel's sites."""
    return match_sites(read_target(example.path("target.vcf.gz")), panel, 0, panel.num_sites)


def gathered(imputer, left, right, core, typed, alleles, sample, batch=5):
    """Blocks put together: (n, core sites)."""
    out = np.full((alleles.shape[1], core[1] - core[0]), np.nan, np.float32)

    def put(first, site, prob):
        here = out[first : first + len(prob), site : site + prob.shape[1]]
        assert np.isnan(here).all()
        here[:] = prob

    target = TargetWindow(left, right, core, typed, alleles, sample)
    imputer.prepare(target).impute(batch=batch, put=put)
    assert not np.isnan(out).any()
    return out


def imputer_of(panel, shared, loaded=None, **options):
    """A copying imputer, and what it says of the first 1,000 sites of the first six samples."""
    options = {"seed": 1, "threads": 1, "device": "cpu", "fine_tune": False, **FIXED, **options}
    array_fit = options.pop("array_fit", None)
    model = loaded or load_model("default")
    made = CopyingImputer(panel, shared.panel_index, model, FitOptions(**options), array_fit)
    typed = shared.panel_index[shared.panel_index < 2_000]
    alleles = np.ascontiguousarray(shared.alleles[: len(typed), :6].reshape(len(typed), 12))
    prob = gathered(made, 0, 2_000, (0, 1_000), typed, alleles, np.repeat(np.arange(6), 2))
    return made, prob


@pytest.fixture(scope="module")
def untrained(panel, shared):
    """What copying alone says, whatever weights are shipped."""
    return imputer_of(panel, shared, plain())[1]


def plain():
    """The default model without its weights."""
    loaded = load_model("default")
    return LoadedModel("default", loaded.config, loaded.model, trained=False)


def test_probabilities(untrained, shared, panel):
    assert untrained.shape == (12, 1_000)
    assert untrained.dtype == np.float32
    assert ((untrained >= 0) & (untrained <= 1)).all()
    truth = read_target(example.path("truth.bcf")).alleles[:1_000, :6].reshape(1_000, 12).T
    assert np.corrcoef(untrained.ravel(), truth.ravel())[0, 1] ** 2 > 0.85


def test_samples_are_imputed_by_themselves(panel, shared, untrained):
    typed = shared.panel_index[shared.panel_index < 2_000]
    alleles = shared.alleles[: len(typed), :6].reshape(len(typed), 12)
    made, _ = imputer_of(panel, shared, plain())
    for i in (0, 7):
        one = np.ascontiguousarray(alleles[:, i : i + 1])
        alone = gathered(made, 0, 2_000, (0, 1_000), typed, one, np.array([i // 2]))
        np.testing.assert_allclose(alone[0], untrained[i], atol=1e-5)


@pytest.mark.parametrize(("num", "asked"), [(7, False), (8, True)])
def test_the_network_is_not_asked_where_hardly_a_site_is_typed(panel, shared, num, asked):
    typed = shared.panel_index[shared.panel_index < 2_000][:num]
    alleles = np.ascontiguousarray(shared.alleles[:num, :6].reshape(num, 12))
    found = []
    for loaded in (plain(), load_model("default")):
        made = CopyingImputer(
            panel, typed, loaded, FitOptions(device="cpu", fine_tune=False, **FIXED)
        )
        found.append(gathered(made, 0, 2_000, (0, 1_000), typed, alleles, np.repeat(range(6), 2)))
    assert (found[0] != found[1]).any() == asked


@pytest.mark.parametrize("trained", [False, True])
def test_retrieval_in_place_of_the_whole_panel(panel, shared, untrained, monkeypatch, trained):
    monkeypatch.setattr(panel_states, "COPY_ALL_UP_TO", 100)
    loaded = model_of(last=0.05) if trained else plain()
    made, found = imputer_of(panel, shared, loaded)
    assert made.settings["states"] == "retrieved"
    assert np.corrcoef(found.ravel(), untrained.ravel())[0, 1] ** 2 > 0.99
    assert made.seconds["retrieve"] > 0
    _, again = imputer_of(panel, shared, loaded, threads=2)
    np.testing.assert_array_equal(again, found)
    monkeypatch.setattr(evidence_copying, "_MOST_AT_ONCE", 2)  # a haplotype or two at a time
    _, again = imputer_of(panel, shared, loaded)
    np.testing.assert_allclose(again, found, atol=2e-6)


def test_the_network_moves_only_what_is_in_doubt(panel, shared, untrained, monkeypatch):
    made, found = imputer_of(panel, shared, model_of(last=0.3))
    assert made.settings["correction"] == "network"
    moved = np.abs(found - untrained) > 1e-6
    assert 0.01 < moved.mean() < 0.9
    doubt = load_config("default").model.copying.doubt
    sure = (untrained < doubt / 2) | (untrained > 1 - doubt / 2)
    assert not moved[sure].any()
    typed = shared.panel_index[shared.panel_index < 1_000]
    assert not moved[:, typed].any()
    assert ((found >= 0) & (found <= 1)).all()
    assert {"copy", "network"} <= set(made.seconds)
    monkeypatch.setattr(evidence_copying, "PAIRS_AT_ONCE", 500)
    _, again = imputer_of(panel, shared, model_of(last=0.3))
    np.testing.assert_allclose(again, found, atol=1e-5)


def test_missing_alleles_are_no_evidence(panel, shared):
    typed = shared.panel_index[shared.panel_index < 2_000]
    blind = np.full((len(typed), 2), -1, dtype=np.int8)
    made, _ = imputer_of(panel, shared, plain())
    found = gathered(made, 0, 2_000, (0, 1_000), typed, blind, np.array([0, 0]))
    np.testing.assert_allclose(found, np.tile(panel.af[:1_000], (2, 1)), atol=1e-4)


def test_parameters_are_chosen_or_given(panel, shared, monkeypatch):
    given, _ = imputer_of(panel, shared, plain())
    assert (given.settings["ne"], given.settings["err"]) == ("1e+05", "0.001")
    chosen, _ = imputer_of(panel, shared, plain(), ne=None, err=None)
    assert 5e3 < float(chosen.settings["ne"]) < 1e7
    half, _ = imputer_of(panel, shared, plain(), err=None)
    assert half.settings["ne"] == "1e+05"
    assert half.settings["err"] == chosen.settings["err"]
    half, _ = imputer_of(panel, shared, plain(), ne=None)
    assert half.settings["err"] == "0.001"
    assert half.settings["ne"] == chosen.settings["ne"]


def test_every_stretch_has_parameters_of_its_own(panel, shared, monkeypatch):
    monkeypatch.setattr(stretch_fits, "_FIT_CM", 1.0)
    made = CopyingImputer(panel, shared.panel_index, plain(), FitOptions(device="cpu"))
    for left, right in ((0, 500), (100, 700), (5_500, 6_127)):
        typed = shared.panel_index[(shared.panel_index >= left) & (shared.panel_index < right)]
        alleles = np.zeros((len(typed), 1), dtype=np.int8)
        gathered(made, left, right, (left, left + 50), typed, alleles, np.array([0]))
    values = made.settings["ne"].split(", ")
    assert len(values) == 2  # the first two windows share a stretch
    assert len(made.settings["err"].split(", ")) == 2


def test_models_that_cannot_be_used(panel, panel_h5, shared, tmp_path):
    def make(model="default", **options):
        options = {"index": None, "seed": 1, "device": "cpu", "threads": 1, **FIXED, **options}
        return make_imputer(model, panel, shared.panel_index, **options)

    assert isinstance(make(), CopyingImputer)
    with pytest.raises(ModelError, match="there is no model nothing"):
        make("nothing")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "config.yaml").write_text("extends: v10-small\nname: x\n")
    with pytest.raises(ModelError, match=r"has no weights\.safetensors"):
        make(tmp_path / "tokens")
    with pytest.raises(InputError, match="there is no device 'abacus'"):
        make(device="abacus")
    if torch.cuda.device_count() == 0:
        states = model_of("states")
        save_model(tmp_path / "states", states.model, states.config, {})
        with pytest.raises(InputError, match="sees 0 CUDA devices"):
            make(tmp_path / "states", device="cuda")
        with pytest.raises(InputError, match="sees 0 CUDA devices"):
            make("default", device="cuda")
    assert not make("default", device="auto").uses_torch
    assert make("default", device="torch-cpu").uses_torch
    with pytest.raises(PanelError, match="does not exist"):
        make(index=tmp_path / "none")
    build_index(panel_h5, tmp_path / "index")
    assert isinstance(make(index=tmp_path / "index"), CopyingImputer)
    trained = model_of()
    save_model(tmp_path / "model", trained.model, trained.config, {})
    assert make(tmp_path / "model").settings["correction"] == "network"


def test_the_network_is_fitted_to_the_panel_unless_told_otherwise(panel, shared, monkeypatch):
    tuned, with_tuning = imputer_of(panel, shared, **FITTED)
    assert tuned.seconds["fine-tune"] > 0
    shipped, without = imputer_of(panel, shared, fine_tune=False)
    assert "fine-tune" not in shipped.seconds
    moved = np.abs(with_tuning - without)
    assert 1e-5 < moved.mean() < 0.01
    asked = []

    def as_it_came(network, window, *args, **options):
        asked.append(window)
        return network, None

    monkeypatch.setattr(stretch_fits, "adapt_network", as_it_came)
    np.testing.assert_array_equal(imputer_of(panel, shared, **FITTED)[1], without)
    assert len(asked) == 1
    imputer_of(panel, shared, fine_tune=False)
    imputer_of(panel, shared, plain(), **FITTED)  # there is nothing to fit
    assert len(asked) == 1


def test_a_stretch_is_fitted_once(panel, shared, monkeypatch):
    """Windows of one stretch share a network; what holds all typed sites is fitted as it is."""
    asked = []

    def as_it_came(network, window, *args, **options):
        asked.append(window.num_sites)
        return network, None

    def window_at(made, left, right, typed):
        alleles = np.zeros((len(typed), 1), dtype=np.int8)
        return gathered(made, left, right, (1_000, 1_050), typed, alleles, np.array([0]))

    monkeypatch.setattr(stretch_fits, "adapt_network", as_it_came)
    options = FitOptions(device="cpu", **FIXED)
    every = shared.panel_index
    made = CopyingImputer(panel, every, load_model("default"), options)
    for left, right in ((0, 1_500), (900, 2_000)):
        window_at(made, left, right, every[(every >= left) & (every < right)])
    assert asked == [every[-1] + 1 - every[0]]
    assert made.settings["ne"] == "1e+05"
    # No more of a panel's sites than memory is sure to be there for.
    asked.clear()
    monkeypatch.setattr(stretch_fits, "_TUNE_SITES", 800)
    window_at(CopyingImputer(panel, every, load_model("default"), options), 0, 2_000, every[:99])
    assert len(asked) == 1
    assert 600 < asked[0] <= 801
    monkeypatch.undo()
    monkeypatch.setattr(stretch_fits, "adapt_network", as_it_came)
    # Windows that differ, and hold all that is typed, must not share what was measured of sites.
    asked.clear()
    few = every[(every >= 900) & (every < 1_500)]
    made = CopyingImputer(panel, few, load_model("default"), options)
    first = window_at(made, 0, 1_500, few)
    alone = window_at(CopyingImputer(panel, few, load_model("default"), options), 900, 2_000, few)
    np.testing.assert_array_equal(window_at(made, 900, 2_000, few), alone)
    np.testing.assert_array_equal(window_at(made, 0, 1_500, few), first)
    assert asked == [1_500, 1_100, 1_100]
    assert made.settings["ne"] == "1e+05"


@pytest.mark.parametrize("fine_tune", [False, True])
def test_quality_is_that_of_the_windows_own_sites(panel, shared, fine_tune):
    """Two windows that hold all typed sites, and begin elsewhere: as if each came by itself."""
    typed = shared.panel_index[(shared.panel_index >= 900) & (shared.panel_index < 1_500)]
    first = np.searchsorted(shared.panel_index, typed[0])
    alleles = np.ascontiguousarray(shared.alleles[first : first + len(typed), :3].reshape(-1, 6))
    options = FitOptions(device="cpu", fine_tune=fine_tune, **FIXED)
    bounds = ((0, 1_500, (900, 1_200)), (900, 2_000, (1_200, 1_500)))

    def imputed(made, left, right, core):
        return gathered(made, left, right, core, typed, alleles, np.repeat(np.arange(3), 2))

    both = CopyingImputer(panel, typed, load_model("default"), options)
    for window in bounds:
        by_itself = CopyingImputer(panel, typed, load_model("default"), options)
        np.testing.assert_array_equal(imputed(both, *window), imputed(by_itself, *window))


def test_mosaics_and_others_are_each_imputed_once_and_as_on_their_own(tmp_path):
    _, alleles = founders()
    strangers, _ = founders(8, seed=9)
    targets = np.concatenate(
        [strangers.haplotypes.alleles()[:, :2], crosses(alleles, 4, 0.01)], axis=1
    )
    targets = np.concatenate([targets, strangers.haplotypes.alleles()[:, [3, 3]]], axis=1)
    keys = [(1_000 * (i + 1), "A", "G") for i in range(NUM_SITES)]
    write_genotypes(tmp_path / "p.vcf", keys, alleles.reshape(NUM_SITES, 8, 2), names(8))
    prepare(tmp_path / "p.vcf", tmp_path / "p.h5", cm_per_mb=50)
    typed = np.arange(0, NUM_SITES, 4)
    sample = np.arange(8) // 2

    def imputed(which):
        """P(ALT) of some haplotypes, and the mismatch probabilities of their typed sites."""
        out = np.full((len(which), NUM_SITES), np.nan, np.float32)
        made = CopyingImputer(opened, typed, plain(), FitOptions(fine_tune=False, device="cpu"))
        num_puts = np.zeros(len(which), np.int64)

        def put(first, site, prob):
            out[first : first + len(prob), site : site + prob.shape[1]] = prob
            num_puts[first : first + len(prob)] += prob.shape[1]

        observed = np.ascontiguousarray(targets[typed][:, which])
        target = TargetWindow(0, NUM_SITES, (0, NUM_SITES), typed, observed, sample[which])
        mismatch = made.prepare(target).impute(batch=16, put=put).mismatch_prob
        columns = mismatch[:, None] if mismatch.ndim == 1 else mismatch
        return out, np.broadcast_to(columns, (len(typed), len(which))), num_puts

    with Panel.open(tmp_path / "p.h5") as opened:
        together, mismatch, num_puts = imputed(np.arange(8))
        assert (num_puts[2:6] == NUM_SITES).all()  # the crosses, by one pass
        for i in range(4):
            mine = np.flatnonzero(sample == i)
            alone, own, _ = imputed(mine)
            np.testing.assert_array_equal(together[mine], alone)
            np.testing.assert_array_equal(mismatch[:, mine], own)
    assert (mismatch[:, 2:6] != mismatch[:, :1]).any(axis=0).all()
