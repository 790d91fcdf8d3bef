"""What a person at a terminal sees: progress, tables, and one clear line when a run fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.markup import escape

from ragimpute.errors import RagimputeError
from ragimpute.interrupts import Stopped, install, uninstall

Progress = Callable[[str, int, int], None]

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


def guarded(run: Callable[[], None]) -> None:
    """Run the command line; never a traceback for what a user can mend, but one clear line.

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
        message = f"stopped by {stop.signal.name}; no unfinished output was left"
        _complain(message, None, 128 + stop.signal)
    except BrokenPipeError:  # the reader of a pipe has what it wants
        _leave(1)
    except MemoryError:
        _complain("out of memory", "use fewer --threads, a smaller --chunk-cm or --region")
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        _complain(f"{error.strerror or error}{place}", "check the path, permissions and free space")
    finally:
        uninstall()


def _complain(message: str, hint: str | None, code: int = 1) -> None:
    """Print an error for a person and leave with ``code``."""
    message = " ".join(message.split())
    with suppress(OSError):
        stderr.print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)
        if hint:
            stderr.print(f"  [bold]hint:[/] {escape(hint)}", soft_wrap=True)
    _leave(code)


def _leave(code: int) -> None:
    """End the process; what standard output could not take is dropped without more words."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """A progress bar with rate and time left on standard error; silent when not a terminal."""
    from rich import progress as rich_progress

    bars = rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[rate]}"),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
        console=stderr,
        disable=quiet or not stderr.is_terminal,
        transient=True,
    )
    tasks: dict[str, rich_progress.TaskID] = {}
    with bars:

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, rate="")
            task = bars.tasks[bars.task_ids.index(tasks[stage])]
            speed = f"{task.speed:,.0f}/s" if task.speed else ""
            bars.update(tasks[stage], completed=done, total=total or None, rate=speed)

        yield update


def print_rows(rows: list[tuple[str, str]], title: str | None = None) -> None:
    """Print names and values."""
    from rich.table import Table

    table = Table(title=title, show_header=False, box=None, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    stdout.print(table)


def print_table(rows: list[list[str]], title: str) -> None:
    """Print a table whose first row is its header."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, name in enumerate(rows[0]):
        table.add_column(escape(name), justify="left" if i == 0 else "right")
    for row in rows[1:]:
        table.add_row(*(escape(cell) for cell in row))
    stdout.print(table)
