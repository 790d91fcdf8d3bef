"""Which genotypes of a sample were phased together: FORMAT/PS, PSL, HP, PGT and PID.

A genotype such as 0|1 is phased relative to the others of its *phase set*; how two sets lie to each
other is not known. Genotypes that are phased and in no set form one set of their own. Programs that
phase by reads write sets in different ways, which all become the same here:

- PS, an integer or a text, and PSL of VCF 4.4, which names a set for each allele;
- HP of GATK's ReadBackedPhasing and of WhatsHap: GT is 0/1, and "100-2,100-1" says that its first
  allele is on the second haplotype of set 100;
- PGT and PID of GATK's HaplotypeCaller: GT is 0/1, PGT 0|1 has the order, and PID names the set.

A field is read whether the header declares it or not.

References
----------
The VCF specification 4.4, sections 1.6.2 (PS, PSL) and 1.4.2 (undeclared fields are not valid, but
occur); GATK's documentation of ReadBackedPhasing and HaplotypeCaller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

NO_SET = -1
FIELDS = ("PS", "PSL", "HP", "PGT", "PID")
_ROWS_AT_ONCE = 1024
_NEVER = np.iinfo(np.int32)


class PhaseSetReader:
    """Reads the phase sets of one record after the other, and numbers them.

    The number of a set is the same for all samples and records, whatever spelling or type its label
    has, and is at least 0. Where GT itself is phased and only PID or HP names a set, the set may be
    a remnant of an earlier step: it has the number ``-2 - n`` until :func:`settle` has seen all
    genotypes.

    Parameters
    ----------
    chosen
        Takes from a field's values, of all samples that were read, those of the samples that were
        asked for; None: these are all.
    """

    def __init__(self, chosen: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self._chosen = chosen
        self._numbers: dict[tuple[str, str], int] = {}

    def read(self, variant: Any, alleles: np.ndarray, phased: np.ndarray) -> np.ndarray | None:
        """Find the phase sets of a record's heterozygous genotypes.

        Parameters
        ----------
        variant
            A record of cyvcf2 or of ``bcf``.
        alleles, phased
            Shape (N, 2), int8, and (N,), bool: its genotypes. Those that HP or PGT puts into order
            become phased, and their alleles change places where that is the order.

        Returns
        -------
        Shape (N,), int32: the number of each genotype's set, ``NO_SET`` where it has none. None if
        the record has none of these fields or no heterozygous genotype.
        """
        present = [name for name in FIELDS if name in variant.FORMAT]
        if not present:
            return None
        het = np.flatnonzero((alleles[:, 0] != alleles[:, 1]) & (alleles >= 0).all(axis=1))
        if not len(het):
            return None
        if present == ["PS"]:  # by far the most frequent: no need to look at what is unphased
            het = het[phased[het]]
            sets = np.full(len(alleles), NO_SET, np.int32)
            labels = self._texts(variant, "PS", het)
            sets[het] = [self._number("PS", label) if label else NO_SET for label in labels]
            return sets
        text = {name: self._texts(variant, name, het) for name in present}
        sets = np.full(len(alleles), NO_SET, np.int32)
        nothing = [""] * len(het)
        columns = [text.get(name, nothing) for name in FIELDS]
        for i, ps, psl, hp, pgt, pid in zip(het.tolist(), *columns, strict=True):
            if not (ps or psl or hp or pid):
                continue
            order = _order_of_hp(hp) or _order_of_pgt(pgt, pid, alleles[i])
            if phased[i]:
                label = ps or _label_of_psl(psl)
                if label:
                    sets[i] = self._number("PS", label)
                elif order and not order[1]:
                    sets[i] = -2 - self._number(*order[0])
            elif order:
                phased[i] = True
                sets[i] = self._number(*order[0])
                if order[1]:
                    alleles[i] = alleles[i, ::-1].copy()
        return sets

    def _texts(self, variant: Any, name: str, wanted: np.ndarray) -> list[str]:
        """A field of some samples as texts; "" where it is missing."""
        try:
            found = variant.format(name)
        except UnicodeDecodeError:  # a text that nothing can be made of
            found = None
        if found is None:
            return [""] * len(wanted)
        values = np.asarray(found)
        if self._chosen is not None:
            values = self._chosen(values)
        values = (values if values.ndim == 1 else values[:, 0])[wanted]
        if values.dtype.kind == "f":
            values = np.where(np.isfinite(values), values, -1).astype(np.int64)
        if values.dtype.kind in "iu":  # missing and padding are negative
            return ["" if value < 0 else str(value) for value in values.tolist()]
        return ["" if value.strip(".,") == "" else str(value) for value in values.tolist()]

    def _number(self, source: str, label: str) -> int:
        """The number of a label."""
        return self._numbers.setdefault((source, label), len(self._numbers))


def _label_of_psl(text: str) -> str:
    """The set that all labelled alleles of a genotype are in; "" if there is none."""
    labels = {label for label in text.split(",") if label not in ("", ".")}
    return labels.pop() if len(labels) == 1 else ""


def _order_of_hp(text: str) -> tuple[tuple[str, str], bool] | None:
    """The set that HP names, and whether the alleles change places; None if it says nothing."""
    one, _, other = text.partition(",")
    label, _, first = one.rpartition("-")
    again, _, second = other.rpartition("-")
    if not label or label != again or {first, second} != {"1", "2"}:
        return None
    return ("HP", label), first == "2"


def _order_of_pgt(
    genotype: str, label: str, alleles: np.ndarray
) -> tuple[tuple[str, str], bool] | None:
    """The set that PID names, and whether the alleles of GT change places to be those of PGT.

    None where PGT has other alleles than GT: at sites of several ALTs it speaks of one of them.
    """
    one, bar, other = genotype.partition("|")
    if not label or not bar:
        return None
    given = [str(allele) for allele in alleles.tolist()]
    if given not in ([one, other], [other, one]):
        return None
    return ("PID", label), given != [one, other]


def settle(alleles: np.ndarray, phased: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Decide which of the sets that only PID or HP names are sets.

    HaplotypeCaller leaves most genotypes unphased. A sample that has other phased genotypes, and no
    unphased one, was phased as a whole afterwards, and the fields are remnants.

    Parameters
    ----------
    alleles, phased, sets
        Shapes (T, N, 2), int8; (T, N), bool; (T, N), int32, as :class:`PhaseSetReader` gives them.

    Returns
    -------
    Shape (T, N), int32: numbers of at least 0, or ``NO_SET``.
    """
    doubtful = sets < NO_SET
    columns = np.flatnonzero(doubtful.any(axis=0))
    if not len(columns):
        return sets
    out = sets.copy()
    for i in columns.tolist():
        het = _heterozygous(alleles[:, i])
        remnants = (
            bool((het & phased[:, i] & (sets[:, i] == NO_SET)).any())
            and not (het & ~phased[:, i]).any()
        )
        here = doubtful[:, i]
        out[here, i] = NO_SET if remnants else -2 - sets[here, i]
    return out


class PieceFinder:
    """Finds the samples whose phased genotypes are in more than one set, batch after batch.

    Sets that only PID or HP names count as :func:`settle` has it, in samples without unphased
    genotypes.
    """

    def __init__(self, num_samples: int) -> None:
        # Of each sample the lowest and the highest number, first of sets that PS names and of
        # genotypes in no set, then of sets that are in doubt.
        self._low = np.full((2, num_samples), _NEVER.max, np.int32)
        self._high = np.full((2, num_samples), _NEVER.min, np.int32)
        # Samples with a phased heterozygote where no sample of the file had a set yet.
        self._without_sets = np.zeros(num_samples, bool)

    def add(self, alleles: np.ndarray, phased: np.ndarray, sets: np.ndarray | None) -> None:
        """Take the next sites: shapes (m, N, 2), (m, N) and (m, N), or None for no sets at all."""
        if sets is None:
            for first in range(0, len(alleles), _ROWS_AT_ONCE):
                # Most samples have one among the first sites, and are not looked at again.
                left = np.flatnonzero(~self._without_sets)
                if not len(left):
                    return
                rows = slice(first, first + _ROWS_AT_ONCE)
                known = _heterozygous(alleles[rows][:, left]) & phased[rows][:, left]
                self._without_sets[left] = known.any(axis=0)
            return
        for first in range(0, len(sets), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            known = _heterozygous(alleles[rows]) & phased[rows]
            labels = sets[rows]
            for i, here in enumerate((known & (labels >= NO_SET), known & (labels < NO_SET))):
                if here.any():
                    low = labels.min(axis=0, where=here, initial=_NEVER.max)
                    high = labels.max(axis=0, where=here, initial=_NEVER.min)
                    self._low[i] = np.minimum(self._low[i], low)
                    self._high[i] = np.maximum(self._high[i], high)

    def in_pieces(self) -> np.ndarray:
        """The samples whose phase is in pieces so far, shape (N,), bool."""
        (low, low_doubtful), (high, high_doubtful) = self._low, self._high
        low = np.where(self._without_sets, np.minimum(low, NO_SET), low)
        high = np.where(self._without_sets, np.maximum(high, NO_SET), high)
        doubtful = (low_doubtful <= high_doubtful) & (low > NO_SET)
        out: np.ndarray = low < high
        return out | (doubtful & ((low_doubtful < high_doubtful) | (low <= high)))


def in_pieces(alleles: np.ndarray, phased: np.ndarray, sets: np.ndarray | None) -> np.ndarray:
    """Which samples are phased only within phase sets, shape (N,), bool.

    A sample is if its phased heterozygous genotypes are in more than one set; those that are in
    none count as one set more. One that has a single set is phased as a whole.

    Parameters
    ----------
    alleles, phased, sets
        Shapes (T, N, 2), int8; (T, N), bool; (T, N), int32, ``NO_SET`` where there is none, or None
        if no genotype is in a set.
    """
    finder = PieceFinder(alleles.shape[1])
    finder.add(alleles, phased, sets)
    return finder.in_pieces()


def _heterozygous(alleles: np.ndarray) -> np.ndarray:
    """Where two known alleles differ, of alleles (..., 2)."""
    first, second = alleles[..., 0], alleles[..., 1]
    out: np.ndarray = (first != second) & (first >= 0) & (second >= 0)
    return out
