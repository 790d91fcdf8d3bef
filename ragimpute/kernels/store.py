"""Where compiled kernels come from, and where they are kept.

Kernels ship with the package, compiled for each level of processors. If none of these matches, a
kernel is compiled once, with a line that says so, and kept in a folder of the user's. The name of a
kernel's file holds digests of all that its machine code is made of (:mod:`ragimpute.kernels.code`),
and neither a path nor a time. So files may be copied anywhere, and one that does not match is never
read.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from ragimpute import __version__
from ragimpute.kernels.code import code_digest, compiler, numba_version
from ragimpute.kernels.loader import MachineCode
from ragimpute.kernels.processor import this_processor

#: What kernels of this process are compiled for.
PROCESSOR = this_processor()
_PACKAGE = Path(__file__).resolve().parents[1]
#: Kernels that ship, a folder for each Python and level of processors.
SHIPPED = _PACKAGE / "compiled"
#: The signatures of all kernels that commands call, slowest to compile first.
SIGNATURES = _PACKAGE / "kernels" / "signatures.json"
#: In each folder: what its kernels were compiled with.
MADE_BY = "made_by.json"
SUFFIX = ".kernel"
# Folders of kept kernels of other versions are removed when nothing was read from them for so long.
_UNUSED_SECONDS = 180 * 24 * 3600

log = logging.getLogger("ragimpute")


class Entry(NamedTuple):
    """A kernel for arguments of given types: its name "module:function", and its signature."""

    kernel: str
    signature: str


class Named(NamedTuple):
    """What the name of a compiled kernel's file says.

    Attributes
    ----------
    kernel
        "module:function".
    code
        Digest of the code, see :func:`ragimpute.kernels.code.code_digest`.
    signature
        Digest of the signature.
    """

    kernel: str
    code: str
    signature: str

    @classmethod
    def of(cls, function: Callable[..., Any], signature: str) -> Named:
        """The name of a function for a signature, as text."""
        digest = hashlib.sha256(signature.encode()).hexdigest()[:12]
        return cls(kernel_name(function), _digest_of(function), digest)

    @classmethod
    def parse(cls, file_name: str) -> Named | None:
        """Read a file's name; None if it is no compiled kernel's."""
        parts = file_name.removesuffix(SUFFIX).rsplit("-", 2)
        if not file_name.endswith(SUFFIX) or len(parts) != 3:
            return None
        return cls(parts[0].replace("-", ":"), *parts[1:])

    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.kernel.replace(':', '-')}-{self.code}-{self.signature}{SUFFIX}"


#: Kernels that this process has compiled, by name.
compiled_here: list[str] = []
#: Kernels of the package that it called for arguments that are not in :data:`SIGNATURES`.
unforeseen: list[Entry] = []
_announced: set[str] = set()


def kernel_name(function: Callable[..., Any]) -> str:
    """ "module:function"."""
    return f"{function.__module__}:{function.__qualname__}"


def _digest_of(function: Callable[..., Any]) -> str:
    return _digest(function, compiler())


@cache
def _digest(function: Callable[..., Any], by: tuple[Any, ...]) -> str:
    return code_digest(function)


# --- folders --------------------------------------------------------------------------------------


def folder_name(level: str | None = None) -> str:
    """The folder of kernels for this Python and a level of processors: "cp311-x86-64-v3"."""
    level = PROCESSOR.level if level is None else level
    return f"cp{sys.version_info[0]}{sys.version_info[1]}-{level}"


def is_checkout() -> bool:
    """Whether the package is a checkout of its repository, where ``make`` compiles kernels."""
    return (_PACKAGE.parent / "pyproject.toml").is_file()


def kept_roots() -> list[Path]:
    """Where compiled kernels may be kept, the first that can be written: folders of folders.

    ``NUMBA_CACHE_DIR``; in a checkout the package's own folder; ``XDG_CACHE_HOME``; ``~/.cache``.
    """
    roots = []
    if os.environ.get("NUMBA_CACHE_DIR"):
        roots.append(Path(os.environ["NUMBA_CACHE_DIR"]) / "ragimpute")
    if is_checkout():
        roots.append(SHIPPED)
    if os.environ.get("XDG_CACHE_HOME"):
        roots.append(Path(os.environ["XDG_CACHE_HOME"]) / "ragimpute")
    with suppress(RuntimeError):  # no HOME, and a user that the system does not know
        roots.append(Path.home() / ".cache" / "ragimpute")
    return roots


def _folder_in(root: Path) -> Path:
    """The folder in which this version keeps kernels, so that no other version's are removed."""
    if root == SHIPPED:
        return root / folder_name()
    return root / f"{__version__}-numba{numba_version()}-{folder_name()}"


def read_folders() -> list[Path]:
    """The folders in which compiled kernels are looked for, in their order; they may be absent."""
    return list(dict.fromkeys([SHIPPED / folder_name(), *map(_folder_in, kept_roots())]))


def kept_folder() -> Path | None:
    """The folder in which new kernels are kept, which may not exist yet; None if there is none.

    A folder that does not exist counts if the nearest existing one above it can be written.
    """
    for root in kept_roots():
        folder = _folder_in(root)
        # Path.exists would raise if a folder on the way may not be searched.
        there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        if os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK):
            return folder
    return None


# --- files ----------------------------------------------------------------------------------------


def read_kernel(path: Path) -> tuple[bytes, bytes] | None:
    """A file's machine code, and the rest as numba pickles it; None where absent or damaged."""
    try:
        header, _, content = path.read_bytes().partition(b"\n")
        about = json.loads(header)
        size = int(about["bytes"])
        code, rest = content[:size], content[size:]
        if about["code_sha256"] == _sha256(code) and about["sha256"] == _sha256(rest):
            return code, rest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def read_machine_code(path: Path) -> MachineCode | None:
    """A file's machine code, to be called without numba; None where absent or damaged."""
    try:
        with path.open("rb") as file:
            about = json.loads(file.readline())
            code = file.read(int(about["bytes"]))
        if about["code_sha256"] == _sha256(code):
            needs = tuple(map(str, about["needs"]))
            return MachineCode(str(about["symbol"]), str(about["returns"]), needs, code)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_entry(path: Path) -> Entry | None:
    """Which kernel and signature a file says it is of; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            about = json.loads(file.readline())
        return Entry(about["kernel"], about["signature"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_kernel(folder: Path, name: Named, signature: str, code: MachineCode, rest: bytes) -> None:
    """Write a kernel's file whole, and remove those of the same kernel whose code is another.

    Parameters
    ----------
    folder
        Made if it does not exist.
    name, signature
        Of the kernel.
    code, rest
        Its machine code, and what else numba needs of it.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    about = {
        "kernel": name.kernel,
        "signature": signature,
        "symbol": code.symbol,
        "returns": code.returns,
        "needs": code.needs,
        "bytes": len(code.content),
        "code_sha256": _sha256(code.content),
        "sha256": _sha256(rest),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name.file_name()
    # As runtime.outputs.replacing does for all other files: that wing stands above this one.
    temporary = folder / f".{path.name}.{uuid4().hex[:12]}"
    try:
        temporary.write_bytes(json.dumps(about).encode() + b"\n" + code.content + rest)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    for other in folder.glob(f"{name.kernel.replace(':', '-')}-*{SUFFIX}"):
        found = Named.parse(other.name)
        if found is not None and found.kernel == name.kernel and found.code != name.code:
            other.unlink(missing_ok=True)
    _forget_unused(folder)


@cache
def _forget_unused(folder: Path) -> None:
    """Remove folders of other versions from which nothing was read for half a year."""
    if folder.parent == SHIPPED:
        return
    os.utime(folder)
    for other in folder.parent.iterdir():
        with suppress(OSError):
            newest = max((file.stat().st_atime for file in other.glob(f"*{SUFFIX}")), default=0.0)
            if "-numba" in other.name and time.time() - newest > _UNUSED_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


# --- what ships, and what a user is told ----------------------------------------------------------


def foreseen(path: Path = SIGNATURES) -> list[Entry]:
    """The kernels and signatures that commands call, slowest to compile first."""
    return [Entry(*pair) for pair in json.loads(path.read_text())]


def find_kernel(name: str) -> Any:
    """A kernel by its name "module:function", compiled or not."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def absent(folders: list[Path]) -> Iterator[Entry]:
    """The foreseen kernels that none of the folders holds."""
    for entry in foreseen():
        name = Named.of(find_kernel(entry.kernel).py_func, entry.signature).file_name()
        if not any((folder / name).is_file() for folder in folders):
            yield entry


class Counts(NamedTuple):
    """How many foreseen kernels there are, and how many come from each place."""

    total: int
    shipped: int
    kept: int
    absent: int


def count_kernels() -> Counts:
    """Where the foreseen kernels would come from, if they were called now."""
    shipped, *kept = read_folders()
    total = len(foreseen())
    not_shipped, nowhere = len(list(absent([shipped]))), len(list(absent([shipped, *kept])))
    return Counts(total, total - not_shipped, not_shipped - nowhere, nowhere)


def announce(entry: Entry) -> None:
    """Say once what is compiled, why, and where it is kept."""
    if not entry.kernel.startswith("ragimpute."):
        return
    folder = kept_folder()
    place = (
        f"kept in {folder}"
        if folder is not None
        else "kept nowhere, as none of these can be written: "
        f"{', '.join(map(str, kept_roots())) or '(no folder: HOME is not set)'}; "
        "set NUMBA_CACHE_DIR to a folder that can"
    )
    if entry not in foreseen():
        unforeseen.append(entry)
        if entry.kernel not in _announced:
            _announced.add(entry.kernel)
            log.warning(
                "compiling kernel %s for arguments that were not foreseen (a few seconds; %s)",
                entry.kernel, place,
            )  # fmt: skip
    elif "foreseen" not in _announced:
        _announced.add("foreseen")
        missing, total = len(list(absent(read_folders()))), len(foreseen())
        log.warning(
            "compiling machine code: %d of %d kernels are to be compiled where they are used "
            "(up to a minute, once), as %s; %s", missing, total, _why_absent(), place,
        )  # fmt: skip


def _why_absent() -> str:
    """Why kernels that ship do not match."""
    wanted = folder_name()
    folders = sorted(path.name for path in SHIPPED.glob("cp*-*") if (path / MADE_BY).is_file())
    if not folders:
        return "this install carries none" + (
            " ('make' compiles them in a checkout)" if is_checkout() else ""
        )
    if wanted not in folders:
        return f"this install carries those of {', '.join(folders)}, and needs {wanted}"
    made_by = read_made_by(SHIPPED / wanted)
    differ = [
        f"{name} {made_by.get(name, 'unknown')} (now {version})"
        for name, version in versions().items()
        if made_by.get(name) != version
    ]
    if differ:
        return f"those of this install were compiled by {', '.join(differ)}"
    return "the code has changed since those of this install were compiled"


def versions() -> dict[str, str]:
    """What compiles kernels, by name, and its version."""
    names = ("numba", "llvmlite")
    return {name: str(importlib.import_module(name).__version__) for name in names}


def read_made_by(folder: Path) -> dict[str, str]:
    """What a folder's kernels were compiled by; empty where it does not say."""
    try:
        found = json.loads((folder / MADE_BY).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
