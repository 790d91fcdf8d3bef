"""The stages of a run: each tells how much of it is done to whoever shows or logs the run.

A stage is begun deep inside a run, where the work is done, and shown far outside of it. As with
logging, the two are connected here and not through the arguments of all functions in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock
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
    """Who is told of stages now, and the stages of each name that are open or ended beside one."""

    progress: Progress = no_progress
    of_name: ClassVar[dict[tuple[Progress, str], list[Stage]]] = {}
    lock = RLock()


# The stages within which this thread's work is done, the innermost last. Work that is handed to
# another thread takes them along (:mod:`ragimpute.runtime.threads`).
_OPEN: ContextVar[tuple[Stage, ...]] = ContextVar("stages", default=())


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
    advance; and where it ends, with done = total. It is not called again after an error. Stages of
    one name may be open at the same time, as two windows may be at work: they are told as one, of
    which as much is done, and as much is to be done, as of all of them together.
    """

    def __init__(self, name: str, total: int = 1, *, progress: Progress | None = None) -> None:
        self.name, self.total, self.done = name, total, 0
        self.is_open = False
        self._progress = _Told.progress if progress is None else progress

    @property
    def _beside(self) -> list[Stage]:
        """This stage, and others that are told together with it."""
        return _Told.of_name.setdefault((self._progress, self.name), [])

    def __enter__(self) -> Self:
        with _Told.lock:
            self.is_open = True
            self._beside.append(self)
            self._tell()
        _OPEN.set((*_OPEN.get(), self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _OPEN.set(tuple(stage for stage in _OPEN.get() if stage is not self))
        with _Told.lock:
            self.is_open = False
            beside = self._beside
            if kind is not None:
                beside.remove(self)
            is_last = not any(stage.is_open for stage in beside)
            if kind is None:
                self.done = self.total = self.total or max(1, self.done)
                if is_last:
                    total = sum(stage.total for stage in beside)
                    self._progress(self.name, total, total)
                else:
                    self._tell()
            if is_last:
                del _Told.of_name[self._progress, self.name]

    def advance(self, amount: int) -> None:
        """So much more is done."""
        with _Told.lock:
            self.done += amount
            self._tell()

    def reach(self, done: int) -> None:
        """So much is done in all; less than before changes nothing."""
        with _Told.lock:
            self.done = max(self.done, done)
            self._tell()

    def _tell(self) -> None:
        """Report what is done; the end is reported where the last stage of the name ends."""
        beside = self._beside or [self]
        done = sum(stage.done for stage in beside)
        total = sum(stage.total for stage in beside) if all(s.total for s in beside) else 0
        self._progress(self.name, min(done, total - 1) if total else done, total)


def count(unit: str, amount: int) -> None:
    """So many more of ``unit`` are done: the innermost stage advances if that is what it counts.

    For work that is a part of several stages, of which each counts something else.
    """
    stages = _OPEN.get()
    if stages and UNITS.get(stages[-1].name) == unit:
        stages[-1].advance(amount)


def tracked(name: str, items: Sequence[_Item]) -> Iterator[_Item]:
    """Go through items, each of which is a step of the stage ``name``."""
    with Stage(name, len(items)) as stage:
        for item in items:
            yield item
            stage.advance(1)
