#!/usr/bin/env python3
"""Train the weights that ship with the package: ``make weights DATA="folder ..."``.

Each data folder holds panel.bcf and one genetic map (PLINK, SHAPEIT or Eagle columns), and for the
table of the model card truth.bcf and target.DENSITY.vcf.gz; fetch_training_data.py makes seven of
the folders from public files. The network learns from every folder's
panel, from subsets of its samples, and from simulated panels (msprime). Then it is trained again
without any folder that has targets (--hold-out each: once for each of these, without that one
alone) and tested on these, beside plain Li-Stephens copying and the weights that ship: the model
card, models/NAME/README.md, holds that table.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from calibration_plots import draw_calibration
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from training_panels import Recipe, simulate_panel, subset_panel

from ragimpute.accuracy.dr2 import FILE as DR2
from ragimpute.accuracy.dr2 import maximise
from ragimpute.accuracy.evaluate import Evaluation, evaluate
from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.config import load_config
from ragimpute.evidence.features import FEATURES
from ragimpute.imputation.impute import impute
from ragimpute.model.checkpoint import load_model, write_text
from ragimpute.model.folder import CONFIG, PROVENANCE, WEIGHTS, open_folder
from ragimpute.model.settings import FILE as SETTINGS
from ragimpute.model.settings import write_settings
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare
from ragimpute.presets import models_dir
from ragimpute.training.dr2_fit import ScoredSites, fit_scored, score_panels, site_weights
from ragimpute.training.trainer import train

SUBSETS = (50, 150, 500, 1_500, 80, 110, 250, 800, 1_100, 2_000)  # samples
RECIPES = (
    Recipe("out_of_africa", 300, 3_000_000, 1.2, 11),
    Recipe("out_of_africa", 800, 1_500_000, 0.6, 12),
    Recipe("out_of_africa", 1_600, 800_000, 1.6, 13),
    Recipe("out_of_africa", 100, 4_000_000, 1.0, 14),
    Recipe("out_of_africa", 500, 600_000, 0.1, 15),
    Recipe("growth", 400, 2_000_000, 1.1, 21),
    Recipe("growth", 1_500, 700_000, 2.0, 22),
    Recipe("structured", 250, 2_000_000, 0.9, 31),
    Recipe("structured", 1_000, 800_000, 1.3, 32),
    Recipe("bottleneck", 300, 2_500_000, 1.1, 41),
    Recipe("livestock", 200, 4_000_000, 1.0, 51),
    Recipe("livestock", 60, 6_000_000, 1.0, 52),
    Recipe("out_of_africa", 200, 3_000_000, 0.8, 111),
    Recipe("out_of_africa", 1_200, 1_000_000, 1.0, 112),
    Recipe("out_of_africa", 2_500, 500_000, 1.3, 113),
    Recipe("out_of_africa", 50, 5_000_000, 1.1, 114),
    Recipe("out_of_africa", 400, 800_000, 3.0, 115),
    Recipe("growth", 150, 3_000_000, 0.7, 121),
    Recipe("growth", 800, 1_000_000, 1.2, 122),
    Recipe("structured", 120, 3_000_000, 1.2, 131),
    Recipe("structured", 500, 1_200_000, 0.6, 132),
    Recipe("bottleneck", 100, 4_000_000, 0.9, 141),
    Recipe("bottleneck", 1_000, 1_000_000, 1.4, 142),
    Recipe("livestock", 400, 3_000_000, 0.8, 151),
    Recipe("livestock", 100, 5_000_000, 1.3, 152),
    # Too large to be copied whole: their states are retrieved.
    Recipe("out_of_africa", 4_000, 1_000_000, 1.0, 161),
    Recipe("out_of_africa", 10_000, 600_000, 1.2, 162),
    Recipe("growth", 6_000, 800_000, 0.9, 163),
    Recipe("structured", 5_000, 1_000_000, 1.1, 164),
    Recipe("out_of_africa", 5_000, 3_000_000, 1.0, 165),
    # Where little recombines, as in a quarter of a genome.
    Recipe("out_of_africa", 2_000, 600_000, 0.15, 171),
    Recipe("structured", 1_500, 500_000, 0.2, 172),
    Recipe("growth", 600, 1_000_000, 0.12, 173),
    Recipe("out_of_africa", 300, 1_500_000, 0.25, 174),
    Recipe("bottleneck", 800, 800_000, 0.08, 175),
    Recipe("out_of_africa", 1_000, 400_000, 0.05, 176),
    # Other species: small closed stocks, breeds, lines that have selfed, very large populations.
    # All but the last are typed at the sites of an array.
    Recipe("salmon", 100, 40_000_000, 1.0, 301, 60),
    Recipe("salmon", 200, 30_000_000, 1.0, 302, 30),
    Recipe("salmon", 40, 50_000_000, 1.3, 303, 80),
    Recipe("stock", 100, 40_000_000, 0.5, 311, 100),
    Recipe("stock", 200, 30_000_000, 0.6, 312, 200),
    Recipe("stock", 30, 60_000_000, 0.5, 313, 60),
    Recipe("livestock", 120, 60_000_000, 1.0, 321, 16),
    Recipe("livestock", 300, 12_000_000, 1.0, 322, 60),
    Recipe("livestock", 50, 25_000_000, 1.2, 323, 30),
    Recipe("selfing", 180, 10_000_000, 4.0, 331, 150),
    Recipe("selfing", 400, 5_000_000, 4.0, 332, 300),
    Recipe("selfing", 80, 10_000_000, 3.0, 333, 80),
    Recipe("insect", 200, 100_000, 1.5, 341),
    Recipe("insect", 100, 150_000, 2.0, 342),
    Recipe("insect", 500, 60_000, 1.5, 343),
)
# DR2 is also calibrated on panels of many populations, of which some are isolates.
DR2_RECIPES = tuple(
    Recipe("many_populations", samples, length_bp, cm_per_mb, 200 + i)
    for i, (samples, length_bp, cm_per_mb) in enumerate(
        (
            (800, 1_500_000, 1.0), (800, 1_000_000, 0.6), (600, 1_500_000, 1.3),
            (1_000, 1_200_000, 1.0), (400, 2_000_000, 1.1), (700, 1_000_000, 1.6),
            (900, 1_000_000, 0.8), (500, 1_500_000, 0.9), (1_200, 800_000, 1.2),
            (300, 2_000_000, 1.0), (800, 800_000, 0.3), (650, 1_200_000, 1.0),
        )
    )
)  # fmt: skip
MOST_OF_IT = 0.8  # of a panel's samples: a larger subset would be the panel over again
MANY_POPULATIONS = "many populations"
SHIPPED = "shipped"  # the folder of the network that goes into the package
IMAGES = Path(__file__).parents[1] / "docs" / "images"
COMMON = ("data.max_haplotypes=200", "data.max_validation_samples=16", "train.batch_size=128")
# One draw of many arrays: were each epoch's drawn anew, the last ones, whose steps are small, would
# see the last arrays alone. Most lie on short stretches, so that edges of the data are no surprise.
OF_PRESET = {
    "default": (
        "data.num_arrays=6", "data.short_arrays=4", "data.max_pairs=40000",
        "data.epochs_per_draw=4", "train.epochs=4",
    ),
}  # fmt: skip


def overrides_of(name: str) -> tuple[str, ...]:
    """Settings of a preset's training beside those of its config.yaml."""
    return (*OF_PRESET[name], *COMMON)


def build_panels(folders: list[Path], work: Path, threads: int) -> dict[str, list[Path]]:
    """Panels to train on, by what they come from: each folder's name, or "simulated"."""
    panels: dict[str, list[Path]] = {}
    for folder in folders:
        whole = work / f"{folder.name}.h5"
        genetic_map = next(
            p for p in sorted(folder.iterdir()) if ".map" in p.name or "gmap" in p.name
        )
        prepare(
            folder / "panel.bcf", whole, genetic_map=genetic_map, threads=threads, force=True
        )  # fmt: skip
        panels[folder.name] = [whole]
        with Panel.open(whole) as panel:
            for seed, size in enumerate(SUBSETS):
                if size < MOST_OF_IT * len(panel.samples):
                    part = work / f"{folder.name}_{size}.h5"
                    subset_panel(panel, size, seed, part)
                    panels[folder.name].append(part)
    for source, recipes in (("simulated", RECIPES), (MANY_POPULATIONS, DR2_RECIPES)):
        panels[source] = []
        for recipe in recipes:
            path = work / f"{recipe.name}.h5"
            if not path.exists():
                simulate_panel(recipe, path)
            panels[source].append(path)
            print(f"simulated {recipe.name}", flush=True)
    return panels


def training_without(
    panels: dict[str, list[Path]], tested: list[str], hold_out: str
) -> dict[str, tuple[str, list[Path]]]:
    """The network that has not seen a data folder, for each folder that is tested.

    Parameters
    ----------
    panels
        By what they come from, as :func:`build_panels` gives them.
    tested
        Names of folders with targets.
    hold_out
        "all": one network, which has seen none of these folders. "each": one for each of them,
        which has seen the others.

    Returns
    -------
    By folder, the network's name and the panels to train it on.
    """
    found = {}
    for name in tested:
        hidden = tested if hold_out == "all" else [name]
        seen = [path for source, paths in panels.items() if source not in hidden for path in paths]
        found[name] = ("without" if hold_out == "all" else f"without_{name}", seen)
    return found


def train_on(
    panels: list[Path], for_dr2: list[Path], name: str, out: Path, seed: int, threads: int
) -> float:
    """Train one model, and calibrate its DR2 on more panels; returns the seconds that it took."""
    torch.set_num_threads(1)  # models are trained side by side
    config = load_config(name, overrides=[*overrides_of(name), f"train.seed={seed}"])
    began = time.perf_counter()
    train(
        panels, config, out, device="cpu", threads=threads, force=True,
        report_line=lambda line: print(f"  {line}", flush=True), calibrate=False,
        command="make weights",
    )  # fmt: skip
    # On more than the few panels that validate. Networks that are only tested take every third.
    calibrate([*panels, *for_dr2][:: 1 if out.name == SHIPPED else 3], out, seed, threads)
    return time.perf_counter() - began


def calibrate(panels: list[Path], model: Path, seed: int, threads: int) -> None:
    """Calibrate DR2 on groups of samples of all sizes, in place of the few that validate.

    Prints what :data:`ragimpute.evidence.rare_excess.USUAL` has to be for these panels.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(Panel.open(path)) for path in panels]
        checksums = [panel.checksum for panel in opened]
        parts = score_panels(
            opened, open_folder(model), seed=seed, threads=threads,
            progress=lambda _, done, total: print(f"DR2: {done} of {total}", flush=True),
        )  # fmt: skip
    print("USUAL =", ", ".join(f"{value:.4f}" for value in fit_usual(parts)))
    write_text(model / DR2, fit_scored(parts, checksums, seed=seed).as_json())


def fit_usual(parts: Sequence[ScoredSites]) -> np.ndarray:
    """The coefficients that give the usual r2 of left-out samples; see ``USUAL``."""
    # The whole of a group and a quarter of it come from one run, which left the same samples out.
    known = {id(part.left_out_r2): part.left_out_r2 for part in parts}
    rows = [row for row in known.values() if row is not None and len(row.true)]
    weight = [site_weights(row.copies / row.num_haplotypes) for row in rows]
    x, y, w = (
        np.concatenate(column)
        for column in ([row.terms() for row in rows], [row.true for row in rows], weight)
    )
    start = np.zeros(x.shape[1])
    return maximise(x, y, w, start, np.ones(len(start), bool), ridge=1.0)


def score(
    folder: Path, panel: Path, model: Path, work: Path, threads: int
) -> dict[str, Evaluation]:
    """The imputation of a folder's targets against the truth, for each density."""
    figures = {}
    for target in sorted(folder.glob("target.*.vcf.gz")):
        density = target.name.split(".")[1]
        if density == "unphased":
            continue
        imputed = work / "imputed.vcf.gz"
        impute(target, panel, imputed, model=model, threads=threads, device="cpu")
        figures[density] = evaluate(folder / "truth.bcf", imputed, panel, typed=target)
    return figures


Row = tuple[str, str, str, Evaluation]  # data, density, weights


def table(rows: list[Row]) -> str:
    """Figures as Markdown: data, density, weights, r2 of each bin and over all."""
    figures = [
        [figure(row.r2, ".4f") for row in result.bins] + [figure(result.overall.r2, ".5f")]
        for *_, result in rows
    ]
    return markdown(rows, [*bin_names(), "all"], figures)


def dr2_table(rows: list[Row]) -> str:
    """Mean DR2 less mean true r2 of each bin, and over how many sites."""
    figures = [
        [figure(row.mean_dr2 - row.true_r2, "+.3f") for row in [*result.bins, result.overall]]
        for *_, result in rows
    ]
    return markdown(rows, [*bin_names(), "all"], figures)


def reliability_table(rows: list[Row]) -> str:
    """How far the observed frequency is from the probability, weighted, and in the worst interval.

    Intervals of fewer than 1,000 genotypes do not count. How many are off by more than .01 for
    sure: by two standard errors more, from the spread over the target samples.
    """
    figures = []
    for *_, result in rows:
        count = result.calibration[:, 2] >= 1000
        known, error = result.calibration[count], result.calibration_standard_error[count]
        if not len(known):  # few targets and sites
            figures.append([f"{result.calibration_error:.5f}", "-", "-", "0 of 0", "0"])
            continue
        off = abs(known[:, 1] - known[:, 0])
        worst = int(off.argmax())
        figures.append(
            [f"{result.calibration_error:.5f}",
             f"{off[worst]:.4f} ± {error[worst]:.4f}", f"{known[worst, 0]:.2f}",
             f"{int((off <= 0.01).sum())} of {len(off)}",
             str(int((off - 2 * error > 0.01).sum()))]
        )  # fmt: skip
    head = ["mean difference", "largest", "at probability", "intervals within .01",
            "off for sure"]  # fmt: skip
    return markdown(rows, head, figures)


def figure(value: float, form: str) -> str:
    """A figure as text, "-" where it is undefined: bins without sites."""
    return "-" if math.isnan(value) else format(value, form)


def bin_names() -> list[str]:
    """Names of the MAF bins."""
    return [f"≤ {edge:g}" for edge in MAF_BINS[1:]]


def markdown(rows: list[Row], head: list[str], figures: list[list[str]]) -> str:
    """A table of figures by data, density and weights."""
    lines = [
        "| " + " | ".join(["data", "density", "weights", *head]) + " |",
        "|---|---|---|" + "---:|" * len(head),
    ]
    for (data, density, weights, _), values in zip(rows, figures, strict=True):
        lines.append("| " + " | ".join([data, density, weights, *values]) + " |")
    return "\n".join(lines)


def card(
    name: str,
    panels: dict[str, list[Path]],
    seconds: float,
    seed: int,
    rows: list[Row],
    hold_out: str,
) -> str:
    """The model card, from model_card.md.j2."""
    provenance = json.loads((models_dir() / name / PROVENANCE).read_text())
    loader = FileSystemLoader(Path(__file__).parent)
    page = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)
    return page.get_template("model_card.md.j2").render(
        name=name,
        description=load_config(name).description,
        num_parameters=load_model(name).model.num_parameters(),
        kilobytes=round((models_dir() / name / WEIGHTS).stat().st_size / 1000),
        num_features=len(FEATURES),
        seed=seed,
        seconds=round(seconds),
        date=datetime.date.today().isoformat(),
        versions=", ".join(f"{x} {version(x)}" for x in ("torch", "numba", "numpy", "msprime")),
        overrides=", ".join(overrides_of(name)),
        num_panels=len(provenance["panels"]),
        sources={source: len(paths) for source, paths in panels.items()},
        hold_out=hold_out,
        table=table(rows),
        dr2_table=dr2_table(rows),
        has_plots=any(row[2] == "without it" for row in rows),
        reliability_table=reliability_table([row for row in rows if row[2] == "without it"]),
    )


def main() -> None:
    """Train, test and install the weights of a preset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="data folders")
    parser.add_argument(
        "--name", default="default", choices=OF_PRESET, help="preset (default: default)"
    )
    parser.add_argument("--work", type=Path, default=Path("weights-work"), help="scratch folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-test", action="store_true", help="train what ships and nothing else")
    parser.add_argument(
        "--hold-out", default="all", choices=("all", "each"),
        help="what the tested network has not seen: all folders with targets (default),\n"
        "or each of them in turn, by a network of its own",
    )  # fmt: skip
    parser.add_argument(
        "--only-dr2", action="store_true", help="calibrate the DR2 of the weights that ship anew"
    )
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    panels = build_panels(args.data, args.work, args.threads)
    for_dr2 = panels.pop(MANY_POPULATIONS)
    everything = [path for paths in panels.values() for path in paths]
    if args.only_dr2:
        calibrate([*everything, *for_dr2], models_dir() / args.name, args.seed, args.threads)
        return
    shipped = args.work / SHIPPED
    tested = [] if args.no_test else [f for f in args.data if (f / "truth.bcf").is_file()]
    jobs = [(everything, for_dr2, args.name, shipped, args.seed, 1)]
    without = training_without(panels, [folder.name for folder in tested], args.hold_out)
    for name, seen in dict(without.values()).items():
        jobs.append((seen, for_dr2, args.name, args.work / name, args.seed, 1))
    with ProcessPoolExecutor(args.threads) as pool:
        seconds, *_ = pool.map(train_on, *zip(*jobs, strict=True))
    rows: list[Row] = []
    if not args.no_test:
        plain = args.work / "plain"
        plain.mkdir(exist_ok=True)
        shutil.copy(models_dir() / args.name / "config.yaml", plain / "config.yaml")
        for folder in tested:
            models = {
                "Li–Stephens": plain, "without it": args.work / without[folder.name][0],
                "shipped": shipped,
            }  # fmt: skip
            scores = {
                label: score(folder, panels[folder.name][0], model, args.work, args.threads)
                for label, model in models.items()
            }
            for density in next(iter(scores.values())):
                rows += [(folder.name, density, label, scores[label][density]) for label in scores]
    for file in (WEIGHTS, PROVENANCE, DR2):
        shutil.copy(shipped / file, models_dir() / args.name / file)
    config = models_dir() / args.name / CONFIG
    write_settings(config.with_name(SETTINGS), load_config(config), config.read_bytes())
    text = card(args.name, panels, seconds, args.seed, rows, args.hold_out)
    (models_dir() / args.name / "README.md").write_text(text, encoding="utf-8")
    print(table(rows))
    unseen = {f"{data} {density}": result for data, density, label, result in rows
              if label == "without it"}  # fmt: skip
    if unseen:
        draw_calibration(unseen, args.name, IMAGES)


if __name__ == "__main__":
    main()
