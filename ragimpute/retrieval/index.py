"""FAISS retrieval of panel haplotypes by their alleles, window by window.

Each site of a window becomes two bits, "is ALT" and "is REF". At a hidden or untyped site of a
query neither bit is set, so the site adds the same distance for every panel haplotype: the Hamming
distance is twice the number of mismatches plus the number of hidden sites. Therefore one index
serves every array and every training mask.

Large panels get inverted lists (IVF), small ones an exhaustive index, which a GPU can search too
(``faiss_device``). The files do not depend on the device that made them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragimpute.errors import PanelError
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import require_one_ploidy
from ragimpute.retrieval.faiss_device import GpuSearcher
from ragimpute.retrieval.faiss_library import faiss
from ragimpute.retrieval.faiss_threads import threads_for
from ragimpute.retrieval.index_manifest import (
    damaged,
    read_manifest_of,
    sha256_of,
    write_manifest,
)
from ragimpute.runtime.outputs import replacing
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.timing import Progress

log = logging.getLogger("ragimpute")

# In smaller panels, comparing every haplotype is faster than making and searching lists.
IVF_FROM_HAPLOTYPES = 20_000
_RECALL_QUERIES = 64
_RECALL_K = 10


@dataclass(frozen=True)
class IndexDescription:
    """What an index holds, and how its windows are searched.

    Attributes
    ----------
    panel_checksum, num_haplotypes
        Checksum of the panel that the index was made from, and its haplotypes.
    windows
        Shape (W, 2), int64: half-open ranges of panel sites.
    markers
        Shape (M,), bool: panel sites that are compared; alleles at other sites are ignored.
    kind
        "flat" (exhaustive) or "ivf" (inverted lists).
    num_lists, num_probes
        Lists that "ivf" has, and how many of them a search looks through; 0 for "flat".
    recall
        Share of the 10 nearest haplotypes that the search finds, measured on the panel; 1 for
        "flat".
    """

    panel_checksum: str
    num_haplotypes: int
    windows: np.ndarray
    markers: np.ndarray
    kind: str
    num_lists: int
    num_probes: int
    recall: float


class WindowIndex:
    """One FAISS binary index for each window of a panel.

    Parameters
    ----------
    description
        What the index holds.
    indexes
        Windows' indexes that are in memory, by the number of the window; more are added.
    load
        Reads the index of a window that is not in memory; None: all are there.
    searcher
        Searches exhaustive indexes on a GPU; None: they are searched on the CPU.

    Attributes
    ----------
    num_haplotypes, windows, markers
        As in :class:`IndexDescription`.
    """

    def __init__(
        self,
        description: IndexDescription,
        indexes: dict[int, faiss.IndexBinary],
        *,
        load: Callable[[int], faiss.IndexBinary] | None = None,
        searcher: GpuSearcher | None = None,
    ) -> None:
        self.description = description
        self.num_haplotypes = description.num_haplotypes
        self.windows, self.markers = description.windows, description.markers
        self._indexes = indexes
        self._load = load
        self._searcher = searcher if description.kind == "flat" else None
        if searcher is not None and self._searcher is None:
            log.info("FAISS has no inverted lists of binary codes on GPUs: searched on the CPU")

    @classmethod
    def build(
        cls,
        panel: Panel,
        *,
        kind: str = "auto",
        windows: np.ndarray | None = None,
        markers: np.ndarray | None = None,
        progress: Progress | None = None,
        searcher: GpuSearcher | None = None,
        when_searched: bool = False,
    ) -> WindowIndex:
        """Index every window of a panel.

        Parameters
        ----------
        panel
            The panel; its haplotypes are read window by window.
        kind
            "flat", "ivf", or "auto": "ivf" for panels of at least 20,000 haplotypes.
        windows
            Shape (W, 2), half-open site ranges; None: the panel's.
        markers
            Shape (M,), bool: sites to compare; None: all.
        progress
            Called as ``progress("index", done, total)`` after each window.
        searcher
            Makes and searches exhaustive indexes on a GPU; None: this is done on the CPU. Lists are
            always made on the CPU: a GPU rounds sums differently and would make other lists.
        when_searched
            Index a window only when it is first searched; the recall is not measured then.
        """
        require_one_ploidy(panel, "an index")
        if kind not in ("auto", "flat", "ivf"):
            raise ValueError(f"kind {kind!r} is not one of 'auto', 'flat', 'ivf'")
        num = panel.num_haplotypes
        if kind == "auto":
            kind = "ivf" if num >= IVF_FROM_HAPLOTYPES else "flat"
        windows = panel.windows if windows is None else windows
        markers = np.ones(panel.num_sites, bool) if markers is None else markers
        num_lists = max(1, min(int(np.sqrt(num)), num // 39)) if kind == "ivf" else 0
        num_probes = max(1, num_lists // 8)

        def made(w: int) -> tuple[faiss.IndexBinary, float]:
            start, stop = windows[w].tolist()
            alleles = panel.haplotypes(start, stop).alleles(markers[start:stop])
            codes = code_alleles(alleles.T)[tie_order(num, w)]
            return build_window(codes, kind, num_lists, num_probes, searcher)

        if when_searched:
            about = IndexDescription(
                panel.checksum, num, windows, markers, kind, num_lists, num_probes, math.nan
            )
            return cls(about, {}, load=lambda w: made(w)[0], searcher=searcher)
        built, recalls = {}, []
        with Stage("index", len(windows), progress=progress) as stage:
            for w in range(len(windows)):
                built[w], recall = made(w)
                recalls.append(recall)
                stage.advance(1)
        recall = float(np.mean(recalls)) if recalls else 1.0
        about = IndexDescription(
            panel.checksum, num, windows, markers, kind, num_lists, num_probes, recall
        )
        return cls(about, built, searcher=searcher)

    def _index(self, window: int) -> faiss.IndexBinary:
        """The index of a window, read from disk when it is first used."""
        if window not in self._indexes:
            if self._load is None:
                raise ValueError(f"window {window} is not in [0, {len(self.windows)})")
            self._indexes[window] = self._load(window)
        return self._indexes[window]

    def search(
        self,
        window: int,
        alleles: np.ndarray,
        k: int,
        *,
        exclude: np.ndarray | None = None,
        allowed: np.ndarray | None = None,
    ) -> np.ndarray:
        """Find the panel haplotypes with the fewest mismatches at each query's observed sites.

        Parameters
        ----------
        window
            Index of the window in [0, W).
        alleles
            Shape (B, L), int8, the queries' alleles at the window's sites; negative where hidden.
        k
            Haplotypes to retrieve, >= 1.
        exclude
            Shape (B, e), int: haplotypes that query i must not retrieve (its own sample's), padded
            with -1; or None.
        allowed
            Shape (H,), bool: haplotypes that any query may retrieve; or None for all.

        Returns
        -------
        Shape (B, k), int32: numbers of haplotypes, nearest first, padded with -1 if fewer than
        ``k`` were found. Equally near haplotypes are in a random order that differs between
        windows, so that no haplotype is preferred everywhere.

        Raises
        ------
        ValueError
            If ``alleles`` does not have the window's number of sites, or ``k < 1``.
        """
        start, stop = self.windows[window]
        if alleles.shape[1] != stop - start or k < 1:
            raise ValueError(
                f"queries have {alleles.shape[1]} sites, window {window} has {stop - start}; k {k}"
            )
        index = self._index(window)
        order = tie_order(self.num_haplotypes, window)
        codes = code_alleles(alleles[:, self.markers[start:stop]])
        spare = 0 if exclude is None else exclude.shape[1]
        if allowed is not None:
            spare += int((~allowed).sum())
        # Hits that are not allowed are dropped below, so ask for more than k. Few of them are near:
        # begin with a few more, and ask again for four times as many while too few are left.
        ask = min(self.num_haplotypes, k + spare if spare <= 64 else 2 * k + 64)
        while True:
            _, slots = search_window(index, codes, ask, self._searcher)
            ids = np.where(slots >= 0, order[slots], -1)
            keep = ids >= 0
            if allowed is not None:
                keep &= allowed[ids]
            if exclude is not None:
                keep &= (ids[:, :, None] != exclude[:, None, :]).all(2)
            if ask == self.num_haplotypes or (keep.sum(1) >= k).all():
                break
            ask = min(self.num_haplotypes, 4 * ask)
        first = np.argsort(~keep, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(np.where(keep, ids, -1), first, axis=1).astype(np.int32)
        if found.shape[1] < k:
            found = np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=-1)
        return found

    def save(self, path: str | Path) -> int:
        """Write the folder ``path`` (under a temporary name, then renamed); returns its bytes."""
        path = Path(path)
        try:
            with replacing(path) as temporary:
                temporary.mkdir(parents=True)
                files = []
                for w in range(len(self.windows)):
                    name = f"window_{w:05d}.faiss"
                    faiss.write_index_binary(self._index(w), str(temporary / name))
                    files.append({"file": name, "sha256": sha256_of(temporary / name)})
                about = self.description
                marker_bits = np.packbits(self.markers)
                write_manifest(
                    temporary,
                    {
                        "panel_checksum": about.panel_checksum,
                        "num_haplotypes": self.num_haplotypes,
                        "num_sites": len(self.markers),
                        "num_markers": int(self.markers.sum()),
                        "markers_hex": "" if self.markers.all() else marker_bits.tobytes().hex(),
                        "metric": "hamming, two bits a site",
                        "kind": about.kind,
                        "num_lists": about.num_lists,
                        "num_probes": about.num_probes,
                        "recall_at_10": round(about.recall, 4),
                        "windows": self.windows.tolist(),
                        "files": files,
                    },
                )
                num_bytes = sum(file.stat().st_size for file in temporary.iterdir())
        except OSError as error:
            raise PanelError(
                f"index {path} cannot be written: {error.strerror or error}",
                hint="check the folder's permissions and free space",
            ) from error
        return num_bytes

    @classmethod
    def open(
        cls, path: str | Path, panel: Panel, *, searcher: GpuSearcher | None = None
    ) -> WindowIndex:
        """Open an index folder and check that it belongs to ``panel``.

        Parameters
        ----------
        path, panel
            The folder that ``ragimpute index`` made; the panel that it was made from.
        searcher
            Searches an exhaustive index on a GPU; None: it is searched on the CPU.

        Raises
        ------
        PanelError
            If the folder is missing, damaged, of another version, or made from another panel.
        """
        path = Path(path)
        manifest = read_manifest_of(path, panel)
        files = manifest["files"]
        windows = np.array(manifest["windows"], dtype=np.int64).reshape(-1, 2)

        def load(window: int) -> faiss.IndexBinary:
            entry = files[window]
            file = path / entry["file"]
            if not file.is_file() or sha256_of(file) != entry["sha256"]:
                state = "does not match its checksum" if file.is_file() else "is missing"
                raise damaged(path, panel, f"{entry['file']} {state}")
            loaded: faiss.IndexBinary = faiss.read_index_binary(str(file))
            index: Any = loaded  # its class, and so its attributes, depend on the file
            searched = markers[slice(*windows[window])].sum()
            num_bits = 8 * code_alleles(np.zeros((1, searched), np.int8)).shape[1]
            if (index.ntotal, index.d) != (panel.num_haplotypes, num_bits):
                raise damaged(path, panel, f"{entry['file']} is not of window {window}")
            if manifest["kind"] == "ivf":
                index.nprobe = manifest["num_probes"]
            else:
                # The file does not keep this, and equally near codes depend on it.
                index.use_heap = False
            return loaded

        bits = np.frombuffer(bytes.fromhex(manifest["markers_hex"]), np.uint8)
        markers = np.ones(panel.num_sites, dtype=bool)
        if len(bits):
            markers = np.unpackbits(bits, count=panel.num_sites).astype(bool)
        about = IndexDescription(
            manifest["panel_checksum"], manifest["num_haplotypes"], windows, markers,
            manifest["kind"], manifest["num_lists"], manifest["num_probes"],
            manifest["recall_at_10"],
        )  # fmt: skip
        return cls(about, {}, load=load, searcher=searcher)


def code_alleles(alleles: np.ndarray) -> np.ndarray:
    """Code alleles as two bits a site, "is ALT" and "is REF"; neither is set if it is hidden.

    Parameters
    ----------
    alleles
        Shape (n, L), int8: 0, 1, or negative where hidden.

    Returns
    -------
    Shape (n, max(1, ceil(2 L / 8))), uint8.
    """
    bits = np.zeros((alleles.shape[0], max(1, alleles.shape[1]), 2), dtype=bool)
    bits[:, : alleles.shape[1], 0] = alleles == 1
    bits[:, : alleles.shape[1], 1] = alleles == 0
    return np.packbits(bits.reshape(alleles.shape[0], -1), axis=1, bitorder="little")


def tie_order(num_haplotypes: int, window: int) -> np.ndarray:
    """The random order in which a window's haplotypes are stored; equally near ones keep it."""
    return np.random.default_rng((window, num_haplotypes)).permutation(num_haplotypes)


def search_window(
    index: Any, codes: np.ndarray, k: int, searcher: GpuSearcher | None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the codes that are nearest to each query.

    Parameters
    ----------
    index
        The index of one window.
    codes
        Queries, shape (B, bytes), uint8.
    k
        Codes to find, in [1, H].
    searcher
        Searches an exhaustive index on a GPU; None: on the CPU.

    Returns
    -------
    Distances and slots, both of shape (B, k). Slots are -1 where the lists that were searched have
    fewer than k codes.
    """
    if searcher is not None:
        return searcher.search(index, codes, k)
    with threads_for(len(codes) * index.ntotal):
        out: tuple[np.ndarray, np.ndarray] = index.search(codes, k)
        return out


def build_window(
    codes: np.ndarray, kind: str, num_lists: int, num_probes: int, searcher: GpuSearcher | None
) -> tuple[faiss.IndexBinary, float]:
    """Make the index of one window's haplotypes, and measure its recall of the 10 nearest.

    Parameters
    ----------
    codes
        Shape (H, bytes), uint8, in the order of :func:`tie_order`.
    kind
        "flat" (exhaustive) or "ivf" (inverted lists).
    num_lists, num_probes
        Lists that "ivf" makes, and how many of them a search looks through.
    searcher
        Makes and searches exhaustive indexes on a GPU; None: on the CPU.
    """
    exact: Any
    if searcher is not None:
        exact = searcher.build_flat(codes)
    else:
        exact = faiss.IndexBinaryFlat(8 * codes.shape[1])
        exact.use_heap = False  # up to 4 times faster
        exact.add(codes)
    if kind == "flat":
        return exact, 1.0
    quantizer: Any = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index = faiss.IndexBinaryIVF(quantizer, 8 * codes.shape[1], num_lists)
    index.own_fields = True
    quantizer.this.disown()
    index.train(codes)
    index.add(codes)
    index.nprobe = num_probes
    queries = codes[:: max(1, len(codes) // _RECALL_QUERIES)][:_RECALL_QUERIES]
    k = min(_RECALL_K, len(codes))
    true, _ = search_window(exact, queries, k, searcher)
    found, ids = index.search(queries, k)
    # Several haplotypes may be equally near, so distances are compared rather than their numbers: a
    # hit is right if it is no farther than the k-th nearest.
    return index, float(((found <= true[:, -1:]) & (ids >= 0)).mean())
