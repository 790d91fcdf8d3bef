"""The long form of the fuzz tests: ``make fuzz`` (N=10000, SEED=1), or one case again by its seed.

Each case's folder is made anew from its seed alone, so ``python tests/run_fuzz.py --again SEED``
shows what one of them does; with ``--keep DIR`` its files stay there.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from fuzz_corpus import Case, make_case, make_inputs
from fuzz_faults import faults, listing
from fuzz_worker import Outcome, Worker

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"
START, END = "<!-- make fuzz writes from here -->", "<!-- to here -->"


@dataclass
class Figures:
    """What a run of cases came to.

    Attributes
    ----------
    seeds
        First, and the one after the last.
    jobs
        Cases that ran at the same time.
    cases, refused, faulty
        For each kind of input: cases, those that ended with one line of error, those with faults.
    by_fault
        Cases for each sort of fault.
    seconds, longest_s
        Of all cases; of the one that took longest.
    """

    seeds: tuple[int, int]
    jobs: int = 1
    cases: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faulty: Counter[str] = field(default_factory=Counter)
    by_fault: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    longest_s: float = 0.0

    def add(self, case: Case, outcome: Outcome, found: list[str]) -> None:
        """Count a case."""
        self.cases[case.kind] += 1
        self.refused[case.kind] += outcome.code in (1, 2) and not found
        self.faulty[case.kind] += bool(found)
        self.by_fault.update({line.partition(":")[0] for line in found})
        self.longest_s = max(self.longest_s, outcome.seconds)

    def as_markdown(self) -> str:
        """For docs/reliability.md."""
        total, faulty = self.cases.total(), self.faulty.total()
        sorts = ", ".join(f"{count} {name}" for name, count in self.by_fault.most_common())
        out = [
            f"{total:,} mutated inputs (seeds {self.seeds[0]:,} to {self.seeds[1] - 1:,}), "
            f"{self.seconds / 60:.0f} minutes, {self.jobs} at a time, "
            f"the longest {self.longest_s:.1f} s: "
            f"{self.refused.total():,} were refused in one line, "
            f"{total - self.refused.total() - faulty:,} were read, "
            f"{faulty:,} had a fault{f' ({sorts})' if sorts else ''}.",
            "",
            "| input | cases | refused | read | faults |",
            "|---|---:|---:|---:|---:|",
        ]
        for name, count in sorted(self.cases.items()):
            refused, bad = self.refused[name], self.faulty[name]
            out.append(
                f"| {name} | {count:,} | {refused:,} | {count - refused - bad:,} | {bad:,} |"
            )
        return "\n".join(out)


def run_case(seed: int, good: Path, worker: Worker, folder: Path) -> tuple[Case, Outcome, list]:
    """Make a case in ``folder`` and run it: the case, how it ended, its faults."""
    place, logs = folder / "case", folder / "logs"
    place.mkdir()
    logs.mkdir()
    case = make_case(seed, good, place)
    before = listing(place)
    outcome = worker.run(case.words, place, logs)
    return case, outcome, faults(case.words, outcome, before, place)


def run_cases(first: int, count: int, *, jobs: int = 1, show=print) -> Figures:
    """Run the cases of the seeds from ``first`` on; each fault is shown as it comes."""
    figures, lock = Figures((first, first + count), jobs), Lock()
    began = time.perf_counter()

    def add(case: Case, outcome: Outcome, found: list[str]) -> None:
        with lock:
            figures.add(case, outcome, found)
            if found:
                last = "\n".join(f"    {line[:300]}" for line in outcome.err.splitlines()[-6:])
                show(f"{case}\n  {'; '.join(found)[:1000]}\n{last}")
            done, bad = figures.cases.total(), figures.faulty.total()
            if done % 500 == 0:
                show(f"{done:,} of {count:,} cases, {bad} with faults")

    def run_share(seeds: range) -> None:
        with Worker(good) as worker:
            for seed in seeds:
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    add(*run_case(seed, good, worker, Path(folder)))

    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs) as pool:
        good = make_inputs(Path(scratch) / "good")
        for done in [
            pool.submit(run_share, range(first + i, first + count, jobs)) for i in range(jobs)
        ]:
            done.result()
    figures.seconds = time.perf_counter() - began
    return figures


def write_page(figures: Figures, page: Path = PAGE) -> None:
    """Put the figures between the two marks of the page."""
    text = page.read_text()
    between = f"{START}\n\n{figures.as_markdown()}\n\n{END}"
    page.write_text(re.sub(re.escape(START) + ".*?" + re.escape(END), lambda _: between, text,
                           flags=re.DOTALL))  # fmt: skip


def again(seed: int, keep: Path | None) -> int:
    """Show what one case does."""
    with tempfile.TemporaryDirectory() as scratch:
        good = make_inputs(Path(scratch) / "good")
        folder = keep or Path(scratch) / "again"
        folder.mkdir(parents=True)
        with Worker(good) as worker:
            case, outcome, found = run_case(seed, good, worker, folder)
        if keep:  # files of their own, not links to what goes now
            print(f"kept in {folder / 'case'}")
    print(case, f"exit code {outcome.code}, {outcome.seconds:.2f} s", outcome.out, outcome.err,
          "faults: " + ("; ".join(found) or "none"), sep="\n")  # fmt: skip
    return bool(found)


def main() -> int:
    """Run what the command line asks for; 1 where a case had a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--number", type=int, default=10_000, help="cases (10,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the first case (1)")
    parser.add_argument("--jobs", type=int, default=2, help="cases at the same time (2)")
    parser.add_argument("--again", type=int, metavar="SEED", help="run this case alone")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave its files there")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {PAGE.name}")
    options = parser.parse_args()
    if options.again is not None:
        return again(options.again, options.keep)
    print(f"seeds {options.seed} to {options.seed + options.number - 1}", flush=True)
    figures = run_cases(
        options.seed,
        options.number,
        jobs=options.jobs,
        show=lambda text: print(text, flush=True),
    )
    print(figures.as_markdown())
    if options.write:
        write_page(figures)
    return bool(figures.faulty.total())


if __name__ == "__main__":
    sys.exit(main())
