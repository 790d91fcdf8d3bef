"""Work that threads share out: in order, and no more of it after an error."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.runtime.threads import (
    Abandoned,
    Crew,
    parts_of,
    run_parts,
    share,
    start,
    threads_at_hand,
)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_what_is_made_comes_in_the_order_of_the_items(threads):
    assert share(lambda i: i * i, range(30), threads) == [i * i for i in range(30)]
    assert share(str, [], threads) == []


def test_one_item_needs_no_thread():
    assert share(lambda _: threading.current_thread(), [0], 4) == [threading.main_thread()]


def test_after_an_error_no_more_items_are_begun():
    begun = []
    failed = threading.Event()

    def make(i):
        begun.append(i)
        if i == 0:
            failed.set()
            raise ValueError("the first")
        failed.wait()

    with pytest.raises(ValueError, match="the first"):
        share(make, range(1000), 2)
    assert len(begun) < 1000


@pytest.mark.parametrize(("num", "threads"), [(0, 2), (1, 3), (2, 5), (10, 1), (10, 3)])
def test_parts_are_every_number_once(num, threads):
    seen = []
    run_parts(seen.append, num, threads)
    assert len(seen) == max(1, min(num, threads))
    assert sorted(i for part in seen for i in part) == list(range(num))


def test_an_error_in_a_part_is_passed_on():
    with pytest.raises(ZeroDivisionError):
        run_parts(lambda part: 1 // (part.start - 1), 4, 2)


@settings(max_examples=25, deadline=None)
@given(st.recursive(st.just(0), lambda inner: st.lists(inner, max_size=5)), st.integers(1, 5))
def test_work_within_work_never_takes_more_threads_than_there_are(tree, threads):
    lock, at_work, most = threading.Lock(), 0, 0

    def add(branch):
        nonlocal at_work, most
        if branch == 0:
            with lock:
                at_work += 1
                most = max(most, at_work)
            time.sleep(0.0005)
            with lock:
                at_work -= 1
            return 1
        beside = start(lambda: sum(share(add, branch, threads)), is_long=len(branch) > 2)
        return sum(share(add, branch, threads)) + beside.result()

    def expected(branch):
        return 1 if branch == 0 else 2 * sum(map(expected, branch))

    with Crew(threads):
        assert add(tree) == expected(tree)
    assert most <= threads


def test_a_thread_that_is_done_with_one_piece_of_work_helps_with_another():
    both = threading.Barrier(2, timeout=20)
    with Crew(2):
        beside = start(lambda: share(lambda _: both.wait(), range(2), 2), is_long=True)
        beside.result()  # whoever waits takes one of the two items
        done = start(lambda: 5)
        assert done.result() == done.result() == 5
        assert done.is_done


@pytest.mark.parametrize("threads", [1, 3])
def test_the_error_of_work_that_was_begun_comes_where_its_result_is_asked_for(threads):
    def fail():
        raise KeyError("x")

    with Crew(threads):
        task, other = start(fail), start(lambda: 3)
        assert other.result() == 3
        for _ in range(2):
            with pytest.raises(KeyError, match="x"):
                task.result()


def test_without_a_crew_work_is_done_when_it_is_asked_for():
    done = []
    task = start(lambda: done.append(1))
    assert done == []
    task.result()
    task.result()
    assert done == [1]


def test_work_that_nobody_waits_for_ends_with_the_run():
    begun, done = threading.Event(), []

    def long():
        begun.set()
        for i in range(10_000):
            share(lambda _: time.sleep(0.001), range(3), 2)
            done.append(i)

    before = threading.active_count()
    with Crew(2) as crew:
        start(long, is_long=True)
        never = start(lambda: done.append("never"), is_long=True)
        assert begun.wait(20)
        crew.leave()
    assert threading.active_count() == before
    assert len(done) < 10_000
    assert "never" not in done
    with pytest.raises(Abandoned):
        never.result()


def test_what_is_dropped_is_not_begun_or_waited_for():
    begun, go, seen = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        assert go.wait(20)
        seen.append("slow")

    with Crew(2):
        first = start(slow, is_long=True)
        assert begun.wait(20)
        second = start(lambda: seen.append("second"))
        second.drop()
        go.set()
        first.drop()
        assert seen == ["slow"]


def test_a_result_outlives_what_made_it_which_is_forgotten():
    class Large:
        pass

    large = Large()
    known = weakref.ref(large)
    with Crew(2):
        task = start(lambda of=large: str(type(of)))
        assert "Large" in task.result()
        del large
        gc.collect()
        assert known() is None
        assert "Large" in task.result()


def test_a_signal_waits_for_threads_at_work_and_ends_the_rest():
    code = """
import os, signal, threading, time
from ragimpute.runtime import interrupts
from ragimpute.runtime.threads import Crew, share, start
interrupts.install()
begun = []
def work(i):
    begun.append(i)
    if len(begun) == 4:
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.02)
try:
    with Crew(3):
        start(lambda: share(work, range(500), 3), is_long=True)
        share(work, range(500), 3)
except interrupts.Stopped as error:
    print(error.signal.name, len(begun) < 400, threading.active_count())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "SIGINT True 1\n", done.stderr


@given(st.integers(0, 500), st.integers(1, 40))
def test_parts_are_all_there_is_in_order_and_alike(n, most):
    parts = parts_of(n, most)
    assert [i for part in parts for i in part] == list(range(n))
    assert len(parts) == max(1, min(n, most))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_at_hand_are_those_of_the_crew_everywhere(threads):
    assert threads_at_hand() == 1
    with Crew(threads):
        assert start(threads_at_hand).result() == threads
        assert share(lambda _: threads_at_hand(), range(5), threads) == [threads] * 5
    assert threads_at_hand() == 1
