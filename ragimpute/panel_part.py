"""Some of a panel's haplotypes: their alleles, and panels in which the others do not exist."""

from __future__ import annotations

import numpy as np

from ragimpute.errors import PanelError
from ragimpute.kernels import kernel
from ragimpute.panel import Haplotypes, Panel


def keep_haplotypes(haplotypes: Haplotypes, kept: np.ndarray) -> Haplotypes:
    """Some of the haplotypes of a block, numbered anew.

    Parameters
    ----------
    haplotypes
        Alleles of H haplotypes.
    kept
        Shape (H,), bool.

    Returns
    -------
    The same sites for the haplotypes kept; which allele is called minor does not change.
    """
    number = np.cumsum(kept, dtype=np.int64) - 1
    staying = kept[haplotypes.carriers]
    before = np.concatenate([[0], np.cumsum(staying)])
    num = int(kept.sum())
    bits = np.empty((len(haplotypes.bits), -(-num // 64)), np.uint64)
    _keep_bits(haplotypes.bits, *_runs(kept), bits)
    return Haplotypes(
        num,
        haplotypes.alt_is_minor,
        before[haplotypes.offsets].astype(np.int64),
        number[haplotypes.carriers[staying]].astype(np.int32),
        haplotypes.row,
        bits,
    )


def _runs(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of kept haplotypes within a word of 64: the word, the first bit, and how many: (k,)."""
    padded = np.zeros((-(-len(kept) // 64), 66), np.int8)  # a bit more on both sides of a word
    whole = np.zeros(len(padded) * 64, np.int8)
    whole[: len(kept)] = kept
    padded[:, 1:65] = whole.reshape(-1, 64)
    change = np.diff(padded, axis=1)
    word, first = np.nonzero(change == 1)
    _, end = np.nonzero(change == -1)
    return word, first, end - first


@kernel
def _keep_bits(bits, words, firsts, lengths, out):
    """Bits of ``bits`` (R, W) in runs, one after the other, into ``out`` (R, ceil(k / 64))."""
    one, size = np.uint64(1), np.uint64(64)
    for r in range(bits.shape[0]):
        place, word, filled = 0, np.uint64(0), np.uint64(0)
        for i in range(words.shape[0]):
            length = np.uint64(lengths[i])
            piece = bits[r, words[i]] >> np.uint64(firsts[i])
            if length < size:
                piece &= (one << length) - one
            word |= piece << filled
            if filled + length < size:
                filled += length
                continue
            out[r, place] = word
            place += 1
            # A shift by all 64 bits is none.
            word = piece >> (size - filled) if filled > np.uint64(0) else np.uint64(0)
            filled = filled + length - size
        if place < out.shape[1]:
            out[r, place] = word


def haplotype_columns(haplotypes: Haplotypes, index: np.ndarray) -> np.ndarray:
    """Alleles of some haplotypes, without those of all others.

    Parameters
    ----------
    haplotypes
        m sites of a panel.
    index
        Shape (k,), int: distinct haplotype ids.

    Returns
    -------
    Shape (k, m), int8: 0 REF, 1 ALT.
    """
    place = np.full(haplotypes.num_haplotypes, -1, np.int32)
    place[index] = np.arange(len(index))
    out = np.empty((len(index), len(haplotypes)), np.int8)
    h = haplotypes
    _fill_columns(
        h.offsets,
        h.carriers,
        h.row,
        h.bits,
        h.alt_is_minor,
        np.asarray(index, np.int64),
        place,
        out,
    )
    return out


@kernel
def _fill_columns(offsets, carriers, row, bits, alt_is_minor, index, place, out):
    """Alleles of the haplotypes ``index`` (k,) at all sites into ``out`` (k, m).

    ``place`` (H,): where they are among them, -1 for all others.
    """
    for u in range(row.shape[0]):
        minor = np.int8(1) if alt_is_minor[u] else np.int8(0)
        r = row[u]
        if r >= 0:
            for i in range(index.shape[0]):
                word = bits[r, index[i] >> 6] >> np.uint64(index[i] & 63)
                out[i, u] = minor if word & np.uint64(1) else np.int8(1) - minor
        else:
            for i in range(index.shape[0]):
                out[i, u] = np.int8(1) - minor
            for k in range(offsets[u], offsets[u + 1]):
                i = place[carriers[k]]
                if i >= 0:
                    out[i, u] = minor


class PanelPart(Panel):
    """A panel with those of its haplotypes that exist in one stretch of its ploidy.

    Sites are numbered as in the whole panel; haplotypes are numbered anew.

    Attributes
    ----------
    start, stop
        The stretch: sites [start, stop).
    """

    def __init__(self, whole: Panel, stretch: int) -> None:
        self.__dict__.update(whole.__dict__)
        self._whole = whole
        self._kept = whole.ploidy_present[stretch]
        self.start = int(whole.ploidy_start[stretch])
        self.stop = int([*whole.ploidy_start, whole.num_sites][stretch + 1])
        self.num_haplotypes = int(self._kept.sum())
        self.haplotype_sample = whole.haplotype_sample[self._kept]

    def haplotypes(self, start: int, stop: int) -> Haplotypes:
        """See :meth:`Panel.haplotypes`."""
        return keep_haplotypes(self._whole.haplotypes(start, stop), self._kept)

    def bytes_per_site(self) -> float:
        """See :meth:`Panel.bytes_per_site`."""
        return self._whole.bytes_per_site()


class PanelWithout(Panel):
    """A panel without some of its samples, whose haplotypes are numbered anew.

    Sites, with their counts and frequencies, stay those of the whole panel.

    Parameters
    ----------
    whole
        The panel; all its haplotypes exist throughout.
    kept
        Shape (H,), bool: haplotypes that stay.
    """

    def __init__(self, whole: Panel, kept: np.ndarray) -> None:
        self.__dict__.update(whole.__dict__)
        self._whole, self._kept = whole, kept
        self.num_haplotypes = int(kept.sum())
        self.haplotype_sample = whole.haplotype_sample[kept]

    def haplotypes(self, start: int, stop: int) -> Haplotypes:
        """See :meth:`Panel.haplotypes`."""
        return keep_haplotypes(self._whole.haplotypes(start, stop), self._kept)

    def bytes_per_site(self) -> float:
        """See :meth:`Panel.bytes_per_site`."""
        return self._whole.bytes_per_site()


def require_one_ploidy(panel: Panel, what: str) -> None:
    """Refuse a panel whose ploidy changes along the contig, for ``what`` cannot follow it.

    Raises
    ------
    PanelError
        If it does.
    """
    if len(panel.ploidy_start) > 1:
        at = ", ".join(
            f"{panel.contig}:{panel.sites.position_bp[i]}" for i in panel.ploidy_start[1:]
        )
        raise PanelError(
            f"the ploidy of panel {panel.path} changes at {at}, and {what} cannot follow that",
            hint="prepare the parts of the contig apart, with --region; or use a copying model, "
            "such as default, to impute",
        )


def parts_of(panel: Panel, start: int, stop: int) -> list[tuple[int, int, Panel]]:
    """Cut the sites [start, stop) where the panel's ploidy changes.

    Returns
    -------
    First site, last site + 1 and the panel of each part, in order: the panel itself where all of
    its haplotypes exist throughout.
    """
    if len(panel.ploidy_start) == 1:
        return [(start, stop, panel)]
    parts = [PanelPart(panel, stretch) for stretch in range(len(panel.ploidy_start))]
    cut = [(max(start, part.start), min(stop, part.stop), part) for part in parts]
    return [(first, last, part) for first, last, part in cut if first < last]
