"""Every fusion trained in one small form on one panel, and looked-up references beside read ones.

Run: python benchmarks/fusions.py DATA_FOLDER -o fusions-output [--markdown docs/fusions.md]
     python benchmarks/fusions.py --example -o fusions-output

A data folder holds panel.bcf and one *.map; --example takes the data that the package carries.
Each model is trained by a program of its own on one CPU thread: the same encoder, masks, steps and
seed, and another fusion. Figures go to results.json in the output folder, and on a page by
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
from fusions_page import fusion_table, reference_table, write_page
from measure import measure
from train_once import RESULT

from ragimpute import example
from ragimpute.config import FusionName
from ragimpute.errors import InputError
from ragimpute.model.checkpoint import write_text
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region

FORMAT = "ragimpute-fusions"
HIDDEN = 0.9  # share of sites that validation hides, in all presets
#: What all token models share, beside v10-small: windows of 128 sites and 3 epochs of 48 steps.
SMALL = (
    "data.max_sites=128", "data.windows_per_epoch=384", "data.max_validation_samples=16",
    "train.epochs=3", "train.early_stopping.patience=0",
)  # fmt: skip
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
class Form:
    """One row of the table of fusions: a preset and what is changed in it.

    Attributes
    ----------
    fusion
        As in ``model.fusion.name``.
    extra
        What the row adds to the plain fusion, in words; "" for the fusion itself.
    """

    fusion: str
    extra: str
    preset: str
    overrides: tuple[str, ...]


def fusion_forms(typed_per_mb: float, settings: Iterable[str] = ()) -> list[Form]:
    """A form for every fusion there is, then v10's with another seed and each optional part.

    Parameters
    ----------
    typed_per_mb
        Sites per Mb that validation leaves to token models; copying models get arrays as dense.
    settings
        Overrides for all of them, which go last.
    """
    settings = tuple(settings)
    array = f"data.typed_per_mb=[{typed_per_mb:.1f}, {typed_per_mb:.1f}]"
    forms: list[Form] = []
    for name in get_args(FusionName):
        if name == "copying":
            forms.append(Form(name, "", "default", (*SMALL, array, *settings)))
        else:
            changed = (*SMALL, f"model.fusion.name={name}", *settings)
            forms.append(Form(name, "", "v10-small", changed))
    parts = {
        "another seed": ("v10-small", "train.seed=2"),
        "position CNN": ("v10-small", "model.embedding.position_cnn=true"),
        "attention between haplotypes": ("v10-small", "model.fusion.haplotype_attention=true"),
        "looked-up references": ("embedding-rag-small", "model.reference.mode=precomputed"),
    }
    for extra, (preset, setting) in parts.items():
        overrides = (*SMALL, setting, *settings)
        forms.append(Form("enhanced_rare_variant", extra, preset, overrides))
    return forms


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
    """Train every form; a row each."""
    about = describe_h5(panel)
    megabases = max(1, about["last_bp"] - about["first_bp"]) / 1e6
    forms = fusion_forms((1 - HIDDEN) * about["num_sites"] / megabases, settings)
    for preset in sorted({form.preset for form in forms}):  # untimed: compiles the kernels
        short = ("train.max_steps=3", "data.max_validation_samples=2")
        train_measured(panel, preset, work / "first", [*SMALL, *settings, *short])
    rows: list[dict] = []
    for i, form in enumerate(forms):
        overrides = list(form.overrides)
        if form.fusion == "copying":  # as many steps as the others
            overrides.append(f"train.max_steps={rows[0]['steps']}")
        found = train_measured(panel, form.preset, work / f"form{i}", overrides)
        rows.append({"fusion": form.fusion, "extra": form.extra} | found)
        line(f"{form.fusion} {form.extra}: {found['cpu_s']:.0f} s")
    return rows


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
        "fusions": compare_fusions(work / "panel.h5", work, options.settings, line),
        "references": compare_references(part, work, options.grid, options.settings, line),
        "notes": notes,
    }
    write_text(work / "results.json", json.dumps(results, indent=1) + "\n")
    print(
        markdown_table(fusion_table(results)), markdown_table(reference_table(results)), sep="\n\n"
    )
    if options.markdown is not None:
        write_page(results, options.markdown)
    return results


if __name__ == "__main__":
    one_line.run(main, RuntimeError)
