"""Hard calls of a PLINK 2 pgen, by pgenlib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragimpute.errors import InputError
from ragimpute.extras import require

MAGIC = b"\x6c\x1b"
_MISSING = -9
# A dosage is a hard call if it is as near to a whole number as a pgen can tell (1 / 16,384).
_WHOLE = 1e-4


@dataclass
class DosageCounts:
    """Genotypes whose dosage is not the whole number that the hard call is.

    Attributes
    ----------
    uncertain, uncalled
        Genotypes with such a dosage; and those of them that have no hard call, so are missing.
    """

    uncertain: int = 0
    uncalled: int = 0


class PgenFile:
    """The genotypes of a pgen.

    Parameters
    ----------
    path
        The file.
    num_samples, num_alleles
        Of its psam; and of each variant in its pvar, shape (V,).
    """

    def __init__(self, path: Path, *, num_samples: int, num_alleles: np.ndarray) -> None:
        self._path = path
        self._num_samples = num_samples
        self._offsets = np.concatenate([[0], np.cumsum(num_alleles)]).astype(np.uintp)
        self.counts = DosageCounts()

    @contextmanager
    def _opened(self, samples: np.ndarray) -> Iterator[Any]:
        """A reader of pgenlib for some of the samples.

        Raises
        ------
        InputError
            If the file is damaged, or of other numbers of variants and samples.
        MissingPackageError
            If pgenlib is not installed.
        """
        require("pgen", f"{self._path}", packages=["pgenlib"])
        import pgenlib

        name = bytes(self._path.absolute())
        subset = samples.astype(np.uint32) if len(samples) < self._num_samples else None
        try:
            probe = pgenlib.PgenReader(
                name, raw_sample_ct=self._num_samples, variant_ct=len(self._offsets) - 1,
                sample_subset=subset, allele_idx_offsets=self._offsets,
            )  # fmt: skip
        except RuntimeError as error:
            raise self._damaged(error) from error
        with probe as reader:
            yield reader

    def read(
        self, rows: np.ndarray, samples: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Alleles and phase of some variants, one after the other.

        Parameters
        ----------
        rows, samples
            Numbers of variants and of samples, shapes (T,) and (N,), int64, ascending samples.

        Yields
        ------
        Alleles of the variant, shape (N, 2), int32, -1 missing, and whether each genotype is
        phased, shape (N,), bool: homozygous and missing genotypes are.
        """
        num = len(samples)
        alleles = np.empty(2 * num, np.int32)
        present = np.empty(num, np.uint8)
        dosages = np.empty(num, np.float64)
        with self._opened(samples) as reader:
            for row in rows.tolist():
                try:
                    reader.read_alleles_and_phasepresent(row, alleles, present)
                    reader.read_dosages(row, dosages)
                except RuntimeError as error:
                    raise self._damaged(error) from error
                pairs = alleles.reshape(num, 2)
                missing = pairs[:, 0] == _MISSING
                called = (pairs > 0).sum(axis=1)
                odd = (dosages != _MISSING) & (missing | (np.abs(dosages - called) > _WHOLE))
                self.counts.uncertain += int(odd.sum())
                self.counts.uncalled += int((odd & missing).sum())
                same = pairs[:, 0] == pairs[:, 1]
                yield np.where(missing[:, None], -1, pairs), same | (present != 0)

    def _damaged(self, error: RuntimeError) -> InputError:
        """The error for what pgenlib refuses."""
        told = error.args[0] if error.args else error
        text = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
        return InputError(
            f"{self._path} cannot be read: {text.strip().rstrip('.')}",
            hint="copy pgen, pvar and psam again; they must be of one run of plink2",
        )
