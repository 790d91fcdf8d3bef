"""The two haplotypes of a homozygous sample are imputed once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ragimpute.copying_model.twins import Imputed
from ragimpute.evidence.other_haplotype import homologs_of


@st.composite
def targets(draw):
    """Alleles (T, n) of haploid, homozygous and other samples, and each haplotype's sample."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns, sample = [], []
    for i, kind in enumerate(draw(st.lists(st.sampled_from("hst"), min_size=1, max_size=40))):
        first = rng.integers(-1, 2, 6).astype(np.int8)
        second = first if kind == "s" else rng.integers(-1, 2, 6).astype(np.int8)
        columns += [first] if kind == "h" else [first, second]
        sample += [i] if kind == "h" else [i, i]
    return np.stack(columns, axis=1), np.array(sample)


@given(targets())
def test_every_haplotype_gets_the_probabilities_of_its_own_alleles(made):
    alleles, sample = made
    imputed = Imputed.of(alleles, sample)
    assert imputed.copies.sum() == len(sample)
    out = np.full((len(sample), 6), 9.0, np.float32)

    def put(first, site, prob):
        assert site == 0
        assert (out[first : first + len(prob)] == 9.0).all()
        out[first : first + len(prob)] = prob

    give = imputed.all_of(put)
    for first in range(0, imputed.alleles.shape[1], 5):  # blocks of 5 haplotypes
        give(first, 0, imputed.alleles[:, first : first + 5].T.astype(np.float32))
    np.testing.assert_array_equal(out, alleles.T)


@given(targets())
def test_the_other_haplotype_has_the_alleles_of_the_other_haplotype(made):
    alleles, sample = made
    imputed = Imputed.of(alleles, sample)
    place = np.repeat(np.arange(len(imputed.copies)), imputed.copies)
    for h, other in enumerate(homologs_of(sample)):
        found = imputed.homolog[place[h]]
        if other < 0:
            assert found == -1
        else:
            np.testing.assert_array_equal(imputed.alleles[:, found], alleles[:, other])
    # Only samples whose haplotypes differ are imputed twice.
    twice = homologs_of(sample[:0]) if not len(sample) else np.flatnonzero(homologs_of(sample) >= 0)
    differ = sum((alleles[:, h] != alleles[:, homologs_of(sample)[h]]).any() for h in twice)
    alone = (homologs_of(sample) < 0).sum()
    assert len(imputed.copies) == alone + differ + (len(twice) - differ) // 2
