"""FAISS's calls for GPUs, made by its index on the CPU: returns ties as carelessly as a GPU may."""

from __future__ import annotations

import faiss
import numpy as np

#: What FAISS's GPU part can return for one query.
MOST_HITS = 2048


class StandardGpuResources:
    """Room on a GPU."""

    def __init__(self):
        self.scratch = None

    def setTempMemory(self, num_bytes):  # FAISS's name
        self.scratch = num_bytes


class GpuIndexBinaryFlatConfig:
    """Which GPU."""

    device = 0


class GpuIndexBinaryFlat:
    """An exhaustive index: equal distances come in any order, and so do ties for the last place."""

    made = 0

    def __init__(self, resources, index_or_bits, config):
        assert resources.scratch is not None
        assert isinstance(config, GpuIndexBinaryFlatConfig)
        type(self).made += 1
        self.device = config.device
        if isinstance(index_or_bits, int):
            self._codes = np.empty((0, index_or_bits // 8), np.uint8)
        else:
            self._codes = codes_of(index_or_bits)
        self._rng = np.random.default_rng(len(self._codes))

    def add(self, codes):
        self._codes = np.concatenate([self._codes, codes])

    def copyTo(self, index):  # FAISS's name
        index.reset()
        index.add(self._codes)

    def search(self, codes, k):
        if k > MOST_HITS:
            raise RuntimeError(f"k {k} is more than {MOST_HITS}")
        order = self._rng.permutation(len(self._codes))
        shuffled = faiss.IndexBinaryFlat(8 * self._codes.shape[1])
        shuffled.add(np.ascontiguousarray(self._codes[order]))
        distances, slots = shuffled.search(codes, k)
        return distances, order[slots]


def codes_of(index):
    """The codes of an exhaustive index, shape (n, bytes), uint8."""
    return faiss.vector_to_array(index.xb).reshape(index.ntotal, index.code_size)


class Library:
    """The part of the package ``faiss`` that is asked for, on a machine with some GPUs."""

    __version__ = "1.0"
    IndexBinaryFlat = faiss.IndexBinaryFlat
    StandardGpuResources = StandardGpuResources
    GpuIndexBinaryFlatConfig = GpuIndexBinaryFlatConfig

    def __init__(self, num_gpus=1):
        self._num_gpus = num_gpus
        self.GpuIndexBinaryFlat = type("GpuIndexBinaryFlat", (GpuIndexBinaryFlat,), {"made": 0})

    def get_num_gpus(self):
        return self._num_gpus
