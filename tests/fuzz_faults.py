"""What is wrong with how a command ended: crash, hang, traceback, litter, an unclear message."""

from __future__ import annotations

import gzip
import stat
from collections.abc import Iterable
from pathlib import Path

from fuzz_worker import NOT_CAUGHT, Outcome

_EOF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file in a folder; of a folder in it, nothing."""
    found = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        is_folder = stat.S_ISDIR(about.st_mode)
        found[str(path.relative_to(folder))] = (
            (0, 0) if is_folder else (about.st_size, about.st_mtime_ns)
        )
    return found


def faults(words: tuple[str, ...], outcome: Outcome, before: dict, folder: Path) -> list[str]:
    """What is wrong with how a command ended.

    Parameters
    ----------
    words
        The command.
    outcome
        How it ended.
    before, folder
        The listing of its folder before it ran; the folder.

    Returns
    -------
    One line for each fault; none where it did what it should: succeed with complete output, or
    say in one line why it cannot and leave nothing behind.
    """
    code = outcome.code
    if code is None:
        return [f"hang: stopped after {outcome.seconds:.0f} s"]
    if code < 0:
        return [f"crash: ended by signal {-code}"]
    found = []
    if code == NOT_CAUGHT or "Traceback" in outcome.err:
        found.append("traceback: " + (outcome.err.strip().splitlines() or ["?"])[-1])
    elif code not in (0, 1, 2):
        found.append(f"exit code: {code}")
    elif code:
        found += _message_faults(outcome)
    now = listing(folder)
    found += [f"input: {name} changed" for name in before if now.get(name) != before[name]]
    new = sorted(now.keys() - before.keys())
    if code:
        found += [f"left behind: {name}" for name in new]
    else:
        found += [f"temporary: {name}" for name in new if ".tmp" in name or name.startswith(".")]
        found += [f"output: {problem}" for problem in _output_faults(words, folder)]
    return found


def _message_faults(outcome: Outcome) -> Iterable[str]:
    """What is wrong with an error message: one line, and perhaps one with a hint."""
    lines = [line for line in outcome.err.splitlines() if not line.startswith("WARNING: ")]
    if outcome.code == 2:
        if not outcome.err.startswith("Usage: "):
            yield "message: exit code 2 without usage"
    elif not lines or not lines[0].startswith("Error: "):
        yield f"message: begins with {lines[:1]}"
    elif len(lines) > 2 or (len(lines) == 2 and not lines[1].startswith("  hint: ")):
        yield f"message: {len(lines)} lines, {lines[1][:100]!r} after the first"
    elif "out of memory" in lines[0]:
        yield "memory: " + lines[0]
    elif len(lines[0]) > 1500:
        yield f"message: a line of {len(lines[0]):,} characters"


def _output_faults(words: tuple[str, ...], folder: Path) -> Iterable[str]:
    """What is wrong with the output of a command that ended well."""
    out = next((words[i + 1] for i, word in enumerate(words) if word == "-o"), None)
    if out is None or words[0] == "train":
        return
    path = folder / out
    if not path.exists():
        yield f"{out} is not there"
    elif words[0] in ("impute", "phase", "merge"):
        data = path.read_bytes()
        text = data if out.endswith(".vcf") else gzip.decompress(data)
        if out.endswith(".gz") and not data.endswith(_EOF):
            yield f"{out} has no end block"
        if not out.endswith(".bcf"):
            yield from _vcf_faults(out, text.decode())


def _vcf_faults(name: str, text: str) -> Iterable[str]:
    """What is wrong with the rows of an imputed VCF."""
    rows = text.splitlines()
    head = next((i for i, row in enumerate(rows) if row.startswith("#CHROM")), None)
    if head is None or not text.endswith("\n"):
        yield f"{name} is cut"
        return
    columns = rows[head].count("\t")
    if any(row.count("\t") != columns for row in rows[head:]):
        yield f"{name} has rows of different lengths"
    elif "nan" in text[text.index("#CHROM") :].partition("\n")[2].lower():
        yield f"{name} has a NaN"
