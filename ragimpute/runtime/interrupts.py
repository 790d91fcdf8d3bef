"""Signals that ask a run to stop: they unwind it, so that unfinished files are removed."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CALL_BACK = {"llvmlite"}  # LLVM asks it for compiled code, by ctypes
_RETRY_SECONDS = 0.02


class Stopped(BaseException):
    """A signal asks for an end; no library on the way takes it for its own business.

    Attributes
    ----------
    signal
        Which one.
    left
        What the run leaves behind, for a person.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)
        self.left = "no unfinished output was left"


class _State:
    """Of this process."""

    process = 0  # that the handlers were installed in
    num_held = 0
    stopped = False
    pending: int | None = None


def install() -> None:
    """Raise :class:`Stopped` in the main thread once a signal comes; further ones are ignored.

    Signals that are ignored already, as under nohup, stay so.
    """
    _State.process, _State.pending, _State.stopped = os.getpid(), None, False
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def uninstall() -> None:
    """Let signals end the process at once: nothing is left to be cleaned up."""
    _State.pending = None
    for number in SIGNALS:
        if signal.getsignal(number) == _stop or _State.stopped:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    """Unwind from wherever the run is, or as soon as it may be."""
    if os.getpid() != _State.process:  # a worker: its parent ends it
        os._exit(128 + number)
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    _State.pending, _State.stopped = number, True
    _unwind(number, frame)


def _unwind(number: int, frame: FrameType | None) -> None:
    """Raise what is pending; later, where it would be lost."""
    if _State.num_held or _State.pending is None:
        return
    if _is_called_back(frame):
        signal.signal(signal.SIGALRM, _unwind)
        signal.setitimer(signal.ITIMER_REAL, _RETRY_SECONDS)
        return
    number, _State.pending = _State.pending, None
    raise Stopped(number)


def _is_called_back(frame: FrameType | None) -> bool:
    """Whether a library's C code called this Python code, and drops what is raised in it."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _CALL_BACK:
            return True
        frame = frame.f_back
    return False


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
