"""The program: its entry points, and the order of its commands.

Each command is a module beside this one, which holds options and no logic; everything heavy is
imported inside the command that needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from copy import copy

import typer

from ragimpute.cli import (  # noqa: F401  # they register their commands
    demo,
    evaluate,
    impute,
    index,
    info,
    merge,
    models,
    phase,
    plan,
    prepare,
    report,
    train,
)
from ragimpute.cli.app import app, command_name, memory_hint
from ragimpute.cli.terminal import guarded


def set_environment() -> None:
    """Tell libraries, before they are loaded, how the program uses threads and memory."""
    # Threads that wait must not spin: if other jobs share the cores, a training step of .65 s takes
    # 2 to 30 s otherwise. Libraries read this when the first of them that uses OpenMP is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # ragimpute divides work among threads itself. Matrix products run in one thread, so that the
    # order of their sums, and so the result, does not depend on the number of threads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Do not ask for huge pages: a virtual machine takes up to a sixth of a run to find them, and
    # reading is no faster, as arrays are filled once. numpy reads this when it is imported.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")


def main() -> None:
    """Entry point."""
    set_environment()
    guarded(lambda: program_for(sys.argv[1:])(prog_name="ragimpute"), memory_hint)


def program_for(words: Sequence[str]) -> typer.Typer:
    """The program for a command line; with one command alone, if the first word names it.

    Typer would build the options of all commands before it runs one, which takes .01 s.
    """
    named = [command for command in app.registered_commands if command_name(command) in words[:1]]
    if not named:
        return app
    alone = copy(app)
    alone.registered_commands = named
    return alone


def run() -> None:
    """Entry point of the program: call :func:`main`, then end the process at once.

    Nothing is left to do by then. A normal exit would take .1 to .9 s more, in which the
    interpreter frees the memory of numba, torch and the kernels.
    """
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    # Any other exception is a bug: it ends the process here, with a traceback.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


#: The order of the commands in --help: that in which a new user needs them.
ORDER = (
    "prepare",
    "index",
    "train",
    "plan",
    "phase",
    "impute",
    "merge",
    "evaluate",
    "report",
    "info",
    "models",
    "demo",
)
app.registered_commands.sort(key=lambda command: ORDER.index(command_name(command)))


if __name__ == "__main__":
    main()
