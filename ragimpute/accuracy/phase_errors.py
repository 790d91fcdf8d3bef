"""How well a file's phase agrees with the truth: switch errors at heterozygous typed sites."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import PanelStream, VcfFile
from ragimpute.io.vcf.read.phase_sets import NO_SET, settle
from ragimpute.sites import Key, Region

_Row = tuple[np.ndarray, np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class PhaseErrors:
    """Disagreements of phase.

    Attributes
    ----------
    num_pairs
        Pairs of neighbouring heterozygous genotypes of one sample, within a phase set of each
        file. Only genotypes that have the same alleles and are phased in both files are counted.
    num_switches
        Pairs whose order differs from the truth's.
    num_flips
        Lone genotypes that are turned against both their neighbours: two switches each.
    """

    num_pairs: int
    num_switches: int
    num_flips: int

    @property
    def switch_rate(self) -> float:
        """Share of the pairs that are switch errors, in [0, 1]."""
        return self.num_switches / self.num_pairs

    @property
    def flip_rate(self) -> float:
        """Flips as a share of the pairs, in [0, 0.5]."""
        return self.num_flips / self.num_pairs

    def as_dict(self) -> dict[str, float]:
        """Counts and rates, for JSON."""
        return {
            "num_pairs": self.num_pairs,
            "num_switches": self.num_switches,
            "num_flips": self.num_flips,
            "switch_rate": self.switch_rate,
            "flip_rate": self.flip_rate,
        }

    def text(self) -> str:
        """One line."""
        return (
            f"{self.switch_rate:.3%} ({self.num_switches:,} of {self.num_pairs:,} pairs of "
            f"neighbouring heterozygous typed sites); flips {self.flip_rate:.3%}"
        )


def count_phase_errors(
    true: np.ndarray,
    found: np.ndarray,
    usable: np.ndarray,
    sets: Sequence[np.ndarray | None] = (),
) -> PhaseErrors | None:
    """Count switch errors and flips.

    Parameters
    ----------
    true, found
        Shape (T, N, 2), int8: alleles, sites in their order; negative where missing or haploid.
    usable
        Shape (T, N), bool: genotypes whose phase both files know.
    sets
        Phase sets, each of shape (T, N), int32, or None: genotypes of different sets, in any of
        the files, make no pair, since no order of them is known.

    Returns
    -------
    None where no sample has two heterozygous genotypes to compare.
    """
    usable = usable & (true[:, :, 0] != true[:, :, 1]) & (true >= 0).all(axis=2)
    usable &= (np.sort(true, axis=2) == np.sort(found, axis=2)).all(axis=2)
    right = true[:, :, 0] == found[:, :, 0]
    pairs = switches = flips = 0
    for i in range(usable.shape[1]):
        rows = np.flatnonzero(usable[:, i])
        blocks = np.zeros((len(rows), 1), np.int32)
        known = [some[rows, i] for some in sets if some is not None]
        if known:
            blocks = np.stack(known, axis=1)
            place = np.lexsort((rows, *blocks.T))
            rows, blocks = rows[place], blocks[place]
        order = right[rows, i]
        together = (blocks[1:] == blocks[:-1]).all(axis=1).tolist()
        switched = (order[1:] != order[:-1]).tolist()
        after_one = False
        for pair, switch in zip(together, switched, strict=True):
            if not pair:
                after_one = False
                continue
            pairs += 1
            switches += switch
            after_one = switch and not after_one
            if switch and not after_one:
                flips += 1
    return PhaseErrors(pairs, switches, flips) if pairs else None


def measure_phase(
    truth: tuple[VcfFile, Region],
    imputed: tuple[VcfFile, Region],
    typed: Collection[Key],
    sample_index: np.ndarray,
    *,
    threads: int = 1,
) -> PhaseErrors | None:
    """Compare the phase of two files at typed sites.

    Parameters
    ----------
    truth, imputed
        Each file, and what to read of it.
    typed
        Position, REF and ALT of the sites that count.
    sample_index
        Shape (N,), int: for each sample of ``truth`` its column in ``imputed``.
    threads
        For decompression, >= 1.

    Returns
    -------
    None where a file has no phased genotypes (or no GT) to compare.
    """
    # Both files were read for their dosages already, so the only failure left is a record without
    # GT. This second pass over them needs to know which sites count, which the first one tells.
    try:
        known = _read(*truth, typed, threads)
        given = _read(*imputed, known.keys(), threads) if known else {}
    except InputError:
        return None
    shared = [key for key in known if key in given]
    if not shared:
        return None
    true, phased, sets = _stack(known, shared)
    found, also, more = _stack(given, shared)
    return count_phase_errors(
        true, found[:, sample_index], phased & also[:, sample_index],
        (sets, None if more is None else more[:, sample_index]),
    )  # fmt: skip


def _read(file: VcfFile, region: Region, wanted: Collection[Key], threads: int) -> dict[Key, _Row]:
    """Alleles (N, 2), phase and phase sets (N,) of the sites wanted, the first record of each."""
    table: dict[Key, _Row] = {}
    for batch in PanelStream(file, region=region, threads=threads):
        for i, key in enumerate(batch.sites.keys()):
            if key in wanted and key not in table:
                sets = None if batch.phase_set is None else batch.phase_set[i].copy()
                table[key] = batch.alleles[i].copy(), batch.phased[i].copy(), sets
    return table


def _stack(
    table: dict[Key, _Row], keys: Sequence[Key]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Alleles (T, N, 2), phase (T, N) and phase sets (T, N), or None if there are none."""
    rows = [table[key] for key in keys]
    alleles, phased = np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])
    if all(row[2] is None for row in rows):
        return alleles, phased, None
    none = np.full(phased.shape[1], NO_SET, np.int32)
    sets = np.stack([none if row[2] is None else row[2] for row in rows])
    return alleles, phased, settle(alleles, phased, sets)
