"""Work that threads share out, item by item."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def share(make: Callable[[_Item], _Made], items: Iterable[_Item], threads: int) -> list[_Made]:
    """Make something of each item, in as many threads as there may be.

    Returns what was made, in the order of the items. After an error no more items are begun.
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
    """Share [0, n) out over threads in interleaved parts; see :func:`share`."""
    share(run, [range(i, n, threads) for i in range(max(1, min(threads, n)))], threads)
