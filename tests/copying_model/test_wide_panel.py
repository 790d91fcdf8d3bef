"""Very large panels, of which only what targets copy is unpacked: the same probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel
from vcf_fixtures import read_imputed, write_genotypes

from ragimpute import example
from ragimpute.copying import states
from ragimpute.copying_model import imputer, wide_panel
from ragimpute.copying_model.imputer import CopyingImputer
from ragimpute.copying_model.panel_fit import FitOptions
from ragimpute.imputation.impute import impute
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelWithout
from ragimpute.preparation.panel_writer import write_panel
from tests.copying_model.test_imputer import gathered, plain

FIXED = {"ne": 1e5, "err": 1e-3, "fine_tune": False}


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """600 sites, of which every fifth is typed, and 400 haplotypes."""
    rng = np.random.default_rng(7)
    alleles = mosaic_panel(rng, 600, 420, num_founders=12, switches=0.01, mutations=0.004)
    path = tmp_path_factory.mktemp("p") / "p.h5"
    write_panel(
        path, [make_batch(alleles[:, :400].reshape(600, 200, 2))], samples=names(200),
        genetic_map=FlatMap(),
    )  # fmt: skip
    with Panel.open(path) as opened:
        yield opened, np.ascontiguousarray(alleles[:, 400:])


@pytest.fixture(autouse=True)
def retrieved(monkeypatch):
    """States are retrieved, as in a large panel."""
    monkeypatch.setattr(states, "COPY_ALL_UP_TO", 100)


def imputed(panel, alleles, core=(100, 500), *, threads=1, loaded=None, **options):
    """P(ALT) of the targets ``alleles`` (M, n), of which every fifth site is typed."""
    typed = np.arange(2, 600, 5)
    given_options = FitOptions(device="cpu", threads=threads, **{**FIXED, **options})
    made = CopyingImputer(panel, typed, loaded or plain(), given_options)
    sample = np.arange(alleles.shape[1]) // 2
    observed = np.ascontiguousarray(alleles[typed])
    return made, gathered(made, 0, 600, core, typed, observed, sample)


@settings(deadline=None, max_examples=8)
@given(
    core=st.sampled_from([(100, 500), (0, 600), (0, 30), (577, 600)]),
    num=st.sampled_from([1, 5, 20]),
    part=st.sampled_from([1, 1 << 28]),
    without=st.booleans(),
)
def test_what_is_copied_does_not_depend_on_how_it_is_read(panel, core, num, part, without):
    """With parameters that are given, nothing is fitted: all else must be exactly the same."""
    opened, alleles = panel
    if without:  # as a panel of inbred lines, or a part of constant ploidy
        opened = PanelWithout(opened, np.arange(400) % 7 > 0)
    made, usual = imputed(opened, alleles[:, :num], core)
    assert not made.is_wide
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imputer, "COMPACT_ABOVE", 120)
        patch.setattr(wide_panel, "_PART_BYTES", part)
        patch.setattr(wide_panel, "AT_ONCE", 4)  # several parts
        made, found = imputed(opened, alleles[:, :num], core)
    assert made.is_wide
    np.testing.assert_array_equal(found, usual)


def test_what_is_fitted_comes_from_the_draw(panel, monkeypatch):
    opened, alleles = panel
    monkeypatch.setattr(imputer, "COMPACT_ABOVE", 300)
    options = {"ne": None, "err": None, "fine_tune": True}
    made, found = imputed(opened, alleles, loaded=None, **options)
    again, other = imputed(opened, alleles, threads=2, **options)
    np.testing.assert_array_equal(found, other)
    assert made.settings == again.settings
    assert made.expects_r2
    untyped = np.setdiff1d(np.arange(100, 500), np.arange(2, 600, 5))
    true = alleles[untyped].T
    assert np.corrcoef(found[:, untyped - 100].ravel(), true.ravel())[0, 1] ** 2 > 0.85


def test_a_switch_rate_is_that_of_the_whole_panel(panel, monkeypatch):
    """The rate that a draw of half the haplotypes gets is halved: ne stays."""
    opened, alleles = panel
    used = []
    usual = imputer.copy_and_correct

    def noted(network, window, targets, parameters, **options):
        used.append(parameters)
        usual(network, window, targets, parameters, **options)

    monkeypatch.setattr(imputer, "copy_and_correct", noted)
    monkeypatch.setattr(imputer, "COMPACT_ABOVE", 200)
    imputed(opened, alleles[:, :2])
    assert used[0].ne(400) == pytest.approx(1e5)


def test_sites_that_are_searched_already_are_not_read_again(panel, monkeypatch):
    opened, alleles = panel
    made = []
    usual = wide_panel.Retriever
    monkeypatch.setattr(
        wide_panel, "Retriever", lambda *args, **kw: made.append(1) or usual(*args, **kw)
    )
    monkeypatch.setattr(imputer, "COMPACT_ABOVE", 120)
    typed = np.arange(2, 600, 5)
    one = CopyingImputer(opened, typed, plain(), FitOptions(device="cpu", **FIXED))
    observed, sample = np.ascontiguousarray(alleles[typed]), np.arange(20) // 2
    parts = [
        gathered(one, 0, 600, core, typed, observed, sample)
        for core in ((0, 200), (200, 450), (450, 600))
    ]
    assert len(made) == 1
    _, whole = imputed(opened, alleles, (0, 600))
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    other = typed[typed < 300]
    gathered(one, 0, 400, (0, 300), other, observed[: len(other)], sample)
    assert len(made) == 3  # the whole window of another imputer, and the other window


@pytest.mark.parametrize("haploid", [False, True])
def test_a_run(panel, tmp_path, monkeypatch, haploid):
    """Threads, memory and windows: the same rows; and nearly those of the panel held whole."""
    opened, alleles = panel
    at, typed = opened.sites.position_bp, np.arange(2, 600, 5)
    rows = alleles[typed].reshape(len(typed), 10, 2).astype(np.int8)
    if haploid:
        rows[:, ::3, 1] = -2
    keys = [(int(at[i]), "A", "G") for i in typed]
    target = write_genotypes(tmp_path / "t.vcf", keys, rows, names(10)) or tmp_path / "t.vcf"
    impute(target, opened.path, tmp_path / "usual.vcf", ne=1e5, err=1e-3)
    monkeypatch.setattr(imputer, "COMPACT_ABOVE", 120)
    impute(target, opened.path, tmp_path / "wide.vcf", ne=1e5, err=1e-3)
    monkeypatch.setattr(wide_panel, "_PART_BYTES", 1)
    impute(target, opened.path, tmp_path / "parts.vcf", ne=1e5, err=1e-3, threads=2)
    text = [
        [line for line in (tmp_path / f"{name}.vcf").read_text().splitlines() if line[:2] != "##"]
        for name in ("wide", "parts")
    ]
    assert text[0] == text[1]
    usual, wide = (read_imputed(tmp_path / f"{name}.vcf") for name in ("usual", "wide"))
    assert np.abs(usual.dosage - wide.dosage).mean() < 0.01


def test_the_example_as_a_very_large_panel(panel_h5, tmp_path, monkeypatch):
    impute(example.path("target.vcf.gz"), panel_h5, tmp_path / "usual.vcf", fine_tune=False)
    monkeypatch.setattr(imputer, "COMPACT_ABOVE", 400)
    impute(example.path("target.vcf.gz"), panel_h5, tmp_path / "wide.vcf", fine_tune=False)
    usual, wide = (read_imputed(tmp_path / f"{name}.vcf").dosage for name in ("usual", "wide"))
    assert np.corrcoef(usual.ravel(), wide.ravel())[0, 1] ** 2 > 0.99
