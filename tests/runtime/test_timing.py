"""Times of stages that threads share."""

from __future__ import annotations

import threading

import pytest

from ragimpute.runtime.threads import share
from ragimpute.runtime.timing import SharedTimes


class Clock(threading.local):
    """A clock of each thread's own, which stands still but for what the thread says passes."""

    now = 0.0

    def __call__(self):
        return self.now


def test_stages_of_all_threads_share_the_wall_time():
    clock = Clock()
    times = SharedTimes(clock)

    def work(_):
        times.begin()
        clock.now += 3
        times.lap("long")
        clock.now += 1
        times.lap("short")

    share(work, range(6), 3)
    assert times.of(10.0) == pytest.approx({"long": 7.5, "short": 2.5})


def test_nothing_was_timed():
    assert SharedTimes().of(1.0) == {}
