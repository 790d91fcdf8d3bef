"""How far a run has come, and how long its stages take."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from threading import Lock, local

# Called with the name of a stage, how much of it is done, and how much there is in all.
Progress = Callable[[str, int, int], None]


_LOCK = Lock()


class SharedTimes:
    """Adds up the time of several threads by stage; ``clock`` gives the time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._lock = Lock()
        self._here = local()

    def begin(self) -> None:
        """A thread's next stage begins now."""
        self._here.start = self._clock()

    def lap(self, stage: str) -> None:
        """A thread's stage ends now, and the next begins."""
        now = self._clock()
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._here.start
        self._here.start = now

    def of(self, wall: float) -> dict[str, float]:
        """Split ``wall``, the wall time of all threads together, by stage; in seconds."""
        total = sum(self._seconds.values())
        return {stage: wall * part / total for stage, part in self._seconds.items() if total}


class Stopwatch:
    """Adds up wall time by stage, and notes the process's peak memory at the end of each stage.

    ``clock`` gives the time in seconds.
    """

    def __init__(
        self,
        seconds: dict[str, float],
        peak_mb: dict[str, float] | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.seconds = seconds
        self._peak_mb = {} if peak_mb is None else peak_mb
        self._clock = clock
        self._start = clock()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap to ``stage``."""
        now = self._clock()
        with _LOCK:  # another thread's stopwatch may add to the same times
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._start
        self._peak_mb[stage] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self._start = now

    def skip(self) -> None:
        """Leave out the time since the last lap, because another stopwatch counted it."""
        self._start = self._clock()


def no_progress(stage: str, done: int, total: int) -> None:
    """Take a report of progress and show nothing."""
