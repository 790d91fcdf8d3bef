"""Signals that ask a run to stop: they unwind it, so that unfinished files are removed."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asks for an end; no library on the way takes it for its own business.

    Attributes
    ----------
    signal
        Which one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


class _State:
    """Of this process."""

    process = 0  # that the handlers were installed in
    num_held = 0
    pending: int | None = None


def install() -> None:
    """Raise :class:`Stopped` in the main thread once a signal comes; further ones are ignored.

    Signals that are ignored already, as under nohup, stay so.
    """
    _State.process, _State.pending = os.getpid(), None
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    """Unwind from wherever the run is, or as soon as it may be."""
    if os.getpid() != _State.process:  # a worker: its parent ends it
        os._exit(128 + number)
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    if _State.num_held:
        _State.pending = number
    else:
        raise Stopped(number)


class held:
    """A context in which no signal unwinds the run; one that came is raised at its end.

    For calls into libraries that call back into Python and lose what is raised there (HDF5).
    """

    def __enter__(self) -> None:
        _State.num_held += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _State.num_held -= 1
        if _State.num_held == 0 and _State.pending is not None:
            number, _State.pending = _State.pending, None
            raise Stopped(number)
