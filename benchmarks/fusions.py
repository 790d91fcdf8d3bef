"""Every fusion trained in three small forms on one panel; looked-up references beside read ones.

Run: python benchmarks/fusions.py DATA_FOLDER -o fusions-output [--markdown docs/fusions.md]
     python benchmarks/fusions.py --example -o fusions-output

A data folder holds panel.bcf and one *.map; --example takes the data that the package carries.
Each model is trained by a program of its own on one CPU thread: the same masks, steps and seed, and
another fusion or form. Figures go to results.json in the output folder, and on a page by
--markdown. Times are CPU times, which other work on the machine changes least.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import one_line
from compare import describe_command, describe_load, describe_machine, describe_versions
from comparison_page import markdown_table
from fusions_page import fusion_table, reference_table, size_table, write_page
from measure import measure
from train_once import RESULT

from ragimpute import example
from ragimpute.config import FusionName, load_config
from ragimpute.errors import InputError
from ragimpute.model.checkpoint import write_text
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region

FORMAT = "ragimpute-fusions"
HIDDEN = 0.9  # share of sites that validation hides, in all presets
#: What all models share: windows of 128 sites, and 3 epochs.
SMALL = (
    "data.max_sites=128", "data.windows_per_epoch=384", "data.max_validation_samples=16",
    "train.epochs=3", "train.early_stopping.patience=0", "train.seed=1",
)  # fmt: skip
#: What all token models share beside it: 48 steps an epoch, and a warm-up of 10.
TOKENS = ("train.batch_size=8", "schedule.warmup_steps=10")
#: How the token fusions are trained: a preset, and what differs from it.
#: (a) the original's retrieval once a window, read as probabilities; (b) the same with retrieval by
#: site; (c) with the Li-Stephens logit as where the network begins, and match lengths as features.
FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "a": ("v10-small", ()),
    "b": ("v10-small", ("data.retrieval=site", "data.num_retrieved=8", "data.num_carriers=2")),
    "c": ("v10-rag-small", ()),
}
#: Rows beside the plain fusions: what is changed in v10's, and in which forms.
PARTS = {
    "another seed": ("train.seed=2", "abc"),
    "position CNN": ("model.embedding.position_cnn=true", "abc"),
    "attention between haplotypes": ("model.fusion.haplotype_attention=true", "abc"),
    "looked-up references": ("model.reference.mode=precomputed", "ab"),  # (c) has them already
}
#: (K, sites of a window) at which read and looked-up references are compared.
GRID = ((1, 256), (3, 256), (8, 256), (3, 128), (3, 512))
#: Sites of the panel that this comparison takes: a whole epoch then is half a minute.
GRID_SITES = 512
#: One whole epoch: what is looked up was encoded in it, once.
GRID_FORM = (
    "data.max_validation_samples=2", "data.windows_per_epoch=null", "train.epochs=1",
    "train.early_stopping.patience=0",
)  # fmt: skip


@dataclass(frozen=True)
class Training:
    """A model to train: a cell of the table of fusions.

    Attributes
    ----------
    fusion
        As in ``model.fusion.name``.
    extra
        What the row adds to the plain fusion, in words; "" for the fusion itself.
    form
        A key of :data:`FORMS`; "" for the copying model, which has a form of its own.
    preset, overrides
        The preset, and what is changed in it.
    """

    fusion: str
    extra: str
    form: str
    preset: str
    overrides: tuple[str, ...]


def shared_masks() -> tuple[str, ...]:
    """Overrides that give all forms the same masks, of training and of validation."""
    parts = [
        {"name": "array_like", "weight": weight, "rate": rate}
        for weight, rate in ((1.0, 0.85), (2.0, 0.92), (1.0, 0.97))
    ]
    validation = {"name": "array_like", "rate": HIDDEN, "typed_per_mb": None}
    return (
        f"mask.parts={json.dumps(parts)}", f"mask.validation={json.dumps(validation)}",
        "mask.curriculum.every_epochs=0",
    )  # fmt: skip


def plan(typed_per_mb: float, settings: Iterable[str] = ()) -> list[Training]:
    """What to train: every fusion there is, then v10's with another seed and each optional part.

    Parameters
    ----------
    typed_per_mb
        Sites per Mb that validation leaves to token models; copying models get arrays as dense.
    settings
        Overrides for all of them, which go last.
    """
    settings = tuple(settings)
    array = f"data.typed_per_mb=[{typed_per_mb:.1f}, {typed_per_mb:.1f}]"

    def in_form(form: str, name: str, extra: str, *changes: str) -> Training:
        preset, differs = FORMS[form]
        shared = (*SMALL, *TOKENS, *shared_masks())
        overrides = (*shared, *differs, f"model.fusion.name={name}", *changes, *settings)
        return Training(name, extra, form, preset, overrides)

    names = get_args(FusionName)
    trainings = []
    for name in names:
        if name == "copying":
            trainings.append(Training(name, "", "", "default", (*SMALL, array, *settings)))
        else:
            trainings += [in_form(form, name, "") for form in FORMS]
    for extra, (change, forms) in PARTS.items():
        trainings += [in_form(form, names[0], extra, change) for form in forms]
    return trainings


def describe_forms(settings: Iterable[str]) -> dict:
    """The numbers by which the page explains the forms, by the letter of each."""
    plain = {training.form: training for training in reversed(plan(1.0, settings))}
    out = {}
    for form in FORMS:
        config = load_config(plain[form].preset, overrides=plain[form].overrides)
        data, encoder = config.data, config.model.encoder
        out[form] = {
            "num_retrieved": data.num_retrieved,
            "num_carriers": data.num_carriers,
            "max_sites": data.max_sites,
            "buffer_cm": data.buffer_cm,
            "dim": encoder.dim,
            "num_layers": encoder.num_layers,
            "gamma": config.loss.gamma,
            "batch_size": config.train.batch_size,
        }
    return out


def train_measured(panel: Path, preset: str, out: Path, overrides: Iterable[str]) -> dict:
    """Train in a process of its own: what ``train_once`` found, and ``peak_mib``.

    Raises
    ------
    RuntimeError
        If training fails; the log is beside ``out``.
    """
    program = Path(__file__).with_name("train_once.py")
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, str(program), str(panel), preset, str(out), *overrides]
    used = measure(command, log=str(out.with_suffix(".log")))
    found = json.loads((out / RESULT).read_text())
    shutil.rmtree(out)
    return found | used


def find_panel(folder: Path) -> tuple[Path, Path]:
    """A data folder's panel and its only map.

    Raises
    ------
    InputError
        If there is no panel.bcf, or not one map.
    """
    maps = sorted(folder.glob("*.map"))
    if not (folder / "panel.bcf").is_file():
        raise InputError(f"data folder {folder} has no panel.bcf")
    if len(maps) != 1:
        raise InputError(f"data folder {folder} holds {len(maps)} files *.map, not one")
    return folder / "panel.bcf", maps[0]


def describe_h5(path: Path) -> dict:
    """Size and place of a prepared panel."""
    with Panel.open(path) as panel:
        at = panel.sites.position_bp
        return {
            "contig": panel.contig,
            "first_bp": int(at[0]),
            "last_bp": int(at[-1]),
            "num_sites": panel.num_sites,
            "num_haplotypes": panel.num_haplotypes,
        }


def compare_fusions(
    panel: Path, work: Path, settings: Iterable[str], line: Callable[[str], None]
) -> list[dict]:
    """Train every fusion in every form.

    Returns
    -------
    A row for each fusion, or fusion and part: ``fusion``; ``extra``; and ``forms``, what was found
    of each form by its letter, "" for the copying model.
    """
    about = describe_h5(panel)
    megabases = max(1, about["last_bp"] - about["first_bp"]) / 1e6
    trainings = plan((1 - HIDDEN) * about["num_sites"] / megabases, settings)
    for preset in sorted({training.preset for training in trainings}):  # compiles the kernels
        short = ("train.max_steps=3", "data.max_validation_samples=2")
        train_measured(panel, preset, work / "first", [*SMALL, *settings, *short])
    rows: dict[tuple[str, str], dict] = {}
    steps = None
    for training in trainings:
        overrides = list(training.overrides)
        if training.fusion == "copying" and steps is not None:  # as many steps as the others
            overrides.append(f"train.max_steps={steps}")
        name = "-".join(part for part in ("fusion", training.fusion, training.form) if part)
        found = train_measured(panel, training.preset, work / name, overrides)
        steps = steps or found["steps"]
        key = (training.fusion, training.extra)
        row = rows.setdefault(key, {"fusion": key[0], "extra": key[1], "forms": {}})
        row["forms"][training.form] = found
        line(" ".join([*filter(None, (*key, training.form)), f"{found['cpu_s']:.0f} s"]))
    return list(rows.values())


def compare_references(
    panel: Path,
    work: Path,
    grid: Iterable[tuple[int, int]],
    settings: Iterable[str],
    line: Callable[[str], None],
) -> list[dict]:
    """Train one epoch with references read in every step, and looked up; a row for each (K, L)."""
    rows = []
    for k, length in grid:
        row: dict = {"num_retrieved": k, "max_sites": length}
        for mode, preset in (("tokens", "v10-small"), ("precomputed", "embedding-rag-small")):
            size = (f"data.num_retrieved={k}", f"data.max_sites={length}")
            out = work / f"{mode}-{k}-{length}"
            row[mode] = train_measured(panel, preset, out, [*GRID_FORM, *size, *settings])
        rows.append(row)
        line(f"K {k}, {length} sites: done")
    return rows


def cut_panel(source: Path, genetic_map: Path, whole: Path, out: Path, num_sites: int) -> Path:
    """Prepare the first sites of a panel that has been prepared whole."""
    with Panel.open(whole) as panel:
        at = panel.sites.position_bp[: min(num_sites, panel.num_sites)]
        region = Region.parse(f"{panel.contig}:{at[0]}-{at[-1]}")
    prepare(source, out, genetic_map=genetic_map, region=region, force=True)
    return out


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line, checked."""
    parser = argparse.ArgumentParser(
        prog="fusions.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, help="data folder")
    parser.add_argument("--example", action="store_true", help="the data that the package carries")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--markdown", type=Path, help="page to write")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", help="key=value, for all; repeatable"
    )
    parser.add_argument(
        "--grid", default=" ".join(f"{k}x{length}" for k, length in GRID),
        help="K and window of the second table, e.g. '1x256 3x256'",
    )  # fmt: skip
    parser.add_argument("--grid-sites", type=int, default=GRID_SITES, help="sites it trains on")
    options = parser.parse_args(arguments)
    if (options.data is None) == (not options.example):
        parser.error("give a data folder, or --example")
    cells = [re.fullmatch(r"(\d+)x(\d+)", cell) for cell in options.grid.split()]
    if not all(cells):
        parser.error("--grid is not of the form '1x256 3x256'")
    options.grid = [(int(cell[1]), int(cell[2])) for cell in cells if cell]
    return options


def main(arguments: list[str]) -> dict:
    """Run what the command line asks for, and return what results.json holds."""
    options = parse(arguments)

    def line(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if options.example:
        name, source = "example", example.path("panel.bcf")
        genetic_map = example.path("chr20.b37.gmap.gz")
    else:
        name = options.data.resolve().name
        source, genetic_map = find_panel(options.data)
    work = options.output
    work.mkdir(parents=True, exist_ok=True)
    notes = describe_load()
    prepare(source, work / "panel.h5", genetic_map=genetic_map, force=True)
    part = cut_panel(source, genetic_map, work / "panel.h5", work / "part.h5", options.grid_sites)
    results = {
        "format": FORMAT,
        "date": time.strftime("%Y-%m-%d"),
        "command": describe_command(arguments, "fusions.py"),
        "machine": describe_machine(),
        "versions": describe_versions([]),
        "data": {"name": name} | describe_h5(work / "panel.h5"),
        "part": describe_h5(part),
        "forms": describe_forms(options.settings),
        "fusions": compare_fusions(work / "panel.h5", work, options.settings, line),
        "references": compare_references(part, work, options.grid, options.settings, line),
        "notes": notes,
    }
    write_text(work / "results.json", json.dumps(results, indent=1) + "\n")
    tables = [make(results) for make in (fusion_table, size_table, reference_table)]
    print(*map(markdown_table, tables), sep="\n\n")
    if options.markdown is not None:
        write_page(results, options.markdown)
    return results


if __name__ == "__main__":
    one_line.run(main, RuntimeError)
