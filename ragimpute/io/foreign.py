"""Files of other tools: what they are, and the command that makes a VCF or a panel of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from ragimpute.commands import command_word, free_name, operand
from ragimpute.errors import InputError
from ragimpute.sites import Region

M3VCF = b"##fileformat=M3VCF"
MVCF = (b"##subfileformat=MVCF", b"##subfileformat=M3VCF")  # the first or second line
_ZSTD = b"\x28\xb5\x2f\xfd"
_BREF3 = b"\x7a\x88\x74\xf4"
_PLINK = b"\x6c\x1b"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def foreign_format(path: str | Path, start: bytes) -> InputError | None:
    """The error that names a file of another tool, with the way to a file that can be read.

    Parameters
    ----------
    path
        The file; its name decides only where the content has no mark of its own (.imp5).
    start
        Its first bytes, decompressed if they were gzip's, at least 32 if there are as many.

    Returns
    -------
    None if it is of no format that is known here.
    """
    path = Path(path)
    found = next((make for fits, make in _FORMATS if fits(path, start)), None)
    if found is None:
        return None
    what, hint = found(path)
    if start.startswith(_PLINK):
        what += ", which impute and phase read as a target"
        return InputError(f"{path} is {what}; here it is not read", hint=hint)
    return InputError(f"{path} is {what}, which is not read", hint=hint)


def file_set_kind(path: str | Path) -> str | None:
    """Whether a file is a "bgen" or a "pgen", by its first bytes; None if it is neither."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(20)
    except OSError:  # the code that reads it raises the error
        return None
    if _is_bgen(start):
        return "bgen"
    return "pgen" if _is_pgen(start) else None


def _is_bgen(start: bytes) -> bool:
    return start[16:20] == b"bgen"


def _is_pgen(start: bytes) -> bool:
    return start.startswith(_PLINK) and start[2:3] != b"\x01"


def prepare_command(
    source: str | Path,
    *,
    genetic_map: str | Path | None = None,
    cm_per_mb: float | None = None,
    region: Region | None = None,
    par: str | None = None,
    populations: str | Path | None = None,
    maps: str | Path | None = None,
    out: str | Path | None = None,
    force: bool = False,
) -> str:
    """The command that prepares a panel; ``out`` None: under a name that is free in this folder."""
    source = Path(source)
    words = ["ragimpute", "prepare", operand(source)]
    if genetic_map is not None:
        words += ["--map", str(genetic_map)]
    if cm_per_mb is not None:
        words += ["--cm-per-mb", f"{cm_per_mb!r}"]
    if populations is not None:
        words += ["--populations", str(populations)]
    if maps is not None:
        words += ["--maps", str(maps)]
    if region is not None:
        words += ["--region", str(region)]
    if par is not None:
        words += ["--par", par]
    words += ["-o", free_name(source, ".h5") if out is None else operand(out)]
    return shlex.join([*words, "--force"] if force else words)


def _m3vcf(path: Path) -> tuple[str, str]:
    return "a panel of Minimac (M3VCF)", f"make a panel of it: {prepare_command(path)}"


def _msav(path: Path) -> tuple[str, str]:
    out = shlex.quote(free_name(path, ".mvcf"))
    return (
        "a panel of Minimac4 (MSAV)",
        f"write it as text, which is read as a panel: sav export {command_word(path)} -o {out} "
        "(sav is the program of the package savvy)",
    )


def _to_vcf(what: str, hint: str) -> Callable[[Path], tuple[str, str]]:
    """What a format is, and how its content comes into a VCF: {file} to {out}."""

    def make(path: Path) -> tuple[str, str]:
        out = shlex.quote(free_name(path, ".vcf"))
        return what, hint.format(file=command_word(path), out=out)

    return make


def _imp5(path: Path) -> tuple[str, str]:
    return (
        "a panel of IMPUTE5 (imp5)",
        "no program makes a VCF of it: give the VCF or BCF that imp5Converter read",
    )


def _pgen(path: Path) -> tuple[str, str]:
    prefix = shlex.quote(operand(path.with_suffix("")))
    return (
        "a table of genotypes of plink2 (pgen)",
        f"make a VCF of it: plink2 --pfile {prefix} --export vcf bgz --out "
        + shlex.quote(free_name(path, "")),
    )


def _bed(path: Path) -> tuple[str, str]:
    prefix = shlex.quote(operand(path.with_suffix("")))
    return (
        "a table of genotypes of PLINK (bed), which knows no phase",
        f"make a VCF of it: plink2 --bfile {prefix} --export vcf bgz --out "
        + shlex.quote(free_name(path, "")),
    )


def _bgen(path: Path) -> tuple[str, str]:
    return (
        "a BGEN",
        f"make a VCF of it: plink2 --bgen {command_word(path)} ref-first --export vcf bgz --out "
        + shlex.quote(free_name(path, "")),
    )


def xcf_error(path: Path) -> InputError:
    """The error for the BCF of an XCF, whose genotypes are in a file beside it."""
    out = shlex.quote(free_name(path, ".vcf.bcf"))
    return InputError(
        f"{path} is an XCF, whose genotypes, in {path.with_suffix('.bin').name}, are not read",
        hint=f"make a BCF of it: xcftools view -i {command_word(path)} -O bcf -o {out}",
    )


_FORMATS: list[tuple[Callable[[Path, bytes], bool], Callable[[Path], tuple[str, str]]]] = [
    (lambda _, start: start.startswith((M3VCF, *MVCF)), _m3vcf),
    (lambda path, start: start.startswith(_ZSTD) and path.suffix in (".msav", ".sav"), _msav),
    (
        lambda _, start: start.startswith(_ZSTD),
        _to_vcf("compressed by zstd", "decompress it: zstd -d {file} -o {out}"),
    ),
    (
        lambda _, start: start.startswith(b"\xef\xbb\xbf##"),
        _to_vcf(
            "a text with a byte-order mark at its start, as editors of Windows write",
            "write it without: gzip -dcf {file} | tail -c +4 > {out}",
        ),
    ),
    (
        lambda _, start: start.startswith(_UTF_16) and start[2:4].strip(b"\0") == b"#",
        _to_vcf(
            "a text of two bytes a letter (UTF-16), as editors of Windows write",
            "write it as UTF-8: gzip -dcf {file} | iconv -f UTF-16 -t UTF-8 > {out}",
        ),
    ),
    (
        lambda _, start: start.startswith(b"\xfd7zXZ\x00"),
        _to_vcf("compressed by xz", "decompress it: xz -dc {file} > {out}"),
    ),
    (
        lambda _, start: start.startswith(b"BZh"),
        _to_vcf("compressed by bzip2", "decompress it: bzip2 -dc {file} > {out}"),
    ),
    (
        lambda _, start: start.startswith(b"PK\x03\x04"),
        _to_vcf("a zip archive", "take its file out: unzip -p {file} > {out}"),
    ),
    (
        lambda _, start: start.startswith(_BREF3),
        _to_vcf(
            "a panel of Beagle (bref3)", "make a VCF of it: java -jar unbref3.jar {file} > {out}"
        ),
    ),
    (lambda _, start: start.startswith(_PLINK) and start[2:3] == b"\x01", _bed),
    (lambda _, start: _is_pgen(start), _pgen),
    (lambda _, start: _is_bgen(start), _bgen),
    (lambda path, start: path.name.endswith(".imp5") and start[:3] != b"BCF", _imp5),
]
