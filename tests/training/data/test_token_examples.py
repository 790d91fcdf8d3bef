"""The examples of an epoch: none twice, in units that are mixed with each other."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.training.data.token_examples import COPIED_TOGETHER, draw_alone, draw_in_units


@settings(max_examples=60, deadline=None)
@given(
    windows=st.integers(1, 9), samples=st.integers(1, 30), share=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_no_example_comes_twice(windows, samples, share, seed):
    names = 3 * np.arange(samples) + 5
    num = max(1, round(share * windows * samples))
    rng = np.random.default_rng(seed)
    alone = draw_alone(windows, names, num, rng)
    assert len(set(alone.unit.tolist())) == num
    search = np.sort(rng.integers(0, 3, windows))
    search = np.unique(search, return_inverse=True)[1]
    for drawn in (alone, draw_in_units(search, names, num, 16, rng)):
        pairs = set(zip(drawn.window.tolist(), drawn.sample.tolist(), strict=True))
        assert len(pairs) == num
        assert np.isin(drawn.sample, names).all()
        assert set(drawn.window.tolist()) <= set(range(windows))


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(1, 30), group=st.integers(1, 64), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_unit_is_some_samples_in_all_windows_of_an_index_window(samples, group, seed):
    search = np.array([0, 0, 1, 2, 2, 2])
    num = len(search) * samples
    drawn = draw_in_units(search, np.arange(samples), num, group, np.random.default_rng(seed))
    for unit in range(drawn.unit.max() + 1):
        here = drawn.unit == unit
        (of,) = np.unique(search[drawn.window[here]])
        who = np.unique(drawn.sample[here])
        assert len(who) <= COPIED_TOGETHER
        assert here.sum() == len(who) * (search == of).sum()
    # Mixed within a group only: a unit's examples lie in the groups that it began and ended in.
    place = np.argsort(np.argsort(drawn.unit, kind="stable"), kind="stable")
    assert (np.abs(place // group - np.arange(num) // group) <= 0).all()
