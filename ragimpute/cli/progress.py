"""How far a run has come, as a person reads it: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, RLock, Thread
from typing import TYPE_CHECKING

from ragimpute.runtime.stages import UNITS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.text import Text

#: Off a terminal a line is written every so many seconds while a run goes on.
SECONDS_BETWEEN_LINES = 30.0
#: Runs that take less than this write no line; longer ones tell of all their stages then.
SECONDS_BEFORE_LINES = 10.0
_BAR_WIDTH = 12
# What a line of 80 columns has left beside the longest name, the bar, and a blank after each. The
# rate is left out where it would take more.
_MOST_TEXT = 80 - len("collect evidence") - 1 - _BAR_WIDTH - 1
# Units for large numbers: one of the first size that a number reaches.
_BASE_PAIRS = ((10**9, "Gb"), (10**6, "Mb"), (10**3, "kb"), (1, "bp"))
_COUNTS = ((10**12, "T "), (10**9, "G "), (10**6, "M "), (1, ""))


@dataclass
class Running:
    """A stage of a run that is under way or has ended.

    Attributes
    ----------
    name, start
        As it was reported, and when it began, seconds of the clock.
    done, total
        In the stage's unit; a total of 0 is unknown.
    stop
        When it ended, or None.
    """

    name: str
    start: float
    done: int = 0
    total: int = 0
    stop: float | None = None

    @property
    def unit(self) -> str:
        """What is counted."""
        return UNITS.get(self.name) or UNITS.get(self.name.split()[0], "steps")

    def seconds(self, now: float) -> float:
        """How long it has taken so far, or took."""
        return max(0.0, (now if self.stop is None else self.stop) - self.start)

    def text(self, now: float) -> str:
        """How far it has come: share, amount with unit, rate and time left."""
        seconds = self.seconds(now)
        if self.stop is not None:
            took = f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
            return ", ".join(["done", *self._amount(), took])
        parts = [f"{100 * self.done // self.total:.0f}%"] if self.total > 1 else []
        parts += self._amount()
        if self.done and self.total > 1:
            time = f"{duration(seconds * (self.total - self.done) / self.done)} left"
        else:
            time = duration(seconds)
        if self.done and seconds >= 1 and self.unit not in ("steps", "bp"):
            with_rate = ", ".join([*parts, f"{_short(self.done / seconds)}/s", time])
            if len(with_rate) <= _MOST_TEXT:
                return with_rate
        return ", ".join([*parts, time])

    def _amount(self) -> list[str]:
        """What is done, of what there is, in the unit; empty where only steps are counted."""
        most = max(self.done, self.total)
        if self.unit == "steps" or not most:
            return []
        sizes = _BASE_PAIRS if self.unit == "bp" else _COUNTS
        size, prefix = next((size, prefix) for size, prefix in sizes if most >= size)
        shown = ",.1f" if size > 1 and most < 100 * size else ",.0f"
        done = format(self.done / size, shown)
        of = f"/{format(self.total / size, shown)}" if self.total and self.stop is None else ""
        return [f"{done}{of} {prefix}{'' if self.unit == 'bp' else self.unit}"]


def _short(number: float) -> str:
    """A number in few characters: 950, 12 k, 3.4 M."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            number /= size
            return f"{number:.1f} {prefix}" if number < 100 else f"{number:.0f} {prefix}"
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def duration(seconds: float) -> str:
    """A time as 0:07, 12:34 or 1:02:03; more than four days as days."""
    if seconds >= 4 * 86_400:
        return f"{seconds / 86_400:,.0f} days" if seconds < 86_400_000 else "years"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class StageClock:
    """Takes the reports of a run's stages, notes when they begin and end, and tells others.

    It is called as ``clock(stage, done, total)``, from any thread. A stage ends when all of it is
    done; it may begin again later.

    Parameters
    ----------
    began, moved, ended
        Called with the stage when it begins, whenever more of it is done, and when it ends.
    clock
        The time in seconds.

    Attributes
    ----------
    stages
        The stages so far by name, each as it was last.
    """

    def __init__(
        self,
        *,
        began: Callable[[Running], None] = lambda stage: None,
        moved: Callable[[Running], None] = lambda stage: None,
        ended: Callable[[Running], None] = lambda stage: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._began, self._moved, self._ended, self._clock = began, moved, ended, clock
        self._lock = RLock()
        self.started = clock()
        self.stages: dict[str, Running] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        with self._lock:
            is_end = 0 < total <= done
            known = self.stages.get(stage)
            if known is None or known.stop is not None:
                if known is not None and is_end and known.total == total:
                    return  # its end is told twice
                known = self.stages[stage] = Running(stage, self._clock(), done, total)
                self._began(known)
            known.done, known.total = done, total
            self._moved(known)
            if is_end:
                known.stop = self._clock()
                self._ended(known)

    def now(self) -> float:
        """The time of the clock."""
        return self._clock()

    def under_way(self) -> list[Running]:
        """The stages that have not ended."""
        with self._lock:
            return [stage for stage in self.stages.values() if stage.stop is None]


def make_bars(console: Console) -> Bars:
    """Make progress bars, at first without any; :func:`move_bar` adds them."""
    from rich import progress as rich_progress
    from rich.text import Text

    class Told(rich_progress.ProgressColumn):
        """What :meth:`Running.text` says, anew whenever the screen is drawn."""

        def render(self, task: rich_progress.Task) -> Text:
            stage: Running | None = task.fields["stage"]
            if stage is None:
                return Text(duration(task.elapsed or 0.0))
            return Text(stage.text(task.fields["now"]()), no_wrap=True)

    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(_BAR_WIDTH),
        Told(),
        console=console,
        transient=True,
        refresh_per_second=4,
    )


def move_bar(bars: Bars, stage: Running, now: Callable[[], float]) -> None:
    """Move the bar of a stage, or add it."""
    task = next((task for task in bars.tasks if task.description == stage.name), None)
    if task is None:
        bars.add_task(
            stage.name, completed=stage.done, total=stage.total or None, stage=stage, now=now
        )
    else:
        bars.update(task.id, completed=stage.done, total=stage.total or None, stage=stage, now=now)


@contextmanager
def showing_bars(
    console: Console, began: Callable[[Running], None], ended: Callable[[Running], None]
) -> Iterator[StageClock]:
    """Bars on a terminal, from the first moment on; they are taken away at the end.

    ``began`` and ``ended``: see :class:`StageClock`.
    """
    bars = make_bars(console)

    def moved(stage: Running) -> None:
        for task in bars.tasks:
            if task.fields["stage"] is None:
                bars.remove_task(task.id)
        move_bar(bars, stage, clock.now)

    clock = StageClock(began=began, moved=moved, ended=ended)
    with bars:
        bars.add_task("starting", total=None, stage=None, now=clock.now)
        yield clock


class Lines:
    """Writes lines about the stages of a run, for a file or a pipe that nobody watches.

    A run that is over within ``before`` seconds writes nothing. A longer one then tells of the
    stages that have ended, of each further one when it ends, and every ``between`` seconds of
    those that are under way.

    Parameters
    ----------
    write
        Called with each line.
    before, between
        Seconds, > 0.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        before: float = SECONDS_BEFORE_LINES,
        between: float = SECONDS_BETWEEN_LINES,
    ) -> None:
        self._write, self._before, self._between = write, before, between
        self._kept: list[str] = []
        self._lock, self._over = RLock(), Event()

    def ended(self, clock: StageClock, stage: Running) -> None:
        """Tell of a stage that has ended, now or as soon as lines are written."""
        with self._lock:
            self._kept.append(self._line(clock, stage))
            if clock.now() - clock.started >= self._before:
                self._flush()

    def tell(self, clock: StageClock) -> None:
        """Tell of what has ended so far, and of what is under way."""
        with self._lock:
            self._flush()
            for stage in clock.under_way():
                self._write(self._line(clock, stage))

    @contextmanager
    def telling(self, clock: StageClock) -> Iterator[None]:
        """Write lines while the ``with`` block runs."""

        def run() -> None:
            wait = self._before
            while not self._over.wait(wait):
                self.tell(clock)
                wait = self._between

        thread = Thread(target=run, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _flush(self) -> None:
        """Write the lines that were kept."""
        for line in self._kept:
            self._write(line)
        self._kept.clear()

    @staticmethod
    def _line(clock: StageClock, stage: Running) -> str:
        """One line: the time since the run began, the stage, and how far it has come."""
        now = clock.now()
        return f"{duration(now - clock.started):>7}  {stage.name}: {stage.text(now)}"
