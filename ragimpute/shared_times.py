"""How long threads take for the stages of what they share."""

from __future__ import annotations

import time
from threading import Lock, local


class SharedTimes:
    """Adds up the time that threads take, by stage."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = Lock()
        self._here = local()

    def begin(self) -> None:
        """A thread's next stage begins now."""
        self._here.start = time.perf_counter()

    def lap(self, stage: str) -> None:
        """A thread's stage ends now, and the next begins."""
        now = time.perf_counter()
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._here.start
        self._here.start = now

    def of(self, wall: float) -> dict[str, float]:
        """Shares of the wall time that all threads together took, in s, by stage."""
        total = sum(self._seconds.values())
        return {stage: wall * part / total for stage, part in self._seconds.items() if total}
