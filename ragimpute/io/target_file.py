"""Which kind of file a target is: told by its content, not by its name."""

from __future__ import annotations

from pathlib import Path

from ragimpute.errors import InputError
from ragimpute.io.plink.file_set import PlinkFile, plink_file
from ragimpute.io.raw_text.raw_text import RawTextFile, is_raw_text
from ragimpute.io.vcf.read.records import VcfFile

TargetFile = VcfFile | PlinkFile | RawTextFile
_PARTS = {".bim": ".bed", ".fam": ".bed", ".pvar": ".pgen", ".psam": ".pgen"}


def open_target(path: str | Path) -> TargetFile:
    """The file, or the set of files, that a path or a prefix of PLINK means.

    Raises
    ------
    InputError
        If the path names a part of a file set, or is the prefix of two sets.
    """
    path = Path(path)
    found = plink_file(path)
    if found is not None:
        return PlinkFile(found)
    main = path.with_suffix(_PARTS.get(path.suffix, path.suffix))
    if main != path and path.is_file() and plink_file(main) is not None:
        raise InputError(
            f"{path} is a part of a file set of PLINK, without the genotypes",
            hint=f"name {main}, beside which it is read",
        )
    return RawTextFile(path) if is_raw_text(path) else VcfFile(path)


def files_of(path: str | Path, file: TargetFile) -> dict[str, str | Path]:
    """The files that are read of a target, by what messages call them.

    Parameters
    ----------
    path
        What the target was named.
    file
        What :func:`open_target` made of it.

    Raises
    ------
    InputError
        If one is missing.
    """
    if not isinstance(file, PlinkFile):
        return {"target input": path}
    variants, samples = file.parts
    return {
        "target input": file.path,
        "target's variants": variants,
        "target's samples": samples,
    }
