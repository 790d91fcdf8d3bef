"""What a person at a terminal sees: progress, tables, and one clear line when a run fails."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from ragimpute.cli.progress import Running, StageClock, make_bars, move_bar
from ragimpute.errors import RagimputeError
from ragimpute.extras import explain_import, is_optional
from ragimpute.runtime.interrupts import Stopped, install, uninstall
from ragimpute.runtime.memory import is_out_of_memory
from ragimpute.runtime.timing import Progress, no_progress

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ragimpute.training.trainer import EpochReport


#: Columns of the live table of epochs, and the figures of a row of metrics.csv that they show.
_COLUMNS = {
    "train loss": "train_loss", "valid. loss": "val_loss", "F1": "f1", "r2": "r2_all",
    "r2 of LS": "ls_r2_all", "rare r2": "r2_rare", "rare r2 of LS": "ls_r2_rare",
}  # fmt: skip

# Characters of an error message; the middle of a longer one is left out.
_LONGEST = 1_000

# Without emoji: a position such as 20:100:A would be shown with one.
stdout = Console(highlight=False, emoji=False)
stderr = Console(stderr=True, highlight=False, emoji=False)


class ToStderr(logging.Handler):
    """Writes log messages to standard error, above the bars where there are any."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message, in one line."""
        with suppress(OSError):  # such as a closed pipe
            stderr.print(self.format(record), soft_wrap=True, markup=False)


def guarded(
    run: Callable[[], None], memory_hint: Callable[[], str] = lambda: "use fewer --threads"
) -> None:
    """Run the command line, and print one clear line, not a traceback, for an error of the user.

    ``memory_hint`` says what to do if memory runs out and the command itself does not say it.

    Exit codes are 0; 1 for an error; 2 for a wrong option, by typer; 128 and the signal's number.
    """
    install()
    try:
        try:
            run()
        except SystemExit:
            sys.stdout.flush()
            raise
    except RagimputeError as error:
        _complain(error.message, error.hint)
    except Stopped as stop:
        _complain(f"stopped by {stop.signal.name}; {stop.left}", None, 128 + stop.signal)
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        if not is_optional(package):
            raise
        said = explain_import(error, package)
        _complain(said.message, said.hint)
    except BrokenPipeError:  # the program that reads our output through a pipe has ended
        _leave(1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _complain("out of memory", memory_hint())
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        _complain(f"{error.strerror or error}{place}", "check the path, permissions and free space")
    finally:
        uninstall()


def _complain(message: str, hint: str | None, code: int = 1) -> None:
    """Print an error for a person and leave with ``code``."""
    message = " ".join(line.strip() for line in message.splitlines())  # names keep their blanks
    if len(message) > _LONGEST:  # it quotes a file, perhaps a whole long line
        message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"
    with suppress(OSError):
        stderr.print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)
        if hint:
            stderr.print(f"  [bold]hint:[/] {escape(hint)}", soft_wrap=True)
    _leave(code)


def _leave(code: int) -> None:
    """End the process; output that cannot be written any more is dropped silently."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


@contextmanager
def training_view(quiet: bool) -> Iterator[tuple[Progress, EpochReport]]:
    """Show a training run on standard error.

    Parameters
    ----------
    quiet
        Show nothing.

    Yields
    ------
    Two functions for :func:`ragimpute.training.trainer.train`. On a terminal they keep a table of
    the epochs up to date, with Li-Stephens' r2 beside the model's, above a bar of the steps;
    the table stays when the run ends. Elsewhere each epoch is a line, and there is no bar.
    """
    if quiet or not stderr.is_terminal or stderr.is_dumb_terminal:

        def print_line(row: dict[str, float], epochs: int, improved: bool) -> None:
            if not quiet:
                from ragimpute.training.state import epoch_line

                stderr.print(escape(epoch_line(row, epochs)), soft_wrap=True)

        yield no_progress, print_line
        return
    from rich.live import Live

    view = _TrainingTable()
    live = Live(
        get_renderable=view.render, console=stderr, vertical_overflow="visible", transient=True
    )

    # The view starts at the first call: of several processes only the first is ever called.
    def update(stage: str, done: int, total: int) -> None:
        began = view.advance(stage, done, total)
        live.start()
        if began:  # show a new stage at once, as it may be short
            live.refresh()

    def add(row: dict[str, float], epochs: int, improved: bool) -> None:
        view.add(row, epochs, improved)
        live.start()
        live.refresh()

    try:
        yield update, add
    finally:
        if live.is_started:
            # The whole table may be taller than the screen. So it is printed only after what was
            # drawn last, which is not, is taken back and the thread that draws it has ended.
            live.stop()
            stderr.print(view.table())


class _TrainingTable:
    """The table of epochs above the bar of the current stage."""

    def __init__(self) -> None:
        self._bars = make_bars(stderr)
        self._clock = StageClock(moved=self._move)
        self._rows: list[list[str]] = []
        self._best = -1

    def advance(self, stage: str, done: int, total: int) -> bool:
        """Move the bar, which shows one stage at a time; returns whether a new stage began."""
        began = all(task.description != stage for task in self._bars.tasks)
        for task in self._bars.tasks:
            if task.description != stage:
                self._bars.remove_task(task.id)
        self._clock(stage, done, total)
        return began

    def _move(self, stage: Running) -> None:
        """Move the bar of a stage."""
        move_bar(self._bars, stage, self._clock.now)

    def add(self, row: dict[str, float], epochs: int, improved: bool) -> None:
        """Add an epoch."""
        if improved:
            self._best = len(self._rows)
        figures = (f"{row[key]:.4f}" for key in _COLUMNS.values())
        self._rows.append([f"{row['epoch']:.0f}/{epochs}", *figures])

    def render(self) -> RenderableType:
        """Draw the last epochs that fit on the screen, above the bar."""
        from rich.console import Group

        # Other than rows there are up to 8 lines: blank ones, header, rule, caption and bar.
        first = max(0, len(self._rows) - max(1, stderr.height - 8))
        return Group(self.table(first), self._bars)

    def table(self, first: int = 0) -> RenderableType:
        """The epochs from the row ``first`` on; nothing before there is one."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, pad_edge=False, caption="bold: the best epoch so far")
        for name in ("epoch", *_COLUMNS):
            table.add_column(name, justify="right")
        for i, cells in enumerate(self._rows[first:], start=first):
            table.add_row(*cells, style="bold" if i == self._best else "")
        return Group(*([table] if self._rows else []))


def print_rows(
    rows: list[tuple[str, str]], title: str | None = None, *, to_stderr: bool = False
) -> None:
    """Print names and values."""
    from rich.table import Table

    shown = None if title is None else escape(title)
    table = Table(title=shown, show_header=False, box=None, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    (stderr if to_stderr else stdout).print(table)


def print_table(rows: list[list[str]], title: str) -> None:
    """Print a table whose first row is its header."""
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for i, name in enumerate(rows[0]):
        table.add_column(escape(name), justify="left" if i == 0 else "right")
    for row in rows[1:]:
        table.add_row(*(escape(cell) for cell in row))
    wanted = stdout.measure(table, options=stdout.options.update(max_width=1_000))
    if wanted.maximum > stdout.width:  # by a little, as a rule: spare the frame
        table.show_edge = table.pad_edge = False
    stdout.print(table)
