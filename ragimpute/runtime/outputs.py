"""Refuse outputs that cannot be written, or would overwrite an input, before any work is done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ragimpute.errors import InputError

#: By this ending MultiQC knows content that is made for it.
MULTIQC_SUFFIX = "_mqc.json"


def check_output(out: str | Path, inputs: Mapping[str, str | Path | None]) -> None:
    """Check the name of a file to be written.

    Parameters
    ----------
    out
        The file.
    inputs
        Files that must not be replaced, by what a user calls them ("panel input"); None where one
        is not given.

    Raises
    ------
    InputError
        If ``out`` is an input, by whatever name or link; is a folder; or its folder does not exist
        or may not be written to.
    """
    out = Path(out)
    real = os.path.realpath(out)
    for name, path in inputs.items():
        if path is None:
            continue
        there = out.exists() and Path(path).exists()
        if os.path.realpath(path) == real or (there and out.samefile(path)):
            raise InputError(
                f"the output {out} is also the {name}", hint="choose another output name"
            )
    if out.is_dir():
        raise InputError(f"the output {out} is a folder", hint="name a file")
    folder = out.parent
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(
            f"the output's folder {folder} {state}", hint=f"make it first: mkdir -p {folder}"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"the output's folder {folder} may not be written to",
            hint="choose another folder, or change its permissions",
        )


def check_report_name(path: str | Path) -> None:
    """Refuse a report's name that does not say what to write.

    Raises
    ------
    InputError
        If it ends neither in .html nor in .json.
    """
    if not str(path).endswith((".html", ".json")):
        raise InputError(
            f"report {path} is neither .html nor .json",
            hint=f"run.html is a page, run.json has figures, run{MULTIQC_SUFFIX} is for MultiQC",
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path``, to be written; renamed to it at the end, removed on error.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
