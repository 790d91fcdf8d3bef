"""What a model is told of the target in one window."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class TargetWindow(NamedTuple):
    """A window of the panel, and what was observed of target haplotypes in it.

    Attributes
    ----------
    left, right
        Panel sites [left, right) that are read: the core with its buffers.
    core
        Panel sites (start, stop) that are imputed, within [left, right).
    typed_index
        Shape (T,), int: panel sites that are typed, ascending, within [left, right).
    alleles
        Shape (T, n), int8, of n haplotypes: 0, 1, or -1 where missing.
    sample
        Shape (n,), int, ascending: the number of the target sample that each haplotype is of.
    """

    left: int
    right: int
    core: tuple[int, int]
    typed_index: np.ndarray
    alleles: np.ndarray
    sample: np.ndarray
