"""Times of stages that threads share."""

from __future__ import annotations

import time

from ragimpute.shared_times import SharedTimes
from ragimpute.threads import share


def test_stages_of_all_threads_share_the_wall_time():
    times = SharedTimes()

    def work(_):
        times.begin()
        time.sleep(0.02)
        times.lap("long")
        time.sleep(0.005)
        times.lap("short")

    share(work, range(6), 3)
    found = times.of(10.0)
    assert set(found) == {"long", "short"}
    assert abs(sum(found.values()) - 10) < 1e-9
    assert found["long"] > found["short"] > 0


def test_nothing_was_timed():
    assert SharedTimes().of(1.0) == {}
