"""Work that threads share out: in order, and no more of it after an error."""

from __future__ import annotations

import threading

import pytest

from ragimpute.runtime.threads import run_parts, share


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
