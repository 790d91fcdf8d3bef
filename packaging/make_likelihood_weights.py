#!/usr/bin/env python3
"""Train the network for targets with genotype likelihoods: ``make likelihood-weights PANELS=...``.

Samples of each panel.h5 are left out, their reads are simulated at depths of 0.05 to 8, and they
are imputed from the rest. The network learns their genotypes at the sites in doubt. Panels are
those that ``make weights`` leaves in its work folder: public ones, of which subsets are drawn as
well, and simulated ones. Weights and provenance go to models/likelihoods/.
"""

from __future__ import annotations

import argparse
import json
import zlib
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import save_file

from ragimpute import __version__
from ragimpute.copying.window import TypedSites
from ragimpute.likelihoods.evidence import HET, HOM
from ragimpute.likelihoods.fit import USUAL_RATE, fit_mismatch, simulate_reads
from ragimpute.likelihoods.impute import LikelihoodPanel, impute_likelihoods
from ragimpute.likelihoods.model import SwitchRates
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
# Switch rates that fits find are about as far apart as this.
RATE_DOUBLINGS = 0.8
MOST_SITES, LEFT_OUT, SHARE_LEFT_OUT = 7_000, 24, 0.2
ROWS = 12_000  # of a case
WIDTH, EPOCHS, BATCH, RATE = 48, 5, 2048, 4e-3
CHECKED = 5  # one sample in so many is not learned from


class Case(NamedTuple):
    """A panel of which samples are left out."""

    path: Path
    size: int
    seed: int


class Rows(NamedTuple):
    """Evidence, likelihoods, minor alleles, and whether a row is held back."""

    features: np.ndarray
    likelihoods: np.ndarray
    minor: np.ndarray
    checked: np.ndarray


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
    mismatch = fit_mismatch(typed, count, np.arange(rest.shape[1]) // 2, seed=seed)
    rates = SwitchRates(USUAL_RATE * 2 ** rng.normal(0, RATE_DOUBLINGS))
    copied = LikelihoodPanel(typed, num_alt_of(typed), rates, mismatch.at(count, rest.shape[1]))
    parts = []
    for i, found in enumerate(impute_likelihoods(copied, reads, describe=True)):
        evidence = found.evidence
        assert evidence is not None
        turned = 2 * count[evidence.site] > rest.shape[1]
        alt = truth[evidence.site, i]
        minor = np.where(turned, 2 - alt, alt)
        checked = np.full(len(minor), i % CHECKED == CHECKED - 1)
        parts.append(Rows(evidence.features, evidence.likelihoods, minor, checked))
    rows = Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    chosen = np.sort(rng.permutation(len(rows.minor))[:ROWS])
    print(f"{case.path.stem} {case.size or 'all'}: {len(chosen)} of {len(rows.minor)}", flush=True)
    return Rows(*(column[chosen] for column in rows))


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
    learned = np.flatnonzero(~rows.checked)
    mean = rows.features[learned].mean(axis=0)
    scale = rows.features[learned].std(axis=0) + 1e-3
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
    steps = EPOCHS * (len(learned) // BATCH)
    optimiser = torch.optim.AdamW(layers.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=steps, pct_start=0.05
    )
    rng = np.random.default_rng(seed)
    held = torch.from_numpy(np.flatnonzero(rows.checked))
    for epoch in range(EPOCHS):
        order = torch.from_numpy(rng.permutation(learned))
        for first in range(0, len(order) - BATCH + 1, BATCH):
            at = order[first : first + BATCH]
            optimiser.zero_grad()
            loss(at, layers(x[at])).backward()
            torch.nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            change = layers(x[held])
            plain, ours = loss(held, torch.zeros_like(change)), loss(held, change)
        print(f"epoch {epoch + 1}: cross-entropy {ours:.5f}, without {plain:.5f}", flush=True)

    def numbers(part: torch.nn.Linear) -> tuple[np.ndarray, np.ndarray]:
        return part.weight.detach().numpy().copy(), part.bias.detach().numpy().copy()

    parts = (layers.embed, layers.hidden, layers.last)
    return GenotypeNetwork(mean, scale, tuple(numbers(part) for part in parts))


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
    rows = Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    print(f"{len(rows.minor)} genotypes in doubt of {len(cases)} cases", flush=True)
    network = train(rows, args.seed)
    write(
        network, args.out,
        {
            "command": "make likelihood-weights", "ragimpute": __version__, "seed": args.seed,
            "panels": sorted(path.stem for path in args.panels), "genotypes": len(rows.minor),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
