"""Switch errors and flips by hand, and of files."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from ragimpute import example
from ragimpute.accuracy.phase_errors import count_phase_errors, measure_phase
from ragimpute.io.vcf.read.genotypes import VcfFile, read_target
from ragimpute.sites import Region


def pairs(first):
    """Heterozygous genotypes (T, 1, 2) with these alleles on the first haplotype."""
    first = np.array(first, np.int8)
    return np.stack([first, 1 - first], axis=1)[:, None]


def errors(true, found, usable=None):
    """Pairs, switches and flips."""
    usable = np.ones(true.shape[:2], bool) if usable is None else usable
    counted = count_phase_errors(true, found, usable)
    return None if counted is None else (
        counted.num_pairs, counted.num_switches, counted.num_flips
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([0, 0, 0, 0, 0], (4, 0, 0)),
        ([1, 1, 1, 1, 1], (4, 0, 0)),
        ([0, 0, 1, 1, 1], (4, 1, 0)),
        ([0, 0, 1, 0, 0], (4, 2, 1)),
        ([0, 1, 0, 1, 0], (4, 4, 2)),
        ([0, 1, 0, 1, 1], (4, 3, 1)),
        ([0, 1, 1, 0, 0], (4, 2, 0)),
    ],
)
def test_counts(found, expected):
    assert errors(pairs([0] * 5), pairs(found)) == expected


def test_only_genotypes_that_both_know_count():
    true, found = pairs([0, 0, 0, 0, 0]), pairs([0, 1, 0, 0, 0])
    assert errors(true, found, np.array([1, 0, 1, 1, 1], bool)[:, None]) == (3, 0, 0)
    found[1] = [1, 1]  # another genotype
    assert errors(true, found) == (3, 0, 0)
    true[2] = [0, -2]
    assert errors(true, found) == (2, 0, 0)


def test_samples_are_counted_apart():
    true = np.concatenate([pairs([0, 0, 0]), pairs([1, 0, 1])], axis=1)
    found = np.concatenate([pairs([0, 0, 1]), pairs([0, 1, 0])], axis=1)
    assert errors(true, found) == (4, 1, 0)


def test_borders_of_phase_sets_are_no_switches():
    true, found = pairs([0, 0, 1, 1, 0, 0]), pairs([0] * 6)
    every = np.ones((6, 1), bool)
    sets = np.array([1, 1, 2, 2, 3, 3])[:, None]
    counted = count_phase_errors(true, found, every, (sets, None))
    assert (counted.num_pairs, counted.num_switches, counted.num_flips) == (3, 0, 0)
    # A set within another: neighbours are those of the same set.
    inner = np.array([1, 2, 1, 2, 1, 1])[:, None]
    counted = count_phase_errors(pairs([0, 1, 0, 1, 0, 1]), found, every, (None, inner))
    assert (counted.num_pairs, counted.num_switches) == (4, 1)
    # Sets of both files: a pair is in one of each.
    counted = count_phase_errors(true, found, every, (sets, np.zeros((6, 1), int)))
    assert counted.num_pairs == 3
    assert count_phase_errors(true, found, every, (np.arange(6)[:, None],)) is None


def test_files_of_phase_sets(tmp_path):
    """The truth cut into sets, every other one turned: no switch error is counted for it."""
    text = gzip.decompress(example.path("target.vcf.gz").read_bytes()).decode()
    head = [line for line in text.splitlines() if line.startswith("#")]
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    for i, row in enumerate(rows):
        row[8] = "GT:PS"
        cut = [cell[::-1] if i // 50 % 2 else cell for cell in row[9:]]
        row[9:] = [f"{cell}:{i // 50}" for cell in cut]
    truth = tmp_path / "truth.vcf"
    truth.write_text("\n".join([*head, *("\t".join(row) for row in rows)]) + "\n")
    read = read_target(example.path("target.vcf.gz"))
    index, region = np.arange(len(read.samples)), Region(read.sites.contig)
    other = (VcfFile(example.path("target.vcf.gz")), region)
    found = measure_phase((VcfFile(truth), region), other, set(read.sites.keys()), index)
    assert found.num_switches == 0
    assert found.num_pairs > 1000


def test_nothing_to_compare():
    assert errors(pairs([0]), pairs([0])) is None
    homozygous = np.ones((4, 2, 2), np.int8)
    assert errors(homozygous, homozygous) is None


def test_files(tmp_path):
    target, truth = example.path("target.vcf.gz"), example.path("truth.bcf")
    read = read_target(target)
    samples = read_target(truth).samples
    region = Region(read.sites.contig)
    index = np.array([read.samples.index(name) for name in samples])
    typed = set(read.sites.keys())
    found = measure_phase((truth, region), (target, region), typed, index)
    assert found is not None
    assert found.num_switches == 0
    het = read.alleles[:, index, 0] != read.alleles[:, index, 1]
    assert found.num_pairs == int((het.sum(axis=0) - 1).clip(0).sum())

    loose = tmp_path / "loose.vcf"
    loose.write_text(gzip.decompress(target.read_bytes()).decode().replace("|", "/"))
    assert measure_phase((truth, region), (loose, region), typed, index) is None
