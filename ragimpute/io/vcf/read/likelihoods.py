"""Read genotype likelihoods: FORMAT/PL, GL and GP of VCF, VCF.gz and BCF.

They are kept as uint8 numbers of the phred scale, -10 log10(L) relative to the likeliest genotype,
at most 255; 0, 0, 0 says nothing. A haploid sample has 255 for the heterozygous genotype. Of a
record with several ALTs, the row of each ALT keeps the genotypes that are made of REF and this ALT.

References
----------
PL, GL and GP, and the order of genotypes: the VCF specification 4.3, section 1.6.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.vcf.read.records import RecordReader, VcfFile
from ragimpute.kernels.compile import kernel
from ragimpute.sites import Region

#: What ``--likelihoods`` may be.
MODES = ("auto", "always", "never")
#: FORMAT fields of likelihoods, in order of preference.
FIELDS = ("PL", "GL", "GP")
MOST = 255  # the largest number that is kept
HAPLOID = 255  # of the heterozygous genotype of a haploid sample
_SUM_TOLERANCE = 0.05  # by which the sum of a sample's rounded GP may differ from 1
# "auto" uses the likelihoods of a file with genotypes if more than this share of the genotypes with
# likelihoods, in the contig's first records, has a second one that is less than 20 (1 %) behind.
_UNSURE, _SHARE, _FIRST_RECORDS = 20, 0.1, 2_000
# Bits of the floats with which htslib marks a missing value, and that no value follows.
_MISSING_BITS, _END_BITS = 0x7F800001, 0x7F800002
_LOWEST = {1: -(2**7), 2: -(2**15), 4: -(2**31)}  # the same of integers, by bytes: this, and + 1


@dataclass
class LikelihoodCounts:
    """What was met while likelihoods were read.

    Attributes
    ----------
    fields
        Those of ``FIELDS`` that were read.
    depth, num_with_depth
        Shapes (N,), int64: sum of FORMAT/DP of each sample, and how many records have it.
    num_incomplete
        Genotypes that lack some of the three likelihoods of a row ("0,.,."); they say nothing.
    num_indels
        Rows of insertions and deletions whose likelihoods are not used.
    """

    fields: tuple[str, ...]
    depth: np.ndarray
    num_with_depth: np.ndarray
    num_incomplete: int = 0
    num_indels: int = 0

    @property
    def mean_depth(self) -> float:
        """Mean of DP over samples and records; NaN if no record has it."""
        num = int(self.num_with_depth.sum())
        return float(self.depth.sum() / num) if num else float("nan")


class RecordLikelihoods(NamedTuple):
    """The likelihoods of a record.

    Attributes
    ----------
    phred
        Shape (N, G), float64, finite or inf, of all genotypes in the order of the specification;
        NaN where not given.
    haploid
        Shape (N,), bool: the numbers are of alleles, in the first columns.
    stated
        Shape (N,), bool: the record says something of the sample's reads, even that there are none,
        so that its GT is no observation beside them.
    without_reads
        Shape (N,), bool: DP is 0.
    """

    phred: np.ndarray
    haploid: np.ndarray
    stated: np.ndarray
    without_reads: np.ndarray


@kernel
def _take_plain(
    values: Any, depth: Any, alleles: Any, out: Any, sum_of_depth: Any, num_with_depth: Any
) -> Any:
    """Do the work of :meth:`LikelihoodReader.take_plain` for PL (N, 3), int32, and DP (N,), int64.

    Returns False, and ``alleles`` stay as they are, if a number is negative (missing, or wrong), or
    a sample is haploid.
    """
    for i in range(values.shape[0]):
        if min(values[i, 0], values[i, 1], values[i, 2]) < 0 or alleles[i, 1] == -2:
            return False
    for i in range(values.shape[0]):
        least = min(values[i, 0], values[i, 1], values[i, 2])
        for k in range(3):
            out[i, k] = 0 if depth[i] == 0 else min(values[i, k] - least, MOST)
        alleles[i, 0] = -1
        alleles[i, 1] = -1
        if depth[i] >= 0:
            sum_of_depth[i] += depth[i]
            num_with_depth[i] += 1
    return True


class LikelihoodReader:
    """Reads the likelihoods of one record after another.

    Parameters
    ----------
    reader
        Reads the records.
    with_probabilities
        Whether GP is read where there is neither PL nor GL.
    with_indels
        Whether those of insertions and deletions are used; they are flat otherwise.

    Attributes
    ----------
    counts
        What was met so far.
    haploid
        Shape (N,), bool: samples that had likelihoods and were haploid in some row so far.
    """

    def __init__(
        self, reader: RecordReader, *, with_probabilities: bool, with_indels: bool
    ) -> None:
        declared = reader.header.formats
        fields = tuple(name for name in FIELDS[:2] if name in declared)
        if not fields and with_probabilities and "GP" in declared:
            fields = ("GP",)
        num = len(reader.samples)
        self._reader, self._with_indels = reader, with_indels
        self.counts = LikelihoodCounts(fields, np.zeros(num, np.int64), np.zeros(num, np.int64))
        self.haploid = np.zeros(num, bool)

    def read(self, variant: Any, alleles: np.ndarray) -> RecordLikelihoods:
        """The likelihoods of a record whose called alleles are ``alleles`` (N, 2), int8.

        Raises
        ------
        InputError
            If there are too few or too many numbers, or one that is no likelihood.
        """
        num_alleles = len(variant.ALT) + 1
        num_genotypes = num_alleles * (num_alleles + 1) // 2
        num_samples = len(self._reader.samples)
        phred = np.full((num_samples, num_genotypes), np.nan)
        haploid = np.zeros(num_samples, bool)
        stated = np.zeros(num_samples, bool)
        for name in self.counts.fields:
            given = self._values(variant, name)
            if given is None:
                continue
            values, length = given
            if num_alleles == 1:  # one number says nothing, whatever it is
                stated |= ~np.isnan(values).all(axis=1)
                continue
            fits = (length == num_genotypes) | (length == num_alleles)
            fits |= np.isnan(values).all(axis=1) & (length <= 1)  # a lone "."
            if not fits.all():
                i = int(np.argmin(fits))
                found = f"{length[i]} numbers"
                raise self._wrong(variant, name, i, self._expected(num_alleles), found)
            values = self._as_phred(variant, name, values)
            new = ~stated & ~np.isnan(values).all(axis=1)
            single = new & (length == num_alleles) & (num_alleles != num_genotypes)
            diploid = single & (alleles[:, 0] >= 0) & (alleles[:, 1] >= 0)
            if diploid.any():
                i = int(np.argmax(diploid))
                expected = f"{num_genotypes} numbers, as GT has two alleles"
                raise self._wrong(variant, name, i, expected, f"{num_alleles}")
            width = min(values.shape[1], num_genotypes)
            phred[new, :width] = values[new, :width]
            haploid |= single
            stated |= new
        depth = self._depth(variant)
        has = depth >= 0
        self.counts.depth += np.where(has, depth, 0)
        self.counts.num_with_depth += has
        if num_alleles == 1:
            return self._without_alt(depth, stated, alleles)
        without = depth == 0
        return RecordLikelihoods(phred, haploid, stated | without, without)

    def take_plain(self, variant: Any, alleles: np.ndarray, out: np.ndarray) -> bool:
        """Read a record of the most usual kind at once: PL of a SNP, of diploid samples alone.

        It does what :meth:`read` and :meth:`row` do together, and takes a tenth of their time.

        Parameters
        ----------
        variant
            The record.
        alleles
            Shape (N, 2), int8: called alleles; they become missing.
        out
            Shape (N, 3), uint8: filled with the row.

        Returns
        -------
        False if the record is of another kind; then nothing was changed but ``out``.
        """
        fields = self.counts.fields
        if fields[:1] != ("PL",) or len(variant.ALT) != 1 or len(variant.REF) != 1:
            return False
        alt = variant.ALT[0]
        if len(alt) != 1 or alt not in "ACGTN":
            return False
        present = variant.FORMAT
        if "PL" not in present or any(name in present for name in fields[1:]):
            return False
        values = variant.format("PL")
        if values is None or values.dtype.kind != "i" or values.shape[1:] != (3,):
            return False
        depth = self._depth(variant)
        chosen = np.array(self._reader.chosen(values), np.int32)
        counts = self.counts
        done: bool = _take_plain(chosen, depth, alleles, out, counts.depth, counts.num_with_depth)
        return done

    def row(
        self, variant: Any, alt: int, found: RecordLikelihoods, alleles: np.ndarray
    ) -> np.ndarray:
        """The row of one ALT: shape (N, 3), uint8; alleles that are no observation become missing.

        Parameters
        ----------
        variant, alt
            The record and the number of its ALT from 0; -1: it has none.
        found
            What :meth:`read` gave.
        alleles
            Shape (N, 2), int8: of the row; changed in place.
        """
        first = max(alt, 0) + 1
        pair = first * (first + 1) // 2
        three = found.phred[:, [0, pair, pair + first]]
        single = found.haploid
        three[single, 2] = found.phred[single, first]
        # Some programs write the three numbers of a diploid sample beside a haploid genotype.
        alone = single | (found.stated & (alleles[:, 0] >= 0) & (alleles[:, 1] == -2))
        self.haploid |= alone
        three[single, 1] = three[single, 0]
        missing = np.isnan(three)
        self.counts.num_incomplete += int((missing.any(axis=1) & ~missing.all(axis=1)).sum())
        known = ~missing.any(axis=1) & ~found.without_reads
        indel = alt >= 0 and len(variant.REF) != len(variant.ALT[alt])
        if indel and not self._with_indels:
            self.counts.num_indels += bool(known.any())
            known[:] = False
        three = np.where(known[:, None], three, 0.0)
        three[alone & known, 1] = np.inf
        least = three.min(axis=1, keepdims=True)
        scaled = three - np.where(np.isfinite(least), least, 0)
        out: np.ndarray = np.rint(np.minimum(scaled, MOST)).astype(np.uint8)
        none = ~np.isfinite(least[:, 0])  # all impossible
        out[none] = 0
        flat = known & (out[:, 0] == 0) & (out[:, 2] == 0) & ((out[:, 1] == 0) | alone)
        out[flat] = 0
        alleles[found.stated, 0] = -1
        fill = np.where(alone | (alleles[:, 1] == -2), np.int8(-2), np.int8(-1))
        alleles[found.stated, 1] = fill[found.stated]
        return out

    def _without_alt(
        self, depth: np.ndarray, stated: np.ndarray, alleles: np.ndarray
    ) -> RecordLikelihoods:
        """Likelihoods of a record whose reads all show REF: what its depth says.

        A heterozygous sample shows REF in each read with probability 1/2, a homozygous carrier of
        ALT by an error of 1 in 1,000.
        """
        phred = np.zeros((len(depth), 3))
        seen = (depth > 0) & (alleles[:, 0] == 0) & (alleles[:, 1] <= 0) & (alleles[:, 1] != -1)
        phred[seen] = np.minimum(depth[seen, None] * np.array([0, 3, 30]), MOST)
        return RecordLikelihoods(phred, np.zeros(len(depth), bool), stated | (depth >= 0), ~seen)

    def _expected(self, num_alleles: int) -> str:
        """How many numbers a sample should have, in words."""
        num_genotypes = num_alleles * (num_alleles + 1) // 2
        return f"{num_genotypes} numbers, one for each genotype ({num_alleles} if haploid)"

    def _values(self, variant: Any, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """A field's numbers (N, k), float64, NaN where missing; and how many each sample has."""
        given = variant.format(name) if name in variant.FORMAT else None
        if given is None:
            return None
        if given.dtype.kind not in "fi":
            raise InputError(
                f"{self._where(variant)}: {name} is a text, expected numbers",
                hint=f"declare ##FORMAT=<ID={name},Number=G,...> as a number, or give "
                "--likelihoods never",
            )
        given = self._reader.chosen(given)
        if given.dtype.kind == "i":
            lowest = _LOWEST[given.dtype.itemsize]
            missing, end = given == lowest, given == lowest + 1
        else:
            bits = np.ascontiguousarray(given, np.float32).view(np.uint32)
            missing, end = bits == _MISSING_BITS, bits == _END_BITS
        values = given.astype(np.float64)
        no_number = np.isnan(values) & ~missing & ~end
        if no_number.any():
            i = int(np.argmax(no_number.any(axis=1)))
            raise self._wrong(variant, name, i, "numbers", "NaN")
        values[missing | end] = np.nan
        return values, given.shape[1] - end.sum(axis=1)

    def _as_phred(self, variant: Any, name: str, values: np.ndarray) -> np.ndarray:
        """The numbers of a field on the phred scale."""
        bad = np.zeros(values.shape, bool)
        if name == "PL":
            expected = "numbers of at least 0"
            with np.errstate(invalid="ignore"):
                bad = (values < 0) | np.isinf(values)
        elif name == "GL":
            expected = "logarithms, less than infinity"
            bad = values == np.inf
        else:
            expected = "probabilities in [0, 1] that sum to 1"
            with np.errstate(invalid="ignore"):
                bad = (values < 0) | (values > 1 + _SUM_TOLERANCE)
            whole = np.where(np.isnan(values), 0, values).sum(axis=1)
            complete = ~np.isnan(values).all(axis=1)
            bad |= (complete & ~(np.abs(whole - 1) <= _SUM_TOLERANCE))[:, None]
        if bad.any():
            i = int(np.argmax(bad.any(axis=1)))
            shown = ",".join("." if np.isnan(x) else f"{x:g}" for x in values[i])
            raise self._wrong(variant, name, i, expected, shown)
        if name == "PL":
            return values
        if name == "GL":
            return np.where(np.isneginf(values), np.inf, -10 * values)
        with np.errstate(divide="ignore"):
            return np.where(np.isnan(values), np.nan, -10 * np.log10(np.clip(values, 0, 1)))

    def _depth(self, variant: Any) -> np.ndarray:
        """FORMAT/DP, shape (N,), int64; -1 where there is none."""
        num = len(self._reader.samples)
        given = variant.format("DP") if "DP" in variant.FORMAT else None
        if given is None or given.dtype.kind != "i" or given.shape[1] != 1:
            return np.full(num, -1, np.int64)
        return np.maximum(self._reader.chosen(given)[:, 0].astype(np.int64), -1)

    def _where(self, variant: Any) -> str:
        return f"{self._reader.path}, {variant.CHROM}:{variant.POS}"

    def _wrong(self, variant: Any, name: str, sample: int, expected: str, found: str) -> InputError:
        """The error for the numbers of one sample."""
        return InputError(
            f"{self._where(variant)}: {name} of sample {self._reader.samples[sample]}: expected "
            f"{expected}, found {found}",
            hint="make the file again, or leave its likelihoods out by --likelihoods never",
        )


@dataclass(frozen=True)
class LikelihoodOptions:
    """Whether and how the likelihoods of a target are read.

    Attributes
    ----------
    mode
        One of ``MODES``.
    with_indels
        Whether those of insertions and deletions are used.
    """

    mode: str = "auto"
    with_indels: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"likelihoods must be one of {', '.join(MODES)}, found {self.mode!r}")


def uses_likelihoods(file: VcfFile, region: Region | None, mode: str) -> bool:
    """Whether a file's likelihoods are used.

    By "auto" they are where the file declares PL or GL, and has no genotypes, or genotypes that are
    unsure: in more than 10 % of those with likelihoods in the contig's first 2,000 records, another
    genotype is less than 20 (PL) behind. Heterozygous genotypes that are all phased are not unsure,
    as a program has refined them. All samples of the file count, so that its parts are read alike.

    Parameters
    ----------
    file
        VCF, VCF.gz or BCF.
    region
        What is read of it, whose contig counts; None: all.
    mode
        One of ``MODES``.

    Raises
    ------
    InputError
        If ``mode`` is "always" and the file declares none of PL, GL and GP; or if the records
        cannot be read.
    """
    declared = file.header.formats
    if mode == "never":
        return False
    if mode == "always":
        if declared.isdisjoint(FIELDS):
            raise no_likelihoods(file)
        return True
    if declared.isdisjoint(FIELDS[:2]):
        return False
    return not file.has_genotypes or _are_unsure(file, region)


def no_likelihoods(source: object) -> InputError:
    """The error for a target that has no likelihoods although they are asked for."""
    return InputError(
        f"{source} has no likelihoods, which --likelihoods always needs: expected FORMAT/PL, GL or "
        "GP of a VCF or BCF",
        hint="leave out --likelihoods, and its genotypes are used",
    )


def _are_unsure(file: VcfFile, region: Region | None) -> bool:
    """Whether the genotypes of a file are unsure, by its likelihoods."""
    whole = None if region is None else Region(region.contig)
    reader = RecordReader(file, whole, 1, genotypes_only=True)
    likelihoods = LikelihoodReader(reader, with_probabilities=False, with_indels=True)
    num_samples = len(reader.samples)
    alleles = np.empty((num_samples, 2), np.int8)
    phased = np.empty(num_samples, bool)
    num = num_unsure = num_het = num_loose = num_called = 0
    for variant in islice(reader.records(sort_check=False), _FIRST_RECORDS):
        if not variant.ALT or variant.ALT[0].startswith("<"):
            continue
        called = "GT" in variant.FORMAT
        num_called += called
        if called:
            reader.genotypes(variant, alleles, phased)
        else:
            alleles[:], phased[:] = -1, True
        found = likelihoods.read(variant, np.full_like(alleles, -1))
        told = found.stated
        num += int(told.sum())
        best = np.sort(np.where(np.isnan(found.phred), np.inf, found.phred), axis=1)[:, :2]
        with np.errstate(invalid="ignore"):
            behind = best[:, 1] - best[:, 0]
        num_unsure += int((told & ~(behind >= _UNSURE)).sum())
        het = told & (alleles >= 0).all(axis=1) & (alleles[:, 0] != alleles[:, 1])
        num_het, num_loose = num_het + int(het.sum()), num_loose + int((het & ~phased).sum())
    if num and not num_called:  # the header declares GT, but the records have none
        return True
    if num_het and not num_loose:
        return False
    return num_unsure > _SHARE * num
