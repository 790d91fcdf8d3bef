"""Find the nearest panel haplotypes of windows in torch, on a GPU: the same as the kernels find.

Mismatches are counted as in ``nearest_kernel``: in the shortest windows by xor and by counting
bits, in longer ones by adding up those of their halves. All numbers are whole, so that hits and the
order of ties are exactly those of the kernels. The device finds each window's nearest rows; which
haplotypes have these rows is listed on the CPU, as the lists of all windows together are the
largest part of the tables.
"""

from __future__ import annotations

import numpy as np
import torch

from ragimpute.kernels.bits import WORD
from ragimpute.retrieval.nearest import NearestRows
from ragimpute.retrieval.nearest_kernel import (
    FIRST_HIT,
    FIRST_ROW,
    FIRST_WORD,
    HIGH,
    LEFT,
    LOW,
    NUM_HITS,
    NUM_ROWS,
    OWN,
    RIGHT,
    WORDS_HIGH,
    WORDS_LOW,
    list_hits,
)
from ragimpute.runtime.device_memory import work_bytes

# More targets at once make a device no faster, but their hits take memory of the host.
_MOST_AT_ONCE = 1024
_HITS_BYTES = 256 * 2**20
# Bytes that a row of the largest window takes for each target: two for its counts, in three windows
# of each scale, and keys with what sorting them takes.
_KEY_BYTES = 32
_SMALL = 2**31 - 1


def count_bits(x: torch.Tensor) -> torch.Tensor:
    """How many bits are set in each number, int32; torch has no operation of its own for it."""
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    x = x + (x >> 8)
    return (x + (x >> 16)) & 0x3F


class TorchNearest:
    """Searches the windows of ``nearest`` on a torch device.

    Parameters
    ----------
    nearest
        The distinct rows of all windows. They stay on the host; a window's rows are sent when the
        window is searched.
    device
        Where torch counts and sorts, as torch calls it: "cuda:0".
    searches
        How many threads may search at the same time, >= 1; they share the device's memory.

    Attributes
    ----------
    at_once
        The most targets that a search may be given: as many as fit into the device's memory.
    """

    def __init__(self, nearest: NearestRows, device: str, *, searches: int = 1) -> None:
        self._nearest, self._device = nearest, torch.device(device)
        most = int(nearest.panel.windows[:, NUM_ROWS].max())
        each = most * (_KEY_BYTES + 6 * len(nearest.ranges))
        fits = min(
            work_bytes(self._device) // (each * searches), _HITS_BYTES // (12 * nearest.num_hits)
        )
        self.at_once = int(np.clip(fits, 1, _MOST_AT_ONCE))

    def search(self, target: np.ndarray, hits: np.ndarray) -> None:
        """See :meth:`ragimpute.retrieval.nearest.NearestRows.search`."""
        panel = self._nearest.panel
        counts: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            queries = self._sent(target.view(np.int32))
            rows = torch.full(hits.shape, -1, dtype=torch.int32, device=self._device)
            for window in panel.windows.tolist():
                own = self._counted(window, queries, counts)
                counts[window[OWN]] = own
                num = min(window[NUM_HITS], window[NUM_ROWS])
                first = window[FIRST_HIT]
                longest = (window[HIGH] - window[LOW]) * WORD
                rows[:, first : first + num] = _nearest_rows(own, num, longest)
        hits[:] = -1
        list_hits(np.ascontiguousarray(target), rows.cpu().numpy(), panel, hits)

    def _sent(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _counted(
        self, window: list[int], queries: torch.Tensor, counts: dict[int, torch.Tensor]
    ) -> torch.Tensor:
        """Mismatches of each target with each row of a window, shape (n, rows), int16.

        ``counts``: those of earlier windows, by where the kernels keep them.
        """
        panel, num_rows = self._nearest.panel, window[NUM_ROWS]
        first = window[FIRST_ROW]
        halves = self._sent(panel.halves[first : first + num_rows].T)
        own = torch.zeros((len(queries), num_rows), dtype=torch.int16, device=self._device)
        for side, half in enumerate((window[LEFT], window[RIGHT])):
            if half >= 0:
                own += torch.index_select(counts[half], 1, halves[side])
        low, high = window[WORDS_LOW], window[WORDS_HIGH]
        at = window[FIRST_WORD]
        words = panel.words[at : at + num_rows * (high - low)].reshape(num_rows, -1)
        for w in range(low, high):
            word = self._sent(words[:, w - low].view(np.int32))
            own += count_bits(queries[:, w, None] ^ word).to(torch.int16)
        return own


def _nearest_rows(counts: torch.Tensor, num: int, longest: int) -> torch.Tensor:
    """The ``num`` rows with the fewest mismatches, of equal ones the first: (n, num), int32.

    ``counts`` (n, rows), none above ``longest``. The row's number is made part of what is compared,
    so that no two are equal: torch promises nothing of the order of equals.
    """
    num_rows = counts.shape[1]
    kind = torch.int32 if (longest + 1) * num_rows <= _SMALL else torch.int64
    key = counts.to(kind) * num_rows + torch.arange(num_rows, dtype=kind, device=counts.device)
    nearest = torch.topk(key, num, largest=False, sorted=True).values
    return (nearest % num_rows).to(torch.int32)
