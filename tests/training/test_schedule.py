"""Learning-rate schedules against their formulas."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragimpute.config import ScheduleConfig
from ragimpute.training.schedule import rate_factor


def test_inverse_square_root():
    factor = rate_factor(ScheduleConfig(name="inverse_sqrt", warmup_steps=100), 10_000)
    assert factor(0) == pytest.approx(1 / 101)
    assert factor(49) == pytest.approx(50 / 101)
    assert factor(100) == 1
    assert factor(400) == pytest.approx(1 / 2)
    assert factor(10_000) == pytest.approx(1 / 10)
    floor = ScheduleConfig(name="inverse_sqrt", warmup_steps=100, min_factor=0.3)
    assert rate_factor(floor, 10_000)(10_000) == 0.3


def test_cosine():
    factor = rate_factor(ScheduleConfig(name="cosine", warmup_steps=100, min_factor=0.1), 1100)
    assert factor(100) == pytest.approx(1)
    assert factor(350) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert factor(600) == pytest.approx(0.55)
    assert factor(1100) == factor(5000) == pytest.approx(0.1)


def test_constant_and_no_warmup():
    factor = rate_factor(ScheduleConfig(name="constant", warmup_steps=3), 10)
    assert [factor(s) for s in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    for name in ("inverse_sqrt", "cosine", "constant"):
        assert rate_factor(ScheduleConfig(name=name, warmup_steps=0), 10)(0) == 1


@given(
    st.sampled_from(["inverse_sqrt", "cosine", "constant"]),
    st.integers(0, 300),
    st.floats(0, 1),
    st.integers(1, 600),
)
def test_rises_then_falls_within_its_limits(name, warmup, low, total):
    factor = rate_factor(ScheduleConfig(name=name, warmup_steps=warmup, min_factor=low), total)
    values = [factor(step) for step in range(total + warmup + 50)]
    assert all(0 < v <= 1 for v in values) or low == 0
    assert all(0 <= v <= 1 for v in values)
    rising, falling = values[: warmup + 1], values[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert min(falling) >= low


def test_no_steps():
    with pytest.raises(ValueError, match="total_steps 0"):
        rate_factor(ScheduleConfig(), 0)
