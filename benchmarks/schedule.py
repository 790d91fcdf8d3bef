"""What more threads bring, on a machine with fewer cores: a simulation of the schedule of a run.

Run: python benchmarks/schedule.py TARGET PANEL [--threads 1 2 4 8 16] [--chunk-cm 5]
         [--runs 3] [--alone]
     python benchmarks/schedule.py TARGET PANEL --real 2

Each row is a run of ``impute`` that is cut into work for so many threads, all of which one thread
does. The processor time of each piece is noted, and what it waits for. The pieces are then put on
so many threads by the rules of ``ragimpute/runtime/threads.py``: whoever shares out work does items
himself, threads without work of their own take items, and who waits for a result helps meanwhile.
The simulation leaves out what threads cost each other: the processor's caches and memory, and
Python's lock. ``--runs`` says how often each row is measured, of which the fastest counts.
``--alone`` says in which stages, or between them in which functions, one thread has been at work
alone, and for how long.
``--real`` does a run in so many threads, and says which part of the wall time each was at work; it
needs a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import heapq
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Work:
    """What one item, one task or the main thread does, in order: see :class:`Tracer`."""

    events: list[tuple[Any, ...]] = field(default_factory=list)


class Tracer:
    """A crew without helpers, which notes what it could have shared out.

    The events of a piece of work are ("run", seconds, stage), ("share", items, threads),
    ("start", task, whether it is long) and ("wait", task).
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.here = Work()
        self.whole = self.here
        self._last = 0.0  # the time since the process began belongs to the main thread

    def note(self, *event: Any) -> None:
        """End a piece of work here, and add an event."""
        from ragimpute.runtime import stages

        now = time.process_time()
        names = [stage.name for stage in stages._OPEN.get() if stage.name != "impute"]
        self.here.events.append(("run", now - self._last, names[-1] if names else place()))
        if event:
            self.here.events.append(event)
        self._last = time.process_time()

    def traced(self, make: Callable[[], Any]) -> tuple[Work, Any]:
        """Do something, and note it as work of its own."""
        outer, self.here = self.here, Work()
        self._last = time.process_time()
        try:
            made = make()
        finally:
            self.note()
            done, self.here = self.here, outer
            self._last = time.process_time()
        return done, made

    def __enter__(self) -> Tracer:
        from ragimpute.runtime import threads

        self._token = threads._CREW.set(self)  # type: ignore[arg-type]
        return self

    def __exit__(self, *_: object) -> None:
        from ragimpute.runtime import threads

        threads._CREW.reset(self._token)

    def leave(self) -> None:
        """Nobody has to leave."""

    def share(self, make: Callable[[Any], Any], items: list[Any], threads: int) -> list[Any]:
        """Do all items, and note each."""
        event: list[Any] = ["share", [], threads]
        self.note()
        done = [self.traced(lambda item=item: make(item)) for item in items]
        event[1] = [work for work, _ in done]
        self.here.events.append(tuple(event))
        return [made for _, made in done]

    def start(self, make: Callable[[], Any], *, is_long: bool = False) -> Begun:
        """Do a task at once, and note it."""
        self.note()
        work, made = self.traced(make)
        task = Begun(self, made)
        self.here.events.append(("start", task, work, is_long))
        return task


class Begun:
    """A task that a tracer has done."""

    is_done = True

    def __init__(self, tracer: Tracer, made: Any) -> None:
        self._tracer, self._made = tracer, made

    def result(self) -> Any:
        """What was made; it is noted that it was asked for."""
        self._tracer.note("wait", self)
        return self._made

    def drop(self) -> None:
        """Nothing is left to be done."""


@dataclass
class _Job:
    """Items that simulated threads take; as in ``ragimpute/runtime/threads.py``."""

    items: list[Work]
    most: int
    is_long: bool = False
    next: int = 0
    helpers: int = 0

    @property
    def is_open(self) -> bool:
        return self.next < len(self.items) and self.helpers < self.most

    @property
    def is_over(self) -> bool:
        return not self.helpers and self.next == len(self.items)


class Simulation:
    """Simulated threads that do the work of a run.

    Attributes
    ----------
    now
        Seconds since the run began; after :meth:`run` its wall time.
    busy
        Seconds of work of each thread.
    alone
        Seconds by stage in which one thread was at work alone.
    """

    def __init__(self, threads: int) -> None:
        self.now = 0.0
        self.busy = [0.0] * threads
        self.alone: Counter[str] = Counter()
        self._jobs: list[_Job] = []
        self._tasks: dict[int, _Job] = {}

    def run(self, whole: Work) -> None:
        """Do it all."""
        threads = [self._do(whole), *(self._help() for _ in self.busy[1:])]
        due = [(0.0, number, "") for number in range(len(threads))]
        asleep: list[tuple[int, Callable[[], bool]]] = []
        while True:
            self.now, number, _ = heapq.heappop(due)
            try:
                asked = next(threads[number])
            except StopIteration:  # the main thread is done
                return
            if callable(asked):
                asleep.append((number, asked))
            else:
                seconds, stage = asked
                self.busy[number] += seconds
                heapq.heappush(due, (self.now + seconds, number, stage))
            for sleeper in [s for s in asleep if s[1]()]:
                asleep.remove(sleeper)
                heapq.heappush(due, (self.now, sleeper[0], ""))
            if len(due) == 1:
                self.alone[due[0][2]] += due[0][0] - self.now

    def _do(self, work: Work) -> Iterator[Any]:
        for kind, *event in work.events:
            if kind == "run":
                yield event
            elif kind == "share":
                job = _Job(event[0], event[1] - 1)
                self._jobs.append(job)
                while job.next < len(job.items):
                    job.next += 1
                    yield from self._do(job.items[job.next - 1])
                while not job.is_over:
                    yield lambda job=job: job.is_over
                self._jobs.remove(job)
            elif kind == "start":
                task, its_work, is_long = event
                self._tasks[id(task)] = _Job([its_work], 1, is_long)
                self._jobs.append(self._tasks[id(task)])
            else:
                awaited = self._tasks[id(event[0])]
                while not awaited.is_over:
                    yield from self._help_once(awaited)

    def _help(self) -> Iterator[Any]:
        while True:
            yield from self._help_once(None)

    def _help_once(self, awaited: _Job | None) -> Iterator[Any]:
        job = self._found(awaited)
        if job is None:
            yield (
                lambda: (
                    self._found(awaited) is not None or (awaited is not None and awaited.is_over)
                )
            )
            return
        job.helpers += 1
        job.next += 1
        yield from self._do(job.items[job.next - 1])
        job.helpers -= 1

    def _found(self, awaited: _Job | None) -> _Job | None:
        if awaited is not None and awaited.is_open:
            return awaited
        found = [job for job in self._jobs if job.is_open]
        if awaited is None:
            found.sort(key=lambda job: not job.is_long)
        else:
            found = [job for job in found if not job.is_long]
        return found[0] if found else None


def words_of(words: argparse.Namespace, threads: int, out: Path) -> list[str]:
    """The command line of the run that is looked at."""
    run = ["ragimpute", "impute", str(words.target), "--panel", str(words.panel), "-o", str(out)]
    more = [] if words.chunk_cm is None else ["--chunk-cm", str(words.chunk_cm)]
    return [*run, "--threads", str(threads), "--quiet", *more]


def run_program(words: argparse.Namespace, threads: int) -> None:
    """Do the run in this process, as the program does it from its start on."""
    from ragimpute.cli import main as program

    with tempfile.TemporaryDirectory() as folder:
        sys.argv = words_of(words, threads, Path(folder) / "out.vcf.gz")
        try:
            program.main()
        except SystemExit as end:
            if end.code:
                raise


def trace(words: argparse.Namespace, threads: int) -> Work:
    """The work of a run, as it is cut for so many threads."""
    from ragimpute.runtime import threads as crews
    from ragimpute.runtime.stages import Stage

    tracer = Tracer(threads)
    crews.Crew = lambda _: tracer  # type: ignore[assignment, misc]

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            tracer.note()
            return method(*given)

        return noted

    for name in ("__enter__", "__exit__"):  # a piece of work is of the stage that it is done in
        setattr(Stage, name, noting(getattr(Stage, name)))
    run_program(words, threads)
    tracer.note()
    return tracer.whole


def place() -> str:
    """The function of the program that is at work; "start" before it imputes."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        wing = path.parent.name
        if "ragimpute" in path.parts[-3:-1] and wing not in ("runtime", "cli"):
            return f"{wing}.{path.stem}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "start"


def real(words: argparse.Namespace, threads: int) -> None:
    """Print the wall time of a real run, and which part of it each thread was at work."""
    from ragimpute.runtime import stages

    clocks: dict[str, int] = {}
    start = threading.Thread.start

    def started(self: threading.Thread) -> None:
        start(self)
        clocks[f"{self.name} {len(clocks) + 1}"] = time.pthread_getcpuclockid(self.ident or 0)

    threading.Thread.start = started  # type: ignore[method-assign]
    spent: dict[str, float] = {}

    def progress(*_: object) -> None:
        for name, clock in clocks.items():
            try:
                spent[name] = time.clock_gettime(clock)
            except OSError:  # the thread has ended
                continue

    begun = time.perf_counter()
    with stages.reporting(progress):
        run_program(words, threads)
    wall = time.perf_counter() - begun
    print(f"{threads} threads: wall {wall:.2f} s, of which at work:")
    for name, seconds in {"main": time.thread_time(), **spent}.items():
        print(f"  {name:14} {seconds / wall:.0%}")


def simulated(words: argparse.Namespace, count: int) -> dict[str, Any]:
    """Wall time, work and lone work of a run, traced in this process from its very beginning."""
    whole = trace(words, count)
    found = Simulation(count)
    found.run(whole)
    return {"wall": found.now, "busy": sum(found.busy), "alone": found.alone.most_common()}


def rows(words: argparse.Namespace) -> Iterator[str]:
    """Lines of a table: wall time and speed-up with each number of threads."""
    yield "| threads | processor s | wall s | speed-up | at work |"
    yield "|---|---|---|---|---|"
    first = 0.0
    for count in words.threads:
        more = [] if words.chunk_cm is None else ["--chunk-cm", str(words.chunk_cm)]
        command = [sys.executable, __file__, str(words.target), str(words.panel), *more]
        runs = []
        for _ in range(words.runs):  # other work on the machine makes some of them slower
            done = subprocess.run(
                [*command, "--trace", str(count)], capture_output=True, text=True, check=True
            )
            runs.append(json.loads(done.stdout))
        found = min(runs, key=lambda run: run["busy"])
        wall, busy = found["wall"], found["busy"]
        first = first or wall
        cells = (str(count), f"{busy:.2f}", f"{wall:.2f}", f"{first / wall:.2f}")
        yield f"| {' | '.join(cells)} | {busy / wall / count:.0%} |"
        if words.alone:
            for name, seconds in found["alone"][:9]:
                yield f"  alone in {name}: {seconds:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("panel", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--chunk-cm", type=float)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--real", type=int)
    parser.add_argument("--trace", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.trace:
        print(json.dumps(simulated(words, words.trace)))
        return
    if words.real:
        real(words, words.real)
        return
    for line in rows(words):
        print(line, flush=True)


if __name__ == "__main__":
    main()
