"""Encode imputed sites as BCF records, with the same rounded values as in the text of a VCF.

References
----------
The VCF specification 4.3, section 6 ("BCF specification").
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ragimpute.io.imputed import NO_CALL
from ragimpute.io.vcf.header import FLAGS, INFOS, Heading, dictionary
from ragimpute.io.vcf.site_info import declared_fields
from ragimpute.io.vcf.write.info_text import NumberColumn
from ragimpute.io.vcf.write.sample_text import CODES, DIGITS, check_digits
from ragimpute.kernels.compile import kernel
from ragimpute.sites import Sites
from ragimpute.symbolic import last_base

FLOAT_MISSING, FLOAT_END = 0x7F800001, 0x7F800002
INT8_END = 0x81
_INT8, _INT16, _INT32, _FLOAT, _CHAR = 1, 2, 3, 5, 7
_RECORD = struct.Struct("<IIiiiIHHI")  # lengths, CHROM, POS, rlen, QUAL, counts

_NUMBERS = {"DS": 1, "GP": 3, "HDS": 2, "LDS": 2, "AP1": 1, "AP2": 1}


def bcf_header(text: str) -> bytes:
    """The start of a BCF that has ``text`` as its header."""
    raw = text.encode() + b"\0"
    return b"BCF\2\2" + struct.pack("<I", len(raw)) + raw


class BcfEncoder:
    """Makes the records of sites.

    Parameters
    ----------
    heading
        What the header says: its contigs and INFO fields.
    formats
        FORMAT fields in order.
    num_samples
        N.
    digits
        Decimals of probabilities, 2 to 4.
    """

    def __init__(
        self, heading: Heading, formats: Sequence[str], num_samples: int, digits: int = DIGITS
    ) -> None:
        check_digits(digits)
        self._digits = digits
        self._contig_number = {name: number for number, (name, _) in enumerate(heading.contigs)}
        self._formats = list(formats)
        self._num_samples = num_samples
        self._number = dictionary(heading, formats)
        self._site_fields = declared_fields(heading.declarations)
        self._flags = {
            number: _integer(self._number[flag.name]) + b"\0"
            for number, flag in enumerate(FLAGS)
            if flag.name in self._number
        }

    def encode(
        self,
        sites: Sites,
        allele_prob: np.ndarray,
        called: np.ndarray,
        info: dict[str, NumberColumn],
        typed: np.ndarray,
        both: np.ndarray | None = None,
    ) -> list[bytes]:
        """Make a record of each site.

        Parameters
        ----------
        sites
            m sites of one contig; several ALTs are separated by commas.
        allele_prob, called
            Shape (m, N, 2), float32 and int8, as for ``RowFormatter.format``.
        info
            A column of m numbers for each INFO field to be written.
        typed
            Shape (m,): index into ``FLAGS`` of ``io/vcf/header``, or bool.
        both
            Shape (m, N), float32, as for ``RowFormatter.format``.

        Raises
        ------
        ValueError
            If a probability is not in [0, 1].
        """
        values = self._values(allele_prob, called, both)
        return self.encode_values(sites, values, info, typed)

    def encode_values(
        self,
        sites: Sites,
        values: Sequence[tuple[str, np.ndarray]],
        info: dict[str, NumberColumn],
        typed: np.ndarray,
    ) -> list[bytes]:
        """Make a record of each site from values that are coded already.

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
        columns = [self._info_bytes(name, column) for name, column in info.items()]
        is_typed = typed.tolist()
        records = []
        infos = [""] * len(sites) if sites.info is None else sites.info.tolist()
        rows = zip(sites.position_bp.tolist(), sites.ref, sites.alt, infos, strict=True)
        for i, (position, ref, alt, told) in enumerate(rows):
            given = [column[i] for column in columns if column[i]]
            length = len(ref)
            if told:
                length = last_base(position, ref, told) - position + 1
                given = [*self._site_info(told), *given]
            identifier = sites.id[i]
            named = b"\x07" if identifier == "." else _string(identifier)
            # FILTER is PASS
            alleles = [_string(allele) for allele in (ref, *alt.split(","))]
            shared = b"".join((named, *alleles, b"\x11\x00", *given, self._flags[is_typed[i]]))
            head = _RECORD.pack(
                len(shared) + 24,
                width,
                contig,
                position - 1,
                length,
                FLOAT_MISSING,
                len(given) + 1,
                len(alleles),
                counts,
            )
            records.append(head + shared + raw[i * width : (i + 1) * width])
        return records

    def _site_info(self, info: str) -> list[bytes]:
        """The bytes of each field in the text of INFO."""
        made = []
        for part in info.split(";"):
            name, _, value = part.partition("=")
            made.append(_integer(self._number[name]) + _coded(value, self._site_fields[name].type))
        return made

    def _info_bytes(self, name: str, column: NumberColumn) -> list[bytes]:
        """The bytes of an INFO field at each site; none where its number is missing."""
        integer = INFOS[name].type == "Integer"
        num = 1 if column.value.ndim == 1 else column.value.shape[1]
        head = _integer(self._number[name]) + _vector(num, _INT32 if integer else _FLOAT)
        coded = column.value.astype("<i4" if integer else "<f4")
        if num > 1:
            words = coded.view("<u4")
            words[np.isnan(column.value)] = FLOAT_MISSING
        values, width = coded.tobytes(), 4 * num
        return [
            head + values[width * i : width * (i + 1)] if known else b""
            for i, known in enumerate((column.length > 0).tolist())
        ]

    def _sample_bytes(self, values: Sequence[tuple[str, np.ndarray]], num_sites: int) -> np.ndarray:
        """The bytes of all samples in each record, shape (m, bytes), uint8."""
        parts = [np.zeros((num_sites, 0), dtype=np.uint8)]  # a file may have no samples
        for name, column in values:
            kind = _INT8 if column.dtype == np.uint8 else _FLOAT
            head = _integer(self._number[name]) + _vector(column.shape[2], kind)
            parts.append(np.tile(np.frombuffer(head, dtype=np.uint8), (num_sites, 1)))
            parts.append(np.ascontiguousarray(column).reshape(num_sites, -1).view(np.uint8))
        return np.concatenate(parts, axis=1)

    def _values(
        self, allele_prob: np.ndarray, called: np.ndarray, both: np.ndarray | None
    ) -> list[tuple[str, np.ndarray]]:
        """The values of each FORMAT field, as :meth:`encode_values` takes them."""
        num_sites, num_samples, _ = allele_prob.shape
        prob = np.ascontiguousarray(allele_prob, np.float32)
        called = np.ascontiguousarray(called, np.int8)
        joint = np.zeros((num_sites, 0), np.float32) if both is None else both
        joint = np.ascontiguousarray(joint, np.float32)
        made = []
        for name in self._formats:
            if name == "GT":
                genotypes = np.empty((num_sites, num_samples, 2), np.uint8)
                good = _fill_genotypes(prob, called, genotypes)
                made.append((name, genotypes))
            else:
                words = np.empty((num_sites, num_samples, _NUMBERS[name]), "<u4")
                good = _fill_field(prob, called, CODES[name], _words(self._digits), words, joint)
                made.append((name, words.view("<f4")))
            if not good:
                raise ValueError("allele_prob must be in [0, 1], with NaN only in [..., 1]")
        return made


@cache
def _words(digits: int) -> np.ndarray:
    """The bits of 0, 1 / s, ... 2 as float32, where s is 10^digits."""
    scale = 10**digits
    words: np.ndarray = (np.arange(2 * scale + 1) / scale).astype("<f4").view("<u4")
    return words


@kernel
def _fill_genotypes(prob, called, out):
    """Fill in GT as BCF codes it; returns whether all probabilities are in [0, 1]."""
    good = True
    for i in range(prob.shape[0]):
        for j in range(prob.shape[1]):
            p1, p2 = prob[i, j, 0], prob[i, j, 1]
            c1, c2 = called[i, j, 0], called[i, j, 1]
            haploid = np.isnan(p2) or c2 == -2
            good &= p1 >= 0 and p1 <= 1 and (haploid or (p2 >= 0 and p2 <= 1))
            if c1 == NO_CALL:
                out[i, j, 0] = 0
                out[i, j, 1] = INT8_END if haploid else 0
                continue
            a1 = c1 if c1 >= 0 else np.int8(p1 > 0.5)
            a2 = c2 if c2 >= 0 else np.int8(p2 > 0.5)
            out[i, j, 0] = (a1 + 1) << 1
            out[i, j, 1] = INT8_END if haploid else ((a2 + 1) << 1) | 1  # phased
    return good


@kernel
def _fill_field(prob: Any, called: Any, code: Any, words: Any, out: Any, both: Any) -> Any:
    """Fill in another field, as bits of float32; returns whether probabilities are in [0, 1]."""
    is_joint = both.shape[1] > 0
    end, missing = np.uint32(FLOAT_END), np.uint32(FLOAT_MISSING)
    scale = np.int64(words.shape[0] // 2)
    good = True
    for i in range(prob.shape[0]):
        for j in range(prob.shape[1]):
            p1: Any = np.float64(prob[i, j, 0])
            p2: Any = np.float64(prob[i, j, 1])
            haploid = np.isnan(p2) or called[i, j, 1] == -2
            if haploid:
                p2 = 0.0
            if not (p1 >= 0 and p1 <= 1 and p2 >= 0 and p2 <= 1):
                good = False
                continue
            if code == 1:
                out[i, j, 0] = words[np.int64((p1 + p2) * scale + 0.5)]
                continue
            h1 = np.int64(p1 * scale + 0.5)
            h2 = np.int64(p2 * scale + 0.5)
            if code == 2 and haploid:
                out[i, j, 0] = words[scale - h1]
                out[i, j, 1] = words[h1]
                out[i, j, 2] = end
            elif code == 2:
                g0 = np.int64((1 - p1) * (1 - p2) * scale + 0.5)
                g2 = np.int64(p1 * p2 * scale + 0.5)
                if is_joint:
                    together: Any = np.float64(both[i, j])
                    g2 = np.int64(min(together, 1.0) * scale + 0.5)
                    g0 = np.int64(max(0.0, 1 - p1 - p2 + together) * scale + 0.5)
                    g0 = min(g0, scale - g2)
                out[i, j, 0] = words[g0]
                out[i, j, 1] = words[max(0, scale - g0 - g2)]
                out[i, j, 2] = words[g2]
            elif code == 3:
                out[i, j, 0] = words[h1]
                out[i, j, 1] = end if haploid else words[h2]
            elif code == 4:
                out[i, j, 0] = words[h1]
            else:
                out[i, j, 0] = missing if haploid else words[h2]
    return good


def _integer(value: int) -> bytes:
    """A number of the header's dictionary as BCF codes an int8."""
    if not 0 <= value <= 127:
        raise ValueError(f"dictionary number must be in [0, 127], found {value}")
    return bytes([1 << 4 | _INT8, value])


def _vector(num: int, kind: int) -> bytes:
    """What comes before ``num`` values of a kind."""
    if num < 15:
        return bytes([num << 4 | kind])
    for code, form, most in ((_INT8, "<b", 2**7), (_INT16, "<h", 2**15), (_INT32, "<i", 2**31)):
        if num < most:
            return bytes([15 << 4 | kind, 1 << 4 | code]) + struct.pack(form, num)
    raise ValueError(f"a BCF holds fewer than 2^31 values, found {num}")


def _coded(value: str, kind: str) -> bytes:
    """The value of a field of INFO, given as text, as BCF codes it."""
    if kind == "Flag":
        return b"\0"
    cut = value.split(",")
    if kind == "Float":
        with suppress(ValueError):
            floats = np.array([0.0 if x == "." else float(x) for x in cut], "<f4")
            words = floats.view("<u4")
            words[[x == "." for x in cut]] = FLOAT_MISSING
            return _vector(len(cut), _FLOAT) + words.tobytes()
    if kind == "Integer":
        with suppress(ValueError):
            return _integers([None if x == "." else int(x) for x in cut])
    raw = value.encode()
    return _vector(len(raw), _CHAR) + raw


def _integers(values: Sequence[int | None]) -> bytes:
    """Whole numbers in the smallest type that holds them; the lowest eight of each are reserved."""
    known = [x for x in values if x is not None] or [0]
    for kind, bits in ((_INT8, 8), (_INT16, 16), (_INT32, 32)):
        least = -(1 << (bits - 1))
        if least + 8 <= min(known) and max(known) < -least:
            coded = np.array([least if x is None else x for x in values], f"<i{bits // 8}")
            return _vector(len(values), kind) + coded.tobytes()
    raise ValueError(f"numbers of INFO must have 32 bits, found {values}")


@lru_cache(maxsize=2**12)
def _string(text: str) -> bytes:
    """A text as BCF codes it."""
    raw = text.encode()
    if len(raw) < 15:
        return bytes([len(raw) << 4 | _CHAR]) + raw
    size = struct.pack("<i", len(raw))
    return bytes([15 << 4 | _CHAR, 1 << 4 | 3]) + size + raw
