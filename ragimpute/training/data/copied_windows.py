"""What Li-Stephens copying says of training examples, for token models that read it."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable

import numpy as np
import torch

from ragimpute.config import DataConfig
from ragimpute.copying.choose_parameters import fit_panel
from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.window import Window
from ragimpute.token_model.copying_evidence import CopyingEvidence, collect_copying
from ragimpute.token_model.windows import TokenWindows
from ragimpute.training.data.arrays import panel_sites
from ragimpute.training.data.masks import draw_mask

# A stream of random numbers, see ``token_batches``.
_BESIDE = 14
# Copying sees at most so many sites beside an index window, on either side.
_MAX_BESIDE = 20_000


class CopiedWindows:
    """Copies panel samples from the others at the sites that masks leave typed.

    Parameters
    ----------
    windows
        The windows that the model reads.
    search
        Shape (W, 2), int: the index windows, of which these are parts.
    data
        ``num_retrieved``, ``num_carriers``, ``max_states`` and ``buffer_cm`` count.
    seed
        Of every draw.
    allowed
        Shape (H,), bool: haplotypes that may be copied.
    fit_at
        Index windows and a mask of each: the parameters of copying are fitted to the panel in the
        first of them that has a typed site.
    """

    def __init__(
        self,
        windows: TokenWindows,
        search: np.ndarray,
        data: DataConfig,
        *,
        seed: int,
        allowed: np.ndarray,
        fit_at: Iterable[tuple[int, np.ndarray]],
    ) -> None:
        self._windows, self._search, self._data, self._seed = windows, search, data, seed
        self._pool = np.flatnonzero(allowed).astype(np.int32)
        self._signature: dict[int, np.ndarray] = {}
        self._fit_at = fit_at
        self._fitted: CopyingParameters | None = None

    def _parameters(self, window: Window) -> CopyingParameters | None:
        """Parameters that fit the panel, whatever ``window`` is copied first.

        It only takes the place of the windows to fit to if none of them has a typed site; None if
        it has none either.
        """
        if self._fitted is None:
            windows = itertools.chain(itertools.starmap(self._window, self._fit_at), [window])
            typed = next((w for w in windows if w.typed.num_typed), None)
            if typed is not None:
                self._fitted = fit_panel(
                    typed, self._windows.panel.haplotype_sample,
                    seed=self._seed, threads=torch.get_num_threads(),
                )  # fmt: skip
        return self._fitted

    def fill(
        self,
        out: CopyingEvidence,
        search: int,
        rows: np.ndarray,
        masks: list[np.ndarray],
        window: np.ndarray,
        pairs: np.ndarray,
    ) -> None:
        """Write into ``out`` what copying says of some rows of a batch, all in one index window.

        Parameters
        ----------
        out
            Of the haplotypes of all B rows, two after two.
        search
            Number of the index window.
        rows
            Shape (b,), int: the rows.
        masks
            For each of them, shape (n,), bool: hidden sites of the index window. Rows that share a
            mask are copied together.
        window, pairs
            Shape (B,) and (B, 2), int: each row's window of the model, and its sample's haplotypes.
        """
        first = int(self._search[search, 0])
        same = np.unique([id(mask) for mask in masks], return_inverse=True)[1]
        for group in range(int(same.max()) + 1):
            members = np.flatnonzero(same == group)
            mine = rows[members]
            samples, of = np.unique(pairs[mine], axis=0, return_inverse=True)
            found = self._copy(search, masks[members[0]], samples)
            for i, row in zip(of.ravel().tolist(), mine.tolist(), strict=True):
                low, high = (self._windows.ranges[window[row]] - first).tolist()
                here = found.part(slice(2 * i, 2 * i + 2), slice(low, high))
                out.put(slice(2 * row, 2 * row + 2), slice(0, high - low), here)

    def _copy(self, search: int, hidden: np.ndarray, pairs: np.ndarray) -> CopyingEvidence:
        """What copying says of samples (b, 2) at an index window's n sites under a mask (n,)."""
        start, stop = self._search[search].tolist()
        window, typed = self._typed(search, hidden, pairs)
        return collect_copying(
            window, typed, self._parameters(window), self._data,
            allowed=self._pool, own=np.repeat(pairs, 2, axis=0),
            af=self._windows.panel.af[start:stop], threads=torch.get_num_threads(),
        )  # fmt: skip

    def probs(self, search: int, hidden: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """P(ALT) by plain Li-Stephens from all haplotypes that may be copied.

        Parameters
        ----------
        search, hidden
            Number of an index window, and its mask, shape (n,), bool.
        pairs
            Shape (b, 2), int: the haplotypes of b samples, none of which may be copied.

        Returns
        -------
        Shape (b, 2, n), float32, in [0, 1]; the panel's frequency if no site is typed.
        """
        window, typed = self._typed(search, hidden, pairs)
        parameters = self._parameters(window)
        if window.typed.num_typed == 0 or parameters is None:
            start, stop = self._search[search].tolist()
            return np.broadcast_to(self._windows.panel.af[start:stop], (*pairs.shape, stop - start))
        prob = copy_haplotypes(
            window, typed, parameters, states=lambda i: self._pool[None],
            threads=torch.get_num_threads(),
        )  # fmt: skip
        return prob.reshape(*pairs.shape, -1)

    def _typed(
        self, search: int, hidden: np.ndarray, pairs: np.ndarray
    ) -> tuple[Window, np.ndarray]:
        """An index window under a mask (n,), and the typed alleles (T, 2 b) of samples (b, 2)."""
        window = self._window(search, hidden)
        typed = window.haplotypes.alleles(window.typed_index)[:, pairs.ravel()]
        return window, np.ascontiguousarray(typed)

    def _window(self, search: int, hidden: np.ndarray) -> Window:
        """An index window with what lies beside it, under a mask (n,).

        In imputation, too, copying sees farther than the network. The sites beside are typed as an
        array would be, and as densely as the window itself.
        """
        panel = self._windows.panel
        start, stop = self._search[search].tolist()
        cm, reach = panel.position_cm, self._data.buffer_cm
        first = int(np.searchsorted(cm, cm[start] - reach))
        last = int(np.searchsorted(cm, cm[stop - 1] + reach, side="right"))
        first, last = max(first, start - _MAX_BESIDE), min(last, stop + _MAX_BESIDE)
        rng = np.random.default_rng([self._seed, _BESIDE, search, zlib.crc32(hidden.tobytes())])
        parts = []
        for low, high in ((first, start), (stop, last)):
            beside = np.zeros(0, bool)
            if low < high:
                sites = panel_sites(panel, low, high)
                beside = draw_mask("array_like", sites, float(hidden.mean()), rng)
            parts.append(beside)
        typed = np.flatnonzero(~np.concatenate([parts[0], hidden, parts[1]]))
        window = Window.build(
            self._windows.block(first, last).haplotypes, cm[first:last], typed,
            (start - first, stop - first),
        )  # fmt: skip
        if search not in self._signature:
            self._signature[search] = window.signature
        window.__dict__["signature"] = self._signature[search]  # the same under all masks
        return window
