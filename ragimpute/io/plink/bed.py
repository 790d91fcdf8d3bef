"""Genotypes of a PLINK 1 bed: two bits a genotype, a row of bytes a variant.

References
----------
https://www.cog-genomics.org/plink/1.9/formats#bed: after three bytes, each variant has a quarter
of a byte for each sample, the first sample in the lowest bits: 00 homozygous for A1, 01 missing, 10
heterozygous, 11 homozygous for A2.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ragimpute.commands import free_name, operand
from ragimpute.errors import InputError

MAGIC = b"\x6c\x1b\x01"
_SAMPLE_MAJOR = b"\x6c\x1b\x00"
# A2 is taken for REF: the alleles of each of the four codes, 0 REF, 1 ALT, -1 missing.
_CODES = np.array([[1, 1], [-1, -1], [0, 1], [0, 0]], np.int8)
# Of each byte the alleles of its four genotypes, shape (256, 4, 2).
_OF_BYTE = _CODES[(np.arange(256)[:, None] >> np.arange(0, 8, 2)) & 3]
_BYTES_AT_ONCE = 2**22


def check_bed(path: Path, *, num_variants: int, num_samples: int) -> None:
    """Refuse a bed that is sample-major, or whose size is not that of its variants and samples.

    Raises
    ------
    InputError
        If it is.
    """
    with path.open("rb") as file:
        start = file.read(3)
    if start == _SAMPLE_MAJOR:
        out = shlex.quote(free_name(path, ""))
        prefix = shlex.quote(operand(path.with_suffix("")))
        raise InputError(
            f"{path} is sample-major (its third byte is 0), as PLINK before 1.0 wrote",
            hint=f"write it variant by variant: plink2 --bfile {prefix} --make-bed --out {out}",
        )
    expected = 3 + num_variants * (-(-num_samples // 4))
    found = path.stat().st_size
    if found != expected:
        state = "truncated" if found < expected else "too long"
        raise InputError(
            f"{path} is {state}: {found:,} bytes, expected {expected:,} for {num_variants:,} "
            f"variants (bim) of {num_samples:,} samples (fam)",
            hint="copy all three files again; they must be of one run of PLINK",
        )


def read_bed(
    path: Path, rows: np.ndarray, samples: np.ndarray, num_samples: int
) -> Iterator[np.ndarray]:
    """Genotypes of some variants, in blocks of consecutive ones of ``rows``.

    Parameters
    ----------
    path
        The bed, that :func:`check_bed` has seen.
    rows
        Numbers of variants, shape (T,), int64.
    samples
        Numbers of samples, shape (N,), int64.
    num_samples
        Of the file.

    Yields
    ------
    Alleles, shape (t, N, 2), int8: 0 is A2, 1 is A1, -1 missing. PLINK writes each heterozygote
    the same way, here (0, 1).
    """
    width = -(-num_samples // 4)
    data = np.memmap(path, np.uint8, mode="r", offset=3).reshape(-1, width)
    size = max(1, _BYTES_AT_ONCE // width)
    every = len(samples) == num_samples
    for first in range(0, len(rows), size):
        codes = data[rows[first : first + size]]
        alleles = _OF_BYTE[codes].reshape(len(codes), 4 * width, 2)
        yield alleles[:, :num_samples] if every else alleles[:, samples]
