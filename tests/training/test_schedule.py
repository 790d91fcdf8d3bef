"""Learning-rate schedules against their formulas."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragimpute.config import ScheduleConfig, load_config
from ragimpute.training.schedule import rate_factor, warmup_steps


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


@given(st.floats(0, 0.99), st.integers(1, 5000), st.sampled_from(["inverse_sqrt", "cosine"]))
def test_a_share_of_the_run_replaces_the_steps(share, total, name):
    config = ScheduleConfig(name=name, warmup_share=share, warmup_steps=20_000)
    steps = warmup_steps(config, total)
    assert abs(steps - share * total) <= 0.5
    assert steps <= total
    same = rate_factor(ScheduleConfig(name=name, warmup_steps=steps), total)
    factor = rate_factor(config, total)
    assert [factor(i) for i in range(0, total, 97)] == [same(i) for i in range(0, total, 97)]
    assert warmup_steps(ScheduleConfig(), total) == 20_000


def test_the_tuned_rate_is_that_of_the_noam_rule():
    config = load_config("v10-tuned")
    dim, lr, total, warmup = config.model.encoder.dim, config.optimizer.lr, 200_000, 20_000
    assert lr == (dim * warmup) ** -0.5 == 6.25e-4
    factor = rate_factor(config.schedule, total)
    assert warmup_steps(config.schedule, total) == warmup  # a tenth
    for step in (1, 100, 19_999, 20_000, 50_000, 199_999):
        noam = dim**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert lr * factor(step) == pytest.approx(noam, rel=0.01, abs=lr / warmup)


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
