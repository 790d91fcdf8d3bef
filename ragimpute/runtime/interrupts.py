"""Signals that ask a run to stop: they unwind it, so that unfinished files are removed."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CALL_BACK = {"llvmlite"}  # its C code calls Python functions, by ctypes, and drops what they raise
_RETRY_SECONDS = 0.02


class Stopped(BaseException):
    """A signal asked the process to end.

    It derives from BaseException, so that no library's ``except Exception`` catches it.

    Attributes
    ----------
    signal
        Which one.
    left
        One sentence for the user about what the run leaves behind.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)
        self.left = "no unfinished output was left"


class _State:
    """What the handlers of this process know."""

    process = 0  # the process in which the handlers were installed
    num_held = 0
    stopped = False
    pending: int | None = None


def install() -> None:
    """Raise :class:`Stopped` in the main thread when a signal comes; ignore all further ones.

    Signals that are already ignored, as under nohup, stay ignored.
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
    """Handle a signal: ignore further ones, and unwind the run as soon as that is safe."""
    if os.getpid() != _State.process:  # a worker: its parent ends it
        os._exit(128 + number)
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    _State.pending, _State.stopped = number, True
    _unwind(number, frame)


def _unwind(number: int, frame: FrameType | None) -> None:
    """Raise the pending signal now, or try again later if a library would drop it here."""
    if _State.num_held or _State.pending is None:
        return
    if _is_called_back(frame):
        signal.signal(signal.SIGALRM, _unwind)
        signal.setitimer(signal.ITIMER_REAL, _RETRY_SECONDS)
        return
    number, _State.pending = _State.pending, None
    raise Stopped(number)


def _is_called_back(frame: FrameType | None) -> bool:
    """Whether this Python code was called by a library's C code that drops exceptions."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _CALL_BACK:
            return True
        frame = frame.f_back
    return False


class held:
    """A context in which no signal unwinds the run; a signal that came is raised at its end.

    It is for libraries such as HDF5, which call Python functions and lose what these raise, and for
    what must be done whole. Only the main thread is ever unwound: in others it does nothing.
    """

    def __enter__(self) -> None:
        self._is_main = threading.current_thread() is threading.main_thread()
        _State.num_held += self._is_main

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._is_main:
            return
        _State.num_held -= 1
        if _State.num_held == 0 and _State.pending is not None:
            number, _State.pending = _State.pending, None
            raise Stopped(number)
