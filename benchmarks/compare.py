"""Accuracy, time and memory of ragimpute, Beagle 5.4 and Minimac4 on the same data.

Run: python benchmarks/compare.py DATA_FOLDER... -o bench-output [--markdown docs/benchmarks.md]
     python benchmarks/compare.py --example -o bench-output

A data folder holds panel.bcf, truth.bcf, target.DENSITY.vcf.gz for each density, of all samples of
the truth or of some, one *.map, and, where it likes, made_by.txt: the command that made it, which
goes on the page;
--example takes the data that the package carries. Panels are prepared once for each tool, timed
apart. Then each target is imputed --repeats times, the tools in turn, so that what else the
machine does hits all alike; the medians count. Without --density the first target is imputed
without its phase, too, and the errors of phase are counted. Figures go to results.json in the
output folder, and on a page by --markdown. Peers that are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from comparison_page import print_tables, write_page
from cyvcf2 import VCF
from measure import measure
from peers import TOOLS, Tool, choose_tools
from samples import write_samples
from unphased import write_unphased

from ragimpute import __version__, example
from ragimpute.accuracy.evaluate import Evaluation, evaluate
from ragimpute.errors import InputError, RagimputeError
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
    """

    name: str
    panel: Path
    truth: Path
    genetic_map: Path
    targets: dict[str, Path]
    made_by: str = ""


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
        If a file is missing or the folder holds several maps; names it.
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
    return DataSet(name, folder / "panel.bcf", folder / "truth.bcf", maps[0], targets, said)


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
        Timed runs of each tool; >= 1.
    line
        Called with a line on each step.
    unphased
        Impute the first target without its phase too, where the data have no target "unphased".
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
        targets = dict(data.targets)
        if self.unphased and "unphased" not in targets:
            targets["unphased"] = folder / "target.unphased.vcf.gz"
            write_unphased(next(iter(targets.values())), targets["unphased"])
        densities = [
            self._density(data, name, target, folder, plink_map) for name, target in targets.items()
        ]
        about = describe_panel(data.panel)
        about["made_by"] = data.made_by
        return {"name": data.name, **about, "prepare": prepared, "densities": densities}

    def _prepare(self, data: DataSet, folder: Path, plink_map: Path) -> list[dict]:
        """Prepare the panel once for each kind of tool, in turn."""
        rows: dict[str, dict] = {tool.kind: {"runs": []} for tool in self.tools}
        for _ in range(self.repeats):
            for kind, row in rows.items():
                tool = next(tool for tool in self.tools if tool.kind == kind)
                command, stdout = tool.prepare(data.panel, plink_map, folder)
                log = folder / f"{kind}.prepare.log"
                row["runs"].append(measure(command, log=str(log), stdout=stdout))
                row["tool"] = "ragimpute" if kind == "ragimpute" else tool.name
                row["size_bytes"] = (folder / tool.panel_name()).stat().st_size
        self.line(f"{data.name}: panels prepared")
        return list(rows.values())

    def _density(
        self, data: DataSet, density: str, target: Path, folder: Path, plink_map: Path
    ) -> dict:
        """Impute one target by every tool, again and again, and score what came out."""
        given = read_target(target)
        phased = bool(given.phased.all())
        truth = truth_of(given.samples, data.truth, folder / f"truth.{density}.bcf")
        able = [tool for tool in self.tools if phased or tool.takes_unphased]
        for tool in self.tools:
            if tool not in able:
                self.notes.append(f"{data.name} {density}: {tool.name} needs a phased target")
        runs: dict[tuple[str, int], list[dict[str, float]]] = {}

        def impute(tool: Tool, threads: int) -> dict[str, float]:
            out = folder / f"{tool.slug}.{density}.vcf.gz"
            command = tool.impute(target, plink_map, folder, out, threads)
            return measure(command, log=str(folder / f"{tool.slug}.{density}.log"))

        scores: dict[str, Evaluation] = {}
        for tool in list(able):  # untimed: compiles ragimpute's kernels, and warms the disk's cache
            tool.array_fit(target, folder).unlink(missing_ok=True)
            try:
                impute(tool, self.threads[0])
            except RuntimeError as error:
                self.notes.append(f"{data.name} {density}: {error}")
                self.line(self.notes[-1])
                able.remove(tool)
                continue
            out = folder / f"{tool.slug}.{density}.vcf.gz"
            scores[tool.name] = evaluate(truth, out, data.panel, typed=target)
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
            "accuracy": [describe_accuracy(name, score) for name, score in scores.items()],
            "runs": [
                {"tool": name, "threads": threads, "runs": used}
                for (name, threads), used in runs.items()
            ],
        }


def describe_accuracy(tool: str, score: Evaluation) -> dict:
    """What results.json holds of one imputed file; None where a figure is undefined."""
    figures = score.as_dict()
    rows = [*figures["bins"], figures["overall"]]
    wanted = ("label", "num_sites", "r2", "mean_site_r2", "concordance")
    return {
        "tool": tool,
        "absent": figures["counts"]["absent"],
        "phase": figures["phase"],
        "bins": [{name: row[name] for name in wanted} for row in rows],
    }


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
    parser.add_argument("--density", action="append", help="repeatable; default: all there are")
    parser.add_argument(
        "--tools", nargs="+", choices=TOOLS, default=list(TOOLS), help="default: all of them"
    )
    parser.add_argument(
        "--array-fit", action="store_true",
        help="a row more: ragimpute with an --array-fit that an earlier run wrote",
    )  # fmt: skip
    parser.add_argument(
        "--model", action="append", help="of ragimpute; repeatable, a row each; default: default"
    )
    options = parser.parse_args(arguments)
    if not options.data and not options.example:
        parser.error("give a data folder, or --example")
    options.threads = list(dict.fromkeys(options.threads or [1, 2]))
    options.model = list(dict.fromkeys(options.model or ["default"]))
    if min(options.threads) < 1 or options.repeats < 1:
        parser.error("--threads and --repeats must be at least 1")
    return options


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    options = parse(arguments)
    sets = [open_folder(folder, options.density) for folder in options.data]
    if options.example:
        sets.append(open_example())
    names = [data.name for data in sets]
    if len(set(names)) < len(names):
        raise InputError(f"two data folders have one name: {', '.join(names)}")
    tools, notes = choose_tools(options.tools, options.model, array_fit=options.array_fit)
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
    try:
        main(sys.argv[1:])
    except RagimputeError as error:
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        sys.exit(f"Error: {error.message}{hint}")
    except RuntimeError as error:
        sys.exit(f"Error: {error}")
