"""Commands that messages name: words as a shell takes them, and names of files that are free."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from ragimpute.contigs import Lengths, alias_denied, bare_contig, other_spellings, par_names


def operand(path: str | Path) -> str:
    """A path as a command takes it, not for an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def command_word(path: str | Path) -> str:
    """A path as a word of a shell's command, not taken for an option."""
    return shlex.quote(operand(path))


def free_name(source: str | Path, suffix: str) -> str:
    """A file name of this folder that no file has, after the name of ``source``."""
    stem = Path(source).name.split(".")[0] or "panel"
    name, number = stem + suffix, 2
    while Path(name).exists():
        name, number = f"{stem}.{number}{suffix}", number + 1
    return operand(name)


def sort_command(path: str | Path) -> str:
    """The command that sorts a VCF or BCF."""
    out = shlex.quote(free_name(path, ".sorted.vcf.gz"))
    return f"bcftools sort {command_word(path)} -Oz -o {out}"


def rename_samples_command(path: str | Path, *, suffix: str, convert: bool = False) -> str:
    """How to give the samples of a VCF or BCF other names; it ends with a command.

    Parameters
    ----------
    path
        The file.
    suffix
        That of the file that the command writes, which is of the same kind: ".vcf", ".vcf.gz" or
        ".bcf".
    convert
        Write a BCF first, as bcftools reheader refuses what gzip compressed.
    """
    listed = free_name(path, ".names.txt")
    out = shlex.quote(free_name(path, f".renamed{suffix}"))
    word = command_word(path)
    before, last = (f"bcftools view -Ob {word} | ", "-") if convert else ("", word)
    return (
        f"write the samples' new names into {listed}, one a line, then: {before}bcftools reheader "
        f"-s {shlex.quote(listed)} -o {out} {last}"
    )


def absence_hint(
    wanted: str,
    names: Iterable[str],
    otherwise: str,
    *,
    file: str | Path,
    declared: Lengths | None = None,
    wanted_of: Lengths | None = None,
) -> str:
    """What to do where ``same_contig`` finds no name, and why one that looks alike is not it.

    Parameters
    ----------
    wanted, names, declared, wanted_of
        As for :func:`ragimpute.contigs.same_contig`.
    otherwise
        The hint where no name looks alike.
    file
        The VCF or BCF that holds ``names``.
    """
    names = list(names)
    denied = alias_denied(wanted, names, declared, wanted_of)
    if denied is not None:
        found, reason = denied
        return (
            f"{found} would be {wanted} in a human file, but {reason}; if it is, rename it: "
            + rename_command(file, [found], wanted)
        )
    parts = par_names(names, declared) if bare_contig(wanted) in ("X", "23") else []
    if parts:
        return (
            f"{' and '.join(parts)} are a part of X under a name of its own: give it the name "
            "of X, e.g. " + rename_command(file, parts, wanted)
        )
    return otherwise


def rename_command(file: str | Path, names: Sequence[str], wanted: str) -> str:
    """The command that gives contigs of a VCF/BCF another name."""
    lines = "".join(f"{name} {wanted}\\n" for name in names)
    listed = shlex.quote(free_name(file, ".names.txt"))
    return (
        f"printf {shlex.quote(lines)} > {listed} && bcftools annotate --rename-chrs {listed} "
        f"{command_word(file)} | bcftools sort -Oz -o "
        + shlex.quote(free_name(file, ".renamed.vcf.gz"))
    )


def spellings_warning(
    file: str, path: str | Path, contig: str, names: Iterable[str], declared: Lengths
) -> str | None:
    """The warning that records of other spellings of a contig are not read; None: there are none.

    Parameters
    ----------
    file, path
        What the file is called ("panel", "target"), and where it is.
    contig, names, declared
        As for :func:`ragimpute.contigs.other_spellings`.
    """
    others = other_spellings(contig, names, declared)
    if not others:
        return None
    return (
        f"{file} {path} holds records on {' and '.join(others)} beside {contig}, which are not "
        "read: two names of one file are two contigs. If they are one, rename them: "
        f"{rename_command(path, others, contig)}"
    )
