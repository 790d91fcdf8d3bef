#!/usr/bin/env python3
"""Train the network for targets with genotype likelihoods: ``make likelihood-weights PANELS=...``.

Samples of each panel.h5 are left out, their reads are simulated at depths of 0.05 to 8, and they
are imputed from the rest. The network learns their genotypes at the sites in doubt. Panels are
those that ``make weights`` leaves in its work folder: public ones, of which subsets are drawn as
well, and simulated ones. Before that, networks that learn from three quarters of the panels are
tried on the last quarter, by turns: what is gained there, and how reliable probabilities are, is
printed and goes into the provenance. Weights and provenance go to models/likelihoods/.
"""

from __future__ import annotations

import argparse
import json
import zlib
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise, repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import save_file

from ragimpute import __version__
from ragimpute.copying.window import TypedSites
from ragimpute.likelihoods.evidence import HET, HOM, Evidence, with_reads
from ragimpute.likelihoods.fit import FitOptions, fit_panel, simulate_reads
from ragimpute.likelihoods.impute import LikelihoodPanel, impute_likelihoods
from ragimpute.likelihoods.network import FILE, FOLDER, INPUT, GenotypeNetwork
from ragimpute.likelihoods.patterns import num_alt_of
from ragimpute.model.folder import FORMAT_VERSION, PROVENANCE, sort_header
from ragimpute.panel.reader import Panel
from ragimpute.presets import models_dir

SUBSETS = (0, 220, 330, 620)  # samples; 0: all
DRAWS = 2  # of each size
SIMULATED, MOST_SIMULATED = 330, 500  # samples of a subset, where there are more than the latter
DEPTHS = (0.05, 8.0)
READ_ERRORS = (0.0005, 0.01)
# Fitted rates are changed by so many doublings, as fits differ from stretch to stretch. Networks
# that learn with any rates gain half as much where rates are fitted.
RATE_DOUBLINGS = 0.4
MOST_SITES, LEFT_OUT, SHARE_LEFT_OUT = 5_000, 24, 0.2
ROWS = 800  # of a sample
WIDTH, EPOCHS, BATCH, RATE = 48, 5, 2048, 4e-3
FOLDS = 4
# Gains are told for depths between these.
DEPTH_EDGES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 8.0)


class Case(NamedTuple):
    """A panel of which samples are left out."""

    path: Path
    size: int
    seed: int


class Rows(NamedTuple):
    """Evidence, likelihoods, minor alleles, depth, and how many genotypes a row stands for."""

    features: np.ndarray
    likelihoods: np.ndarray
    minor: np.ndarray
    depth: np.ndarray
    weight: np.ndarray


def cases_of(panels: list[Path], simulated: set[str]) -> list[Case]:
    """What is made of each panel: one subset of a simulated one, several of others."""
    out = []
    for path in panels:
        with Panel.open(path) as panel:
            num = len(panel.samples)
        if path.stem.rsplit("_", 2)[0] in simulated:
            out.append(Case(path, SIMULATED if num > MOST_SIMULATED else 0, 0))
            continue
        sizes = [size for size in SUBSETS if size < 0.9 * num]
        out += [Case(path, size, draw) for size in sizes for draw in range(DRAWS)]
    return out


def collect(case: Case, seed: int) -> Rows:
    """Leave samples of a panel out, and describe them where they are in doubt."""
    name = zlib.crc32(case.path.stem.encode())
    rng = np.random.default_rng([seed, name, case.size, case.seed])
    with Panel.open(case.path) as panel:
        width = min(panel.num_sites, MOST_SITES)
        low = int(rng.integers(0, panel.num_sites - width + 1))
        alleles = panel.haplotypes(low, low + width).alleles()
        cm = panel.position_cm[low : low + width]
        of_haplotype = np.asarray(panel.haplotype_sample)
    samples = rng.permutation(int(of_haplotype.max()) + 1)
    samples = samples[: case.size or len(samples)]
    num = min(LEFT_OUT, int(SHARE_LEFT_OUT * len(samples)))
    own = [np.flatnonzero(of_haplotype == sample) for sample in samples[:num]]
    own = [haplotypes for haplotypes in own if len(haplotypes) == 2]
    rest = np.ascontiguousarray(alleles[:, np.isin(of_haplotype, samples[num:])], np.int8)
    count = rest.sum(axis=1, dtype=np.int64)
    varies = (count > 0) & (count < rest.shape[1])
    rest, cm, count = rest[varies], cm[varies], count[varies]
    truth = np.stack([alleles[varies][:, pair].sum(axis=1, dtype=int) for pair in own], axis=1)
    depth = np.exp(rng.uniform(*np.log(DEPTHS), len(own)))
    error = float(np.exp(rng.uniform(*np.log(READ_ERRORS))))
    reads = simulate_reads(truth, depth, rng, error=error)
    reads = 10 ** (-np.minimum(np.rint(-10 * np.log10(np.maximum(reads, 1e-26))), 255) / 10)
    typed = TypedSites.pack(rest, cm)
    fit = fit_panel(typed, np.arange(rest.shape[1]) // 2, FitOptions(seed=seed))
    at_one = fit.switch_rates.at_one * 2 ** rng.normal(0, RATE_DOUBLINGS)
    rates = fit.switch_rates._replace(at_one=at_one)
    mismatch = fit.mismatch.at(count, rest.shape[1])
    copied = LikelihoodPanel(typed, num_alt_of(typed), rates, mismatch)
    parts = []
    for i, found in enumerate(impute_likelihoods(copied, reads, describe=True)):
        evidence = found.evidence
        assert evidence is not None
        turned = 2 * count[evidence.site] > rest.shape[1]
        alt = truth[evidence.site, i]
        minor = np.where(turned, 2 - alt, alt)
        k = np.sort(rng.permutation(len(minor))[:ROWS])
        same = np.full(len(k), depth[i]), np.full(len(k), len(minor) / max(len(k), 1))
        parts.append(Rows(evidence.features[k], evidence.likelihoods[k], minor[k], *same))
    rows = Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    print(f"{case.path.stem} {case.size or 'all'}: {len(rows.minor)} genotypes", flush=True)
    return rows


class Layers(torch.nn.Module):
    """The layers of :class:`GenotypeNetwork`; they add nothing before they are trained."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(num_features, WIDTH)
        self.hidden = torch.nn.Linear(WIDTH, WIDTH)
        self.last = torch.nn.Linear(WIDTH, 2)
        torch.nn.init.zeros_(self.last.weight)
        torch.nn.init.zeros_(self.last.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        silu = torch.nn.functional.silu
        return self.last(silu(self.hidden(silu(self.embed(x)))))  # (N, 2)


def train(rows: Rows, seed: int) -> GenotypeNetwork:
    """Train on rows: the cross-entropy of genotypes, the site's own reads included."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    num = len(rows.minor)
    mean, scale = rows.features.mean(axis=0), rows.features.std(axis=0) + 1e-3
    frame = GenotypeNetwork(mean, scale, ())
    x = torch.from_numpy(frame.standardised(rows.features))
    before = torch.from_numpy(np.ascontiguousarray(rows.features[:, [HET, HOM]]))
    reads = torch.from_numpy(np.log(rows.likelihoods))
    y = torch.from_numpy(rows.minor.astype(np.int64))

    def loss(at: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        logits = torch.cumsum(before[at] + change, dim=1)  # (N, 2)
        logits = torch.cat([torch.zeros(len(at), 1), logits], dim=1) + reads[at]
        return torch.nn.functional.cross_entropy(logits, y[at])

    layers = Layers(x.shape[1])
    steps = EPOCHS * (num // BATCH)
    optimiser = torch.optim.AdamW(layers.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=steps, pct_start=0.05
    )
    rng = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        order = torch.from_numpy(rng.permutation(num))
        for first in range(0, num - BATCH + 1, BATCH):
            at = order[first : first + BATCH]
            optimiser.zero_grad()
            loss(at, layers(x[at])).backward()
            torch.nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
            optimiser.step()
            schedule.step()

    def numbers(part: torch.nn.Linear) -> tuple[np.ndarray, np.ndarray]:
        return part.weight.detach().numpy().copy(), part.bias.detach().numpy().copy()

    parts = (layers.embed, layers.hidden, layers.last)
    return GenotypeNetwork(mean, scale, tuple(numbers(part) for part in parts))


def folds_of(cases: list[Case]) -> np.ndarray:
    """Which fold each case is of; those of one panel, whatever the subset, are of the same."""
    stems = [case.path.stem for case in cases]
    # Names of one kind follow each other, so that each fold has panels of all kinds.
    number = {stem: i % FOLDS for i, stem in enumerate(dict.fromkeys(stems))}
    return np.array([number[stem] for stem in stems])


def told_apart(rows: Rows, new: np.ndarray, of: np.ndarray) -> list[dict[str, float]]:
    """What is gained at each depth, as means over cases, in percent of what it was without.

    ``new`` (n, 3): P(genotype) by the network. ``of`` (n,): the case of each row.
    """
    old = with_reads(rows.features[:, [HET, HOM]], rows.likelihoods)
    out = []
    for low, high in pairwise(DEPTH_EDGES):
        here = (rows.depth >= low) & (rows.depth < high)
        row: dict[str, float] = {"depth_from": low, "depth_to": high}
        gains = {}
        for name, error in (
            ("squared_error", lambda p: np.square(p @ np.arange(3) - rows.minor)),
            (
                "cross_entropy",
                lambda p: -np.log(np.take_along_axis(p, rows.minor[:, None], 1))[:, 0],
            ),
        ):
            sums = [np.bincount(of[here], (error(p) * rows.weight)[here]) for p in (old, new)]
            some = sums[0] > 0
            gains[name] = 100 * (sums[1][some] / sums[0][some] - 1)
            row[name] = round(float(gains[name].mean()), 2)
        row["standard_error"] = round(
            float(gains["squared_error"].std() / np.sqrt(len(gains["squared_error"]))), 2
        )
        for name, p in (("gp_off_before", old), ("gp_off", new)):
            row[name] = round(gp_off(p[here], rows.minor[here], rows.weight[here], of[here]), 4)
        out.append(row)
    return out


def gp_off(prob: np.ndarray, minor: np.ndarray, weight: np.ndarray, of: np.ndarray) -> float:
    """How far probabilities are from the share of genotypes that are so, in the worst tenth.

    All cases ``of`` (n,) count alike.
    """
    weight = weight / np.bincount(of, weight)[of]
    tenth = np.minimum((prob * 10).astype(int), 9).ravel()
    each = np.repeat(weight, 3)
    so = (np.arange(3) == minor[:, None]).ravel()
    off = np.bincount(tenth, each * (prob.ravel() - so), 10)
    return float(np.abs(off / np.maximum(np.bincount(tenth, each, 10), 1e-9)).max())


def cross_validated(parts: list[Rows], cases: list[Case], seed: int) -> list[dict[str, float]]:
    """What networks gain on panels that they have not learned from, by depth."""
    fold = folds_of(cases)
    rows = joined(parts)
    of = np.repeat(np.arange(len(parts)), [len(part.minor) for part in parts])
    new = np.empty((len(of), 3), np.float32)
    for held in range(FOLDS):
        network = train(joined([p for p, f in zip(parts, fold, strict=True) if f != held]), seed)
        k = fold[of] == held
        evidence = Evidence(np.flatnonzero(k), rows.features[k], rows.likelihoods[k])
        new[k] = network.genotypes(evidence)
    found = told_apart(rows, new, of)
    for row in found:
        print(row, flush=True)
    return found


def joined(parts: list[Rows]) -> Rows:
    """Rows of several cases."""
    return Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def write(network: GenotypeNetwork, folder: Path, provenance: dict[str, object]) -> None:
    """Write weights and provenance to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"format": FORMAT_VERSION, "input": INPUT, "ragimpute": __version__}
    tensors = {k: np.ascontiguousarray(v) for k, v in network.tensors().items()}
    save_file(tensors, folder / FILE, metadata=about)
    sort_header(folder / FILE)
    text = json.dumps(provenance, indent=1)
    (folder / PROVENANCE).write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("panels", nargs="+", type=Path, help="panel.h5 files to learn from")
    parser.add_argument("-o", "--out", type=Path, default=models_dir() / FOLDER)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    from training_panels import DEMOGRAPHIES

    cases = cases_of(sorted(args.panels), set(DEMOGRAPHIES))
    with ProcessPoolExecutor(args.processes) as pool:
        parts = list(pool.map(collect, cases, repeat(args.seed)))
    rows = joined(parts)
    print(f"{len(rows.minor)} genotypes in doubt of {len(cases)} cases", flush=True)
    gained = cross_validated(parts, cases, args.seed) if len(args.panels) >= FOLDS else []
    network = train(rows, args.seed)
    write(
        network, args.out,
        {
            "command": "make likelihood-weights", "ragimpute": __version__, "seed": args.seed,
            "panels": sorted(path.stem for path in args.panels), "genotypes": len(rows.minor),
            "on_other_panels": gained,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
