"""How DR2 follows from what posteriors imply."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.accuracy.dr2 import (
    FEW_TARGETS,
    FILE,
    MIN_HAPLOTYPES,
    PANEL_TERMS,
    TARGET_TERMS,
    TERMS,
    DosageSums,
    Dr2Calibration,
    PanelExpectation,
    blend,
    few_of,
    few_samples_warning,
    fit_calibration,
    panel_terms,
    terms,
)
from ragimpute.errors import ModelError
from ragimpute.io.vcf.header import INFOS

CALIBRATION = Dr2Calibration((0.1, 0.7, 0.4, 1.5, 0.05, -0.3, 0.2, 1.0, -0.3, 0.25))


def no_panel(num_sites):
    """Terms of a panel of 1,000 haplotypes, of which each site has one minor allele."""
    return panel_terms(0.0, np.ones(num_sites), 1_000)


@given(
    coefficients=st.tuples(
        st.floats(-5, 5),
        st.floats(0, 3),
        st.floats(0, 3),
        st.floats(-5, 5),
        st.floats(-1, 1),
        st.floats(-2, 2),
        *(st.floats(-1, 1) for _ in range(4)),
    ),
    excess=st.floats(-2, 2),
    minor=st.floats(0, 1e5),
    estimates=st.lists(st.floats(0, 1), min_size=2, max_size=40),
)
def test_it_grows_with_the_estimate_within_bounds(coefficients, excess, minor, estimates):
    estimate = np.sort(estimates)
    num = np.full(len(estimate), 400)
    calibration = Dr2Calibration(coefficients)
    added = calibration.adjustment(excess, np.full(len(estimate), 3), 2_000)
    found = calibration.apply(estimate, np.full(len(estimate), minor), num, added)
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()
    assert (found[estimate == 0] == 0).all()


def test_it_is_the_same_whichever_allele_is_alt():
    rng = np.random.default_rng(1)
    prob = (rng.random((30, 400)) ** 20).astype(np.float32)
    untyped = np.zeros(30, bool)
    one, other = (DosageSums.of(p).dr2(CALIBRATION, untyped) for p in (prob, 1 - prob))
    assert (one != DosageSums.of(prob).estimated_r2).all()
    np.testing.assert_allclose(one, other, rtol=1e-3)


def test_few_haplotypes_and_no_coefficients_leave_the_estimate():
    estimate = np.array([0.0, 0.2, 0.9, 1.0], np.float32)
    minor = np.array([0.3, 0.4, 2.0, 1.0])
    few = np.full(4, MIN_HAPLOTYPES - 1)
    np.testing.assert_array_equal(CALIBRATION.apply(estimate, minor, few), estimate)
    np.testing.assert_array_equal(Dr2Calibration().apply(estimate, minor, few + 1), estimate)
    moved = CALIBRATION.apply(estimate, minor, few + 1)
    assert moved[0] == 0
    assert (moved[1:3] > estimate[1:3]).all()


def test_one_likely_carrier_of_a_rare_allele():
    # One haplotype with P = .3 and the rest of E = .4 spread thinly: the estimate is about
    # .09 / .4, and if the allele is there, it is this haplotype's in 3 of 4 cases.
    p = np.full((1, 1000), 0.1 / 999)
    p[0, 0] = 0.3
    sums = DosageSums.of(p)
    x = terms(sums.estimated_r2, sums.maf * sums.num, sums.num)[0]
    assert sums.estimated_r2[0] == pytest.approx(0.225, abs=0.002)
    given_one = 1 / (1 + np.exp(-x[TERMS.index("given_one")]))
    assert 0.4 < given_one < 0.75
    # Where many are expected, the estimate is what counts.
    many = terms(np.array([0.225]), np.array([1e4]), np.array([4e4]))[0]
    assert many[1] == pytest.approx(many[2], abs=1e-3)


def test_the_number_of_targets_counts_at_rare_sites_alone():
    few, many = (
        terms(np.array([0.3, 0.3]), np.array([0.5, 1e5]), np.array([n, n])) for n in (50, 800)
    )
    at = TERMS.index("few_of_many")
    np.testing.assert_array_equal(np.delete(few, at, axis=1), np.delete(many, at, axis=1))
    assert many[0, at] - few[0, at] == pytest.approx(np.log(16) / 1.5)
    assert abs(many[1, at] - few[1, at]) < 1e-4
    beyond = terms(np.array([0.3]), np.array([0.5]), np.array([1e6]))
    assert beyond[0, at] == pytest.approx(np.log(5) / 1.5)  # no more than for 1,000


def test_what_the_panel_says_moves_rare_sites_alone():
    estimate, num = np.full(2, 0.05), np.full(2, 400)
    minor = np.array([0.2, 1e5])
    usual = CALIBRATION.apply(estimate, minor, num, CALIBRATION.adjustment(0, np.ones(2), 1_000))
    np.testing.assert_array_equal(usual, CALIBRATION.apply(estimate, minor, num))
    more = CALIBRATION.apply(estimate, minor, num, CALIBRATION.adjustment(1, np.ones(2), 1_000))
    assert more[0] > usual[0] + 0.05
    assert more[1] == pytest.approx(usual[1], abs=1e-5)
    # Beyond 100 copies and 5,000 haplotypes, as below 100 of them, nothing changes.
    for one, other in (((0, [100], 900), (0, [1e4], 900)), ((0, [2], 5e3), (0, [2], 1e6)),
                       ((0, [2], 100), (0, [2], 14)), ((0, [0], 900), (0, [1], 900))):  # fmt: skip
        np.testing.assert_array_equal(panel_terms(*one), panel_terms(*other))
    assert panel_terms(0.5, np.array([np.e]), 1_000)[0] == pytest.approx([0.5, 1, 0])


def test_coefficients_are_found_again_and_pull_the_mean_to_the_truth():
    rng = np.random.default_rng(3)
    estimate, minor = rng.random(40_000), np.exp(rng.uniform(-3, 6, 40_000))
    num = rng.choice([40, 400, 900], 40_000)
    panel = np.column_stack(
        [rng.normal(0, 0.4, 40_000), rng.uniform(0, 4, 40_000), rng.choice([-1.0, 0, 1], 40_000)]
    )
    added = panel @ np.array(CALIBRATION.coefficients[-3:])
    mean = CALIBRATION.apply(estimate, minor, num, added).astype(float)
    true = (rng.random(40_000) < mean).astype(float)
    found = fit_calibration(estimate, minor, num, panel, true, np.ones(40_000))
    added = panel @ np.array(found[-3:])
    fitted = Dr2Calibration(found).apply(estimate, minor, num, added)
    assert np.abs(fitted - mean).max() < 0.06
    excess = panel[:, 0] > 0.3
    for rare in (minor < 1, minor > 1, (minor < 1) & (num == 40), (minor < 1) & excess):
        assert fitted[rare].mean() == pytest.approx(true[rare].mean(), abs=0.01)
    # The order of the sites does not matter.
    order = rng.permutation(40_000)
    again = fit_calibration(
        *(column[order] for column in (estimate, minor, num, panel, true)), np.ones(40_000)
    )
    np.testing.assert_allclose(again, found, rtol=1e-6)


def test_a_truth_that_falls_with_the_estimate_does_not_turn_dr2_around():
    rng = np.random.default_rng(4)
    estimate, minor = rng.random(5_000), np.exp(rng.uniform(-3, 6, 5_000))
    found = fit_calibration(
        estimate, minor, np.full(5_000, 400), no_panel(5_000), 1 - estimate, np.ones(5_000)
    )
    assert found[TERMS.index("given_one")] >= 0
    assert found[TERMS.index("estimate")] >= 0


def test_few_sites_stay_near_the_prior():
    estimate, minor, true = np.array([0.5]), np.array([3.0]), np.array([0.1])
    prior = CALIBRATION.coefficients
    found = fit_calibration(
        estimate, minor, np.array([400]), no_panel(1), true, np.ones(1), prior=prior, ridge=500
    )
    np.testing.assert_allclose(found, prior, atol=0.01)
    assert found != prior


def test_it_passes_through_files_and_headers(tmp_path):
    known = Dr2Calibration((1 / 3, 0.1, 2e-17, -4.0, 5.5, 0.25, 1.0, 2.0, -3.0, 0.0), {"seed": 7})
    (tmp_path / FILE).write_text(known.as_json())
    assert Dr2Calibration.read(tmp_path) == known
    assert Dr2Calibration.read(tmp_path).provenance == {"seed": 7}
    text = "\n".join(["##fileformat=VCFv4.2", *known.header_lines, "#CHROM"])
    assert Dr2Calibration.from_header(text) == known
    assert Dr2Calibration.from_header("##fileformat=VCFv4.2\n#CHROM") == Dr2Calibration()
    assert Dr2Calibration().header_lines == []
    other = text.replace("dr2=3:", "dr2=2:")
    assert Dr2Calibration.from_header(other) == Dr2Calibration()
    assert Dr2Calibration.read(tmp_path / "none") == Dr2Calibration()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x | {"version": "9"},
        lambda x: x | {"coefficients": {"one": 1.0}},
        lambda x: x | {"coefficients": x["coefficients"] | {"estimate": -1.0}},
        lambda x: x | {"coefficients": x["coefficients"] | {"one": float("nan")}},
        lambda x: [],
    ],
)
def test_damaged_files_are_named(tmp_path, change):
    (tmp_path / FILE).write_text(json.dumps(change(json.loads(CALIBRATION.as_json()))))
    with pytest.raises(ModelError, match=FILE):
        Dr2Calibration.read(tmp_path)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(0.05, 5))
def test_estimated_r2_is_the_share_of_variance_between_haplotypes(seed, spread):
    p = np.random.default_rng(seed).beta(spread, spread, (7, 40))
    found = DosageSums.of(p).estimated_r2
    expected = p.var(axis=1) / (p.var(axis=1) + (p * (1 - p)).mean(axis=1))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_estimated_r2_ignores_absent_haplotypes():
    p = np.array([[0.1, 0.9, 0.5, np.nan]])
    np.testing.assert_allclose(DosageSums.of(p).estimated_r2, DosageSums.of(p[:, :3]).estimated_r2)
    assert DosageSums.of(np.full((1, 3), 0.4)).estimated_r2[0] == 0


def minimac_rsq(p):
    """Minimac's Rsq of one site, as Das et al. 2016 write it: p of each haplotype."""
    mean = sum(p) / len(p)
    if mean in (0, 1):
        return 0.0
    return sum((x - mean) ** 2 for x in p) / len(p) / (mean * (1 - mean))


def impute_info(samples):
    """IMPUTE's info of one site, by genotypes: of each sample, P(ALT) of one or two haplotypes."""
    expected, squared = [], []
    for first, *second in samples:
        other = second[0] if second else 0.0
        genotype = [(1 - first) * (1 - other), first + other - 2 * first * other, first * other]
        expected.append(genotype[1] + 2 * genotype[2])
        squared.append(genotype[1] + 4 * genotype[2])
    ploidies = [len(sample) for sample in samples]
    theta = sum(expected) / sum(ploidies)
    if theta in (0, 1):
        return 1.0
    variance = sum(f - e**2 for e, f in zip(expected, squared, strict=True))
    return 1 - variance / sum(n * theta * (1 - theta) for n in ploidies)


certain = st.sampled_from([0.0, 1.0])
probability = st.one_of(certain, st.floats(0.01, 0.99))


@given(
    samples=st.lists(
        st.one_of(st.tuples(probability), st.tuples(probability, probability)), min_size=1
    )
)
def test_r2_and_info_are_those_of_minimac_and_impute(samples):
    prob = np.full((1, 2 * len(samples)), np.nan)
    for i, sample in enumerate(samples):
        prob[0, 2 * i : 2 * i + len(sample)] = sample
    info = DosageSums.of(prob).info(CALIBRATION, np.zeros(1, bool))
    haplotypes = [p for sample in samples for p in sample]
    assert info["R2"][0] == pytest.approx(minimac_rsq(haplotypes), abs=1e-5)
    assert info["INFO"][0] == pytest.approx(max(0.0, impute_info(samples)), abs=1e-5)


@settings(deadline=None)
@given(
    estimate=st.lists(st.floats(0, 1), min_size=2, max_size=20),
    expected=st.one_of(st.just(np.nan), st.floats(0, 1)),
    minor=st.one_of(st.just(0.0), st.floats(0, 50)),
    num=st.integers(1, 300),
)
def test_few_targets_are_blended_with_what_the_panel_lets_one_expect(
    estimate, expected, minor, num
):
    estimate = np.sort(estimate)
    size = len(estimate)
    found = blend(estimate, np.full(size, expected), np.full(size, minor), np.full(size, num))
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()
    if np.isnan(expected) or num >= FEW_TARGETS[1]:
        np.testing.assert_array_equal(found, estimate)
    elif minor == 0:  # all are alike
        np.testing.assert_allclose(found, expected)
    else:
        low, high = np.minimum(estimate, expected), np.maximum(estimate, expected)
        assert ((found >= low - 1e-9) & (found <= high + 1e-9)).all()


def test_dr2_of_one_confident_homozygote_is_that_of_the_panel():
    prob = np.array([[0.001, 0.0], [0.999, 0.998], [0.0, 0.999], [1.0, 1.0], [0.5, 0.5]])
    typed = np.array([False, False, False, True, False])
    expected = np.array([0.9, 0.8, 0.7, 0.6, 0.9])
    says = PanelExpectation(expected, np.zeros(5))
    found = DosageSums.of(prob).info(Dr2Calibration(), typed, says)
    assert found["R2"][:2].max() < 0.01  # Minimac's figure, which such sites were filtered by
    np.testing.assert_allclose(found["DR2"][:2], expected[:2], atol=0.01)
    assert found["DR2"][2] > 0.75  # a carrier is in sight
    assert found["DR2"][3] == 1  # as observed
    assert found["DR2"][4] < 0.7  # not confident
    np.testing.assert_allclose(found["PR2"], expected, rtol=1e-6)
    np.testing.assert_array_equal(found["PADJ"], 0)


def test_what_the_panel_says_is_added_to_dr2_and_written():
    rng = np.random.default_rng(8)
    prob = (rng.random((40, 400)) ** 30).astype(np.float32)
    sums, untyped = DosageSums.of(prob), np.zeros(40, bool)
    added = np.linspace(-1, 1, 40)
    added[7] = np.nan  # a record of which the panel says nothing, in files that are merged
    found = sums.info(CALIBRATION, untyped, PanelExpectation(np.full(40, np.nan), added))
    np.testing.assert_allclose(found["PADJ"], added, rtol=1e-6)
    expected = CALIBRATION.apply(
        sums.estimated_r2, sums.maf * sums.num, sums.num, np.nan_to_num(added)
    )
    np.testing.assert_array_equal(found["DR2"], expected)
    alone = sums.dr2(CALIBRATION, untyped)
    assert (found["DR2"] < alone)[:6].all()
    assert (found["DR2"] > alone)[-6:].all()
    assert found["DR2"][7] == alone[7]


def test_the_terms_have_their_names():
    estimate, minor, num = np.array([0.3]), np.array([0.5]), np.array([400])
    assert terms(estimate, minor, num).shape == (1, len(TARGET_TERMS))
    assert panel_terms(0.0, np.ones(1), 400).shape == (1, len(PANEL_TERMS))
    assert (*TARGET_TERMS, *PANEL_TERMS) == TERMS
    few = terms(estimate, minor, num)[0, TERMS.index("few")]
    assert few == few_of(minor)[0] == pytest.approx(2 / 3)
    assert terms(estimate, minor, num)[0, TERMS.index("few_squared")] == pytest.approx(4 / 9)


def test_warning_for_few_samples():
    assert few_samples_warning(10, expects_r2=True) is None
    assert "INFO/PR2" in few_samples_warning(9, expects_r2=True)
    assert "noise" in few_samples_warning(1, expects_r2=False)


def test_the_adjustment_is_what_the_file_holds():
    found = CALIBRATION.adjustment(0.123456, np.array([1, 7, 90]), 777)
    written = np.array([float(f"{value:.{INFOS['PADJ'].digits}f}") for value in found])
    np.testing.assert_allclose(found, written, atol=1e-12)
