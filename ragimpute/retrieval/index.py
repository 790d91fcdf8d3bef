"""FAISS retrieval of panel haplotypes by their alleles, window by window.

Each site of a window becomes two bits, "is ALT" and "is REF". At a hidden or untyped site of a
query neither bit is set, so the site adds the same distance for every panel haplotype: the Hamming
distance is twice the number of mismatches plus the number of hidden sites. Therefore one index
serves every array and every training mask.

Large panels get inverted lists (IVF), small ones an exhaustive index, which a GPU can search too
(``faiss_device``). The files do not depend on the device that made them.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ragimpute.errors import PanelError
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import require_one_ploidy
from ragimpute.retrieval.faiss_device import GpuSearcher
from ragimpute.retrieval.faiss_library import faiss
from ragimpute.retrieval.index_manifest import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    damaged,
    manifest_digest,
    read_manifest_of,
    sha256_of,
)
from ragimpute.retrieval.index_window import build_window, code_alleles, search_window, tie_order
from ragimpute.runtime.timing import Progress

log = logging.getLogger("ragimpute")

# In smaller panels, comparing every haplotype is faster than making and searching lists.
IVF_FROM_HAPLOTYPES = 20_000


class WindowIndex:
    """One FAISS binary index for each window of a panel.

    Attributes
    ----------
    panel_checksum
        Checksum of the panel that the index was made from.
    windows
        Shape (W, 2), int64: half-open ranges of panel sites.
    markers
        Shape (M,), bool: panel sites that are compared; alleles at other sites are ignored.
    kind
        "flat" (exhaustive) or "ivf" (inverted lists).
    recall
        Share of the 10 nearest haplotypes that the search finds, measured on the panel; 1 for
        "flat".
    """

    def __init__(
        self,
        *,
        panel_checksum: str,
        num_haplotypes: int,
        windows: np.ndarray,
        markers: np.ndarray,
        kind: str,
        num_lists: int,
        num_probes: int,
        indexes: dict[int, faiss.IndexBinary],
        load: Callable[[int], faiss.IndexBinary] | None = None,
        recall: float = 1.0,
        searcher: GpuSearcher | None = None,
    ) -> None:
        self.panel_checksum = panel_checksum
        self.num_haplotypes = num_haplotypes
        self.windows = windows
        self.markers = markers
        self.kind = kind
        self.num_lists = num_lists
        self.num_probes = num_probes
        self.recall = recall
        self._indexes = indexes
        self._load = load
        self._searcher = searcher if kind == "flat" else None
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
        built, recalls = {}, []
        for w, (start, stop) in enumerate(windows.tolist()):
            alleles = panel.haplotypes(start, stop).alleles(markers[start:stop])
            codes = code_alleles(alleles.T)[tie_order(num, w)]
            built[w], recall = build_window(codes, kind, num_lists, num_probes, searcher)
            recalls.append(recall)
            if progress is not None:
                progress("index", w + 1, len(windows))
        return cls(
            panel_checksum=panel.checksum,
            num_haplotypes=num,
            windows=windows,
            markers=markers,
            kind=kind,
            num_lists=num_lists,
            num_probes=num_probes,
            indexes=built,
            recall=float(np.mean(recalls)) if recalls else 1.0,
            searcher=searcher,
        )

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
        temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            files = []
            for w in range(len(self.windows)):
                name = f"window_{w:05d}.faiss"
                faiss.write_index_binary(self._index(w), str(temporary / name))
                files.append({"file": name, "sha256": sha256_of(temporary / name)})
            marker_bits = np.packbits(self.markers)
            manifest = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "panel_checksum": self.panel_checksum,
                "num_haplotypes": self.num_haplotypes,
                "num_sites": len(self.markers),
                "num_markers": int(self.markers.sum()),
                "markers_hex": "" if self.markers.all() else marker_bits.tobytes().hex(),
                "metric": "hamming, two bits a site",
                "kind": self.kind,
                "num_lists": self.num_lists,
                "num_probes": self.num_probes,
                "recall_at_10": round(self.recall, 4),
                "windows": self.windows.tolist(),
                "files": files,
            }
            manifest["manifest_sha256"] = manifest_digest(manifest)
            text = json.dumps(manifest, indent=1)
            (temporary / MANIFEST).write_text(text + "\n")
            num_bytes = sum(file.stat().st_size for file in temporary.iterdir())
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
        except OSError as error:
            raise PanelError(
                f"index {path} cannot be written: {error.strerror or error}",
                hint="check the folder's permissions and free space",
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
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
            index: Any = loaded  # of the class that the file names, with that one's attributes
            searched = markers[slice(*windows[window])].sum()
            num_bits = 8 * code_alleles(np.zeros((1, searched), np.int8)).shape[1]
            if (index.ntotal, index.d) != (panel.num_haplotypes, num_bits):
                raise damaged(path, panel, f"{entry['file']} is not of window {window}")
            if manifest["kind"] == "ivf":
                index.nprobe = manifest["num_probes"]
            else:
                index.use_heap = False  # not in the file; ties would come in another order
            return loaded

        bits = np.frombuffer(bytes.fromhex(manifest["markers_hex"]), np.uint8)
        markers = np.ones(panel.num_sites, dtype=bool)
        if len(bits):
            markers = np.unpackbits(bits, count=panel.num_sites).astype(bool)
        return cls(
            panel_checksum=manifest["panel_checksum"],
            num_haplotypes=manifest["num_haplotypes"],
            windows=windows,
            markers=markers,
            kind=manifest["kind"],
            num_lists=manifest["num_lists"],
            num_probes=manifest["num_probes"],
            recall=manifest["recall_at_10"],
            indexes={},
            load=load,
            searcher=searcher,
        )
