"""From a target file to posteriors: certain likelihoods are calls, and no reads are frequencies."""

from __future__ import annotations

import numpy as np
import pytest
from panel_fixtures import FlatMap, make_batch, names
from vcf_fixtures import convert, read_imputed, vcf_text

from ragimpute.copying.window import TypedSites
from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import ImputeOptions
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.io.vcf.read.likelihoods import LikelihoodOptions
from ragimpute.likelihoods import imputer, mismatch_fit, patterns, states, stretches
from ragimpute.likelihoods.fit import FittedPanel
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.runtime.memory import resident_bytes
from ragimpute.target.match import match_sites

NUM_SITES, NUM_SAMPLES = 120, 20
FORMATS = (
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="x">\n'
    '##FORMAT=<ID=PL,Number=G,Type=Integer,Description="x">\n'
)


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    """A panel of few founders, its alleles (M, H), and a fitted copy of it."""
    rng = np.random.default_rng(5)
    founders = rng.integers(0, 2, (NUM_SITES, 6), dtype=np.int8)
    alleles = founders[:, rng.integers(0, 6, 2 * NUM_SAMPLES)]
    position = 1_000 + 5_000 * np.arange(NUM_SITES)
    path = tmp_path_factory.mktemp("mosaic") / "p.h5"
    batch = make_batch(alleles.reshape(NUM_SITES, NUM_SAMPLES, 2), position)
    write_panel(path, [batch], samples=names(NUM_SAMPLES), genetic_map=FlatMap())
    typed = TypedSites.pack(alleles, position * 1e-6)
    fitted = FittedPanel(typed, np.arange(2 * NUM_SAMPLES) // 2)
    with Panel.open(path) as panel:
        yield panel, alleles, fitted


def posterior(mosaic, path):
    """GP (M, N, 3) of a target file."""
    panel, _, fitted = mosaic
    target = read_target(path, likelihoods=LikelihoodOptions("always"))
    match = match_sites(target, panel, 0, NUM_SITES)
    found = fitted.impute(match.likelihoods_on(0, NUM_SITES))
    return np.stack([one.genotype_probs() for one in found], axis=1)


def written(tmp_path, mosaic, cells, keys, *, turned=False, every=1):
    """A BCF of what ``cells`` makes of two people's genotypes (M, 2), at some of the sites."""
    panel, alleles, _ = mosaic
    count = alleles[:, :4].reshape(NUM_SITES, 2, 2).sum(axis=2)
    rows = []
    for i in range(0, NUM_SITES, every):
        own = 2 - count[i] if turned else count[i]
        bases = ("G", "A") if turned else ("A", "G")
        rows.append((int(panel.sites.position_bp[i]), *bases, *map(cells, own.tolist())))
    path = tmp_path / "t.vcf"
    path.write_text(vcf_text(rows, formats=FORMATS, keys=keys))
    return convert(path, ".bcf", index=False), count


def pl_of(genotype):
    """The likelihoods that a called genotype has."""
    return ",".join(str(30 * abs(genotype - other)) for other in range(3))


def called(genotype):
    """GT, with a missing PL."""
    return ("0/0:.", "0/1:.", "1/1:.")[genotype]


def test_likelihoods_of_certain_genotypes_are_as_good_as_calls(tmp_path, mosaic):
    path, count = written(tmp_path, mosaic, pl_of, "PL", every=2)
    reads = posterior(mosaic, path)
    path, _ = written(tmp_path, mosaic, called, "GT:PL", every=2)
    np.testing.assert_array_equal(posterior(mosaic, path), reads)
    np.testing.assert_array_equal(reads.argmax(axis=2), count)  # untyped sites, too


def test_exchanged_alleles_change_nothing(tmp_path, mosaic):
    path, _ = written(tmp_path, mosaic, pl_of, "PL")
    reads = posterior(mosaic, path)
    path, _ = written(tmp_path, mosaic, pl_of, "PL", turned=True)
    np.testing.assert_array_equal(posterior(mosaic, path), reads)


def test_no_reads_give_the_panel_frequencies(tmp_path, mosaic):
    path, _ = written(tmp_path, mosaic, lambda genotype: "0,0,0", "PL")
    found = posterior(mosaic, path)
    dosage = found[..., 1] + 2 * found[..., 2]
    af = mosaic[1].mean(axis=1)
    np.testing.assert_allclose(dosage, np.repeat(2 * af[:, None], 2, axis=1), atol=0.02)


@pytest.mark.parametrize("panel_from", ["panel.h5", "whole"])
def test_a_large_panel_is_imputed_in_bounded_memory_as_a_small_one(
    tmp_path, mosaic, monkeypatch, panel_from
):
    """A file through ``impute``: as patterns, in pieces and with little memory, by two threads."""
    panel, _, _ = mosaic
    path, _ = written(tmp_path, mosaic, lambda g: "0,0,0" if g == 1 else pl_of(g), "PL", every=3)
    plain = tmp_path / "plain.vcf"
    impute(path, panel.path, plain, ImputeOptions())
    for module in (patterns, mismatch_fit, stretches, imputer):
        monkeypatch.setattr(module, "PATTERNS_FROM", 2)
    monkeypatch.setattr(states, "_PATTERNS_OF_GROUPS", 1)
    if panel_from == "panel.h5":  # it is read in pieces of 32 sites
        monkeypatch.setattr(imputer, "_READ_BYTES", 1)
    outputs = []
    little = resident_bytes() + 2**29  # beside what other tests have left
    for threads, max_memory in ((1, None), (2, little)):
        out = tmp_path / f"{threads}.vcf"
        impute(path, panel.path, out, ImputeOptions(threads=threads, max_memory=max_memory))
        outputs.append(read_imputed(out))
    expected = read_imputed(plain)
    np.testing.assert_allclose(outputs[0].dosage, expected.dosage, atol=0.02)
    np.testing.assert_array_equal(outputs[0].dosage, outputs[1].dosage)
