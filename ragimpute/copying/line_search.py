"""Find the highest point of a function of one parameter, with few evaluations."""

from __future__ import annotations

from collections.abc import Callable

_GOLDEN = (3 - 5**0.5) / 2
_MOST_EVALUATIONS = 60


def climb(
    height: Callable[[float], float],
    start: float,
    low: float,
    high: float,
    *,
    step: float,
    tolerance: float,
) -> float:
    """Climb from ``start`` to a peak of ``height`` within [low, high].

    The search first brackets a peak: it goes uphill from ``start`` by ``step``, and doubles the
    step after every second one. Then it narrows the bracket by parabolas through its three points,
    or by golden sections where a parabola is of no use. A function with one peak is climbed to
    that peak. Of several peaks, one is found that is at least as high as ``start``. On a plateau
    the search stays where it is.

    Parameters
    ----------
    height
        The function. It is called at most once for each place, and about 60 times at most.
    start
        Where to begin; it is first moved into [low, high].
    low, high
        Ends of the range, low <= high. A peak at an end is found, too.
    step
        First step, > 0, in units of the parameter.
    tolerance
        How near to the peak is near enough, > 0, in units of the parameter.

    Returns
    -------
    The place of the highest value that was seen.

    Raises
    ------
    ValueError
        If ``low > high``, ``step <= 0`` or ``tolerance <= 0``.

    References
    ----------
    Brent 1973, Algorithms for Minimization without Derivatives, chapter 5 (in simpler form).
    """
    if not low <= high or not step > 0 or not tolerance > 0:
        raise ValueError(
            f"expected low <= high, step > 0, tolerance > 0; found {low}, {high}, {step}, "
            f"{tolerance}"
        )
    seen: dict[float, float] = {}

    def at(place: float) -> float:
        if place not in seen:
            seen[place] = height(place)
        return seen[place]

    middle = min(max(start, low), high)
    left, middle, right = _bracket(at, middle, low, high, step)
    while len(seen) < _MOST_EVALUATIONS:
        place = _next_place(at, left, middle, right, tolerance)
        if place is None:
            break
        if at(place) > at(middle):
            left, right = (middle, right) if place > middle else (left, middle)
            middle = place
        elif place > middle:
            right = place
        else:
            left = place
    return middle


def _bracket(
    at: Callable[[float], float], middle: float, low: float, high: float, step: float
) -> tuple[float, float, float]:
    """Three places, of which the middle one is highest or, at an end of the range, an end."""
    left, right = max(middle - step, low), min(middle + step, high)
    upwards = at(right) > at(middle)
    if not upwards and not at(left) > at(middle):
        return left, middle, right
    behind, here, ahead = (left, middle, right) if upwards else (right, middle, left)
    end = high if upwards else low
    num_steps = 1
    while ahead != end and at(ahead) > at(here):
        step *= 2 if num_steps % 2 == 0 else 1
        num_steps += 1
        behind, here = here, ahead
        ahead = min(here + step, high) if upwards else max(here - step, low)
    if at(ahead) > at(here):
        behind, here = here, ahead
    return (behind, here, ahead) if upwards else (ahead, here, behind)


def _next_place(
    at: Callable[[float], float], left: float, middle: float, right: float, tolerance: float
) -> float | None:
    """Where to look next within a bracket; None: nothing further away than ``tolerance`` is left.

    The tip of the parabola if it lies well inside the bracket, else the golden section of the
    longer side.
    """
    if max(right - middle, middle - left) <= tolerance:
        return None
    below, here, above = at(left), at(middle), at(right)
    if left < middle < right:
        rise, fall = (middle - left) * (here - above), (right - middle) * (here - below)
        if rise + fall > 0:
            shift = 0.5 * ((right - middle) * fall - (middle - left) * rise) / (rise + fall)
            tip = middle + shift
            # A tip beside the middle would tell nothing new: look a tolerance away from it,
            # on the longer side, so that the bracket closes.
            if abs(shift) < tolerance:
                if max(right - middle, middle - left) <= 2 * tolerance:
                    return None
                tip = middle + tolerance * (1 if right - middle > middle - left else -1)
            room = 0.5 * tolerance
            if left + room < tip < right - room:
                return tip
    longer = right if right - middle > middle - left else left
    return middle + _GOLDEN * (longer - middle)
