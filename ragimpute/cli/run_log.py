"""``--log FILE``: what was run, on what and with what, how long each stage took, how it ended."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import shlex
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from ragimpute import __version__
from ragimpute.errors import InputError, RagimputeError
from ragimpute.runtime.interrupts import Stopped
from ragimpute.runtime.memory import is_out_of_memory
from ragimpute.runtime.outputs import check_output

#: A log begins with this; a file that begins otherwise is not written to.
FIRST_LINE = "# ragimpute log"
_AUTO = "auto"
_NOT_LOGS = (".vcf", ".vcf.gz", ".vcf.bgz", ".bcf", ".h5", ".html", ".json", ".gz", ".tsv")
_PACKAGES = (
    "numpy", "numba", "cyvcf2", "h5py", "safetensors", "torch", "faiss-cpu", "faiss-gpu",
)  # fmt: skip

log = logging.getLogger("ragimpute")


def log_path(text: str, out: str | Path | None, inputs: Mapping[str, str | Path | None]) -> Path:
    """The file that ``--log`` names; "auto" is beside the output ``out``.

    Raises
    ------
    InputError
        If it is an input or the output, a file that is no log, or has the suffix of a result; or
        if it is "auto" and there is no output file to put it beside.
    """
    if text == _AUTO:
        if out is None or str(out) == "-":
            raise InputError(
                "--log auto puts the log beside the output file, and this run has none",
                hint="name the log: --log run.log",
            )
        path = Path(f"{str(out).rstrip('/')}.log")
    else:
        path = Path(text)
    if path.name.endswith(_NOT_LOGS):
        raise InputError(
            f"--log {path} has the suffix of a result",
            hint=f"a log is text: name it {path.name.split('.')[0] or 'run'}.log",
        )
    known = dict(inputs)
    if out is not None and str(out) != "-":
        known["output"] = out
    check_output(path, known)
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            is_log = file.read(len(FIRST_LINE)) == FIRST_LINE.encode()
        if not is_log:
            raise InputError(
                f"--log {path} exists and is not a log of ragimpute",
                hint="choose another name; a log of an earlier run may be named, and is added to",
            )
    return path


class RunLog:
    """A log file, which is added to while a run goes on; a context manager around the run.

    Parameters
    ----------
    path
        The file, see :func:`log_path`.
    inputs
        The files that are read, by what a user calls them; None where one is not given.
    level
        The least level of the messages that it takes up.
    """

    def __init__(
        self, path: Path, inputs: Mapping[str, str | Path | None], *, level: int = logging.INFO
    ) -> None:
        self._started = time.monotonic()
        self._handler = logging.FileHandler(path, encoding="utf-8")
        self._handler.setLevel(min(level, logging.INFO))
        self._handler.setFormatter(_format())
        self._say(FIRST_LINE)
        self._tell("command", shlex.join(["ragimpute", *sys.argv[1:]]))
        self._tell("folder", os.getcwd())
        self._tell("versions", ", ".join(_versions()))
        self._tell("machine", _machine())
        for name, given in inputs.items():
            if given is not None:
                self._tell("input", f"{name}: {_describe(given)}")

    def __enter__(self) -> Self:
        log.addHandler(self._handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        log.removeHandler(self._handler)
        self._tell("end", f"{_ending(error)}, after {time.monotonic() - self._started:.1f} s")
        known = error is None or isinstance(error, _KNOWN_ENDS) or is_out_of_memory(error)
        if error is not None and not known:  # a mistake of the program
            self._say("".join(traceback.format_exception(error)).rstrip())
        self._handler.close()

    def summary(self, rows: list[tuple[str, str]]) -> None:
        """Take up the summary of the run."""
        for name, value in rows:
            self._tell("summary", f"{name}: {value}")

    def line(self, text: str) -> None:
        """Take up a line about how the run goes."""
        self._tell("INFO", text)

    def _tell(self, kind: str, text: str) -> None:
        """Add a line with the time."""
        self._say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {kind:8} {' '.join(text.split())}")

    def _say(self, line: str) -> None:
        """Add a line as it is."""
        assert self._handler.stream is not None
        self._handler.stream.write(f"{line}\n")
        self._handler.flush()


_KNOWN_ENDS = (RagimputeError, Stopped, OSError, SystemExit)


def _format() -> logging.Formatter:
    """How messages are written: time, level, message."""
    formatter = logging.Formatter("%(asctime)s %(levelname)-8s %(message)s", "%Y-%m-%d %H:%M:%S")
    formatter.converter = time.localtime
    return formatter


def _ending(error: BaseException | None) -> str:
    """How a run ended."""
    if error is None:
        return "finished"
    if isinstance(error, RagimputeError):
        hint = f" (hint: {error.hint})" if error.hint else ""
        return f"failed: {error.message}{hint}"
    if isinstance(error, Stopped):
        return f"stopped by {error.signal.name}: {error.left}"
    if is_out_of_memory(error):
        return "failed: out of memory"
    if isinstance(error, SystemExit):
        return "finished" if not error.code else f"ended with exit code {error.code}"
    return f"failed: {type(error).__name__}: {error}"


def _versions() -> list[str]:
    """Versions of ragimpute, Python and the packages that a run may use."""
    found = [f"ragimpute {__version__}", f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> str:
    """The machine in a line."""
    from ragimpute.kernels.processor import this_processor, usable_cores
    from ragimpute.runtime.memory import free_bytes

    return (
        f"{platform.node()}: {platform.system()} {platform.release()}, processor level "
        f"{this_processor().level}, {usable_cores()} cores can be used, "
        f"{free_bytes() / 2**30:.1f} GiB of memory free"
    )


def _describe(path: str | Path) -> str:
    """A file's name, size and date."""
    try:
        about = os.stat(path)
    except OSError as error:
        return f"{path}, {(error.strerror or str(error)).lower()}"
    changed = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(about.st_mtime))
    size = "a folder" if os.path.isdir(path) else f"{about.st_size:,} bytes"
    return f"{path}, {size}, modified {changed}"
