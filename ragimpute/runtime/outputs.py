"""Output files: whether they can be written and fit on the disk, and how they get their names.

Names that cannot be written, and disks that are too full, are refused before any work is done.
Files appear under their names only when they are complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ragimpute.errors import InputError

#: By this ending MultiQC knows content that is made for it.
MULTIQC_SUFFIX = "_mqc.json"

# Bytes that a genotype takes by format and field, and that a site's other columns take ("site").
# Measured on the packaged example with plain copying: 6,127 sites of 50 samples. Probabilities of
# other data may compress better or worse, by a factor of about two.
_BYTES = {
    "vcf": {"site": 112, "GT": 4.0, "DS": 3.0, "GP": 8.0, "HDS": 5.2, "AP": 5.3},
    "vcf.gz": {"site": 28, "GT": 0.4, "DS": 0.7, "GP": 0.8, "HDS": 0.7, "AP": 0.7},
    "bcf": {"site": 26, "GT": 0.4, "DS": 0.8, "GP": 1.5, "HDS": 1.0, "AP": 1.1},
    "bgen": {"site": 135, "all": 0.3},
    "pgen": {"site": 40, "all": 0.55},
}


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


def output_bytes(kind: str, fields: Sequence[str], num_sites: int, num_samples: int) -> int:
    """Estimate the size of an output, in bytes.

    Parameters
    ----------
    kind, fields
        See :func:`ragimpute.io.imputed.output_kind`; of GT, DS, GP, HDS, AP, which BGEN and PGEN
        do not have.
    num_sites, num_samples
        To be written, >= 0.
    """
    cost = _BYTES[kind]
    of_sample = cost["all"] if "all" in cost else sum(cost[name] for name in fields)
    return int(num_sites * (cost["site"] + num_samples * of_sample))


def check_space(folder: str | Path, *, output: int, temporary: int) -> str | None:
    """Compare what a run will write with what its folder has free.

    Parameters
    ----------
    folder
        Where it writes.
    output
        Estimated size of the output, in bytes.
    temporary
        Exact size of what waits on disk at once beside the output, in bytes.

    Returns
    -------
    A warning if there may be too little room for both, which is an estimate; else None.

    Raises
    ------
    InputError
        If there is too little room for ``temporary`` alone.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # some file systems do not say
        return None
    if temporary > free:
        raise InputError(
            f"a window's probabilities will take {_size(temporary)} of disk, but {folder} has "
            f"{_size(free)} free",
            hint="make room there, or give a smaller --chunk-cm, a larger --max-memory, or fewer "
            "samples at a time",
        )
    if output + temporary > free:
        also = f", and {_size(temporary)} for the time being" if temporary else ""
        return (
            f"the output will take about {_size(output)}{also}, but {folder} has {_size(free)} "
            "free; with --resume, a run that fills the disk can be gone on with"
        )
    return None


def _size(num_bytes: int) -> str:
    """A size as a person reads it."""
    unit, name = (2**30, "GiB") if num_bytes >= 2**29 else (2**20, "MiB")
    return f"{num_bytes / unit:,.1f} {name}"


class NewFiles:
    """Files and folders that are written under temporary names and renamed at the end.

    Nobody sees a file under its final name before it is complete, and a failed run leaves nothing
    behind. This is the one place of the package where files get their final names; only
    ``kernels/store.py``, which stands below this wing, has its own.
    """

    def __init__(self) -> None:
        self._names: list[tuple[Path, Path]] = []  # temporary and final ones
        self._kept: set[Path] = set()

    def name(self, path: Path, *, kept: Path | None = None) -> Path:
        """The temporary name to write ``path`` under, in the same folder; nothing is there yet.

        Where ``kept`` is given, that is the name, and :meth:`drop` leaves the file for a later
        process that goes on with it.
        """
        # A random part, as processes on several machines may write the same file.
        temporary = path.with_name(f".{path.name}.{uuid4().hex[:12]}.tmp")
        if kept is not None:
            temporary = kept
            self._kept.add(kept)
        self._names.append((temporary, path))
        return temporary

    def finish(self) -> None:
        """Give all their final names, in the order in which they were named.

        A file takes the place of an older one in one step. An older folder is removed first.
        """
        while self._names:
            temporary, path = self._names[0]
            if temporary.is_dir() and path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
            del self._names[0]

    def drop(self) -> None:
        """Remove what has no final name yet; errors are passed over."""
        for temporary, _ in self._names:
            if temporary in self._kept:
                continue
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
                continue
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._names = []


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` for one file or folder, which the ``with`` block writes.

    At the end of the block it is renamed to ``path``; after an error it is removed.

    Raises
    ------
    OSError
        If it cannot be renamed.
    """
    files = NewFiles()
    try:
        yield files.name(path)
        files.finish()
    finally:
        files.drop()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` for a folder, which the ``with`` block makes.

    At the end of the block it is renamed to ``path``, unless another process has made a folder
    there that is not empty: then that one stays, and this one is removed.

    Raises
    ------
    OSError
        If it cannot be renamed.
    """
    files = NewFiles()
    temporary = files.name(path)
    try:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        files.drop()
