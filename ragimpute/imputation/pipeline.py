"""How windows flow through a run: one is prepared and one is written while another is copied.

A window is prepared (its panel is read, and the model is fitted to it), copied (its targets are
imputed) and written (its rows are made, compressed and appended). With several threads, the window
after the one that is copied is prepared at the same time, and the window before it is written, as
far as memory allows. Each of the three stages takes the windows in their order, one at a time. So
the output is the same as if one window came after the other, and those that are kept for
``--resume`` are finished in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ragimpute.imputation.windows import CopiedWindow, Flow, ReadyWindow, WindowResult, WindowRun
from ragimpute.runtime.threads import Task, crew_of, start


def run_windows(
    windows: Sequence[tuple[WindowRun, tuple[int, int, int, int]]],
    flow: Flow,
    *,
    begin: Callable[[int], None],
    write: Callable[[WindowRun, CopiedWindow], WindowResult],
    threads: int,
) -> list[WindowResult]:
    """Prepare, copy and write windows.

    Parameters
    ----------
    windows
        The windows, and what imputes each.
    flow
        Which stages of different windows may be at work at the same time.
    begin
        Called with the number of a window before it is copied.
    write
        Writes a window that was copied, and keeps it if the run is to be resumed.
    threads
        Of the run, >= 1.

    Returns
    -------
    The results of the windows.
    """
    results: list[Task[WindowResult]] = []
    ready: list[Task[ReadyWindow]] = []

    def prepare(number: int) -> None:
        run, window = windows[number]
        ready.append(start(partial(run.prepare, window), is_long=True))

    def prepared(number: int) -> ReadyWindow:
        # A window that nobody has begun is prepared here: a helper that had taken it would leave
        # the long tasks that it begins, such as fitting the network, to nobody.
        run, window = windows[number]
        return ready.pop().result() if ready else run.prepare(window)

    def finish(run: WindowRun, copied: CopiedWindow) -> WindowResult:
        try:
            return write(run, copied)
        finally:
            copied.spool.close()

    with crew_of(threads) as crew:
        try:
            for number, (run, _) in enumerate(windows):
                now = prepared(number)
                if number + 1 < len(windows) and flow.prepares_beside(number + 1):
                    prepare(number + 1)
                begin(number)
                copied = run.copy(now)
                del now  # it is not needed for writing, and large
                if results:
                    results[-1].result()
                results.append(start(partial(finish, run, copied), is_long=True))
                if not flow.writes_beside or number + 1 == len(windows):
                    results[-1].result()
        except BaseException:
            crew.leave()  # nothing may be read or written any more when files are closed
            raise
    return [result.result() for result in results]
