"""Stages tell how far they have come, whoever listens, from any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.runtime.stages import Stage, count, reporting, tracked
from ragimpute.runtime.threads import Crew, share, start


def told(run):
    """All that is reported while ``run`` runs."""
    calls = []
    with reporting(lambda *call: calls.append(call)):
        run()
    return calls


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 400))
def test_a_stage_begins_at_nothing_never_goes_back_and_ends_at_all(steps, total):
    def run():
        with Stage("copy", total) as stage:
            for step in steps:
                stage.advance(step)

    calls = told(run)
    assert calls[0] == ("copy", 0, total)
    name, done, of = calls[-1]
    assert (name, done) == ("copy", of)
    assert of == (total or max(1, sum(steps)))
    counts = [done for _, done, _ in calls]
    assert counts[:-1] == sorted(counts[:-1])
    if total:  # nobody takes it for ended before it is
        assert all(done < total for done in counts[:-1])


def test_reaching_less_than_before_changes_nothing():
    def run():
        with Stage("read target", 100) as stage:
            for position in (30, 20, 60):
                stage.reach(position)

    assert [done for _, done, _ in told(run)] == [0, 30, 30, 60, 100]


def test_threads_advance_one_stage():
    def run():
        with Stage("copy", 1_000) as stage, ThreadPoolExecutor(4) as pool:
            list(pool.map(stage.advance, [5] * 199))

    calls = told(run)
    assert calls[-2:] == [("copy", 995, 1_000), ("copy", 1_000, 1_000)]


def test_an_error_does_not_end_a_stage():
    def run():
        with pytest.raises(KeyError), Stage("write", 5):
            raise KeyError("x")

    assert told(run) == [("write", 0, 5)]


def test_only_the_innermost_stage_counts_and_only_its_own_unit():
    def run():
        count("haplotypes", 3)  # no stage is open
        with Stage("collect evidence", 10):
            count("haplotypes", 4)
            count("sites", 2)
            with Stage("measure sites", 10):
                count("haplotypes", 5)
            count("haplotypes", 1)

    assert told(run) == [
        ("collect evidence", 0, 10), ("collect evidence", 4, 10), ("measure sites", 0, 10),
        ("measure sites", 10, 10), ("collect evidence", 5, 10), ("collect evidence", 10, 10),
    ]  # fmt: skip


def test_items_are_steps():
    seen = []
    calls = told(lambda: seen.extend(tracked("fit network", "abc")))
    assert seen == ["a", "b", "c"]
    assert [done for _, done, _ in calls] == [0, 1, 2, 2, 3]


def test_the_innermost_listener_is_told_and_none_leaves_the_outer_one():
    outer, inner = [], []
    with reporting(lambda *call: outer.append(call)) as first:
        with reporting(None) as still, Stage("a"):
            assert still is first
        with reporting(lambda *call: inner.append(call)), Stage("b"):
            pass
        with Stage("c"):
            pass
    with Stage("nobody"):
        pass
    assert {name for name, _, _ in outer} == {"a", "c"}
    assert {name for name, _, _ in inner} == {"b"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_stages_of_one_name_that_are_open_together_are_told_as_one(totals, random):
    def run():
        stages = [Stage("measure sites", total) for total in totals]
        left = {id(stage): total for stage, total in zip(stages, totals, strict=True)}
        with ExitStack() as stack:
            for stage in stages:
                stack.enter_context(stage)
            while any(left.values()):
                stage = random.choice([s for s in stages if left[id(s)]])
                stage.advance(1)
                left[id(stage)] -= 1

    calls = told(run)
    whole = sum(totals)
    assert calls[-1] == ("measure sites", whole, whole)
    counts = [done for _, done, _ in calls]
    assert counts == sorted(counts)
    assert all(done < total for _, done, total in calls[:-1])  # it ends once


def test_work_in_another_thread_counts_for_the_stage_that_wanted_it():
    def run():
        with Crew(3), Stage("collect evidence", 40):
            beside = start(lambda: share(lambda _: count("haplotypes", 1), range(20), 3))
            with Stage("write", 5):
                share(lambda _: count("haplotypes", 1), range(9), 3)  # not what is counted here
            beside.result()

    done = [done for name, done, _ in told(run) if name == "collect evidence"]
    assert done == [*range(21), 40]
