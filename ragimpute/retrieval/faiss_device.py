"""Exhaustive search of binary codes on a GPU, with the same result as FAISS has on the CPU.

FAISS compares binary codes on a GPU by ``GpuIndexBinaryFlat``, if the installed build has it
(``faiss-gpu``). It has no inverted lists of binary codes for GPUs.

The CPU returns codes sorted by distance, and equal distances by their slot in the index. A GPU
returns equal distances in any order, and of the codes that tie for the last place it returns any.
:meth:`GpuSearcher.search` therefore asks for more codes than it needs, and sorts ties itself. If a
query has so many ties that a GPU cannot return them all, it is searched on the CPU.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from threading import Lock
from typing import Any, Literal

import numpy as np

from ragimpute.arguments import parse_device
from ragimpute.errors import InputError
from ragimpute.extras import installed_faiss, one_faiss
from ragimpute.retrieval.faiss_library import faiss
from ragimpute.retrieval.faiss_threads import threads_for

log = logging.getLogger("ragimpute")

# The largest number of codes that FAISS can return for a query on a GPU (its GPU_MAX_SELECTION_K).
_MOST_HITS = 2048
# Codes to ask for beyond those wanted, so that most ties for the last place are settled at once.
_SPARE_HITS = 32
# Bytes of codes that are kept on a GPU, and bytes for FAISS's own work (its default is 1.5 GB).
_MAX_CODE_BYTES = 2 << 30
_SCRATCH_BYTES = 256 << 20


class GpuSearcher:
    """Searches exhaustive binary indexes on one GPU.

    The codes of an index are copied to the GPU when it is first searched. If there is no room, the
    least recently searched indexes are dropped. In a forked process, or after the GPU has failed,
    searches run on the CPU, with the same result.

    Parameters
    ----------
    number
        Number of the GPU, from 0.
    library
        The ``faiss`` package, or a stand-in for it in tests.
    """

    def __init__(self, number: int, *, library: Any = faiss) -> None:
        self.number = number
        self._faiss = library
        self._resources: Any = None
        self._held: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        self._lock = Lock()
        self._process = os.getpid()
        self._failed = False

    def build_flat(self, codes: np.ndarray) -> Any:
        """An exhaustive index of codes (n, bytes), uint8, made on the GPU and kept on the CPU."""
        made = self._faiss.IndexBinaryFlat(8 * codes.shape[1])
        made.use_heap = False  # up to 4 times faster
        if self._can_search():
            try:
                on_gpu = self._on_gpu(8 * codes.shape[1])
                on_gpu.add(codes)
                on_gpu.copyTo(made)
                return made
            except RuntimeError as error:
                self._give_up(error)
                made.reset()
        made.add(codes)
        return made

    def search(self, index: Any, codes: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest codes to each query, as ``index.search(codes, k)`` finds them on the CPU.

        Parameters
        ----------
        index
            An ``IndexBinaryFlat`` of n codes, which must not change any more.
        codes
            Queries, shape (B, bytes), uint8.
        k
            Codes to find, in [1, n].

        Returns
        -------
        Distances, shape (B, k), int32, and slots, shape (B, k), int64: by (distance, slot).
        """
        distances = np.empty((len(codes), k), np.int32)
        slots = np.empty((len(codes), k), np.int64)
        left = np.arange(len(codes))
        if self._can_search():
            try:
                with self._lock:
                    left = self._search_on_gpu(index, codes, k, distances, slots)
            except RuntimeError as error:
                self._give_up(error)
        if len(left):
            with threads_for(len(left) * index.ntotal):
                distances[left], slots[left] = index.search(codes[left], k)
        return distances, slots

    def _can_search(self) -> bool:
        """Whether the GPU works, and this is the process that opened it: a forked one cannot."""
        return not self._failed and os.getpid() == self._process

    def _search_on_gpu(
        self, index: Any, codes: np.ndarray, k: int, distances: np.ndarray, slots: np.ndarray
    ) -> np.ndarray:
        """Search, and fill in the queries whose ties could be decided; returns the others."""
        left = np.arange(len(codes))
        most = min(index.ntotal, _MOST_HITS)
        ask = min(most, k + _SPARE_HITS)
        while len(left) and k <= ask:
            far, slot = self._held_on_gpu(index).search(codes[left], ask)
            # All codes nearer than the last one are among the hits. Of those as near as the last,
            # some may be missing: a query is done if its k-th hit is nearer than the last.
            done = far[:, k - 1] < far[:, -1] if ask < index.ntotal else np.ones(len(left), bool)
            order = np.lexsort((slot[done], far[done]), axis=1)[:, :k]
            distances[left[done]] = np.take_along_axis(far[done], order, axis=1)
            slots[left[done]] = np.take_along_axis(slot[done], order, axis=1)
            left = left[~done]
            if ask == most:
                break
            ask = min(most, 4 * ask)
        return left

    def _held_on_gpu(self, index: Any) -> Any:
        """A copy of an index on the GPU."""
        key = id(index)  # the index is held too, so that no other one gets its id
        if key not in self._held:
            size = index.ntotal * index.code_size
            room = max(0, _MAX_CODE_BYTES // max(1, size) - 1)
            while len(self._held) > room:
                self._held.popitem(last=False)
            self._held[key] = (index, self._on_gpu(index))
        self._held.move_to_end(key)
        return self._held[key][1]

    def _on_gpu(self, index_or_bits: Any) -> Any:
        """An index on the GPU: a copy of the given index, or an empty one for so many bits."""
        if self._resources is None:
            self._resources = self._faiss.StandardGpuResources()
            self._resources.setTempMemory(_SCRATCH_BYTES)
        config = self._faiss.GpuIndexBinaryFlatConfig()
        config.device = self.number
        return self._faiss.GpuIndexBinaryFlat(self._resources, index_or_bits, config)

    def _give_up(self, error: RuntimeError) -> None:
        """Search on the CPU from now on, and say so once."""
        if not self._failed:
            reason = " ".join(str(error).split())[:300]
            log.warning(f"GPU {self.number} failed in FAISS, and the CPU searches on: {reason}")
        self._failed = True
        self._held.clear()


def choose_searcher(
    device: str, *, missing: Literal["fail", "warn", "ignore"] = "warn", library: Any = faiss
) -> GpuSearcher | None:
    """Make the searcher for the device that ``--device`` names; None: indexes use the CPU.

    Parameters
    ----------
    device
        "auto": a GPU if FAISS can use one; "cpu"; "cuda", or "cuda:1" for the second GPU.
    missing
        What to do if "cuda" was asked for and FAISS cannot use it: "fail" raises an error; "warn"
        logs a line and uses the CPU; "ignore" uses the CPU silently.
    library
        The ``faiss`` package, or a stand-in for it in tests.

    Raises
    ------
    InputError
        If there is no such name, or FAISS cannot use that GPU and ``missing`` is "fail".
    """
    kind, number = parse_device(device)
    warn_of_two_builds()
    if kind == "cpu":
        return None
    built = hasattr(library, "StandardGpuResources") and hasattr(library, "GpuIndexBinaryFlat")
    num_gpus = library.get_num_gpus() if built else 0
    if (number or 0) < num_gpus:
        return GpuSearcher(number or 0, library=library)
    if kind == "auto" or missing == "ignore":
        return None
    version = library.__version__
    if built:
        found = f"faiss {version} sees {num_gpus} CUDA devices"
        hint = "use --device cpu, or a machine and driver with a GPU that faiss supports"
    else:
        found = f"faiss {version} is built without its part for GPUs"
        hint = "use --device cpu, or: pip uninstall -y faiss-cpu && pip install faiss-gpu"
    if missing == "fail":
        raise InputError(f"device {device} was asked for, but {found}", hint=hint)
    log.warning(f"{found}: the index is searched on the CPU")
    return None


def warn_of_two_builds() -> None:
    """Warn if several builds of faiss are installed, which overwrite each other's files."""
    builds = installed_faiss()
    if len(builds) > 1:
        log.warning(
            f"{' and '.join(builds)} are both installed, and the last has overwritten files of the "
            f"first; to repair it: {one_faiss(builds)}"
        )
