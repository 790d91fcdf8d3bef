"""The stages of a run: each tells how much of it is done to whoever shows or logs the run.

A stage is begun deep inside a run, where the work is done, and shown far outside of it. As with
logging, the two are connected here and not through the arguments of all functions in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from ragimpute.runtime.timing import Progress, no_progress

_Item = TypeVar("_Item")

#: What is counted in each stage. A stage that is not listed counts steps.
UNITS = {
    "prepare": "bp",
    "read target": "bp",
    "read panel": "sites",
    "read truth": "bp",
    "read imputed file": "bp",
    "phase": "passes",
    "find states": "steps",
    "fit parameters": "haplotypes",
    "measure sites": "alleles",
    "collect evidence": "haplotypes",
    "fit network": "batches",
    "impute": "sites",
    "network": "alleles",
    "copy": "alleles",
    "write": "sites",
    "index": "windows",
    "merge": "bp",
    "DR2": "draws",
    "epoch": "batches",
    "validation": "batches",
}


class _Told:
    """Who is told of stages now, and the stages that are open, the innermost last."""

    progress: Progress = no_progress
    stages: ClassVar[list[Stage]] = []


@contextmanager
def reporting(progress: Progress | None) -> Iterator[Progress]:
    """Tell ``progress`` of all stages that begin within the ``with`` block.

    None changes nothing: whoever was told before is told on. Yields the function that is told.
    """
    before = _Told.progress
    if progress is not None:
        _Told.progress = progress
    try:
        yield _Told.progress
    finally:
        _Told.progress = before


class Stage:
    """A stage of a run, as a context manager; several threads may advance it.

    Parameters
    ----------
    name
        What is done, one of ``UNITS``.
    total
        How much there is to do, in the stage's unit, >= 0; 0: not known.
    progress
        Who is told; None: as :func:`reporting` says.

    Notes
    -----
    ``progress(name, done, total)`` is called where the stage begins, with done = 0; after each
    advance; and where it ends, with done = total. It is not called again after an error.
    """

    def __init__(self, name: str, total: int = 1, *, progress: Progress | None = None) -> None:
        self.name, self.total, self.done = name, total, 0
        self._lock = Lock()
        self._progress = _Told.progress if progress is None else progress

    def __enter__(self) -> Self:
        self._progress(self.name, 0, self.total)
        _Told.stages.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _Told.stages.remove(self)
        if kind is None:
            self.finish()

    def advance(self, amount: int) -> None:
        """So much more is done."""
        with self._lock:
            self.done += amount
            self._tell()

    def reach(self, done: int) -> None:
        """So much is done in all; less than before changes nothing."""
        with self._lock:
            self.done = max(self.done, done)
            self._tell()

    def finish(self) -> None:
        """All is done."""
        total = self.total or max(1, self.done)
        self._progress(self.name, total, total)

    def _tell(self) -> None:
        """Report what is done; the end is reported by :meth:`finish` alone."""
        self._progress(self.name, min(self.done, self.total - 1) if self.total else self.done,
                       self.total)  # fmt: skip


def count(unit: str, amount: int) -> None:
    """So many more of ``unit`` are done: the innermost stage advances if that is what it counts.

    For work that is a part of several stages, of which each counts something else.
    """
    if _Told.stages and UNITS.get(_Told.stages[-1].name) == unit:
        _Told.stages[-1].advance(amount)


def tracked(name: str, items: Sequence[_Item]) -> Iterator[_Item]:
    """Go through items, each of which is a step of the stage ``name``."""
    with Stage(name, len(items)) as stage:
        for item in items:
            yield item
            stage.advance(1)
