"""End a script on an error with one line, as ragimpute itself does."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ragimpute.errors import RagimputeError


def run(main: Callable[[list[str]], None], *expected: type[Exception]) -> None:
    """Run a script's ``main`` with the arguments of the command line.

    Errors of ragimpute end the process with a line and their hint, those of the types ``expected``
    with a line; exit status 1.
    """
    try:
        main(sys.argv[1:])
    except RagimputeError as error:
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        sys.exit(f"Error: {error.message}{hint}")
    except expected as error:
        sys.exit(f"Error: {error}")
