"""Whether the tests catch faults: small ones, put into a copy of the repository one at a time.

    python tests/run_mutations.py                      every mutation
    python tests/run_mutations.py "swapped strand"     those named
    python tests/run_mutations.py --list               their names, and what each changes

Each mutation replaces one piece of text in one file. The test files that are to catch it then run,
up to the first failure, and a line tells which test that was. The program ends with exit status 1
if a mutation is caught by no test: then a test has been weakened, or the code that is mutated has
changed, or the mutation makes no difference and should be another one.

To see whether a change to the tests loses any of what they catch, compare with the tests as they
were before it, from another checkout: ``--tree DIR``. With ``--work DIR`` the copy, and the kernels
that it compiled, are kept for the next run.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("ragimpute", "models", "tests", "benchmarks", "packaging", "workflow", "docs")


@dataclass(frozen=True)
class Mutation:
    """A fault: ``old``, which stands once in ``file``, becomes ``new``; ``tests`` may catch it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _mutation(name: str, file: str, old: str, new: str, tests: str) -> Mutation:
    """A mutation whose test files are given by their names without test_ and .py."""
    paths = [Path(word) for word in tests.split()]
    files = tuple(str("tests" / path.with_name(f"test_{path.name}.py")) for path in paths)
    return Mutation(name, file, old, new, files)


MUTATIONS = [
    # Reading and matching.
    _mutation(
        "swapped strand", "ragimpute/target/match.py",
        "    calls.turn(turned[row])\n", "",
        "target/match input_as_it_comes imputation/impute",
    ),
    _mutation(
        "complement without reversal", "ragimpute/sites.py",
        "return position, ref[::-1].translate(_COMPLEMENT), alt[::-1].translate(_COMPLEMENT)",
        "return position, ref.translate(_COMPLEMENT), alt.translate(_COMPLEMENT)",
        "sites target/match input_as_it_comes",
    ),
    _mutation(
        "first of duplicates not kept", "ragimpute/target/match.py",
        "row = np.array([rows_of[site][0] for", "row = np.array([rows_of[site][-1] for",
        "target/match target/qc input_as_it_comes",
    ),
    _mutation(
        "the map's end is flat", "ragimpute/preparation/genetic_map.py",
        "= inside + rate * (before + after)", "= inside + rate * before",
        "preparation/genetic_map",
    ),
    _mutation(
        "call rate at the limit is low", "ragimpute/target/qc.py",
        "if rate < LOW_SAMPLE_CALL_RATE]", "if rate <= LOW_SAMPLE_CALL_RATE]", "target/qc",
    ),
    # Copying and phasing.
    _mutation(
        "likelihood of the wrong allele", "ragimpute/copying/choose_parameters.py",
        "np.where(true == 1, prob, 1 - prob)", "np.where(true == 1, 1 - prob, prob)",
        "copying/choose_parameters copying_model/array_index",
    ),
    _mutation(
        "missing alleles by the unlikelier", "ragimpute/phasing/sampler.py",
        "return np.where(out == -1, self._known[:, :, :num_typed].transpose(2, 0, 1), out)",
        "return np.where(out == -1, 1 - self._known[:, :, :num_typed].transpose(2, 0, 1), out)",
        "phasing/sampler phasing/phase",
    ),
    _mutation(
        "phased pairs are sorted", "ragimpute/phasing/sampler.py",
        "loose = (~phased & (alleles >= 0).all(axis=2))[:, :, None]",
        "loose = (alleles >= 0).all(axis=2)[:, :, None]",
        "phasing/sampler phasing/phase phasing/constraints",
    ),
    # Windows and output.
    _mutation(
        "a window's border is read twice", "ragimpute/imputation/windows.py",
        "here = (self.panel_index >= start) & (self.panel_index < stop)",
        "here = (self.panel_index >= start) & (self.panel_index <= stop)",
        "imputation/windows imputation/impute",
    ),
    _mutation(
        "no flank to the right", "ragimpute/imputation/windows.py",
        "position_cm[last - 1] + buffer_cm, side", "position_cm[last - 1], side",
        "imputation/windows imputation/impute",
    ),
    _mutation(
        "typed sites are imputed", "ragimpute/imputation/windows.py",
        "prob[rows] = np.where(observed >= 0, observed, prob[rows])", "pass",
        "imputation/windows imputation/impute imputation/outputs",
    ),
    _mutation(
        "AF of targets counts absent haplotypes", "ragimpute/accuracy/dr2.py",
        "af = total / np.maximum(num, 1)", "af = total / max(1, allele_prob.shape[1])",
        "accuracy/metrics jobs/merge impute_ploidy imputation/impute",
    ),
    _mutation(
        "sums of batches without the means' distance", "ragimpute/accuracy/dr2.py",
        "between = self.between + other.between + step**2 * self.num * other.num / safe",
        "between = self.between + other.between", "jobs/merge",
    ),
    _mutation(
        "typed only in some is typed", "ragimpute/jobs/merge.py",
        "return found[0] if len(set(found)) == 1 else IMPUTED", "return found[0]", "jobs/merge",
    ),
    _mutation(
        "dosage of the likelier alleles", "ragimpute/io/vcf/write/bcf.py",
        "words[np.int64((p1 + p2) * scale + 0.5)]",
        "words[np.int64((np.float64(p1 > 0.5) + np.float64(p2 > 0.5)) * scale + 0.5)]",
        "io/vcf/write/bcf io/vcf/write/writer imputation/outputs",
    ),
    _mutation(
        "DR2 of few targets is calibrated", "ragimpute/accuracy/dr2.py",
        "as_it_is = (raw == 0) | (np.asarray(num) < MIN_HAPLOTYPES)", "as_it_is = raw == 0",
        "accuracy/dr2 imputation/impute jobs/merge",
    ),
    _mutation(
        "minor alleles of the target by ALT", "ragimpute/accuracy/dr2.py",
        "minor = self.maf * self.num", "minor = self.af * self.num",
        "accuracy/dr2 training/dr2_fit jobs/merge imputation/impute "
        "copying_model/imputer",
    ),
    # What survives a broken run.
    _mutation(
        "unfinished files under the final name", "ragimpute/runtime/outputs.py",
        "        yield files.name(path)\n",
        "        yield path\n        files.name(path).write_bytes(path.read_bytes())\n",
        "runtime/outputs model/checkpoint preparation/prepare training/state",
    ),
    _mutation(
        "kept without reaching the disk", "ragimpute/imputation/resume.py",
        "            os.fsync(file.fileno())\n", "", "imputation/resume",
    ),
    _mutation(
        "changed options are taken up", "ragimpute/imputation/resume.py",
        'for key in ("inputs", "options"):', 'for key in ("inputs",):', "imputation/resume",
    ),
    # Plans, figures.
    _mutation(
        "regions share a position", "ragimpute/jobs/split.py",
        "stop_bp = int(position_bp[-1]) + 1 if last else int(position_bp[stop])",
        "stop_bp = int(position_bp[-1]) + 1 if last else int(position_bp[stop]) + 1",
        "jobs/split workflow",
    ),
    _mutation(
        "MAF bins open on the other side", "ragimpute/accuracy/metrics.py",
        'np.asarray(maf, np.float64), 7), side="left") - 1',
        'np.asarray(maf, np.float64), 7), side="right") - 1', "accuracy/metrics accuracy/evaluate",
    ),
    _mutation(
        "concordance of all sites", "ragimpute/accuracy/scores.py",
        "carrier = ~np.isnan(truth) & ((best > 0) | (truth > 0))", "carrier = ~np.isnan(truth)",
        "accuracy/evaluate accuracy/metrics",
    ),
    # Training.
    _mutation(
        "a step for each batch, whatever is accumulated", "ragimpute/training/trainer.py",
        "complete = state.batch + 1 == begin + group", "complete = True",
        "training/trainer trainer_settings trainer_processes",
    ),
    _mutation(
        "patience of one epoch more", "ragimpute/training/trainer.py",
        "0 < patience <= epoch + 1 - max(", "0 < patience < epoch + 1 - max(",
        "training/trainer trainer_settings",
    ),
    _mutation(
        "epochs of the warm-up count", "ragimpute/training/trainer.py",
        "max(state.best_epoch, warming)", "max(state.best_epoch, 0)", "training/trainer",
    ),
    _mutation(
        "a curriculum that begins anew", "ragimpute/training/trainer.py",
        "while data.masks.level < due:", "if data.masks.level < due:", "training/trainer",
    ),
    _mutation(
        "the panel's frequency as the population's", "ragimpute/token_model/windows.py",
        "np.where(known[rows, None], af_p, block.af)", "block.af",
        "token_model/windows token_model/imputer",
    ),
    _mutation(
        "pooling with equal weights", "ragimpute/model/fusion.py",
        "score = self.score(refs)  # (B, K, L, 1)", "score = 0 * self.score(refs)",
        "model/fusion model/bert_rag",
    ),
    _mutation(
        "a sum that several processes share", "ragimpute/training/losses.py",
        "return num_processes * (loss * weight * keep).sum()",
        "return (loss * weight * keep).sum()", "training/losses trainer_processes",
    ),
    _mutation(
        "a resumed run starts its rate anew", "ragimpute/training/trainer.py",
        "rate = self.config.optimizer.lr * self._factor(state.step)",
        "rate = self.config.optimizer.lr * self._factor(state.batch)",
        "training/trainer trainer_settings trainer_processes",
    ),
    _mutation(
        "the best epoch is the last", "ragimpute/training/trainer.py",
        "improved = figure > state.best or state.best == -math.inf", "improved = True",
        "training/trainer trainer_settings",
    ),
    _mutation(
        "a mask of one site fewer", "ragimpute/training/data/masks.py",
        "return _chosen(_largest(key, num_hidden), len(sites))",
        "return _chosen(_largest(key, num_hidden - 1), len(sites))",
        "training/data/masks training/data/token_batches",
    ),
    _mutation(
        "references of the panel's frequency", "ragimpute/token_model/windows.py",
        "own = block.af_population[self.haplotype_population[index]]",
        "own = np.broadcast_to(block.af, (len(index), len(block.af)))",
        "token_model/windows training/data/token_batches",
    ),
    _mutation(
        "a cosine that starts at the warm-up's end twice", "ragimpute/training/schedule.py",
        "share = (step - warmup) / max(1, total_steps - warmup)",
        "share = step / max(1, total_steps)", "training/schedule training/trainer",
    ),
    # Settings, commands, pages.
    _mutation(
        "settings out of range are taken", "ragimpute/config.py",
        "accumulation: int = Field(default=1, ge=1)", "accumulation: int = Field(default=1)",
        "config training_docs trainer_settings",
    ),
    _mutation(
        "a default that the page does not have", "ragimpute/config.py",
        "log_every: int = Field(default=1000, ge=1)", "log_every: int = Field(default=999, ge=1)",
        "training_docs config",
    ),
    _mutation(
        "an override replaces its group", "ragimpute/config.py",
        "        inner = tree.setdefault(group, {})", "        inner = tree[group] = {}", "config",
    ),
    _mutation(
        "the command line imports numpy", "ragimpute/cli/demo.py",
        "import typer\nfrom rich.markup",
        "import numpy  # noqa: F401\nimport typer\nfrom rich.markup",
        "layers cli/terminal",
    ),
    _mutation(
        "a module imports one of a row above", "ragimpute/runtime/memory.py",
        "from ragimpute.errors import InputError\n",
        "from ragimpute.errors import InputError\n"
        "from ragimpute.preparation.genetic_map import GeneticMap\n",
        "layers",
    ),
    _mutation(
        "a command of a page that is none", "docs/quickstart.md",
        "ragimpute prepare", "ragimpute prepares", "cli_docs user_docs",
    ),
    _mutation(
        "an option that cli.md has not", "ragimpute/cli/merge.py",
        'typer.Option("--output", "-o", metavar="FILE", help=".vcf.gz',
        'typer.Option("--out", "-o", metavar="FILE", help=".vcf.gz', "cli_docs jobs/merge",
    ),
]  # fmt: skip


def copy_tree(tree: Path, work: Path) -> None:
    """Make ``work`` hold what ``tree`` holds; files that are the same stay as they are."""
    wanted = [path for path in tree.iterdir() if path.is_file()]
    for name in COPIED:
        folder = tree / name
        wanted += [path for path in folder.rglob("*") if path.is_file()]
    kept = set()
    for path in wanted:
        place = path.relative_to(tree)
        if "__pycache__" in place.parts or ".git" in place.parts:
            continue
        kept.add(place)
        copy = work / place
        if copy.is_file() and filecmp.cmp(path, copy, shallow=False):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    for path in [path for name in COPIED for path in (work / name).rglob("*")]:
        place = path.relative_to(work)
        if path.is_file() and place not in kept and "__pycache__" not in place.parts:
            path.unlink()


def run_tests(work: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Run test files in the copy up to the first failure; exit status, and what was printed."""
    there = [name for name in tests if (work / name).is_file()]  # they may be older than this
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-rfE", "--tb=no", *there]
    environment = {**os.environ, "PYTHONPATH": str(work)}
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def try_mutation(mutation: Mutation, work: Path) -> tuple[str, str]:
    """Put a mutation in, run the tests, take it out: verdict and the test that caught it.

    Returns
    -------
    "caught" and the test; "missed" and nothing; or "broken" and why it cannot be told.
    """
    path = work / mutation.file
    about = path.stat()
    text = path.read_text(encoding="utf-8")
    if mutation.old not in text:
        return "broken", f"{mutation.file} has no such text"
    path.write_text(text.replace(mutation.old, mutation.new, 1), encoding="utf-8")
    try:
        code, said = run_tests(work, mutation.tests)
    finally:
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # so that its kernels stay valid
    caught = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
    if code == 0:
        return "missed", ""
    if caught:
        return "caught", caught[1]
    return "broken", said.strip().splitlines()[-1] if said.strip() else f"exit status {code}"


def main() -> int:
    """Try the mutations that are asked for; 1 if one of them is not caught."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="mutations; all, if none is named")
    parser.add_argument("--list", action="store_true", help="print the mutations and end")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout that is copied")
    parser.add_argument("--work", type=Path, help="where the copy is kept; a temporary folder")
    chosen = parser.parse_args()
    known = {mutation.name: mutation for mutation in MUTATIONS}
    unknown = [name for name in chosen.names if name not in known]
    if unknown:
        parser.error(f"no such mutation: {', '.join(unknown)}; --list names them")
    if chosen.list:
        for mutation in MUTATIONS:
            print(f"{mutation.name}: {mutation.file} ({', '.join(mutation.tests)})")
        return 0
    wanted = [known[name] for name in chosen.names] or MUTATIONS
    all_caught = True
    with tempfile.TemporaryDirectory() as temporary:
        work = (chosen.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        copy_tree(chosen.tree.resolve(), work)
        for mutation in wanted:
            began = time.perf_counter()
            verdict, by = try_mutation(mutation, work)
            all_caught &= verdict == "caught"
            seconds = time.perf_counter() - began
            print(f"{verdict:7} {mutation.name}: {by} ({seconds:.0f} s)", flush=True)
    return int(not all_caught)


if __name__ == "__main__":
    sys.exit(main())
