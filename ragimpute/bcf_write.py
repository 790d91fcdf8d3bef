"""Encode imputed sites as BCF records, with the values that the text has.

References
----------
The VCF specification 4.3, section 6 ("BCF specification").
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ragimpute.sites import Sites
from ragimpute.vcf_fields import FLAGS, INFOS, dictionary
from ragimpute.vcf_text import SCALE

_FLOAT_MISSING, FLOAT_END = 0x7F800001, 0x7F800002
INT8_END = 0x81
_INT8, _INT32, _FLOAT, _CHAR = 1, 3, 5, 7
_RECORD = struct.Struct("<IIiiiIHHI")  # lengths, CHROM, POS, rlen, QUAL, counts

_FLOATS = (np.arange(2 * SCALE + 1) / SCALE).astype("<f4")  # of each number of thousandths


def bcf_header(text: str) -> bytes:
    """The start of a BCF that has ``text`` as its header."""
    raw = text.encode() + b"\0"
    return b"BCF\2\2" + struct.pack("<I", len(raw)) + raw


class BcfEncoder:
    """Encodes rows of sites.

    Parameters
    ----------
    contigs
        Names in the header's order.
    formats
        FORMAT fields in order.
    num_samples
        N.
    """

    def __init__(self, contigs: Sequence[str], formats: Sequence[str], num_samples: int) -> None:
        self._contig_number = {name: number for number, name in enumerate(contigs)}
        self._formats = list(formats)
        self._num_samples = num_samples
        self._number = dictionary(formats)
        self._flags = [_integer(self._number[flag.name]) + b"\0" for flag in FLAGS]

    def encode(
        self,
        sites: Sites,
        allele_prob: np.ndarray,
        called: np.ndarray,
        info: dict[str, list[str]],
        typed: np.ndarray,
    ) -> list[bytes]:
        """Records, one for each site.

        Parameters
        ----------
        sites
            m sites of one contig.
        allele_prob, called
            Shape (m, N, 2), float32 and int8, as for ``RowFormatter.format``.
        info
            INFO floats as text, "" where missing.
        typed
            Shape (m,): index into ``vcf_fields.FLAGS``, or bool.

        Raises
        ------
        ValueError
            If a probability is not in [0, 1].
        """
        values = self._values(allele_prob, called)
        return self.encode_values(sites, values, info, typed)

    def encode_values(
        self,
        sites: Sites,
        values: Sequence[tuple[str, np.ndarray]],
        info: dict[str, list[str]],
        typed: np.ndarray,
    ) -> list[bytes]:
        """Records, one for each site, of values as BCF codes them.

        Parameters
        ----------
        sites, info, typed
            As for :meth:`encode`.
        values
            For each FORMAT field in order, its name and an array of shape (m, N, numbers): uint8
            for GT, little-endian float32 for the others.
        """
        samples = self._sample_bytes(values, len(sites))
        width = samples.shape[1]
        raw = samples.tobytes()
        contig = self._contig_number[sites.contig]
        counts = self._num_samples | len(self._formats) << 24
        columns = [self._info_bytes(name, texts) for name, texts in info.items()]
        is_typed = typed.tolist()
        records = []
        for i, (position, ref, alt) in enumerate(sites.keys()):
            given = [column[i] for column in columns if column[i]]
            identifier = sites.id[i]
            named = b"\x07" if identifier == "." else _string(identifier)
            # FILTER is PASS
            shared = b"".join(
                (named, _string(ref), _string(alt), b"\x11\x00", *given, self._flags[is_typed[i]])
            )
            head = _RECORD.pack(
                len(shared) + 24,
                width,
                contig,
                position - 1,
                len(ref),
                _FLOAT_MISSING,
                len(given) + 1,
                2,
                counts,
            )
            records.append(head + shared + raw[i * width : (i + 1) * width])
        return records

    def _info_bytes(self, name: str, texts: list[str]) -> list[bytes]:
        """An INFO number of each site; empty where missing."""
        integer = INFOS[name].type == "Integer"
        head = _integer(self._number[name]) + bytes([1 << 4 | (_INT32 if integer else _FLOAT)])
        numbers = [float(text or 0) for text in texts]
        values = np.array(numbers).astype("<i4" if integer else "<f4").tobytes()
        return [head + values[4 * i : 4 * i + 4] if text else b"" for i, text in enumerate(texts)]

    def _sample_bytes(self, values: Sequence[tuple[str, np.ndarray]], num_sites: int) -> np.ndarray:
        """The samples' part of each record, shape (m, bytes), uint8."""
        parts = [np.zeros((num_sites, 0), dtype=np.uint8)]  # a file may have no samples
        for name, column in values:
            kind = _INT8 if column.dtype == np.uint8 else _FLOAT
            head = _integer(self._number[name]) + bytes([column.shape[2] << 4 | kind])
            parts.append(np.tile(np.frombuffer(head, dtype=np.uint8), (num_sites, 1)))
            parts.append(np.ascontiguousarray(column).reshape(num_sites, -1).view(np.uint8))
        return np.concatenate(parts, axis=1)

    def _values(self, allele_prob: np.ndarray, called: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Each field's values, shape (m, N, numbers), uint8 or little-endian float32."""
        p = allele_prob.astype(np.float64)
        haploid = np.isnan(p[:, :, 1]) | (called[:, :, 1] == -2)
        p[:, :, 1][haploid] = 0
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError("allele_prob must be in [0, 1], with NaN only in [..., 1]")
        p1, p2 = p[:, :, 0], p[:, :, 1]
        h = _thousandths(p)
        made = []
        for name in self._formats:
            if name == "GT":
                made.append((name, _genotype_bytes(p, called, haploid)))
                continue
            if name == "DS":
                values = _thousandths(p1 + p2)[:, :, None]
            elif name == "GP":
                g0, g2 = _thousandths((1 - p1) * (1 - p2)), _thousandths(p1 * p2)
                g1 = np.maximum(0, SCALE - g0 - g2)
                g0 = np.where(haploid, SCALE - h[:, :, 0], g0)
                g1 = np.where(haploid, h[:, :, 0], g1)
                values = np.stack([g0, g1, g2], axis=2)
            elif name in ("HDS", "LDS"):
                values = h
            else:
                values = h[:, :, :1] if name == "AP1" else h[:, :, 1:]
            floats = _FLOATS[values]
            if name in ("GP", "HDS", "LDS"):
                floats.view("<u4")[:, :, -1][haploid] = FLOAT_END
            elif name == "AP2":
                floats.view("<u4")[:, :, -1][haploid] = _FLOAT_MISSING
            made.append((name, floats))
        return made


def _thousandths(p: np.ndarray) -> np.ndarray:
    """As the text is rounded."""
    return (p * SCALE + 0.5).astype(np.int32)


def _genotype_bytes(p: np.ndarray, called: np.ndarray, haploid: np.ndarray) -> np.ndarray:
    """GT as BCF codes it, shape (m, N, 2), uint8."""
    alleles = np.where(called >= 0, called, p > 0.5)
    coded = ((alleles + 1) << 1).astype(np.uint8)
    coded[:, :, 1] |= 1  # phased
    coded[:, :, 1][haploid] = INT8_END
    return coded


def _integer(value: int) -> bytes:
    """A typed int8, for numbers of the header's dictionary."""
    if not 0 <= value <= 127:
        raise ValueError(f"dictionary number must be in [0, 127], found {value}")
    return bytes([1 << 4 | _INT8, value])


@lru_cache(maxsize=2**12)
def _string(text: str) -> bytes:
    """A typed string."""
    raw = text.encode()
    if len(raw) < 15:
        return bytes([len(raw) << 4 | _CHAR]) + raw
    size = struct.pack("<i", len(raw))
    return bytes([15 << 4 | _CHAR, 1 << 4 | 3]) + size + raw
