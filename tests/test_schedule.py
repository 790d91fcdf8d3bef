"""The simulation of a run's schedule: simple work takes the time that it must take."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import schedule
from hypothesis import given, settings
from hypothesis import strategies as st
from schedule import Simulation, Work

from ragimpute import example

TASKS = schedule.Begun(None, None), schedule.Begun(None, None)


def run(seconds):
    return ("run", seconds, "x")


def wall(threads, *events):
    """Wall time of the work of the main thread, and how much work was done."""
    found = Simulation(threads)
    found.run(Work(list(events)))
    return found.now, sum(found.busy)


@pytest.mark.parametrize(("threads", "expected"), [(1, 8), (2, 5), (3, 4), (6, 3), (9, 3)])
def test_items_are_shared_out(threads, expected):
    items = [Work([run(1)]) for _ in range(6)]
    assert wall(threads, run(2), ("share", items, 6)) == (expected, 8)


def test_no_more_threads_share_work_than_may():
    items = [Work([run(1)]) for _ in range(6)]
    assert wall(9, ("share", items, 2)) == (3, 6)


@pytest.mark.parametrize(("threads", "expected"), [(1, 6), (2, 4), (5, 4)])
def test_a_task_is_done_beside_the_rest(threads, expected):
    task = TASKS[0]
    events = ("start", task, Work([run(2)]), True), run(3), ("wait", task), run(1)
    assert wall(threads, *events) == (expected, 6)


def test_who_waits_helps_with_work_within_a_task():
    task = TASKS[0]
    items = [Work([run(2)]) for _ in range(2)]
    inner = Work([run(1), ("share", items, 2)])
    assert wall(2, ("start", task, inner, True), run(1), ("wait", task)) == (3, 6)


@settings(max_examples=50, deadline=None)
@given(st.recursive(
    st.floats(0, 1).map(lambda s: Work([run(s)])),
    lambda inner: st.lists(inner, max_size=4).map(lambda few: Work([("share", few, 3), run(0.1)])),
))  # fmt: skip
def test_more_threads_never_do_more_work_nor_all_of_it_in_less_than_its_share(whole):
    one = wall(1, *whole.events)
    assert one[0] == pytest.approx(one[1])
    for threads in (2, 3, 7):
        time, work = wall(threads, *whole.events)
        assert work == pytest.approx(one[1])
        assert one[0] / threads - 1e-9 <= time <= one[0] + 1e-9


def test_a_run_is_traced_whole(panel_h5):
    target = str(example.path("target.vcf.gz"))
    command = [sys.executable, schedule.__file__, target, str(panel_h5), "--chunk-cm", "0.1"]
    done = subprocess.run([*command, "--trace", "3"], capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert 0 < found["wall"] < found["busy"] <= 3 * found["wall"]
