"""Accuracy, time and memory of ragimpute, Beagle 5.4 and Minimac4 on the same data.

Run: python benchmarks/compare.py DATA_FOLDER... -o bench-output [--markdown docs/benchmarks.md]
     python benchmarks/compare.py --example -o bench-output

A data folder holds panel.bcf, truth.bcf, target.DENSITY.vcf.gz for each density, of all samples of
the truth or of some, one *.map, and, where it likes, made_by.txt: the command that made it, which
goes on the page, and benchmark.toml: "about", a line on the data, and "beagle_ne", the effective
population size that somebody who knows the species would tell Beagle, which gets a second row
then (--beagle-ne says it for folders that do not). --example takes the data that the package
carries.

Panels are prepared once for each tool, timed apart. Then each target is imputed --repeats times,
the tools in turn, so that what else the machine does hits all alike; the medians count. --repeats
0 times nothing. Without --density every phased target is imputed without its phase, too, and the
errors of phase are counted. Standard errors of r2, and of how far the first ragimpute is ahead of
each other tool, come from leaving out one target sample after the other (jackknife). Figures go
to results.json in the output folder, and on a page by --markdown. Peers that are not installed
are named and left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import shlex
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import one_line
from comparison_page import print_tables, write_page
from cyvcf2 import VCF
from measure import measure
from peers import TOOLS, Tool, choose_tools, told_ne
from samples import write_samples
from unphased import write_unphased

from ragimpute import __version__, example
from ragimpute.accuracy.evaluate import Evaluation, evaluate
from ragimpute.accuracy.jackknife import standard_error
from ragimpute.errors import InputError
from ragimpute.extras import installed_faiss
from ragimpute.io.vcf.read.genotypes import contigs_of, read_target
from ragimpute.model.checkpoint import load_model, write_text
from ragimpute.preparation.genetic_map import GeneticMap

FORMAT = "ragimpute-benchmark"
_LIBRARIES = ("numpy", "numba", "torch")


@dataclass(frozen=True)
class DataSet:
    """A panel, targets of it at one or more densities, and what is true.

    Attributes
    ----------
    targets
        Phased or unphased VCF.gz by the name of its density, e.g. "dense".
    genetic_map
        In any layout that ragimpute reads.
    made_by
        The command that made them; empty if none is known.
    about
        One line on them; may be empty.
    beagle_ne
        The population size that Beagle is told in a row of its own; None for no such row.
    """

    name: str
    panel: Path
    truth: Path
    genetic_map: Path
    targets: dict[str, Path]
    made_by: str = ""
    about: str = ""
    beagle_ne: int | None = None


def open_folder(folder: Path, densities: list[str] | None = None) -> DataSet:
    """The data set in a folder.

    Parameters
    ----------
    folder
        See the head of this file.
    densities
        Those wanted; None for all.

    Raises
    ------
    InputError
        If a file is missing, the folder holds several maps, or benchmark.toml is wrong; names it.
    """
    found = {
        path.name.removeprefix("target.").removesuffix(".vcf.gz"): path
        for path in sorted(folder.glob("target.*.vcf.gz"))
    }
    wanted = list(found) if densities is None else [name for name in found if name in densities]
    maps = sorted(folder.glob("*.map"))
    for name in ("panel.bcf", "truth.bcf"):
        if not (folder / name).is_file():
            raise InputError(f"data folder {folder} has no {name}")
    if not wanted:
        asked = "target.DENSITY.vcf.gz" if densities is None else ", ".join(densities)
        raise InputError(f"data folder {folder} has no {asked}; it holds {sorted(found)}")
    if len(maps) != 1:
        raise InputError(f"data folder {folder} holds {len(maps)} files *.map, not one")
    targets = {name: found[name] for name in wanted}
    name, made_by = folder.resolve().name, folder / "made_by.txt"
    said = made_by.read_text(encoding="utf-8").strip() if made_by.is_file() else ""
    about, ne = read_note(folder / "benchmark.toml")
    return DataSet(
        name, folder / "panel.bcf", folder / "truth.bcf", maps[0], targets, said, about, ne
    )


def read_note(path: Path) -> tuple[str, int | None]:
    """A line on the data and the ne for Beagle, as benchmark.toml has them; "" and None else.

    Raises
    ------
    InputError
        If the file is no TOML, has other keys, or a value is not of its type.
    """
    if not path.is_file():
        return "", None
    try:
        known = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no TOML: {error}") from error
    about, ne = known.pop("about", ""), known.pop("beagle_ne", None)
    if known or not isinstance(about, str) or (ne is not None and not _is_size(ne)):
        raise InputError(
            f"{path} may hold about, a text, and beagle_ne, a whole number above 0",
            hint=f"remove or correct {', '.join(known) or 'the values'}",
        )
    return about, ne


def _is_size(value: object) -> bool:
    """Whether a value is a whole number above 0."""
    return type(value) is int and value > 0


def open_example() -> DataSet:
    """The data that the package carries."""
    return DataSet(
        "example",
        example.path("panel.bcf"),
        example.path("truth.bcf"),
        example.path("chr20.b37.gmap.gz"),
        {"omni": example.path("target.vcf.gz")},
    )


def write_plink_map(data: DataSet, out: Path) -> None:
    """Write the data set's genetic map in PLINK's columns, which all of the tools read."""
    (contig, *others) = contigs_of(data.panel)
    if others:
        raise InputError(f"panel {data.panel} holds {len(others) + 1} contigs, not one")
    known = GeneticMap.read(data.genetic_map, contig=contig)
    rows = zip(known.position_bp.tolist(), known.map_cm.tolist(), strict=True)
    write_text(out, "".join(f"{contig} . {cm:.9g} {bp:.0f}\n" for bp, cm in rows))


def truth_of(samples: list[str], truth: Path, out: Path) -> Path:
    """What is true of some samples: the truth itself where it has no others, else ``out``."""
    if set(VCF(str(truth)).samples) <= set(samples):
        return truth
    write_samples(truth, samples, out)
    return out


class Comparison:
    """Runs the tools on data sets, and collects what they used and how accurate they were.

    Parameters
    ----------
    tools
        Rows of the tables.
    work
        Folder for panels, imputed files and logs.
    threads
        Thread counts to time; accuracy is that of the first.
    repeats
        Timed runs of each tool; >= 0.
    line
        Called with a line on each step.
    unphased
        Impute every phased target without its phase too.
    """

    def __init__(
        self, tools: list[Tool], work: Path, *, threads: list[int], repeats: int,
        line: Callable[[str], None], unphased: bool = True,
    ) -> None:  # fmt: skip
        self.tools = tools
        self.work = work
        self.threads = threads
        self.repeats = repeats
        self.line = line
        self.unphased = unphased
        self.notes: list[str] = []

    def run(self, data: DataSet) -> dict:
        """Everything on one data set, as ``data`` of results.json holds it."""
        folder = self.work / data.name
        folder.mkdir(parents=True, exist_ok=True)
        plink_map = folder / "genetic.map"
        write_plink_map(data, plink_map)
        prepared = self._prepare(data, folder, plink_map)
        tools = told_ne(self.tools, data.beagle_ne)
        targets = dict(data.targets)
        if self.unphased:
            targets |= self._without_phase(data, folder)
        densities = [
            self._density(data, tools, name, target, folder, plink_map)
            for name, target in targets.items()
        ]
        about = describe_panel(data.panel)
        about |= {"made_by": data.made_by, "about": data.about}
        return {"name": data.name, **about, "prepare": prepared, "densities": densities}

    def _without_phase(self, data: DataSet, folder: Path) -> dict[str, Path]:
        """The phased targets without their phase, but for those that the data have already."""
        made = {}
        for name, target in data.targets.items():
            # A folder's target "unphased" is its first density without the phase.
            first = name == next(iter(data.targets)) and "unphased" in data.targets
            if not first and f"{name}-unphased" not in data.targets and is_phased(target):
                made[f"{name}-unphased"] = folder / f"target.{name}-unphased.vcf.gz"
                write_unphased(target, made[f"{name}-unphased"])
        return made

    def _prepare(self, data: DataSet, folder: Path, plink_map: Path) -> list[dict]:
        """Prepare the panel once for each kind of tool, in turn."""
        rows: dict[str, dict] = {tool.kind: {"runs": []} for tool in self.tools}
        for _ in range(max(self.repeats, 1)):
            for kind, row in rows.items():
                tool = next(tool for tool in self.tools if tool.kind == kind)
                command, stdout = tool.prepare(data.panel, plink_map, folder)
                log = folder / f"{kind}.prepare.log"
                row["runs"].append(measure(command, log=str(log), stdout=stdout))
                row["tool"] = "ragimpute" if kind == "ragimpute" else tool.name
                row["size_bytes"] = (folder / tool.panel_name()).stat().st_size
        self.line(f"{data.name}: panels prepared")
        return list(rows.values())

    def _make_index(self, tool: Tool, name: str, target: Path, folder: Path) -> None:
        """Index the panel for a target's array, and note what that took."""
        took = measure(tool.index(target, folder), log=str(folder / f"{tool.slug}.log"))
        files = [file for file in tool.index_folder(target, folder).rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        self.notes.append(
            f"{name}: the index was made in {took['wall_s']:.1f} s "
            f"({took['cpu_s']:.1f} s of CPU, {took['peak_mib']:.0f} MiB), and takes "
            f"{size / 1e6:,.0f} MB"
        )

    def _density(
        self, data: DataSet, tools: list[Tool], density: str, target: Path, folder: Path,
        plink_map: Path,
    ) -> dict:  # fmt: skip
        """Impute one target by every tool, again and again, and score what came out."""
        given = read_target(target)
        phased = bool(given.phased.all())
        truth = truth_of(given.samples, data.truth, folder / f"truth.{density}.bcf")
        able = [tool for tool in tools if phased or tool.takes_unphased]
        for tool in tools:
            if tool not in able:
                self.notes.append(f"{data.name} {density}: {tool.name} needs a phased target")
        runs: dict[tuple[str, int], list[dict[str, float]]] = {}

        def impute(tool: Tool, threads: int) -> dict[str, float]:
            out = folder / f"{tool.slug}.{density}.vcf.gz"
            command = tool.impute(target, plink_map, folder, out, threads)
            return measure(command, log=str(folder / f"{tool.slug}.{density}.log"))

        own = [tool.name for tool in tools if tool.kind == "ragimpute"]
        scores: dict[str, Evaluation] = {}
        for tool in list(able):  # untimed: compiles ragimpute's kernels, and warms the disk's cache
            try:
                if tool.has_index:
                    self._make_index(tool, f"{data.name} {density}", target, folder)
                impute(tool, self.threads[0])
            except RuntimeError as error:
                self.notes.append(f"{data.name} {density}: {error}")
                self.line(self.notes[-1])
                able.remove(tool)
                continue
            out = folder / f"{tool.slug}.{density}.vcf.gz"
            scores[tool.name] = evaluate(truth, out, data.panel, typed=target, jackknife=True)
            self.line(f"{data.name} {density}: {tool.name} r2 {scores[tool.name].overall.r2:.5f}")
        for i in range(self.repeats):
            for threads in self.threads:
                for tool in able:
                    runs.setdefault((tool.name, threads), []).append(impute(tool, threads))
            self.line(f"{data.name} {density}: timed {i + 1} of {self.repeats}")
        if not scores:
            raise InputError(f"no tool could impute {target}", hint=f"see the logs in {folder}")
        return {
            "name": density,
            "phased": phased,
            "num_samples": len(given.samples),
            "num_typed": len(given.sites),
            "accuracy": [
                describe_accuracy(name, score, ahead_of=_first_of(scores, own))
                for name, score in scores.items()
            ],
            "runs": [
                {"tool": name, "threads": threads, "runs": used}
                for (name, threads), used in runs.items()
            ],
        }


def is_phased(target: Path) -> bool:
    """Whether all genotypes of a target are phased."""
    return bool(read_target(target).phased.all())


def _first_of(scores: dict[str, Evaluation], names: list[str]) -> Evaluation | None:
    """The first of these tools that has been scored."""
    return next((scores[name] for name in names if name in scores), None)


def describe_accuracy(tool: str, score: Evaluation, *, ahead_of: Evaluation | None = None) -> dict:
    """What results.json holds of one imputed file; None where a figure is undefined.

    Parameters
    ----------
    tool
        Its name.
    score
        Of its file, with the jackknife.
    ahead_of
        Of the file that it is compared with: how far that is ahead, ``lead``, is told with its
        standard error. None, or ``score`` itself, for no comparison.
    """
    figures = score.as_dict()
    rows = [*figures["bins"], figures["overall"]]
    wanted = ("label", "num_sites", "r2", "mean_site_r2", "concordance")
    bins = [{name: row[name] for name in wanted} for row in rows]
    errors = figures.get("r2_standard_error", [None] * len(rows))
    for row, error in zip(bins, errors, strict=True):
        row["r2_error"] = error
    if ahead_of is not None and ahead_of is not score:
        other = [*ahead_of.bins, ahead_of.overall]
        lead_errors = standard_error(ahead_of.r2_without - score.r2_without)
        for row, mine, theirs, error in zip(
            bins, [*score.bins, score.overall], other, lead_errors.tolist(), strict=True
        ):
            row["lead"] = _defined(theirs.r2 - mine.r2)
            row["lead_error"] = _defined(error)
    return {"tool": tool, "absent": figures["counts"]["absent"], "phase": figures["phase"],
            "bins": bins}  # fmt: skip


def _defined(value: float) -> float | None:
    """The value, or None for NaN."""
    return None if math.isnan(value) else value


def describe_panel(path: Path) -> dict:
    """Size and place of a panel, read record by record: it may be larger than the memory."""
    position: list[int] = []
    contig, num_haplotypes = "", 0
    for record in VCF(str(path)):
        if not position:
            contig = record.CHROM
            num_haplotypes = int((record.genotype.array()[:, :-1] != -2).sum())
        position.append(record.POS)
    return {
        "contig": contig,
        "first_bp": min(position),
        "last_bp": max(position),
        "num_sites": len(position),
        "num_haplotypes": num_haplotypes,
    }


def describe_machine() -> dict[str, object]:
    """Processor, cores, memory and system; no name that tells whose machine it is."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for row in cpuinfo.read_text().splitlines():
            if row.startswith("model name"):
                model = row.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def describe_untrained(tools: list[Tool]) -> list[str]:
    """A note on each copying model that has no weights."""
    own = [tool for tool in tools if tool.kind == "ragimpute"]
    return [
        f"{tool.name}: model {Path(tool.model).name} has no weights, so this is copying "
        "(Li-Stephens) alone"
        for tool in own
        if not load_model(tool.model).trained
    ]


def describe_load() -> list[str]:
    """A note where other programs keep the machine busy, so that wall times mean little."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load < 0.5 * cores:
        return []
    return [
        f"the machine was busy with other work (load {load:.1f} on {cores} cores) when this began: "
        "compare CPU times, not wall times"
    ]


def describe_versions(tools: list[Tool]) -> dict[str, str]:
    """Versions of the tools, of Python and of the libraries that matter."""
    versions = {"ragimpute": __version__}
    versions |= {tool.name: tool.version() for tool in tools if tool.kind != "ragimpute"}
    versions["Python"] = platform.python_version()
    libraries = (*_LIBRARIES, *installed_faiss())
    return versions | {name: importlib.metadata.version(name) for name in libraries}


def describe_command(arguments: list[str], program: str = "compare.py") -> str:
    """The command; of paths that lead out of the checkout the last part alone."""
    outside = ("/", "../", "~")
    short = [Path(text).name if text.startswith(outside) else text for text in arguments]
    return shlex.join(["python", f"benchmarks/{program}", *short])


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line, checked."""
    parser = argparse.ArgumentParser(
        prog="compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*", type=Path, help="data folders")
    parser.add_argument("--example", action="store_true", help="the data that the package carries")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--markdown", type=Path, help="page to write, its plots in images/ beside")
    parser.add_argument("--threads", type=int, action="append", help="repeatable; default: 1 and 2")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each tool; default 3")
    parser.add_argument(
        "--beagle-ne", action="append", default=[], metavar="[FOLDER=]N",
        help="a row more: Beagle with this ne; repeatable, with the names of data folders",
    )  # fmt: skip
    parser.add_argument("--density", action="append", help="repeatable; default: all there are")
    parser.add_argument(
        "--tools", nargs="+", choices=TOOLS, default=list(TOOLS), help="default: all of them"
    )
    parser.add_argument(
        "--index", action="store_true",
        help="a row more: ragimpute with an index of the panel and the target's array",
    )  # fmt: skip
    parser.add_argument(
        "--model", action="append", help="of ragimpute; repeatable, a row each; default: default"
    )
    options = parser.parse_args(arguments)
    if not options.data and not options.example:
        parser.error("give a data folder, or --example")
    options.threads = list(dict.fromkeys(options.threads or [1, 2]))
    options.model = list(dict.fromkeys(options.model or ["default"]))
    if min(options.threads) < 1 or options.repeats < 0:
        parser.error("--threads must be at least 1 and --repeats at least 0")
    told = [text.rpartition("=") for text in options.beagle_ne]
    if not all(number.isdecimal() and int(number) for *_, number in told):
        parser.error("--beagle-ne takes whole numbers above 0: 1000, or FOLDER=1000")
    options.beagle_ne = {name: int(number) for name, _, number in told}
    return options


def with_beagle_ne(sets: list[DataSet], told: dict[str, int]) -> list[DataSet]:
    """The data sets with the ne of --beagle-ne.

    Parameters
    ----------
    told
        ne by the name of a data set, which goes before that of benchmark.toml; "" for all that
        are not named and have none there.

    Raises
    ------
    InputError
        If no data set has the name.
    """
    names = [data.name for data in sets]
    unknown = [name for name in told if name and name not in names]
    if unknown:
        raise InputError(f"--beagle-ne names {', '.join(unknown)}; the data are {', '.join(names)}")
    known = [told.get(data.name, data.beagle_ne or told.get("")) for data in sets]
    return [replace(data, beagle_ne=ne) for data, ne in zip(sets, known, strict=True)]


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    options = parse(arguments)
    sets = [open_folder(folder, options.density) for folder in options.data]
    if options.example:
        sets.append(open_example())
    names = [data.name for data in sets]
    if len(set(names)) < len(names):
        raise InputError(f"two data folders have one name: {', '.join(names)}")
    sets = with_beagle_ne(sets, options.beagle_ne)
    tools, notes = choose_tools(options.tools, options.model, index=options.index)
    notes += describe_untrained(tools) + describe_load()
    for note in notes:
        print(note, file=sys.stderr)
    if not tools:
        raise InputError("none of the tools is installed")
    options.output.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(
        tools, options.output, threads=options.threads, repeats=options.repeats,
        line=lambda text: print(text, file=sys.stderr, flush=True),
        unphased=options.density is None,
    )  # fmt: skip
    results = {
        "format": FORMAT,
        "date": time.strftime("%Y-%m-%d"),
        "command": describe_command(arguments),
        "machine": describe_machine(),
        "versions": describe_versions(tools),
        "repeats": options.repeats,
        "data": [comparison.run(data) for data in sets],
        "notes": notes + comparison.notes,
    }
    write_text(options.output / "results.json", json.dumps(results, indent=1) + "\n")
    print_tables(results)
    if options.markdown is not None:
        write_page(results, options.markdown)


if __name__ == "__main__":
    one_line.run(main, RuntimeError)
