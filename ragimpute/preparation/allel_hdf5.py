"""Read phased panels from the HDF5 files that ``allel.vcf_to_hdf5`` of scikit-allel writes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.counts import RecordCounts
from ragimpute.io.vcf.read.genotypes import SiteBatch
from ragimpute.panel.format import FORMAT
from ragimpute.sites import Region, Sites, located
from ragimpute.symbolic import EXTENT_FIELDS

BATCH_BYTES = 2**24
_TEXTS_AT_ONCE = 2**16
HINT = (
    "expected calldata/GT, variants/POS, variants/REF and variants/ALT, as allel.vcf_to_hdf5 "
    "writes with fields=['samples', 'variants/*', 'calldata/GT']"
)

_NO_VALUE = ("", ".", "-1", "nan")  # of a field that a record lacks


class AllelReader:
    """A scikit-allel HDF5, read in batches; memory grows with the number of sites by 5 bytes each.

    HDF5 may loop for ever over a damaged file, or crash: ``allel_stream`` reads in another process.

    The format has no phase flag, so genotypes are taken to be phased as they stand. A genotype
    of which only the second allele is missing is haploid, as the format writes it so.

    Attributes
    ----------
    samples
        Names; "sample_1", "sample_2", ... where the file has none.
    contig
        The contig that is read.
    num_sites
        Rows of the file that lie in the region.
    counts
        Rows so far, their ALTs, and those that give no site.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        region: Region | None = None,
        batch_bytes: int = BATCH_BYTES,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """Choose the contig and find its rows.

        Parameters
        ----------
        path, region
            The file; its only contig, or what to read of it.
        batch_bytes
            About the size of a batch's genotypes.
        alive
            Called now and then while much is read.

        Raises
        ------
        InputError
            If the file is damaged or lacks a field, or holds several contigs and ``region`` names
            none of them.
        """
        self.path = Path(path)
        self.counts = RecordCounts()
        self._batch_bytes, self._alive = batch_bytes, alive
        with self._reading(), h5py.File(self.path, "r", locking="best-effort") as file:
            if file.attrs.get("format") == FORMAT.encode():
                raise InputError(f"{self.path} is a panel already", hint="use it as it is")
            groups = _call_sets(file)
            if not groups:
                raise InputError(f"{self.path} is HDF5, but not of scikit-allel", hint=HINT)
            contigs = self._contigs(file, groups, region)
            region = self._choose(contigs, region)
            self.contig = region.contig
            self._group, rows = self._only_group(contigs, self.contig)
            group = file[self._group]
            self._check_fields(group)
            position_bp = self._positions(group["variants/POS"][:])
            inside = np.zeros(len(position_bp), dtype=bool)
            inside[rows] = True
            inside &= (position_bp >= region.start_bp) & (position_bp < region.stop_bp)
            self._position_bp = position_bp
            self._inside = inside
            self.num_sites = int(np.count_nonzero(inside))
            self.samples = self._sample_names(file, group)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn HDF5's errors into one line about the file."""
        try:
            yield
        except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if isinstance(error, UnicodeDecodeError):
                reason = f"{error.object!r} is a text that is not UTF-8"
            raise InputError(f"{self.path} cannot be read as HDF5: {reason}", hint=HINT) from error

    def _contigs(
        self, file: h5py.File, groups: list[str], region: Region | None
    ) -> dict[str, list[tuple[str, np.ndarray]]]:
        """For each contig, its groups and which of a group's rows are its own."""
        found: dict[str, list[tuple[str, np.ndarray]]] = {}
        for name in groups:
            group = file[name]
            num_rows = len(group["variants/POS"])
            if "variants/CHROM" in group:
                chrom = self._texts(group["variants/CHROM"])
                for contig in dict.fromkeys(chrom.tolist()):
                    rows = np.flatnonzero(chrom == contig)
                    found.setdefault(contig, []).append((name, rows))
            elif name != "/":
                found.setdefault(name.strip("/"), []).append((name, np.arange(num_rows)))
            elif region is not None:
                found[region.contig] = [(name, np.arange(num_rows))]
            else:
                raise InputError(
                    f"{self.path} has no variants/CHROM, so its contig is unknown",
                    hint="name it with --region",
                )
        return found

    def _only_group(
        self, contigs: dict[str, list[tuple[str, np.ndarray]]], contig: str
    ) -> tuple[str, np.ndarray]:
        """The one group that holds a contig, and its rows there."""
        if len(contigs[contig]) > 1:
            listed = ", ".join(f"{name} ({len(rows):,} rows)" for name, rows in contigs[contig])
            raise InputError(
                f"{self.path} holds contig {contig} in {len(contigs[contig])} groups: {listed}; "
                "a contig is read of one",
                hint="write the file again with all sites of the contig in one group, or a file "
                "for each of the groups",
            )
        return contigs[contig][0]

    def _texts(self, column: h5py.Dataset) -> np.ndarray:
        """All texts of a column, piece by piece."""
        parts = [np.zeros(0, object)]
        for first in range(0, len(column), _TEXTS_AT_ONCE):
            parts.append(_strings(column[first : first + _TEXTS_AT_ONCE]))
            self._alive()
        return np.concatenate(parts)

    def _choose(self, contigs: Collection[str], region: Region | None) -> Region:
        """The region, in the file's spelling of its contig, or the only contig."""
        names = list(contigs)
        found = located(region, names) if region is not None else None
        if found is not None:
            return found
        if region is None and len(names) == 1:
            return Region(names[0])
        listed = ", ".join(list(contigs)[:30]) or "none"
        if region is not None:
            raise InputError(f"{self.path} has no contig {region.contig}; it holds {listed}")
        raise InputError(
            f"{self.path} holds {len(names)} contigs ({listed}); a panel file holds one",
            hint="choose one with --region",
        )

    def _check_fields(self, group: h5py.Group) -> None:
        """Refuse files whose fields are absent or do not fit each other."""
        for name in ("variants/REF", "variants/ALT"):
            if name not in group:
                raise InputError(f"{self.path} has no {name}", hint=HINT)
        shape = group["calldata/GT"].shape
        num_rows = len(group["variants/POS"])
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] > 2) or shape[0] != num_rows:
            raise InputError(
                f"{self.path}: calldata/GT has shape {shape}, expected ({num_rows}, samples, 2)",
                hint="ploidy 1 and 2 can be read",
            )
        for name in ("CHROM", "ID", "REF", "ALT"):
            column = group.get(f"variants/{name}")
            most = 2 if name == "ALT" else 1
            if column is not None and (len(column) != num_rows or len(column.shape) > most):
                raise InputError(
                    f"{self.path}: variants/{name} has shape {column.shape}, but variants/POS has "
                    f"{num_rows} rows",
                    hint=HINT,
                )

    def _positions(self, values: np.ndarray) -> np.ndarray:
        """Positions, checked, as int32."""
        top = np.iinfo(np.int32).max
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise InputError(f"{self.path}: variants/POS is no column of integers", hint=HINT)
        wrong = np.flatnonzero((values < 1) | (values > top))
        if len(wrong):
            raise InputError(
                f"{self.path}: position {values[wrong[0]]} in row {wrong[0] + 1} of variants/POS; "
                f"expected 1 to {top}",
                hint=HINT,
            )
        return values.astype(np.int32)

    def _sample_names(self, file: h5py.File, group: h5py.Group) -> list[str]:
        """Names from the group or the file's root."""
        num_samples = group["calldata/GT"].shape[1]
        for place in (group, file):
            if "samples" in place:
                names = [str(name) for name in _strings(place["samples"][:])]
                if len(names) != num_samples:
                    raise InputError(
                        f"{self.path} names {len(names)} samples, but calldata/GT has {num_samples}"
                    )
                return names
        return [f"sample_{i + 1}" for i in range(num_samples)]

    def __iter__(self) -> Iterator[SiteBatch]:
        """Batches of about 16 MB of genotypes, one row for each ALT."""
        rows = np.flatnonzero(self._inside)
        self.counts = RecordCounts()
        if len(rows) == 0:
            return
        with self._reading():
            file = h5py.File(self.path, "r", locking="best-effort")
        with file:
            genotypes = file[self._group]["calldata/GT"]
            step = max(1, self._batch_bytes // (2 * max(1, genotypes.shape[1])))
            if genotypes.chunks and step > genotypes.chunks[0]:
                step -= step % genotypes.chunks[0]
            first = rows[0] - rows[0] % step
            for start in range(int(first), int(rows[-1]) + 1, step):
                stop = min(start + step, int(rows[-1]) + 1)
                with self._reading():
                    batch = self._batch(file[self._group], start, stop)
                if len(batch.sites):
                    yield batch

    def _batch(self, group: h5py.Group, start: int, stop: int) -> SiteBatch:
        """Rows [start, stop) as far as they are inside, split by ALT."""
        keep = self._inside[start:stop]
        variants = group["variants"]
        alt = _strings(variants["ALT"][start:stop])[keep]
        alt = alt.reshape(len(alt), -1)  # (m, number of ALTs)
        has_alt = (alt != "") & (alt != ".")
        refs = _strings(variants["REF"][start:stop])[keep]
        self.counts.num_records += len(alt)
        self.counts.num_further_alts += int(np.maximum(0, has_alt.sum(axis=1) - 1).sum())
        self.counts.skip("no_alt", int(np.count_nonzero(~has_alt.any(axis=1))))
        repeats = _repeats(refs, alt, has_alt)
        self.counts.skip("repeated", len(repeats))
        for i, again, _ in repeats:
            has_alt[i, again - 1] = False
        row, which = np.nonzero(has_alt)

        called = group["calldata/GT"][start:stop][keep]
        if called.ndim == 2:
            called = called[:, :, None]
        if called.shape[2] == 1:
            called = np.concatenate([called, np.full_like(called, -1)], axis=2)
        for i, again, first in repeats:
            called[i][called[i] == again] = first
        called = called[row]  # (sites, N, 2)
        alleles = (called == (which + 1)[:, None, None]).astype(np.int8)
        alleles[called < 0] = -1
        haploid = (called[:, :, 0] >= 0) & (called[:, :, 1] < 0)
        alleles[:, :, 1][haploid] = -2

        ids = np.full(len(row), ".", dtype=object)
        if "ID" in variants:
            ids = _strings(variants["ID"][start:stop])[keep][row]
            ids[ids == ""] = "."
        position_bp = self._position_bp[start:stop][keep][row]
        info = _infos(variants, slice(start, stop), keep, row, which)
        sites = Sites(self.contig, position_bp, refs[row], alt[row, which], ids, info)
        phased = np.ones(alleles.shape[:2], dtype=bool)
        return SiteBatch(sites=sites, alleles=alleles, phased=phased)


def _infos(
    variants: h5py.Group, rows: slice, keep: np.ndarray, row: np.ndarray, which: np.ndarray
) -> np.ndarray | None:
    """What END, SVLEN and SVTYPE say of the sites, as text; None if nothing.

    ``row`` and ``which`` are the record and the ALT of each site, of those of ``rows`` to ``keep``.
    """
    out = np.full(len(row), "", dtype=object)
    for name in EXTENT_FIELDS:
        if name not in variants:
            continue
        values = variants[name][rows][keep][row]
        if values.ndim == 2:
            values = values[np.arange(len(row)), np.minimum(which, values.shape[1] - 1)]
        for i, value in enumerate(_strings(values).tolist()):
            if value not in _NO_VALUE:
                out[i] += f"{';' if out[i] else ''}{name}={value}"
    return out if out.any() else None


def _call_sets(file: h5py.File) -> list[str]:
    """Paths of the groups that hold genotypes: the root, or one for each contig."""

    def is_call_set(place: Any) -> bool:
        return isinstance(place, h5py.Group) and "calldata/GT" in place and "variants/POS" in place

    if is_call_set(file):
        return ["/"]
    return [f"/{name}" for name, place in file.items() if is_call_set(place)]


def _repeats(ref: np.ndarray, alt: np.ndarray, has_alt: np.ndarray) -> list[tuple[int, int, int]]:
    """Rows whose ALTs repeat one before, with the numbers of the allele and of the one before.

    An ALT that repeats REF is among them if it is not the only one: with one alone, the site is
    left out as a whole.
    """
    found = []
    for i in np.flatnonzero(has_alt.sum(axis=1) > 1).tolist():
        first: dict[str, int] = {ref[i].upper(): 0}
        for k in np.flatnonzero(has_alt[i]).tolist():
            same = first.setdefault(alt[i, k].upper(), k + 1)
            if same != k + 1:
                found.append((i, k + 1, same))
    return found


def _strings(values: np.ndarray) -> np.ndarray:
    """Text of any of HDF5's kinds as an object array of str."""
    flat = [v.decode() if isinstance(v, bytes) else str(v) for v in values.reshape(-1).tolist()]
    text = np.empty(len(flat), dtype=object)
    text[:] = flat
    return text.reshape(values.shape)
