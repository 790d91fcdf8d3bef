"""Panels made in memory, for the tests of the modules that write and read them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from ragimpute.sites import Sites


class FlatMap:
    """One cM for each Mb; stands in for a genetic map."""

    name = "flat"

    def position_cm(self, position_bp: np.ndarray) -> np.ndarray:
        return np.asarray(position_bp, dtype=np.float64) * 1e-6


def make_batch(alleles, position_bp=None, *, contig="20", first_bp=1_000, ref=None, alt=None):
    """A batch of sites, 10 bp apart unless positions are given; alleles (m, N, 2)."""
    alleles = np.asarray(alleles, dtype=np.int8)
    num_sites = len(alleles)
    if position_bp is None:
        position_bp = first_bp + 10 * np.arange(num_sites)

    def text(values, default):
        column = np.empty(num_sites, dtype=object)
        column[:] = values if values is not None else [default] * num_sites
        return column

    ids = [f"rs{p}" for p in np.asarray(position_bp).tolist()]
    sites = Sites(
        contig, np.asarray(position_bp, np.int32), text(ref, "A"), text(alt, "G"), text(ids, ".")
    )
    phased = np.ones(alleles.shape[:2], bool)
    return SimpleNamespace(
        sites=sites, alleles=alleles, phased=phased, phase_set=None, declarations=()
    )


def random_alleles(rng, num_sites, num_samples):
    """Alleles (m, N, 2) whose frequencies are those of a real panel: mostly rare, some fixed."""
    frequency = rng.beta(0.2, 1.0, size=num_sites)
    frequency[rng.random(num_sites) < 0.05] = 0
    frequency[rng.random(num_sites) < 0.05] = 1
    draws = rng.random((num_sites, num_samples, 2)) < frequency[:, None, None]
    return draws.astype(np.int8)


def names(count):
    """Sample names."""
    return [f"s{i}" for i in range(count)]
