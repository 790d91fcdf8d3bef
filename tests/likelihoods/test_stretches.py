"""How long stretches are, and how many states are paired in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.likelihoods.stretches import PairSettings, stretches

shares, rates = st.floats(0, 1), st.floats(0.05, 500)


@settings(deadline=None, max_examples=50)
@given(told=shares, rate=rates, scale=st.floats(0.01, 100))
def test_stretches_depend_on_no_unit_of_the_map(told, rate, scale):
    """A map with other numbers, whose switch rate is fitted to it, has the same stretches."""
    one, other = (PairSettings().by_reads(told, r) for r in (rate, rate / scale))
    assert other.stretch_cm == pytest.approx(one.stretch_cm * scale, rel=1e-6)
    assert other.pair_steps == one.pair_steps
    assert 5 - 1e-6 <= one.stretch_cm * rate <= 80 + 1e-6


@settings(deadline=None, max_examples=50)
@given(told=shares, other=shares, rate=rates)
def test_the_more_reads_tell_the_shorter_stretches_are(told, other, rate):
    few, many = (PairSettings().by_reads(x, rate) for x in sorted((told, other)))
    assert many.stretch_cm <= few.stretch_cm
    # The steps of the chromosome as a whole are bounded alike.
    per_cm = many.pair_steps / many.stretch_cm
    assert few.pair_steps / few.stretch_cm == pytest.approx(per_cm)


def test_stretches_of_shallow_and_of_deep_reads_differ():
    assert PairSettings().by_reads(0.03, 5.0).stretch_cm > 5
    assert PairSettings().by_reads(0.9, 5.0).stretch_cm < 1.5


def test_given_stretches_are_kept():
    given_cm = PairSettings(stretch_cm=3.0)
    assert given_cm.by_reads(0.1, 4.0) is given_cm


@pytest.mark.parametrize("num_sites", [1, 2, 40])
@pytest.mark.parametrize("length_cm", [0.0, 5.0])
def test_any_chromosome_is_cut(num_sites, length_cm):
    for cm in (None, 0.1, 1e9):
        parts = stretches(np.linspace(0, length_cm, num_sites), PairSettings(stretch_cm=cm))
        assert [parts[0].low, parts[-1].high] == [0, num_sites]
        assert sum(p.high - p.low for p in parts) == num_sites


@settings(deadline=None, max_examples=50)
@given(told=shares, other=shares)
def test_the_less_reads_tell_the_more_states_are_paired_at_most(told, other):
    few, many = (PairSettings().by_reads(x, 4.0).most for x in sorted((told, other)))
    assert 288 <= many <= few <= PairSettings().most
    assert PairSettings().by_reads(0.03, 4.0).most == PairSettings().most
    assert PairSettings(most=96).by_reads(0.9, 4.0).most == 96


def test_less_is_left_out_of_large_panels():
    small, large, larger = (PairSettings().for_panel(n) for n in (600, 20_000, 10**6))
    assert small == PairSettings()
    assert larger.left_out < large.left_out < small.left_out
    assert large.anywhere
