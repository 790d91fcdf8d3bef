"""The jackknife against leaving out each sample and counting anew."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from cyvcf2 import VCF, Writer
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute import example
from ragimpute.accuracy.evaluate import evaluate
from ragimpute.accuracy.jackknife import SampleSums, standard_error
from ragimpute.accuracy.metrics import aggregate_r2


def scores(seed, num_sites=40, num_samples=6):
    """Dosages, truth and MAF, some of each sample missing."""
    rng = np.random.default_rng(seed)
    maf = rng.choice([0, 0.001, 0.004, 0.01, 0.03, 0.3, 0.5], num_sites)
    truth = rng.binomial(2, np.maximum(maf, 0.2)[:, None], (num_sites, num_samples)).astype(float)
    dosage = np.clip(truth + rng.normal(0, 0.4, truth.shape), 0, 2)
    truth[rng.random(truth.shape) < 0.05] = np.nan
    return dosage, truth, maf


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 39), st.integers(1, 6))
def test_equals_leaving_out_each_sample_and_counting_anew(seed, cut, num_samples):
    dosage, truth, maf = scores(seed, num_samples=num_samples)
    sums = SampleSums(num_samples)
    for part in (slice(cut), slice(cut, None)):
        sums.update(dosage[part], truth[part], maf[part])
    found = sums.r2_without()
    for left_out in range(num_samples):
        kept = np.arange(num_samples) != left_out
        plain = aggregate_r2(dosage[:, kept], truth[:, kept], maf)
        np.testing.assert_allclose(found[left_out], [*plain.r2, plain.all], rtol=1e-9)
    error = standard_error(found)
    if num_samples == 1:
        assert np.isnan(error).all()
        return
    for i, column in enumerate(found.T):
        mean = sum(column) / num_samples
        squares = sum((value - mean) ** 2 for value in column)
        expected = np.sqrt(squares * (num_samples - 1) / num_samples)
        np.testing.assert_allclose(error[i], expected, rtol=1e-9)


def test_the_error_of_a_mean_is_the_usual_one():
    values = np.random.default_rng(1).normal(size=30)
    without = (values.sum() - values) / 29
    assert standard_error(without) == pytest.approx(values.std(ddof=1) / np.sqrt(30))


def test_more_samples_make_it_smaller_and_tools_that_agree_differ_by_little():
    errors = []
    for number in (20, 500):
        dosage, truth, maf = scores(3, num_sites=60, num_samples=number)
        worse = dosage + np.random.default_rng(4).normal(0, 0.05, dosage.shape)
        without = []
        for given_dosage in (dosage, worse):
            sums = SampleSums(number)
            sums.update(given_dosage, truth, maf)
            without.append(sums.r2_without())
        errors.append(standard_error(without[0])[-1])
        assert standard_error(without[0] - without[1])[-1] < 0.5 * errors[-1]
    assert errors[1] < 0.5 * errors[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The truth of the example, as if it had been imputed with errors."""
    folder = tmp_path_factory.mktemp("jackknife")
    rng = np.random.default_rng(1)
    out = folder / "imputed.vcf"
    source = VCF(str(example.path("truth.bcf")))
    writer = Writer(str(out), source)
    for record in source:
        alleles = record.genotype.array()[:, :2]
        wrong = rng.random(len(alleles)) < 0.1
        record.genotypes = [
            [int(a), int(b ^ w), True] for (a, b), w in zip(alleles, wrong, strict=True)
        ]
        writer.write_record(record)
    writer.close()
    source.close()
    packed = out.with_suffix(".vcf.gz")
    packed.write_bytes(gzip.compress(out.read_bytes()))
    return packed


def test_evaluate_tells_it_when_it_is_asked(files):
    inputs = (example.path("truth.bcf"), files, example.path("panel.bcf"))
    plain = evaluate(*inputs)
    asked = evaluate(*inputs, jackknife=True)
    assert plain.r2_without is None
    assert "r2_standard_error" not in plain.as_dict()
    assert [row.r2 for row in asked.bins] == [row.r2 for row in plain.bins]
    assert asked.r2_without.shape == (50, len(asked.bins) + 1)
    errors = standard_error(asked.r2_without)
    told = asked.as_dict()["r2_standard_error"]
    assert told == [None if np.isnan(value) else value for value in errors.tolist()]
    assert 0 < told[-1] < 0.05
    header, *rows = asked.table()
    column = header.index("±")
    assert [row[:column] + row[column + 1 :] for row in rows] == plain.table()[1:]
    assert rows[-1][column] == f"{told[-1]:.5f}"


def test_the_command_tells_it(files, command_line, tmp_path):
    words = ["evaluate", "--truth", example.path("truth.bcf"), "--imputed", files,
             "--panel", example.path("panel.bcf")]  # fmt: skip
    out = tmp_path / "x.json"
    code, told, errors = command_line(*words, "--jackknife", "--json", out)
    assert code == 0, errors
    assert "±" in told
    assert "r2_standard_error" in out.read_text()
    code, told, errors = command_line(*words)
    assert code == 0, errors
    assert "±" not in told
