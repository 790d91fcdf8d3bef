"""The genotypes of few samples are read in Python, those of many by a kernel, to the same end."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ragimpute.io.vcf.read.records import _take_few, _take_genotypes

GENOTYPES = st.integers(2, 3).flatmap(
    lambda width: arrays(
        np.int16, st.tuples(st.integers(0, 5), st.just(width)), elements=st.integers(-2, 300)
    )
)


@given(GENOTYPES)
def test_both_read_the_same(called):
    read = []
    for take in (_take_few, _take_genotypes):
        alleles, phased = np.zeros((len(called), 2), np.int8), np.zeros(len(called), bool)
        read.append((int(take(called, alleles, phased)), alleles.tolist(), phased.tolist()))
    assert read[0] == read[1]
