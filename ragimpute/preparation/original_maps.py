"""The maps that RAG-SNVBERT, the original of BERTWithRAG, kept beside its data, read and written.

``type_to_idx.bin``, ``pop_to_idx.bin`` and ``pos_to_idx.bin`` are pickled dictionaries from names
or positions to numbers, ``Freq.npy`` is an array of frequencies (type, population, site), and
``segments.csv`` has the half-open ranges of sites of each window in its first two columns.

A pickle may run any code while it is read. So nothing but dictionaries of texts and integers is
read here: :class:`_PlainUnpickler` knows no class and no function.
"""

from __future__ import annotations

import csv
import io
import pickle
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ragimpute.errors import InputError
from ragimpute.panel.format import MAX_WINDOW_SITES, cut_windows
from ragimpute.panel.reader import Panel
from ragimpute.runtime.outputs import replacing
from ragimpute.sites import some_names

#: The first axis of Freq.npy: frequencies of three genotypes, and of the ALT allele.
TYPES = ("REF", "HET", "HOM", "AF")
_GLOBAL = "Global"
# The original reads the frequencies of all samples from this row, whatever pop_to_idx.bin says.
_GLOBAL_ROW = 5
_MAX_BYTES = 2**30
_STEP = 4096  # sites at a time
_FILES = ("type_to_idx.bin", "pop_to_idx.bin", "pos_to_idx.bin", "Freq.npy", "segments.csv")
_EXPECTED = f"a folder of maps holds {', '.join(_FILES)}, or some of them"
# What a damaged pickle may raise, beside what is no pickle at all.
_DAMAGED = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    OverflowError, MemoryError, RecursionError, struct.error,
)  # fmt: skip
# A mean difference of frequencies above this is no rounding.
_FAR_AF = 0.005


@dataclass(frozen=True)
class OriginalMaps:
    """What was found in a folder of maps.

    Attributes
    ----------
    folder
        The folder.
    populations
        Names of the populations in their order, without that of all samples; None: no file.
    position_bp
        Position of each row of the original's data, shape (n,), int64, ascending; None: no file.
    windows
        Rows of each window, shape (W, 2), int64, half-open; None: no file.
    global_af
        ALT frequency of all samples in each row, shape (n,), float32; None: no file.
    """

    folder: Path
    populations: tuple[str, ...] | None = None
    position_bp: np.ndarray | None = None
    windows: np.ndarray | None = None
    global_af: np.ndarray | None = None

    def cut(
        self, position_bp: np.ndarray, position_cm: np.ndarray, *, window_cm: float
    ) -> np.ndarray:
        """The windows in a panel's sites.

        Rows of the original are records; a panel has a site for each ALT of a record. Hence windows
        are carried over by position.

        Parameters
        ----------
        position_bp, position_cm
            Shape (M,), ascending: the panel's sites.
        window_cm
            Longest window, cM, if the maps have none.

        Returns
        -------
        Shape (W, 2), int64: half-open site ranges that follow on each other from 0 to M.

        Raises
        ------
        InputError
            If the maps are of other sites, or a window has no site or too many.
        """
        self._check_positions(position_bp)
        if self.windows is None:
            return cut_windows(position_cm, window_cm)
        rows = position_bp if self.position_bp is None else self.position_bp
        if self.windows[-1, 1] != len(rows):
            raise InputError(
                f"the windows of {self.folder} end at row {self.windows[-1, 1]:,}, but there are "
                f"{len(rows):,} rows",
                hint="pos_to_idx.bin and segments.csv must be of the data that the panel is made "
                "of",
            )
        starts = np.searchsorted(position_bp, rows[self.windows[:, 0]])
        edges = np.append(starts, len(position_bp)).astype(np.int64)
        edges[0] = 0
        sizes = np.diff(edges)
        wrong = np.flatnonzero((sizes < 1) | (sizes > MAX_WINDOW_SITES))
        if len(wrong):
            raise InputError(
                f"window {wrong[0] + 1} of {self.folder} has {sizes[wrong[0]]:,} sites of the "
                f"panel, expected 1 to {MAX_WINDOW_SITES:,}",
                hint="cut it in segments.csv, or leave that file out; a record with several ALTs "
                "counts as so many sites",
            )
        return np.stack([edges[:-1], edges[1:]], axis=1)

    def _check_positions(self, position_bp: np.ndarray) -> None:
        """Refuse a panel with sites that the maps do not have.

        Raises
        ------
        InputError
            It names the first of them.
        """
        if self.position_bp is None:
            return
        strange = position_bp[~np.isin(position_bp, self.position_bp)]
        if len(strange):
            raise InputError(
                f"{len(strange):,} of {len(position_bp):,} sites of the panel are at positions "
                f"that pos_to_idx of {self.folder} lacks, such as {strange[0]}",
                hint="give the maps of this panel, or choose the same sites with --region",
            )

    def compare(self, panel: Panel) -> str | None:
        """A line if the frequencies in Freq.npy are not those of a panel, which are used."""
        if self.global_af is None or self.position_bp is None:
            return None
        at = panel.sites.position_bp
        alone = np.flatnonzero((np.diff(at, prepend=-1) > 0) & (np.diff(at, append=2**31) > 0))
        row = np.searchsorted(self.position_bp, at[alone])
        if len(alone) == 0:
            return None
        off = float(np.abs(self.global_af[row] - panel.af[alone]).mean())
        if off <= _FAR_AF:
            return None
        return (
            f"the ALT frequencies in Freq.npy of {self.folder} differ from the panel's by "
            f"{off:.3f} on average: the panel's are used"
        )


def read_maps(folder: str | Path) -> OriginalMaps:
    """Read the maps of a folder, as far as they are there.

    Parameters
    ----------
    folder
        Holds some of type_to_idx.bin, pop_to_idx.bin, pos_to_idx.bin, Freq.npy and segments.csv;
        a name may go on before its ending ("segments_chr21.csv").

    Raises
    ------
    InputError
        If it holds none of them, or one is damaged, or they do not fit each other.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"the folder of maps {folder} {problem}", hint=_EXPECTED)
    of_type, of_pop, of_pos = (
        _find(folder, name, (".bin", ".pkl", ".pickle"))
        for name in ("type_to_idx", "pop_to_idx", "pos_to_idx")
    )
    freq, segments = _find(folder, "Freq", (".npy",)), _find(folder, "segments", (".csv",))
    if of_pop is None and of_pos is None and segments is None:
        raise InputError(f"folder {folder} holds no maps", hint=_EXPECTED)
    types = dict(zip(TYPES, range(len(TYPES)), strict=True))
    if of_type is not None:
        types = _numbered(of_type, str)
    rows: np.ndarray | None = None
    if of_pos is not None:
        rows = _rows(of_pos)
    names: tuple[str, ...] | None = None
    global_row = -1
    if of_pop is not None:
        numbers = _numbered(of_pop, str)
        global_row = next((v for k, v in numbers.items() if k.lower() == "global"), -1)
        order = sorted((v, k) for k, v in numbers.items() if k.lower() != "global")
        names = tuple(name for _, name in order)
    windows = None if segments is None else _windows(segments)
    af = None
    if freq is not None:
        af = _global_af(freq, types.get("AF"), global_row, None if rows is None else len(rows))
    return OriginalMaps(folder, names, rows, windows, af)


def _find(folder: Path, name: str, endings: tuple[str, ...]) -> Path | None:
    """The only file of a folder whose name begins so and has one of some endings; None: none."""
    found = sorted(p for p in folder.glob(f"{name}*") if p.suffix in endings and p.is_file())
    if len(found) > 1:
        raise InputError(
            f"folder {folder} holds {len(found)} files {name}: "
            + some_names([path.name for path in found]),
            hint="keep those of one panel in a folder of their own",
        )
    return found[0] if found else None


class _Kind:
    """Stands for numpy's type of integers or texts in a pickle: how bytes become a value."""

    def __init__(self, kind: str, *_: object) -> None:
        is_integer = isinstance(kind, str) and kind[:1] in ("i", "u") and kind[1:] in tuple("1248")
        is_text = isinstance(kind, str) and kind[:1] == "U" and kind[1:].isdecimal()
        if not is_integer and not is_text:
            raise pickle.UnpicklingError(f"it holds values of type {kind!r}")
        self.kind, self.size = kind[0], int(kind[1:]) * (4 if is_text else 1)
        self.is_big = False

    def __setstate__(self, state: Any) -> None:
        self.is_big = state[1] == ">"

    @staticmethod
    def value(kind: Any, octets: Any) -> int | str:
        """The value that stands in some bytes."""
        if not isinstance(kind, _Kind) or not isinstance(octets, bytes):
            raise pickle.UnpicklingError("it holds values that are no texts or integers")
        if len(octets) != kind.size:
            raise pickle.UnpicklingError("a value has another number of bytes than its type")
        if kind.kind == "U":
            return octets.decode("utf-32-be" if kind.is_big else "utf-32-le").rstrip("\0")
        return int.from_bytes(octets, "big" if kind.is_big else "little", signed=kind.kind == "i")


def _text_bytes(text: Any, encoding: Any) -> bytes:
    """Bytes as protocol 2 spells them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("it holds what is no text or integer")
    return text.encode("latin1")


class _PlainUnpickler(pickle.Unpickler):
    """Reads texts, integers, lists, tuples and dictionaries of a pickle, and nothing that acts.

    numpy's integers and texts, which the original's keys may be, are made by :class:`_Kind`, not by
    numpy.
    """

    _KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "dtype"): _Kind,
        ("numpy.core.multiarray", "scalar"): _Kind.value,
        ("numpy._core.multiarray", "scalar"): _Kind.value,
        ("_codecs", "encode"): _text_bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._KNOWN:
            return self._KNOWN[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _numbered(path: Path, key: type) -> dict[Any, int]:
    """A pickled dictionary from texts or integers to different numbers from 0 on."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("it is larger than 1 GB")
        octets = path.read_bytes()
        for opcode, argument, _ in pickletools.genops(octets):
            # A large number here makes Python ask for as much memory.
            if opcode.name.endswith("PUT") and int(argument or 0) > len(octets):
                raise ValueError("it is damaged")
        found = _PlainUnpickler(io.BytesIO(octets)).load()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except _DAMAGED as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} is not read: {reason}",
            hint="expected a pickled dictionary of texts and integers; no other pickle is read, "
            "as reading it may run a program",
        ) from error
    fits = isinstance(found, dict) and len(found) > 0
    if not fits or not all(type(k) is key and type(v) is int for k, v in found.items()):
        what = "texts" if key is str else "positions"
        raise InputError(
            f"{path} is no dictionary from {what} to integers", hint="write it as the original does"
        )
    values = sorted(found.values())
    if values[0] < 0 or len(set(values)) < len(values) or values[-1] > 2**31:
        raise InputError(f"{path} numbers two entries alike, or below 0 or beyond 2^31")
    return found  # type: ignore[no-any-return]


def _rows(path: Path) -> np.ndarray:
    """Position of each row: where rows share a position, the dictionary has the last of them."""
    numbers = _numbered(path, int)
    last = max(numbers.values())
    if last >= 4 * len(numbers) + 1000:
        raise InputError(f"{path} numbers {len(numbers):,} positions by up to {last:,}")
    position = np.fromiter(numbers, dtype=np.int64, count=len(numbers))
    index = np.fromiter(numbers.values(), dtype=np.int64, count=len(numbers))
    order = np.argsort(index)
    position, index = position[order], index[order]
    down = np.flatnonzero(np.diff(position) <= 0)
    if len(down):
        raise InputError(
            f"{path} is not sorted: position {position[down[0] + 1]} follows {position[down[0]]}"
        )
    return position[np.searchsorted(index, np.arange(last + 1))]


def _windows(path: Path) -> np.ndarray:
    """The first two columns of a CSV with a header: ranges of rows that follow on each other."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [row for row in csv.reader(file) if row]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    expected = "expected a header, and the first row of each window and the one after its last"
    rows: list[tuple[int, int]] = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            start, stop = (int(float(cell)) for cell in line[:2])
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"{path}, line {number}: found {','.join(line)!r}", hint=expected
            ) from error
        follows = start == (rows[-1][1] if rows else 0)
        if not follows or stop <= start:
            raise InputError(
                f"{path}, line {number}: the window {start}-{stop} does not follow on "
                + (f"that before, which ends at {rows[-1][1]}" if rows else "the header from 0 on"),
                hint=expected,
            )
        rows.append((start, stop))
    if not rows:
        raise InputError(f"{path} has no window", hint=expected)
    return np.array(rows, dtype=np.int64)


def _global_af(path: Path, kind: int | None, row: int, num_rows: int | None) -> np.ndarray:
    """ALT frequency of all samples in each row."""
    try:
        freq = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} cannot be read: {str(error).splitlines()[0]}",
            hint="expected an array of numbers; arrays of objects are not read, as reading them "
            "may run a program",
        ) from error
    fits = freq.ndim == 3 and freq.dtype.kind == "f" and freq.shape[2] == (num_rows or -1)
    inside = fits and kind is not None and 0 <= kind < len(freq) and row < freq.shape[1]
    if not inside:
        raise InputError(
            f"{path} has shape {freq.shape} of {freq.dtype}, expected ({len(TYPES)}, populations "
            f"and all samples, {num_rows if num_rows is not None else 'rows of pos_to_idx'})",
            hint="give it with the type_to_idx, pop_to_idx and pos_to_idx that it was made with, "
            "or leave it out",
        )
    return np.array(freq[kind, row], dtype=np.float32)


def export_maps(
    panel: Panel, folder: str | Path, warn: Callable[[str], None] = lambda line: None
) -> list[Path]:
    """Write a panel's maps as the original reads them.

    Parameters
    ----------
    panel
        The panel.
    folder
        Made if it does not exist.
    warn
        Called with a line for each thing that the original would read in another way.

    Returns
    -------
    The files that were written.

    Raises
    ------
    InputError
        If the folder cannot be made or holds one of the files already.
    """
    folder = Path(folder)
    files = [folder / name for name in _FILES]
    there = [path.name for path in files if path.exists()]
    if there:
        raise InputError(
            f"folder {folder} holds {some_names(there)} already", hint="choose another folder"
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file", hint="choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    names = list(panel.populations)
    at = panel.sites.position_bp.tolist()
    global_row = max(len(names), _GLOBAL_ROW)
    maps = (
        {name: i for i, name in enumerate(TYPES)},
        {name: i for i, name in enumerate(names)} | {_GLOBAL: global_row},
        {bp: i for i, bp in enumerate(at)},
    )
    for path, numbers in zip(files, maps, strict=False):
        with replacing(path) as temporary:
            temporary.write_bytes(pickle.dumps(numbers, protocol=2))
    with replacing(files[3]) as temporary, temporary.open("wb") as raw:
        np.save(raw, _frequencies(panel, global_row), allow_pickle=False)
    with replacing(files[4]) as temporary:
        lines = [f"{start},{stop}\n" for start, stop in panel.windows.tolist()]
        temporary.write_text("start,end\n" + "".join(lines), encoding="utf-8")
    if len(maps[2]) < len(at):
        warn(
            f"{len(at) - len(maps[2]):,} sites share their position with another one: "
            "pos_to_idx.bin has the last one of each position"
        )
    if global_row != _GLOBAL_ROW:
        warn(
            f"the panel has {len(names)} populations, so row {global_row} of Freq.npy is of all "
            f"samples; the original takes row {_GLOBAL_ROW} for it"
        )
    return files


def _frequencies(panel: Panel, global_row: int) -> np.ndarray:
    """Frequencies of genotypes and ALT: shape (4, global_row + 1, M), float32.

    Rows between the last population and that of all samples are equal to the latter.
    """
    num = len(panel.populations)
    out = np.empty((len(TYPES), global_row + 1, panel.num_sites), np.float32)
    groups = panel.population  # (N,)
    members = np.zeros((len(panel.samples), num + 1), np.float64)
    members[np.arange(len(groups)), groups] = members[:, num] = 1
    for start in range(0, panel.num_sites, _STEP):
        stop = min(start + _STEP, panel.num_sites)
        alleles = panel.haplotypes(start, stop).alleles()  # (m, H)
        part = np.searchsorted(panel.ploidy_start, np.arange(start, stop), side="right") - 1
        present = panel.ploidy_present[part]  # (m, H)
        shape = (stop - start, len(panel.samples))
        alts, copies = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for haplotype, sample in enumerate(panel.haplotype_sample.tolist()):
            alts[:, sample] += (alleles[:, haplotype] == 1) & present[:, haplotype]
            copies[:, sample] += present[:, haplotype]
        here = copies > 0
        genotypes = ((alts == 0) & here, (alts > 0) & (alts < copies), (alts == copies) & here)
        with np.errstate(invalid="ignore"):
            for kind, of in enumerate(genotypes):
                share = (of @ members) / (here @ members)  # (m, P + 1)
                out[kind, :num, start:stop] = share[:, :num].T
                out[kind, num:, start:stop] = share[:, num]
            share = (alts @ members) / (copies @ members)
        out[3, :num, start:stop] = share[:, :num].T
        out[3, num:, start:stop] = share[:, num]
    return np.nan_to_num(out, nan=0.0)
