"""DR2 calibrated on samples left out of the real example's panel."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ragimpute import example
from ragimpute.accuracy.dr2 import FILE, MIN_HAPLOTYPES, Dr2Calibration
from ragimpute.accuracy.evaluate import evaluate
from ragimpute.config import load_config
from ragimpute.imputation.impute import impute
from ragimpute.io.vcf.read.genotypes import read_dosages, read_target
from ragimpute.jobs.merge import merge
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import LoadedModel
from ragimpute.model.folder import open_folder
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelWithout
from ragimpute.target.inputs import TargetOptions
from ragimpute.token_model.imputer import TokenImputer
from ragimpute.training import dr2_fit
from ragimpute.training.dr2_fit import _score, fit_dr2, leave_samples_out

TARGET, TRUTH = example.path("target.vcf.gz"), example.path("truth.bcf")


@pytest.fixture(scope="module")
def panel(panel_h5):
    with Panel.open(panel_h5) as opened:
        yield opened


@pytest.fixture(scope="module")
def calibration(panel, plain_copying):
    """Fitted on the panel alone."""
    return fit_dr2([panel], open_folder(plain_copying), num_draws=3, seed=2)


@pytest.fixture(scope="module")
def calibrated_model(plain_copying, calibration, tmp_path_factory):
    """Li-Stephens copying with a calibrated DR2."""
    folder = tmp_path_factory.mktemp("calibrated")
    (folder / "config.yaml").write_text((plain_copying / "config.yaml").read_text())
    (folder / FILE).write_text(calibration.as_json())
    return folder


def test_targets_that_were_not_seen_have_the_dr2_that_is_true(
    panel_h5, plain_copying, calibrated_model, tmp_path
):
    results = {}
    for name, model in (("plain", plain_copying), ("calibrated", calibrated_model)):
        out = tmp_path / f"{name}.vcf.gz"
        impute(TARGET, panel_h5, out, model=model, fields=("GT", "DS"))
        results[name] = evaluate(TRUTH, out, panel_h5, typed=TARGET)

    def bias(result):
        rows = [row for row in result.bins if row.num_varying >= 100]
        return np.array([row.mean_dr2 - row.true_r2 for row in rows])

    assert len(bias(results["plain"])) >= 5
    assert np.abs(bias(results["plain"])).max() > 0.08  # rare sites
    assert np.abs(bias(results["calibrated"])).max() < 0.06
    better = results["calibrated"].overall.dr2_correlation
    assert better > results["plain"].overall.dr2_correlation


def test_the_output_says_so_and_batches_merge_to_the_same(panel_h5, calibrated_model, tmp_path):
    samples = read_target(TARGET).samples
    assert len(samples) == 50
    whole = tmp_path / "whole.bcf"
    impute(TARGET, panel_h5, whole, model=calibrated_model, fields=("GT", "DS"), ne=1e5, err=1e-3)
    batches = []
    for i, names in enumerate((samples[:9], samples[9:])):
        listed = tmp_path / f"{i}.txt"
        listed.write_text("\n".join(names))
        batches.append(tmp_path / f"{i}.bcf")
        impute(
            TARGET, panel_h5, batches[-1], model=calibrated_model, fields=("GT", "DS"),
            ne=1e5, err=1e-3, target_options=TargetOptions(samples=listed),
        )  # fmt: skip
    merge(batches, tmp_path / "merged.bcf")
    one, two = (read_dosages(tmp_path / f"{name}.bcf") for name in ("whole", "merged"))
    np.testing.assert_allclose(two.dr2, one.dr2, atol=1.01e-4)
    assert (one.dr2[one.typed] == 1).mean() > 0.9  # what was observed needs no correction
    few = read_dosages(batches[0])  # 18 haplotypes
    assert (few.dr2 != one.dr2).any()


def test_batches_of_different_calibrations_are_not_calibrated(
    panel_h5, plain_copying, calibrated_model, tmp_path
):
    samples = read_target(TARGET).samples
    models = {"a": plain_copying, "b": calibrated_model}
    for (name, model), names in zip(models.items(), (samples[:25], samples[25:]), strict=True):
        listed = tmp_path / f"{name}.txt"
        listed.write_text("\n".join(names))
        impute(
            TARGET, panel_h5, tmp_path / f"{name}.bcf", model=model, fields=("GT", "DS"),
            ne=1e5, err=1e-3, target_options=TargetOptions(samples=listed),
        )  # fmt: skip
    summary = merge([tmp_path / "a.bcf", tmp_path / "b.bcf"], tmp_path / "merged.bcf")
    assert any("DR2" in line for line in summary.warnings)
    impute(
        TARGET, panel_h5, tmp_path / "plain.bcf", model=plain_copying, fields=("GT", "DS"),
        ne=1e5, err=1e-3,
    )  # fmt: skip
    found, plain = (read_dosages(tmp_path / f"{name}.bcf").dr2 for name in ("merged", "plain"))
    np.testing.assert_allclose(found, plain, atol=1.01e-4)


def test_left_out_samples_are_compared_with_their_own_alleles(panel, plain_copying):
    rng = np.random.default_rng(5)
    samples = np.arange(0, 40)
    whole, quarter = leave_samples_out(panel, open_folder(plain_copying), samples, rng, seed=1)
    assert set(whole.num) == {80}
    assert set(quarter.num) == {20}
    for part in (whole, quarter):
        assert ((part.true >= 0) & (part.true <= 1) & (part.maf > 0) & (part.maf <= 0.5)).all()
        assert ((part.minor >= 0) & (part.minor <= part.num / 2 + 1e-9)).all()
        assert (part.weight() > 0).all()
        # The panel's term is the excess of the samples that stay, the same at all sites.
        assert set(part.panel[:, 0]) == {part.left_out_r2.rare_excess}
        np.testing.assert_allclose(
            part.panel[:, 1],
            np.log(np.minimum(100, np.rint(part.maf * (panel.num_haplotypes - 80)))),
        )
    common = whole.maf > 0.1
    assert np.corrcoef(whole.estimate[common], whole.true[common])[0, 1] > 0.6
    assert whole.true[common].mean() > 0.8


def test_samples_leave_the_panel_as_a_group(panel):
    kept = panel.haplotype_sample >= 40
    rest = PanelWithout(panel, kept)
    assert rest.num_haplotypes == panel.num_haplotypes - 80
    np.testing.assert_array_equal(
        rest.haplotypes(10, 300).alleles(), panel.haplotypes(10, 300).alleles()[:, kept]
    )
    assert rest.haplotype_sample.min() == 40


def test_samples_of_one_and_two_haplotypes_are_scored_by_their_sums():
    prob = np.array([[0.1, 0.9, 0.8, 0.0, 0.3], [0.2, 0.2, 0.7, 0.6, 0.4]])
    true = np.array([[0, 1, 1, 0, 0], [1, 0, 1, 0, 1]])
    by_panel = np.array([[0.1, 2, 0], [0.3, 1, 0]])
    found = _score(prob, true, np.array([3, 3, 4, 7, 7]), np.array([0.4, 0.6]), by_panel)
    np.testing.assert_array_equal(found.panel, by_panel[:1])
    sums = np.array([[1.0, 0.8, 0.3], [0.4, 0.7, 1.0]]), np.array([[1.0, 1, 0], [1, 1, 1]])
    assert found.true == pytest.approx([np.corrcoef(sums[0][0], sums[1][0])[0, 1] ** 2])
    assert found.maf.tolist() == [0.4]  # the other does not vary


def test_dosages_that_are_constant_as_they_are_written_have_no_r2():
    true = np.array([[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    prob = np.array([[0.1, 0.2, 0.1, 0.1], [0.1, 0.1 + 1e-5, 0.1, 0.1], [0.1, 0.2, 0.1, 0.1]])
    given = np.arange(4), np.full(3, 0.1), np.zeros((3, 3))
    assert _score(prob, true, *given).true == pytest.approx([1, 1])
    assert _score(prob, true, *given, digits=3).true == pytest.approx([1, 0])


def test_too_few_samples_keep_the_prior(panel, plain_copying):
    prior = Dr2Calibration((0.0, 0.5, 0.5, *[0.0] * 7))
    group = np.arange(MIN_HAPLOTYPES // 2 - 1)
    found = fit_dr2([panel], open_folder(plain_copying), groups=[group], prior=prior)
    assert found == prior


def test_it_is_the_same_for_any_threads_and_says_what_it_is_from(panel, plain_copying, calibration):
    again = fit_dr2([panel], open_folder(plain_copying), num_draws=3, seed=2, threads=2)
    assert again == calibration
    about = json.loads(calibration.as_json())["provenance"]
    assert about["panels"] == [panel.checksum]
    assert about["num_groups"] == 6
    assert about["num_sites"] > 1000


@pytest.fixture(scope="module")
def token_model():
    """An untrained token model, which reads windows of 128 sites."""
    config = load_config("v3-small", overrides=[
        "data.max_sites=128", "model.encoder.dim=8", "model.encoder.num_layers=1",
        "loss.kind=cross_entropy",
    ])  # fmt: skip
    torch.manual_seed(1)
    return LoadedModel("token", config, build(config.model).eval(), True)


def test_samples_are_left_out_of_what_token_models_retrieve(panel, token_model, monkeypatch):
    seen = []

    class Noting(TokenImputer):
        def __init__(self, rest, loaded, index, **options):
            super().__init__(rest, loaded, index, **options)
            seen.append((rest, index))

    monkeypatch.setattr(dr2_fit, "TokenImputer", Noting)
    rng, samples = np.random.default_rng(5), np.arange(30, 54)
    parts = leave_samples_out(panel, token_model, samples, rng, seed=1)
    assert [set(part.num) for part in parts] == [{48}]  # a quarter of them is too few
    ((rest, index),) = seen
    assert rest.num_haplotypes == index.num_haplotypes == panel.num_haplotypes - 48
    assert not np.isin(rest.haplotype_sample, samples).any()
    assert not parts[0].panel.any()  # what left-out samples would add is not known
    assert parts[0].left_out_r2 is None
    assert ((parts[0].true >= 0) & (parts[0].true <= 1)).all()


def test_token_models_are_calibrated(panel, token_model):
    group = np.arange(0, 16)
    found = fit_dr2([panel], token_model, groups=[group], num_draws=1, seed=3)
    assert found == fit_dr2([panel], token_model, groups=[group], num_draws=1, seed=3, threads=2)
    assert found.coefficients
    assert found.provenance["num_groups"] == 1
