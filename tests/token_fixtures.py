"""Imputation of a window by a token model, as the tests of both ways of retrieval ask for it."""

from __future__ import annotations

import numpy as np

from ragimpute.target.window import TargetWindow
from ragimpute.token_model.imputer import TokenImputer


def impute(
    panel, model, given, *, core=None, index=None, threads=1, left=0, right=None, batch=1_000,
    **options,
):  # fmt: skip
    """Impute; typed sites outside [left, right) are not passed on."""
    typed, alleles, sample = given
    right = panel.num_sites if right is None else right
    inside = (typed >= left) & (typed < right)
    imputer = TokenImputer(panel, model, index, device="cpu", threads=threads, **options)
    parts = []
    target = TargetWindow(
        left, right, core or (left, right), typed[inside], alleles[inside], sample
    )
    imputer.prepare(target).impute(batch=batch, put=lambda *part: parts.append(part))
    firsts = np.cumsum([0, *(len(prob) for _, _, prob in parts)])
    assert [part[:2] for part in parts] == [(first, 0) for first in firsts[:-1].tolist()]
    return np.concatenate([prob for _, _, prob in parts])
