"""Which rows of a batch one of several processes builds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """One process's share of every batch: each ``world``-th row, from ``rank`` on.

    Attributes
    ----------
    rank, world
        The number of the process, in [0, world), and how many there are, >= 1.
    """

    rank: int = 0
    world: int = 1

    def rows(self, num_rows: int) -> np.ndarray:
        """This process's rows of a batch of ``num_rows`` >= 1: shape (n,), int64, n >= 1.

        A process for which there is none takes the last one, which :meth:`counted` hides.
        """
        return np.arange(min(self.rank, num_rows - 1), num_rows, self.world)

    def counted(self, batch: dict[str, Tensor], num_rows: int) -> dict[str, Tensor]:
        """A batch that was built of :meth:`rows`, without labels if another process has them."""
        if self.rank >= num_rows:
            for label in ("label_h1", "label_h2"):
                batch[label] = torch.full_like(batch[label], -1)
        return batch

    def owns(self, i: int, num: int) -> bool:
        """Whether the ``i``-th of ``num`` validation batches is this process's.

        Each process has batches that follow on each other, as these share their windows.
        """
        return i * self.world // num == self.rank


WHOLE = Share()
