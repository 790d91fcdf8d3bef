"""Work that threads share out, item by item."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def share(make: Callable[[_Item], _Made], items: Iterable[_Item], threads: int) -> list[_Made]:
    """Call ``make`` with each item, in at most ``threads`` threads.

    Returns the results in the order of the items. After an error no further item is begun.
    """
    todo = list(items)
    if threads == 1 or len(todo) < 2:
        return [make(item) for item in todo]
    with ThreadPoolExecutor(min(threads, len(todo))) as pool:
        try:
            return list(pool.map(make, todo))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_parts(run: Callable[[range], None], n: int, threads: int) -> None:
    """Call ``run`` once for each thread with its part of [0, n): every ``threads``-th number."""
    share(run, [range(i, n, threads) for i in range(max(1, min(threads, n)))], threads)
