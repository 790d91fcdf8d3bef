"""The search for the peak of a function of one parameter."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragimpute.copying.line_search import climb

PLACES = st.floats(-6, 5)


@settings(deadline=None)
@given(peak=PLACES, start=PLACES, sharpness=st.floats(0.1, 5), power=st.sampled_from([1, 1.5, 2]))
@example(peak=5.0, start=-6.0, sharpness=1.0, power=2)
@example(peak=-6.0, start=5.0, sharpness=1.0, power=1)
def test_one_peak_is_found_to_the_tolerance(
    peak: float, start: float, sharpness: float, power: float
) -> None:
    asked: list[float] = []

    def height(place: float) -> float:
        asked.append(place)
        return -sharpness * abs(place - peak) ** power

    found = climb(height, start, -6, 5, step=0.7, tolerance=0.05)
    assert abs(found - peak) <= 0.1
    assert len(asked) == len(set(asked)) <= 40
    assert all(-6 <= place <= 5 for place in asked)


def test_a_smooth_peak_takes_few_evaluations() -> None:
    asked: list[float] = []

    def height(place: float) -> float:
        asked.append(place)
        return -math.cosh(place - 1.3)

    assert abs(climb(height, 0.0, -6, 5, step=0.7, tolerance=0.1) - 1.3) < 0.1
    assert len(asked) <= 8


@given(PLACES, st.lists(st.floats(-10, 10), min_size=12, max_size=12))
def test_what_is_found_is_no_lower_than_the_start(start: float, values: list[float]) -> None:
    def height(place: float) -> float:
        return values[int(place + 6)]

    assert height(climb(height, start, -6, 5, step=0.7, tolerance=0.1)) >= height(start)


def test_a_peak_outside_the_range_gives_its_end() -> None:
    assert climb(lambda x: x, 0, -1, 2, step=0.5, tolerance=0.01) == pytest.approx(2, abs=0.02)
    assert climb(lambda x: -x, 9, -1, 2, step=0.5, tolerance=0.01) == pytest.approx(-1, abs=0.02)


def test_a_plateau_leaves_the_start_where_it_is() -> None:
    assert climb(lambda x: 0.0, 0.3, -6, 5, step=0.5, tolerance=0.1) == 0.3


def test_one_place_only() -> None:
    assert climb(lambda x: x, 0, 2, 2, step=0.5, tolerance=0.1) == 2


@pytest.mark.parametrize(
    ("low", "high", "step", "tolerance"), [(1, 0, 1, 1), (0, 1, 0, 1), (0, 1, 1, 0)]
)
def test_a_wrong_call_names_the_values(
    low: float, high: float, step: float, tolerance: float
) -> None:
    with pytest.raises(ValueError, match=f"{low}, {high}, {step}, {tolerance}"):
        climb(lambda x: x, 0, low, high, step=step, tolerance=tolerance)
