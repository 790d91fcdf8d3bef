"""What a long command shows and logs while it runs."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from ragimpute.cli import terminal
from ragimpute.cli.progress import Lines, Running, StageClock, showing_bars
from ragimpute.cli.run_log import RunLog, log_path
from ragimpute.runtime.memory import resident_bytes
from ragimpute.runtime.stages import reporting
from ragimpute.runtime.timing import Progress

log = logging.getLogger("ragimpute")


@dataclass(frozen=True)
class RunOptions:
    """What of a run is shown and logged.

    Attributes
    ----------
    quiet
        Show neither progress nor the summary.
    log
        A file for the log, "auto" for one beside the output, or None.
    log_level
        The least level of the messages on standard error and in the log; None: as the program was
        told before the command.
    """

    quiet: bool = False
    log: str | None = None
    log_level: str | None = None


@dataclass
class Watch:
    """A run that is watched.

    Attributes
    ----------
    progress
        To be told of stages; :func:`ragimpute.runtime.stages.reporting` is told of it, too.
    """

    progress: Progress
    quiet: bool
    to_stderr: bool
    run_log: RunLog | None

    @property
    def is_told(self) -> bool:
        """Whether anybody is told the summary."""
        return not self.quiet or self.run_log is not None

    def summary(self, rows: list[tuple[str, str]], title: str | None = None) -> None:
        """Log the summary, and show it unless the run is quiet; it never mixes with the output."""
        if not self.quiet:
            self.result(rows, title)
        elif self.run_log is not None:
            self.run_log.summary(rows)

    def result(self, rows: list[tuple[str, str]], title: str | None = None) -> None:
        """Log and show rows that are what the command is for, even if the run is quiet."""
        if self.run_log is not None:
            self.run_log.summary(rows)
        terminal.print_rows(rows, title=title, to_stderr=self.to_stderr)

    def table(self, rows: list[list[str]], title: str) -> None:
        """Log and show a table whose first row is its header."""
        if self.run_log is not None:
            header, *lines = rows
            self.run_log.summary(
                [
                    (f"{title}, {line[0]}", ", ".join(
                        f"{name} {cell}" for name, cell in zip(header[1:], line[1:], strict=True)
                    ))
                    for line in lines
                ]
            )  # fmt: skip
        terminal.print_table(rows, title=title)

    def epoch(self, row: dict[str, float], epochs: int) -> None:
        """Log an epoch of training."""
        if self.run_log is not None:
            from ragimpute.training.state import epoch_line

            self.run_log.line(epoch_line(row, epochs))


@contextmanager
def watching(
    run: RunOptions,
    *,
    inputs: Mapping[str, str | Path | None],
    out: str | Path | None = None,
    beside: Mapping[str, str | Path | None] | None = None,
    shown: bool = True,
) -> Iterator[Watch]:
    """Show and log a run, which is the ``with`` block.

    Parameters
    ----------
    run
        What is wanted.
    inputs
        The files that are read, by what a user calls them; None where one is not given.
    out
        The file or folder that is written, "-", or None.
    beside
        What else is written, by what a user calls it.
    shown
        False: the caller shows progress in a way of its own.

    Raises
    ------
    InputError
        If the log cannot be written where it should be.
    """
    level = log_at(run.log_level)
    with ExitStack() as stack:
        run_log = None
        # Of several training processes the first one keeps the log.
        if run.log is not None and os.environ.get("RANK", "0") == "0":
            run_log = RunLog(
                log_path(run.log, out, {**inputs, **(beside or {})}), inputs, level=level
            )
            stack.enter_context(run_log)
            log.setLevel(min(level, logging.INFO))
        clock = stack.enter_context(_shown(run, level) if shown and not run.quiet else _logged())
        stack.enter_context(reporting(clock))
        yield Watch(clock, run.quiet, str(out) == "-", run_log)


def log_at(name: str | None) -> int:
    """Set the least level of the messages on standard error; None leaves it. Returns the level."""
    for handler in log.handlers:
        if isinstance(handler, terminal.ToStderr):
            if name is not None:
                handler.setLevel(getattr(logging, name.upper()))
                log.setLevel(handler.level)
            return handler.level
    return logging.WARNING


@contextmanager
def _logged() -> Iterator[StageClock]:
    """A clock whose stages are logged and not shown."""
    yield StageClock(began=_log_begin, ended=_log_end)


@contextmanager
def _shown(run: RunOptions, level: int) -> Iterator[StageClock]:
    """A clock whose stages are logged and shown, as bars or as lines."""
    if terminal.stderr.is_terminal and not terminal.stderr.is_dumb_terminal:
        with showing_bars(terminal.stderr, _log_begin, _log_end) as clock:
            yield clock
        return
    lines = Lines(lambda line: terminal.stderr.print(escape(line), soft_wrap=True))

    def ended(stage: Running) -> None:
        _log_end(stage)
        if level > logging.INFO:  # else that was just written
            lines.ended(clock, stage)

    clock = StageClock(began=_log_begin, ended=ended)
    with lines.telling(clock):
        yield clock


def _log_begin(stage: Running) -> None:
    """Log that a stage begins."""
    log.info("%s: begins", stage.name)


def _log_end(stage: Running) -> None:
    """Log that a stage has ended, with its time; and how much memory is held."""
    seconds = stage.seconds(stage.start)
    log.info("%s: done in %.2f s", stage.name, seconds)
    if log.isEnabledFor(logging.DEBUG):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        log.debug(
            "%s: %s MiB of memory held, %s at most so far", stage.name,
            f"{resident_bytes() / 2**20:,.0f}", f"{most:,.0f}",
        )  # fmt: skip
