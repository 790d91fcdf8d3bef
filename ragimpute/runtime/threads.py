"""The threads of a run, which share out its work item by item.

A run has one crew of threads. Whoever has work cut into items (:func:`share`) does items himself,
and threads of the crew that have nothing else to do take items, too. Work that can wait is begun
(:func:`start`) and asked for later. So work that contains shared work, and several pieces of work
at the same time, never need more threads than the run was given, and a thread that is done with
one piece helps with another. No result may depend on which thread does what.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ragimpute.runtime.interrupts import held

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


class Abandoned(BaseException):
    """The run is over, so that work that nobody waits for any more ends."""


def _nothing(_: Any) -> None:
    """What is left of work that is over."""


_NO_CONTEXT = Context()


class _Job:
    """Items that threads take one after another: those of a :func:`share`, or one task.

    Attributes
    ----------
    next
        The item that is taken next.
    helpers
        Threads at work on it, besides the one that called :func:`share`.
    error
        The first error; no further item is begun.
    is_long
        Whether it takes long, so that only threads take it that wait for nothing.
    """

    def __init__(
        self, make: Callable[[Any], Any], items: Sequence[Any], most: int, *, is_long: bool = False
    ) -> None:
        self.make, self.items, self.most, self.is_long = make, items, most, is_long
        self.made: list[Any] = [None] * len(items)
        self.num = len(items)
        self.next = self.helpers = 0
        self.error: BaseException | None = None
        self.context = copy_context()

    @property
    def is_open(self) -> bool:
        """Whether a helper may take an item."""
        return self.error is None and self.next < self.num and self.helpers < self.most

    @property
    def is_over(self) -> bool:
        """Whether no helper is at work, and none will be."""
        return not self.helpers and (self.error is not None or self.next == self.num)

    def take(self) -> int:
        """The number of the next item."""
        self.next += 1
        return self.next - 1

    def fail(self, error: BaseException) -> None:
        """Begin no further item, because of an error."""
        self.error = self.error or error

    def forget(self) -> None:
        """Keep nothing alive but what was made."""
        self.make, self.items, self.context = _nothing, (), _NO_CONTEXT


class Task(Generic[_Made]):
    """Work that was begun, and whose result is asked for later; see :func:`start`."""

    def __init__(self, crew: Crew | None, job: _Job) -> None:
        self._crew, self._job = crew, job

    @property
    def is_done(self) -> bool:
        """Whether :meth:`result` needs no time."""
        return self._job.is_over

    def result(self) -> _Made:
        """What was made; it is made here and now if no thread has begun.

        While another thread is at it, this one helps with other work. Raises the work's error.
        """
        if self._crew is not None:
            self._crew.finish(self._job)
        elif not self._job.is_over:
            _do(self._job, self._job.take())
            self._job.forget()
        if self._job.error is not None:
            raise self._job.error
        made: _Made = self._job.made[0]
        return made

    def drop(self) -> None:
        """Nobody will ask for the result: do not begin, or wait until it is over."""
        if self._crew is not None:
            self._crew.drop(self._job)


class Crew:
    """The threads of a run, as a context manager: within it :func:`share` and :func:`start` use it.

    Parameters
    ----------
    threads
        How many threads are at work at the same time, >= 1: the one that enters the ``with`` block,
        and so many less one that help.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._jobs: list[_Job] = []  # in the order in which helpers look for items
        self._lock = threading.Lock()
        self._asleep: list[threading.Lock] = []
        self._helpers: list[threading.Thread] = []
        self._is_over = False

    def __enter__(self) -> Self:
        self._token = _CREW.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _CREW.reset(self._token)
        self.leave()

    def leave(self) -> None:
        """End all work that was begun, and wait until the helpers have left; they do not return."""
        stopped: BaseException | None = None
        try:
            with held(), self._lock:
                self._is_over = True
                for job in self._jobs:
                    job.fail(Abandoned())
                self._wake()
        except BaseException as error:  # a signal
            stopped = error
        while self._helpers:
            try:
                self._helpers[-1].join()
                self._helpers.pop()
            except BaseException as error:
                stopped = error
        if stopped is not None:
            raise stopped

    def share(
        self, make: Callable[[_Item], _Made], items: Sequence[_Item], threads: int
    ) -> list[_Made]:
        """See :func:`share`."""
        job = _Job(make, items, threads - 1)
        try:
            self._post(job, min(threads, len(items)) - 1)
            while True:
                with held(), self._lock:
                    if job.error is not None or job.next == len(items):
                        break
                    i = job.take()
                job.made[i] = make(items[i])
        except BaseException as error:
            with self._lock:
                job.fail(error)
        self._until_over(job)
        if job.error is not None:
            raise job.error
        return job.made

    def start(self, make: Callable[[], _Made], *, is_long: bool = False) -> Task[_Made]:
        """See :func:`start`."""
        job = _Job(lambda _: make(), [None], 1, is_long=is_long)
        if self.threads > 1:
            self._post(job, 1)
        return Task(self, job)

    def finish(self, job: _Job) -> None:
        """Do a task if nobody has begun it; else help with other work until it is over."""
        while not job.is_over:
            if not self._help_once(job):
                self._sleep(lambda: job.is_over or self._found(job) is not None)

    def drop(self, job: _Job) -> None:
        """Begin nothing more of a job, and wait until no helper is at it."""
        with held(), self._lock:
            if not job.is_over:
                job.fail(Abandoned())
        self._until_over(job)

    def _post(self, job: _Job, wanted: int) -> None:
        """Offer the items of a job to the helpers; ``wanted``: as many more are hired, at most."""
        with held(), self._lock:
            if self._is_over:
                if threading.current_thread() in self._helpers:
                    raise Abandoned
                return
            self._jobs.append(job)
            for _ in range(min(wanted, self.threads - 1 - len(self._helpers))):
                helper = threading.Thread(target=self._help, name="ragimpute", daemon=True)
                helper.start()
                self._helpers.append(helper)
            self._wake()

    def _help(self) -> None:
        """What a helper does: one item after another."""
        while not self._is_over:
            if not self._help_once(None):
                self._sleep(lambda: self._is_over or self._found(None) is not None)

    def _found(self, awaited: _Job | None) -> _Job | None:
        """The job to help with; ``awaited``: whoever asks waits for that one."""
        if awaited is not None and awaited.is_open:
            return awaited
        open_ones = [job for job in self._jobs if job.is_open]
        if awaited is None:
            open_ones.sort(key=lambda job: not job.is_long)  # what takes long is begun first
        else:
            open_ones = [job for job in open_ones if not job.is_long]
        return open_ones[0] if open_ones else None

    def _help_once(self, awaited: _Job | None) -> bool:
        """Do one item, if there is one to be done; returns whether there was."""
        job = None
        try:
            with held(), self._lock:
                job = self._found(awaited)
                if job is None:
                    return False
                job.helpers += 1
                i = job.take()
            _do(job, i)
        except BaseException as error:  # a signal
            if job is not None:
                job.fail(error)
            raise
        finally:
            if job is not None:
                with held(), self._lock:
                    job.helpers -= 1
                    if job.is_over:
                        if job in self._jobs:
                            self._jobs.remove(job)
                        job.forget()
                        self._wake()
        return True

    def _until_over(self, job: _Job) -> None:
        """Wait for the helpers of a job whose items are all begun."""
        stopped: BaseException | None = None
        while True:
            try:
                with held(), self._lock:
                    if job in self._jobs:
                        self._jobs.remove(job)
                while not job.is_over:
                    self._sleep(lambda: job.is_over)
                break
            except BaseException as error:  # a signal; what the helpers use must stay until then
                job.fail(error)
                stopped = error
        if stopped is not None:
            raise stopped

    def _sleep(self, until: Callable[[], bool]) -> None:
        """Sleep until a condition may hold. A signal wakes the main thread."""
        with held(), self._lock:
            if until():
                return
            asleep = threading.Lock()
            asleep.acquire()
            self._asleep.append(asleep)
        asleep.acquire()

    def _wake(self) -> None:
        """Let all who sleep look again; the lock is held."""
        for asleep in self._asleep:
            asleep.release()
        self._asleep.clear()


def _do(job: _Job, i: int) -> None:
    """Do an item, within the context of whoever wanted it done."""
    try:
        job.made[i] = job.context.copy().run(job.make, job.items[i])
    except Exception as error:  # it is raised where the result is asked for
        job.fail(error)
    except BaseException as error:
        job.fail(error)
        if threading.current_thread() is threading.main_thread():
            raise


#: The crew at work.
_CREW: ContextVar[Crew | None] = ContextVar("crew", default=None)


@contextmanager
def crew_of(threads: int) -> Iterator[Crew]:
    """The crew at work, or one of ``threads`` (>= 1) threads for this ``with`` block alone.

    Within a generator: the crew is not the one that :func:`share` and :func:`start` use, as the
    block may be left and entered again by whoever asks the generator.
    """
    crew = _CREW.get()
    if crew is not None:
        yield crew
        return
    crew = Crew(threads)
    try:
        yield crew
    finally:
        crew.leave()


def share(make: Callable[[_Item], _Made], items: Iterable[_Item], threads: int) -> list[_Made]:
    """Call ``make`` with each item, in at most ``threads`` threads.

    Returns the results in the order of the items. After an error no further item is begun.
    """
    todo = list(items)
    if threads == 1 or len(todo) < 2:
        return [make(item) for item in todo]
    crew = _CREW.get()
    if crew is not None:
        return crew.share(make, todo, threads)
    with Crew(min(threads, len(todo))) as crew:
        return crew.share(make, todo, threads)


def threads_at_hand() -> int:
    """How many threads the crew at work has; 1 if there is none."""
    crew = _CREW.get()
    return 1 if crew is None else crew.threads


def parts_of(n: int, most: int) -> list[range]:
    """Cut [0, n) into at most ``most`` (>= 1) ranges of about the same length, none of them empty.

    If n is 0, there is a single range, which is empty.
    """
    num = max(1, min(n, most))
    return [range(n * i // num, n * (i + 1) // num) for i in range(num)]


def run_parts(run: Callable[[range], None], n: int, threads: int) -> None:
    """Call ``run`` once for each thread with its part of [0, n): every ``threads``-th number."""
    share(run, [range(i, n, threads) for i in range(max(1, min(threads, n)))], threads)


def start(make: Callable[[], _Made], *, is_long: bool = False) -> Task[_Made]:
    """Begin work in a thread of the crew that has nothing else to do.

    Parameters
    ----------
    make
        What is to be done. Without a crew, or with one of a single thread, it is done when its
        result is asked for.
    is_long
        Whether it takes long. A thread that waits for the result of other work does not take it.

    Returns
    -------
    What gives the result.
    """
    crew = _CREW.get()
    if crew is not None:
        return crew.start(make, is_long=is_long)
    return Task(None, _Job(lambda _: make(), [None], 1))
