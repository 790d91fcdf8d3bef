"""Write the files of reports; a file appears under its name only when it is complete."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragimpute.errors import InputError
from ragimpute.runtime.outputs import replacing


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the system in writing ``path`` into one clear line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}",
            hint="check that the folder exists, may be written to and has space left",
        ) from error


def write_json(path: str | Path, tree: Mapping[str, Any]) -> None:
    """Write a tree as JSON."""
    write_text(Path(path), json.dumps(tree, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole."""
    with writing(path), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
