"""The program: its entry points, and the order of its commands.

Each command is a module beside this one, which holds options and no logic; everything heavy is
imported inside the command that needs it.
"""

from __future__ import annotations

import os
import sys

from ragimpute.cli import (  # noqa: F401  # they register their commands
    demo,
    evaluate,
    impute,
    index,
    info,
    merge,
    phase,
    plan,
    prepare,
    train,
)
from ragimpute.cli.app import app, command_name
from ragimpute.cli.terminal import guarded


def main() -> None:
    """Entry point."""
    # Threads that wait must not spin: where other jobs share the cores, a training step of .65 s
    # takes 2 to 30 s otherwise. Read when the first library that uses OpenMP is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Work is shared out over threads here, not in matrix products, whose sums stay the same so.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Arrays are filled once: a virtual machine that has to find huge pages for them takes up to a
    # sixth of a run for it, and nothing is read faster from them. Read when numpy is imported.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    guarded(lambda: app(prog_name="ragimpute"))


def run() -> None:
    """Entry point of the program: as :func:`main`, and then the process is gone at once.

    Nothing is left to do by then, but the interpreter would take .1 to .9 s to free what numba,
    torch and the kernels hold.
    """
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    # Anything else is a bug, and ends with its traceback as ever.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


#: As --help lists them: in the order of a first session.
ORDER = (
    "prepare",
    "index",
    "train",
    "plan",
    "phase",
    "impute",
    "merge",
    "evaluate",
    "info",
    "demo",
)
app.registered_commands.sort(key=lambda command: ORDER.index(command_name(command)))


if __name__ == "__main__":
    main()
