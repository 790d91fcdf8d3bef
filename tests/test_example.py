"""The packaged example is what its README says."""

from __future__ import annotations

import pytest

from ragimpute import example
from ragimpute.io.vcf.read.genotypes import contigs_of, read_dosages, read_target


def test_files():
    assert sum(example.path(name).stat().st_size for name in example.NAMES) < 700_000
    with pytest.raises(ValueError, match="no file 'nothing'"):
        example.path("nothing")


def test_target_is_part_of_the_truth_and_not_of_the_panel():
    target = read_target(example.path("target.vcf.gz"))
    truth = read_dosages(example.path("truth.bcf"))
    panel = read_dosages(example.path("panel.bcf"))
    assert target.samples == truth.samples
    assert len(target.samples) == 50
    assert len(panel.samples) == 250
    assert not set(target.samples) & set(panel.samples)
    assert panel.sites.keys() == truth.sites.keys()
    assert len(truth.sites) == 6_127
    keys, typed = truth.sites.keys(), target.sites.keys()
    row = dict(zip(keys, range(len(keys)), strict=True))
    index = [row[key] for key in typed]
    assert len(index) == 689
    assert target.phased.all()
    assert (target.alleles.sum(axis=2) == truth.dosage[index]).all()
    assert (panel.dosage.sum(axis=1) > 0).all()
    assert contigs_of(example.path("panel.bcf")) == {"20": 63_025_520}
