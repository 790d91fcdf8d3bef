"""Calibration of a token model's probabilities: it helps people that it has not seen, or is not."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute import example
from ragimpute.accuracy.dr2 import FILE as DR2
from ragimpute.accuracy.evaluate import evaluate
from ragimpute.config import load_config
from ragimpute.errors import ModelError
from ragimpute.imputation.impute import impute
from ragimpute.io.vcf.read.genotypes import read_dosages
from ragimpute.model.checkpoint import LoadedModel, load_model
from ragimpute.model.folder import PROVENANCE, open_folder
from ragimpute.model.probability import CLASSES, FILE, TRUST_FILE, Probabilities
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelWithout
from ragimpute.preparation.prepare import prepare
from ragimpute.retrieval.index import WindowIndex
from ragimpute.sites import Region
from ragimpute.target.window import TargetWindow
from ragimpute.token_model.imputer import TokenImputer
from ragimpute.training.data.arrays import draw_array
from ragimpute.training.data.batches import make_batches, split_panel
from ragimpute.training.probability_fit import HiddenAlleles, fit_probabilities, hidden_alleles
from ragimpute.training.trainer import train

FORM = ("data.windows_per_epoch=320", "data.max_sites=128", "data.max_validation_samples=14",
        "train.epochs=1", "train.batch_size=8", "model.encoder.num_layers=1")  # fmt: skip


def alleles_of(rng, num_samples, each=400, *, slope=1.0, rare=0.0, frequency=0.0):
    """Alleles, and logits of which the true ones are these multiples."""
    af = rng.beta(0.3, 1.2, (num_samples, each)).clip(1e-3, 1 - 1e-3)
    odds = np.log(af / (1 - af))
    logit = 0.7 * odds + rng.normal(0, 2, af.shape)
    rarity = np.log(2 * np.minimum(af, 1 - af)) / np.log(2e-4)
    true = (slope + rare * rarity) * logit + frequency * odds
    label = rng.random(af.shape) < 1 / (1 + np.exp(-true))
    owner = np.repeat(np.arange(num_samples) + 7, each)
    columns = (x.astype(np.float32).ravel() for x in (logit, af, label))
    return HiddenAlleles(*columns, sample=owner)


def log_loss(how, hidden):
    """Mean log loss of some alleles."""
    p = how.of(torch.from_numpy(hidden.logit).double(), torch.from_numpy(hidden.af)).numpy()
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return -np.where(hidden.label == 1, np.log(p), np.log1p(-p)).mean()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 99), st.sampled_from([0.4, 0.6, 1.0, 1.6]), st.sampled_from([0, 0.5]),
       st.sampled_from([-0.3, 0.0, 0.3]))  # fmt: skip
def test_others_are_never_worse_off(seed, slope, rare, frequency):
    rng = np.random.default_rng(seed)
    off = {"slope": slope, "rare": rare, "frequency": frequency}
    seen, others = alleles_of(rng, 10, **off), alleles_of(rng, 50, **off)
    found, plain = fit_probabilities(seen, 0.0), Probabilities()
    assert log_loss(found, others) <= log_loss(plain, others) + 2e-4
    if slope != 1:
        assert found.coefficients
        assert log_loss(found, others) < log_loss(plain, others) - 2e-3
        assert found.provenance["num_samples"] == 10


def test_probabilities_that_are_right_stay():
    kept = [fit_probabilities(alleles_of(np.random.default_rng(i), 8), 0.0) for i in range(10)]
    assert sum(not how.coefficients for how in kept) >= 6


def test_logits_without_sense_are_never_turned_around():
    hidden = alleles_of(np.random.default_rng(3), 8, slope=-1.0)
    found = fit_probabilities(hidden, 0.0)
    p = found.of(torch.tensor([-3.0, 3.0]), torch.tensor([0.2, 0.2]))
    assert p[0] <= p[1]


def test_few_samples_say_nothing():
    hidden = alleles_of(np.random.default_rng(3), 4, slope=0.4)
    assert fit_probabilities(hidden, 2.0) == Probabilities(2.0)
    nothing = HiddenAlleles(*np.zeros((3, 0), np.float32), sample=np.zeros(0, int))
    assert fit_probabilities(nothing, 0.0) == Probabilities()


def corrected_copying(rng, num_samples, *, common, rare, each=400):
    """As :func:`alleles_of`, of a model that starts from copying.

    The true logit is that of copying and ``common``, or at alleles below .005 ``rare``, times what
    the model adds.
    """
    af = rng.beta(0.3, 1.2, (num_samples, each)).clip(1e-3, 1 - 1e-3).astype(np.float32)
    offset = rng.normal(0, 2, af.shape)
    residual = rng.normal(0, 1, af.shape) * (rng.random(af.shape) < 0.9)
    share = np.where(np.minimum(af, 1 - af) <= 0.005, rare, common)
    label = rng.random(af.shape) < 1 / (1 + np.exp(-(offset + share * residual)))
    owner = np.repeat(np.arange(num_samples), each)
    logit, label, offset = (x.astype(np.float32).ravel()
                            for x in (offset + residual, label, offset))  # fmt: skip
    return HiddenAlleles(logit, af.ravel(), label, owner, offset)


@pytest.mark.parametrize(("common", "rare"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1.0, 1.0)])
def test_a_model_is_trusted_where_it_is_right_to_leave_copying(common, rare):
    rng = np.random.default_rng(int(2 * common + rare))
    hidden = corrected_copying(rng, 40, common=common, rare=rare)
    found = fit_probabilities(hidden, 0.0)
    assert len(found.trust) == len(CLASSES)
    assert found.trust[0] == pytest.approx(rare, abs=0.2)
    assert np.mean(found.trust[1:]) == pytest.approx(common, abs=0.12)
    # It lies between copying and what the model says, at every site.
    plain, offset, af = (torch.from_numpy(x) for x in (hidden.logit, hidden.offset, hidden.af))
    trusted = Probabilities(trust=tuple(min(x, 1.0) for x in found.trust))
    told = trusted.logit(plain, af, offset)
    assert bool(((told - offset).abs() <= (plain - offset).abs() + 1e-5).all())
    # In the reading of a model that does not start from copying, trust has no place.
    assert torch.equal(trusted.logit(plain, af), plain)


def test_what_gains_nothing_is_not_trusted_at_all():
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        hidden = corrected_copying(rng, 12, common=0.0, rare=0.0, each=100)
        found.append(fit_probabilities(hidden, 0.0))
    refused = [how for how in found if not any(how.trust)]
    assert len(refused) >= 6
    for how in refused:
        assert how.trust == (0.0,) * len(CLASSES)
        assert not how.coefficients
        assert how.provenance["num_samples"] == 12
        logit, af = torch.tensor([3.0, -2.0]), torch.tensor([0.3, 0.001])
        offset = torch.tensor([1.0, -5.0])
        assert torch.equal(how.logit(logit, af, offset), offset)


def test_ref_and_alt_are_trusted_alike():
    hidden = corrected_copying(np.random.default_rng(3), 20, common=0.5, rare=0.5)
    turned = HiddenAlleles(-hidden.logit, 1 - hidden.af, 1 - hidden.label, hidden.sample,
                           -hidden.offset)  # fmt: skip
    assert fit_probabilities(hidden, 0.0).trust == pytest.approx(
        fit_probabilities(turned, 0.0).trust, abs=1e-3
    )


@pytest.fixture(scope="module")
def panel_h5(tmp_path_factory):
    """A sixth of the packaged 1000 Genomes panel."""
    path = tmp_path_factory.mktemp("probabilities") / "panel.h5"
    prepare(example.path("panel.bcf"), path, genetic_map=example.path("chr20.b37.gmap.gz"),
            region=Region.parse("20:2000000-2150000"))  # fmt: skip
    return path


LOSSES = {
    "focal 5": ("loss.kind=focal", "loss.gamma=5"),
    "focal 2": ("loss.kind=focal", "loss.gamma=2"),
    "cross-entropy": ("loss.kind=cross_entropy",),
}


@pytest.fixture(scope="module")
def trained(panel_h5, tmp_path_factory):
    """Model folders by their loss, trained for a few seconds each."""
    out = tmp_path_factory.mktemp("models")
    for i, loss in enumerate(LOSSES.values()):
        config = load_config("v3-small", overrides=[*FORM, *loss])
        train([panel_h5], config, out / str(i), device="cpu", threads=1)
    return {name: out / str(i) for i, name in enumerate(LOSSES)}


def left_out(panel, model):
    """P(ALT) and true alleles of held-out samples at untyped sites, (n, m), and their ALT count."""
    group = split_panel(panel, model.config)[1]
    rng = np.random.default_rng(3)
    typed = draw_array(panel, 0, panel.num_sites, 600, rng)
    out = np.isin(panel.haplotype_sample, group)
    true = panel.haplotypes(0, panel.num_sites).alleles()[:, out]
    rest = PanelWithout(panel, ~out)
    index = WindowIndex.build(rest, when_searched=True)
    imputer = TokenImputer(rest, model, index, device="cpu", threads=1)
    prob = np.empty(true.T.shape, np.float32)

    def put(first, site, part):
        prob[first : first + len(part), site : site + part.shape[1]] = part

    whole, seen = (0, panel.num_sites), np.ascontiguousarray(true[typed])
    target = TargetWindow(*whole, whole, typed, seen, panel.haplotype_sample[out])
    imputer.prepare(target).impute(batch=len(prob), put=put)
    untyped = np.setdiff1d(np.arange(panel.num_sites), typed)
    flip = panel.af[untyped] > 0.5
    prob, true = prob[:, untyped], true.T[:, untyped]
    return np.where(flip, 1 - prob, prob), np.where(flip, 1 - true, true)


def amiss(prob, true):
    """Share by which the mean minor dosage is off, and the mean distance of P from what is seen."""
    edges = [0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 1.01]
    of = np.digitize(prob.ravel(), edges)
    off = [
        (of == i).mean() * abs(prob.ravel()[of == i].mean() - true.ravel()[of == i].mean())
        for i in range(1, len(edges)) if (of == i).any()
    ]  # fmt: skip
    return abs(prob.mean() / true.mean() - 1), sum(off)


@pytest.mark.parametrize("name", LOSSES)
def test_dosages_of_left_out_people_mean_what_they_say(panel_h5, trained, name):
    model = load_model(trained[name])
    with Panel.open(panel_h5) as panel:
        prob, true = left_out(panel, model)
        shift, distance = amiss(prob, true)
        plain = LoadedModel("plain", model.config, model.model, True, {}, Probabilities())
        sigmoid = amiss(*left_out(panel, plain))
    assert shift < 0.06
    assert distance < 0.008
    if name != "cross-entropy":  # the sigmoid of the logit would fail
        assert sigmoid[0] > 0.3
        assert sigmoid[1] > 0.04


def test_people_who_were_not_seen_have_the_dr2_that_is_true(panel_h5, trained, tmp_path):
    target, truth = example.path("target.vcf.gz"), example.path("truth.bcf")
    bias, minor = {}, {}
    for name in ("calibrated", "plain"):
        shutil.copytree(trained["focal 5"], tmp_path / name)
        if name == "plain":
            (tmp_path / name / DR2).unlink()
        out = tmp_path / f"{name}.vcf.gz"
        impute(target, panel_h5, out, model=tmp_path / name, device="cpu", fields=("GT", "DS"))
        found = evaluate(truth, out, panel_h5, typed=target)
        rows = [row for row in found.bins if row.num_varying >= 50]
        assert len(rows) >= 4
        bias[name] = np.array([row.mean_dr2 - row.true_r2 for row in rows])
        minor[name] = read_dosages(out).dosage
    np.testing.assert_array_equal(minor["plain"], minor["calibrated"])
    calibrated, plain = (np.abs(bias[name]) for name in ("calibrated", "plain"))
    assert calibrated.mean() < 0.85 * plain.mean()
    assert calibrated.max() < 0.6 * plain.max()


def test_a_trained_folder_has_what_calibrates_it(panel_h5, trained, tmp_path):
    folder = open_folder(trained["focal 5"])
    assert folder.probabilities.gamma == 5
    assert folder.dr2.coefficients
    with Panel.open(panel_h5) as panel:
        assert folder.dr2.provenance["panels"] == [panel.checksum]
        data = make_batches([panel], folder.config, None, 1)
        hidden = hidden_alleles(load_model(folder).model, data, device=torch.device("cpu"))
        assert set(hidden.sample) == set(split_panel(panel, folder.config)[1])
        held_out = np.isin(panel.haplotype_sample, hidden.sample)
        assert held_out.sum() == 2 * 14
        count = panel.haplotypes(0, panel.num_sites).alleles()[:, ~held_out].sum(axis=1)
        frequencies = np.unique((count / (~held_out).sum()).astype(np.float32))
        assert set(hidden.af) <= set(frequencies.tolist()) - {0.0, 1.0}
        assert len(set(hidden.af)) > 50
    assert fit_probabilities(hidden, 5.0, seed=folder.config.train.seed) == folder.probabilities
    # Trained anew over it, or resumed, nothing of an earlier run is left.
    shutil.copytree(folder.path, tmp_path / "m")
    for name in (FILE, TRUST_FILE, DR2):
        (tmp_path / "m" / name).write_text("of an earlier run")
    train([panel_h5], folder.config, tmp_path / "m", device="cpu", resume=True)
    assert open_folder(tmp_path / "m").probabilities == folder.probabilities
    assert open_folder(tmp_path / "m").dr2 == folder.dr2
    few = load_config("v3-small", overrides=[*FORM, "data.max_validation_samples=2"])
    train([panel_h5], few, tmp_path / "m", device="cpu", force=True)
    assert not (tmp_path / "m" / FILE).exists()
    assert not (tmp_path / "m" / TRUST_FILE).exists()
    assert open_folder(tmp_path / "m").dr2 == open_folder("default").dr2  # nothing was measured
    assert open_folder(tmp_path / "m").probabilities == Probabilities(2.0)
    assert (tmp_path / "m" / PROVENANCE).is_file()


def test_initial_weights_keep_the_gamma_of_their_own_loss(panel_h5, trained, tmp_path):
    other = load_config("v3-small", overrides=[
        *FORM, *LOSSES["cross-entropy"], "optimizer.lr=1e-30", "data.max_validation_samples=2",
    ])  # fmt: skip
    result = train([panel_h5], other, tmp_path / "m", init=trained["focal 5"], device="cpu")
    assert result.kept == "initial"
    assert open_folder(tmp_path / "m").probabilities.gamma == 5


def test_a_folder_with_a_damaged_calibration_is_refused(trained, tmp_path):
    shutil.copytree(trained["focal 2"], tmp_path / "m")
    (tmp_path / "m" / FILE).write_text("no JSON")
    with pytest.raises(ModelError, match="cannot be read") as error:
        open_folder(tmp_path / "m")
    assert str(tmp_path / "m" / FILE) in str(error.value)
    assert error.value.hint == "copy the model folder again"
