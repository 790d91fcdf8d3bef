"""Several runs as one genome: their reports are read, checked against each other and added up."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.contigs import bare_contig
from ragimpute.errors import InputError
from ragimpute.reports.figures import DR2_LEAST, IMPUTE_FORMAT, IMPUTE_VERSION, plain
from ragimpute.sites import some_names

#: Version of the tree of :func:`genome_figures`. Raise it if a key is removed or changes meaning.
GENOME_FORMAT, GENOME_VERSION = "ragimpute-genome-report", 1

_AGAIN = "give what 'impute --report run.json' writes"
_LETTERS = ("X", "Y", "XY", "MT")
_COUNTS = ("num_samples", "num_haplotypes", "num_sites", "num_typed", "num_untyped")


@dataclass(frozen=True)
class Run:
    """The report of one run of ``impute``, as it was read.

    Attributes
    ----------
    path
        The report.
    contig, first_bp, last_bp
        The sites that were written lie on the contig from ``first_bp`` to ``last_bp``, 1-based and
        closed.
    figures
        The tree of :func:`ragimpute.reports.figures.impute_figures`.
    """

    path: Path
    contig: str
    first_bp: int
    last_bp: int
    figures: dict[str, Any]

    @property
    def samples(self) -> frozenset[str]:
        """Names of the targets; empty if the report does not name them."""
        return frozenset(sample["name"] for sample in self.figures["samples"])

    @property
    def place(self) -> str:
        """The region of the sites, for people."""
        return f"{self.contig}:{self.first_bp:,}-{self.last_bp:,}"


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Read the reports of runs, sorted by chromosome (1, 2, ..., X, Y, MT, others) and position.

    Raises
    ------
    InputError
        If there is no report; one cannot be read, is not that of a run of ``impute`` or lacks a
        figure; the same file is given twice, or two runs are about the same sites.
    """
    if not paths:
        raise InputError("no report of a run is given", hint=_AGAIN)
    runs = [_read(Path(path)) for path in paths]
    runs.sort(key=lambda run: (*karyotype_key(run.contig), run.first_bp, run.last_bp))
    seen: dict[Path, Path] = {}
    for run in runs:
        real = run.path.resolve()
        if real in seen:
            raise InputError(f"report {run.path} is given twice", hint="name each report once")
        seen[real] = run.path
    for one, two in pairwise(runs):
        if bare_contig(one.contig) == bare_contig(two.contig) and two.first_bp <= one.last_bp:
            raise _overlap(one, two)
    return runs


def karyotype_key(contig: str) -> tuple[int, int, str]:
    """Sorts contigs as a karyogram does: by number, then X, Y, XY, MT, then the others by name."""
    bare = bare_contig(contig)
    found = re.fullmatch(r"(\d{1,9})(\D.*)?", bare)
    if found:
        return 0, int(found[1]), found[2] or ""
    if bare in _LETTERS:
        return 1, _LETTERS.index(bare), ""
    # Numbers within a name count as numbers: scaffold_9 comes before scaffold_10.
    return 2, 0, re.sub(r"\d{1,12}", lambda number: number[0].zfill(12), bare)


def genome_figures(runs: Sequence[Run]) -> dict[str, Any]:
    """Add up runs by chromosome and in all.

    Parameters
    ----------
    runs
        From :func:`read_runs`, one or more.

    Returns
    -------
    A tree that JSON can hold. "chromosomes" are in karyotype order, each with its sites, typed
    sites, mean DR2 (also by MAF bin) and shares of DR2 >= .3 and .8 over untyped sites, warnings,
    wall time and peak memory; "total" has the same of all runs; "notes" says in which way the runs
    do not belong together.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(bare_contig(run.contig), []).append(run)
    tree = {
        "format": GENOME_FORMAT,
        "format_version": GENOME_VERSION,
        "chromosomes": [{"contig": own[0].contig} | _sum(own) for own in groups.values()],
        "total": _sum(runs),
        "notes": _notes(runs, groups),
        "runs": [
            {"report": str(run.path), "contig": run.contig, "first_bp": run.first_bp,
             "last_bp": run.last_bp, "run": run.figures["run"], "files": run.figures["files"],
             "model": run.figures["model"], "versions": run.figures.get("versions", {})}
            | _sum([run])
            for run in runs
        ],
    }  # fmt: skip
    out: dict[str, Any] = plain(tree)
    return out


def _read(path: Path) -> Run:
    """Read and check one report."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"report {path} cannot be read: {error.strerror}", hint="check the path"
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON
        raise InputError(f"report {path} is not JSON", hint=_AGAIN) from error
    found = tree.get("format") if isinstance(tree, dict) else None
    if found != IMPUTE_FORMAT:
        what = f"of format {found!r}" if isinstance(found, str) else "no report of ragimpute"
        raise InputError(f"report {path} is {what}, expected {IMPUTE_FORMAT!r}", hint=_AGAIN)
    if tree.get("format_version") != IMPUTE_VERSION:
        raise InputError(
            f"report {path} has format_version {tree.get('format_version')}, expected "
            f"{IMPUTE_VERSION}",
            hint=f"it is of another version of ragimpute; {_AGAIN}",
        )
    try:
        return _checked(path, tree)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"report {path} lacks a figure or has a wrong one: {error}",
            hint=f"it was changed or damaged; {_AGAIN}",
        ) from error


def _checked(path: Path, tree: dict[str, Any]) -> Run:
    """The run of a tree; an exception of Python's own where the tree is not as it should be."""
    run = tree["run"]
    first, last = run["first_bp"], run["last_bp"]
    whole = [tree[key] for key in _COUNTS] + [first, last, *tree["num_dr2"].values()]
    if not all(type(value) is int and value >= 0 for value in whole):
        raise ValueError("a count is not a whole number")
    if not (isinstance(run["contig"], str) and run["contig"] and first <= last):
        raise ValueError("its contig or positions are wrong")
    for key in ("wall_seconds", "peak_rss_mib"):
        if not 0 <= float(tree[key]) < math.inf:
            raise ValueError(f"{key} is {tree[key]}")
    for row in tree["dr2_by_maf"]:
        _weighted([(row["num_sites"], row["mean_dr2"])])
    if [row["maf_high"] for row in tree["dr2_by_maf"]] != list(MAF_BINS[1:]):
        raise ValueError("dr2_by_maf has other bins")
    _weighted([(tree["num_untyped"], tree["mean_dr2"])])
    if set(tree["num_dr2"]) != {f"{least:g}" for least in DR2_LEAST}:
        raise ValueError("num_dr2 has other limits")
    for sample in tree["samples"]:
        if not isinstance(sample["name"], str):
            raise ValueError("a sample has no name")
    if not all(isinstance(line, str) for line in tree["warnings"]):
        raise ValueError("a warning is not text")
    if not isinstance(tree["files"], dict):
        raise ValueError("files is not a tree")
    for key in ("model", "versions"):
        tree.setdefault(key, None)
    return Run(path, run["contig"], first, last, tree)


def _overlap(one: Run, two: Run) -> InputError:
    """The error of two runs that are about the same sites."""
    both = f"reports {one.path} ({one.place}) and {two.path} ({two.place}) overlap"
    if one.samples and two.samples and not one.samples & two.samples:
        return InputError(
            f"{both}: they are two batches of samples",
            hint="make one genome report for each batch, of runs of the same samples",
        )
    return InputError(f"{both}: their sites would be counted twice", hint="give one of the two")


def _sum(runs: Sequence[Run]) -> dict[str, Any]:
    """What runs come to together; means are weighted by sites."""
    every = [run.figures for run in runs]
    untyped = sum(one["num_untyped"] for one in every)
    return {
        "num_runs": len(runs),
        "num_samples": max(one["num_samples"] for one in every),
        "num_haplotypes": max(one["num_haplotypes"] for one in every),
        "num_sites": sum(one["num_sites"] for one in every),
        "num_typed": sum(one["num_typed"] for one in every),
        "num_untyped": untyped,
        "span_bp": sum(run.last_bp - run.first_bp + 1 for run in runs),
        "mean_dr2": _weighted([(one["num_untyped"], one["mean_dr2"]) for one in every]),
        **{
            f"share_dr2_{least:g}": sum(one["num_dr2"][f"{least:g}"] for one in every) / untyped
            if untyped
            else None
            for least in DR2_LEAST
        },
        "dr2_by_maf": [
            {
                "maf_low": low,
                "maf_high": high,
                "num_sites": sum(one["dr2_by_maf"][i]["num_sites"] for one in every),
                "mean_dr2": _weighted(
                    [
                        (one["dr2_by_maf"][i]["num_sites"], one["dr2_by_maf"][i]["mean_dr2"])
                        for one in every
                    ]
                ),
            }
            for i, (low, high) in enumerate(pairwise(MAF_BINS))
        ],
        "warnings": [line for one in every for line in one["warnings"]],
        "wall_seconds": sum(one["wall_seconds"] for one in every),
        "peak_rss_mib": max(one["peak_rss_mib"] for one in every),
    }


def _weighted(parts: Sequence[tuple[int, float | None]]) -> float | None:
    """The mean of means over so many sites each; None if there are no sites."""
    known = [(n, mean) for n, mean in parts if n]
    if any(mean is None or not 0 <= mean <= 1 for _, mean in known):
        raise ValueError("a mean DR2 is not in [0, 1]")
    total = sum(n for n, _ in known)
    return sum(n * (mean or 0.0) for n, mean in known) / total if total else None


def _notes(runs: Sequence[Run], groups: dict[str, list[Run]]) -> list[str]:
    """In which way the runs do not belong together, one line each."""
    notes = []
    told: list[tuple[str, Callable[[Run], str]]] = [
        ("models", lambda run: str(run.figures["model"])),
        ("versions of ragimpute", _version),
        ("numbers of samples", lambda run: f"{run.figures['num_samples']:,}"),
        ("numbers of panel haplotypes", lambda run: f"{run.figures['num_haplotypes']:,}"),
    ]
    for what, value_of in told:
        notes += _differing(what, runs, value_of)
    first = runs[0].samples
    others = [run for run in runs if run.samples != first]
    if others and len({run.figures["num_samples"] for run in runs}) == 1:
        notes.append(
            f"The runs are of different samples: {_contigs(others)} has others than "
            f"{runs[0].contig}."
        )
    for own in groups.values():
        for what, key in (("panels", "panel_checksum"), ("genetic maps", "genetic_map")):
            if len({run.figures["run"].get(key) for run in own}) > 1:
                notes.append(f"The runs of {own[0].contig} used different {what}.")
    spelled = {name[: len(name) - len(bare_contig(name))] for name in (run.contig for run in runs)}
    if len(spelled) > 1:
        notes.append(f"Contigs are spelled in different ways: {_contigs(runs)}.")
    numbers = {int(name) for name in groups if name.isdecimal() and len(name) < 4}
    absent = [n for n in range(1, max(numbers, default=0)) if n not in numbers]
    if absent and len(absent) < len(numbers):
        notes.append(f"There is no report of chromosome {', '.join(map(str, absent))}.")
    return notes


def _differing(what: str, runs: Sequence[Run], value_of: Callable[[Run], str]) -> list[str]:
    """A note if runs differ in something: which value the runs of which contigs have."""
    by_value: dict[str, list[Run]] = {}
    for run in runs:
        by_value.setdefault(value_of(run), []).append(run)
    if len(by_value) == 1:
        return []
    told = "; ".join(f"{value} ({_contigs(own)})" for value, own in by_value.items())
    return [f"The runs have different {what}: {told}."]


def _version(run: Run) -> str:
    """The version of ragimpute that made a run."""
    return str((run.figures["versions"] or {}).get("ragimpute", "unknown"))


def _contigs(runs: Sequence[Run]) -> str:
    """The contigs of runs, each named once."""
    return some_names(list(dict.fromkeys(run.contig for run in runs)))
