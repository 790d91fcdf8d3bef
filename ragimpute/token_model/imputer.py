"""Impute with a token model, window by window.

The windows are those that the model was trained on. Windows that overlap by half, where each site
is taken from the window that has it nearest to its middle, take twice the time and were worse on
the packaged example (r2 .809 against .816, v10-small): in training the model has seen each site at
one place of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ragimpute.copying.choose_parameters import fit_panel
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import retriever_for
from ragimpute.copying.window import Window
from ragimpute.evidence.expected_r2 import WindowSays
from ragimpute.evidence.site_quality import measure_sites
from ragimpute.model.bert_rag import ReferenceLookup
from ragimpute.model.checkpoint import LoadedModel
from ragimpute.model.chunks import chunk_bytes_of, sequence_bytes
from ragimpute.model.devices import choose_device, one_thread_each
from ragimpute.model.folder import searches_index
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import require_one_ploidy
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.timing import Stopwatch
from ragimpute.target.window import TargetWindow
from ragimpute.token_model.copying_evidence import CopyingEvidence, collect_copying
from ragimpute.token_model.windows import TokenWindows, cut_windows_to

if TYPE_CHECKING:  # FAISS is imported only where an index is searched
    from ragimpute.retrieval.index import WindowIndex

# Pairs of a haplotype and a site in a batch, at most.
_SITES_AT_ONCE = {"cpu": 1 << 12, "cuda": 1 << 19}
# Bytes for the encoded references, at most. Where a run's memory is bounded, a batch takes at most
# a quarter of it, and these take at most half.
_REFERENCE_BYTES = 2**29
_SHARE = 4


class TokenImputer:
    """The :class:`ragimpute.imputation.imputer.Imputer` of token models.

    A haplotype retrieves by all sites that are typed in a window of the index, or of the panel if
    it retrieves by site, and the model reads parts of at most ``data.max_sites`` sites of it, as in
    training. Sites that are untyped or
    missing are masked. What is retrieved is encoded once for all haplotypes that retrieved it.

    Parameters
    ----------
    panel
        The panel.
    loaded
        A trained token model.
    index
        The panel's index; None: built in memory. A model that retrieves by site uses none.
    device, threads
        See :class:`ragimpute.imputation.options.ImputeOptions`.
    max_bytes
        What a run may use; None: as much as the device has free.
    sites_at_once, reference_bytes
        Pairs of a haplotype and a site in a batch (None: what suits the device and the memory), and
        bytes that encoded references may take. As neither depends on the threads, the result does
        not.
    """

    def __init__(
        self,
        panel: Panel,
        loaded: LoadedModel,
        index: WindowIndex | None,
        *,
        device: str,
        threads: int,
        max_bytes: int | None = None,
        sites_at_once: int | None = None,
        reference_bytes: int | None = None,
    ) -> None:
        self._panel = panel
        self._device = choose_device(device)
        self._model = loaded.model.to(self._device).eval()
        assert loaded.probabilities is not None
        self._probabilities = loaded.probabilities
        self._threads = threads
        self._config = loaded.config
        data = loaded.config.data
        self._num_retrieved = data.num_retrieved
        self._by_site = data.retrieval == "site"
        self._copies = self._by_site or loaded.config.model.li_stephens.offset
        self._copying: tuple[Window, CopyingParameters | None] | None = None
        self._left = 0  # the panel site that the copying window begins with
        self._index: WindowIndex | None = None
        if searches_index(loaded.config):
            self._index = _built(panel) if index is None else index
            searched = self._index.windows
        else:
            require_one_ploidy(panel, "a token model")
            searched = panel.windows
        ranges, self._search_window = cut_windows_to(searched, data.max_sites)
        self._windows = TokenWindows(panel, ranges)
        fits = chunk_bytes_of(self._device) if max_bytes is None else max_bytes // _SHARE
        self._sites_at_once = sites_at_once or self._sites_within(fits)
        self._reference_bytes = reference_bytes or max(1, min(_REFERENCE_BYTES, 2 * fits))
        self.settings: dict[str, object] = {
            "model": loaded.name,
            "states": f"{data.num_retrieved} retrieved "
            + ("by copying at each site" if self._by_site else "in each window"),
            "windows": f"{len(ranges)} of at most {self._windows.length} sites",
            "device": str(self._device),
        }
        self.seconds: dict[str, float] = {}
        self.uses_torch = True
        self.leaves_out = self.expects_r2 = self.is_wide = False

    def _sites_within(self, num_bytes: int) -> int:
        """Pairs of a haplotype and a site of which a batch may consist, >= 1."""
        tokens = self._model.tokens
        assert tokens is not None
        length = self._windows.length
        each = sequence_bytes(tokens.encoder, length, keeps=False) / length
        return max(1, min(_SITES_AT_ONCE[self._device.type], int(num_bytes / each)))

    def prepare(self, target: TargetWindow) -> PreparedTokens:
        """See :meth:`ragimpute.imputation.imputer.Imputer.prepare`."""
        return PreparedTokens(self, target, self._copying_window(target) if self._copies else None)

    def impute(
        self,
        target: TargetWindow,
        copying: tuple[Window, CopyingParameters | None] | None,
        *,
        batch: int,
        put: Callable[[int, int, np.ndarray], None],
    ) -> None:
        """Impute a window; ``copying``: its form that is copied from, and the parameters.

        Both haplotypes of a sample are imputed in the same batch.
        """
        sample = target.sample
        edges = np.flatnonzero(np.diff(sample, prepend=-1, append=-1))
        first, (start, stop) = 0, target.core
        if copying is not None:
            self._copying, self._left = copying, target.left
            per_haplotype = 40 * self._num_retrieved * (target.right - target.left)
            batch = min(batch, max(2, self._reference_bytes // per_haplotype))
        with Stage("network", len(sample) * (stop - start)) as stage:
            while first < len(sample):
                fits = edges[(edges > first) & (edges <= first + batch)]
                last = int(fits[-1] if len(fits) else edges[edges > first][0])
                part = slice(first, last)
                prob = self._impute_part(
                    target._replace(alleles=target.alleles[:, part], sample=sample[part]), stage
                )
                put(first, 0, prob)
                first = last

    def _impute_part(self, target: TargetWindow, stage: Stage) -> np.ndarray:
        """P(ALT) of some haplotypes, shape (b, core sites); advances the stage."""
        left, right, (start, stop), typed_index, alleles, sample = target
        first = np.flatnonzero(np.diff(sample, prepend=-1))
        last = np.append(first[1:], len(sample)) - 1
        pairs = np.stack([first, last], axis=1)  # (S, 2); a haploid sample's one column twice
        known = np.full((right - left, alleles.shape[1]), -1, np.int8)
        known[typed_index - left] = alleles
        copied = self._copy(alleles) if self._copies else None
        out = np.empty((alleles.shape[1], stop - start), np.float32)
        with one_thread_each(self._threads, self._device) as pool:
            ranges = self._windows.ranges
            for window in np.flatnonzero((ranges[:, 0] < stop) & (ranges[:, 1] > start)).tolist():
                first_site = int(ranges[window, 0])
                low, high = np.clip(ranges[window], start, stop).tolist()
                here = None
                if copied is not None:
                    here = self._of_window(copied, window, left, pairs)
                prob = self._impute_window(window, known, left, pairs, pool, here)  # (S, 2, n)
                for i in (1, 0):
                    part = prob[:, i, low - first_site : high - first_site]
                    out[pairs[:, i], low - start : high - start] = part
                stage.advance(len(sample) * (high - low))
        return out

    def _of_window(
        self, copied: CopyingEvidence, window: int, left: int, pairs: np.ndarray
    ) -> CopyingEvidence:
        """What copying says at a window's n sites, of the haplotypes of each pair in turn.

        Sites beyond those that were read are never written: nothing is said of them.
        """
        assert self._copying is not None
        first = left + self._copying[0].core[0]
        start, stop = self._windows.ranges[window].tolist()
        low, high = max(start, first), min(stop, first + copied.sites.shape[1])
        rows = pairs.ravel()
        out = CopyingEvidence.empty(len(rows), self._num_retrieved, stop - start)
        here = copied.part(rows, slice(low - first, high - first))
        out.put(slice(None), slice(low - start, high - start), here)
        return out

    def _copying_window(self, target: TargetWindow) -> tuple[Window, CopyingParameters | None]:
        """A target's window as copying reads it, and the parameters that fit the panel there.

        As for copying models, the panel's own samples say how often each typed site mismatches.
        The core has all sites of the model's windows that the target's core touches.
        """
        left, right, (start, stop), typed_index, _, _ = target
        ranges = self._windows.ranges
        touched = ranges[(ranges[:, 0] < stop) & (ranges[:, 1] > start)]
        low, high = np.clip([touched[:, 0].min(), touched[:, 1].max()], left, right) - left
        window = Window.build(
            self._panel.haplotypes(left, right), self._panel.position_cm[left:right],
            typed_index - left, (int(low), int(high)),
        )  # fmt: skip
        if len(typed_index) == 0:
            return window, None
        seed, owner = self._config.train.seed, self._panel.haplotype_sample
        retriever = retriever_for(window.typed.words, seed=seed, threads=self._threads)
        parameters = fit_panel(window, owner, retriever=retriever, seed=seed, threads=self._threads)
        quality = measure_sites(
            window, owner, parameters, retriever=retriever, seed=seed, threads=self._threads
        )
        return window, replace(parameters, site_mismatch_prob=quality.mismatch_prob)

    def _copy(self, alleles: np.ndarray) -> CopyingEvidence:
        """What copying says of target haplotypes (T, n) at the core of the copying window."""
        watch = Stopwatch(self.seconds)
        assert self._copying is not None
        window, parameters = self._copying
        low, high = self._left + window.core[0], self._left + window.core[1]
        everyone = np.arange(self._panel.num_haplotypes, dtype=np.int32)
        out = collect_copying(
            window, alleles, parameters, self._config.data, allowed=everyone,
            own=np.full((alleles.shape[1], 1), -1), af=self._panel.af[low:high],
            threads=self._threads,
        )  # fmt: skip
        watch.lap("copy")
        return out

    def _impute_window(
        self,
        window: int,
        known: np.ndarray,
        left: int,
        pairs: np.ndarray,
        pool: ThreadPoolExecutor,
        copied: CopyingEvidence | None,
    ) -> np.ndarray:
        """P(ALT) of both haplotypes of each pair at a window's sites, shape (S, 2, n)."""
        watch = Stopwatch(self.seconds)
        start, stop = self._windows.ranges[window].tolist()
        alleles = _sites_of(known, left, start, stop)[pairs]  # (S, 2, n)
        if self._by_site:
            assert copied is not None
            found = copied.ids.reshape(len(pairs), 2, *copied.ids.shape[1:])  # (S, 2, K, n)
        else:
            found = self._retrieve(window, known, left)[pairs]  # (S, 2, K)
        watch.lap("retrieve")
        out = np.empty(alleles.shape, np.float32)
        num_sites = stop - start
        size = max(1, self._sites_at_once // (2 * num_sites))
        tokens = self._model.tokens
        assert tokens is not None
        per_pair = 8 * self._num_retrieved * num_sites * tokens.embedding.dim
        step = size * max(1, self._reference_bytes // (per_pair * size))
        looks_up = tokens.frozen is not None or not self._by_site
        for first in range(0, len(pairs), step):
            here = slice(first, first + step)
            if looks_up:
                tokens.table = self._encode(window, found[here], 2 * size, pool)
            watch.lap("references")

            def run(at: int) -> None:
                rows = slice(at, at + size)
                num = len(alleles[rows])
                batch = self._windows.batch(
                    np.full(num, window),
                    alleles[rows],
                    np.zeros((num, num_sites), bool),
                    found[rows],
                    copying=None if copied is None else copied.part(slice(2 * at, 2 * (at + num))),
                )
                batch = {name: value.to(self._device) for name, value in batch.items()}
                with torch.inference_mode():
                    logits = self._model(batch)
                    for i, h in enumerate(("h1", "h2")):
                        prob = self._probabilities.of(
                            logits[f"{h}_fused"], batch["af"], batch.get(f"ls_logit_{h}")
                        )
                        out[rows, i] = prob.cpu().numpy()

            list(pool.map(run, range(first, min(first + step, len(pairs)), size)))
            watch.lap("network")
        tokens.table = None
        return out

    def _retrieve(self, window: int, known: np.ndarray, left: int) -> np.ndarray:
        """The haplotypes nearest to each column in the index window of a window: (n, K)."""
        assert self._index is not None
        search = int(self._search_window[window])
        start, stop = self._index.windows[search].tolist()
        query = _sites_of(known, left, start, stop)
        return self._index.search(search, query, self._num_retrieved)

    def _encode(
        self, window: int, found: np.ndarray, size: int, pool: ThreadPoolExecutor
    ) -> ReferenceLookup:
        """Encode the haplotypes that were retrieved; returns the function that looks them up."""
        index = np.unique(found)
        index = index[index >= 0]
        block = self._windows.window(window)
        cm, af = (torch.from_numpy(x).to(self._device) for x in (block.position_cm, block.af))

        def run(at: int) -> Tensor:
            token, own = self._windows.references(window, index[at : at + size])
            return self._model.encode_references(
                torch.from_numpy(token.astype(np.int64)).to(self._device), cm, af,
                torch.from_numpy(own).to(self._device),
            )  # fmt: skip

        parts = list(pool.map(run, range(0, len(index), size)))
        assert self._model.tokens is not None
        none = torch.zeros((1, len(af), self._model.tokens.embedding.dim), device=self._device)
        refs = torch.cat([*parts, none])  # (u + 1, n, D)
        place = np.full(self._panel.num_haplotypes + 1, len(index), np.int64)
        place[index] = np.arange(len(index))
        where = torch.from_numpy(place).to(self._device)

        def look_up(_: Tensor, ids: Tensor, site: Tensor | None = None) -> Tensor:
            place = where[ids]  # -1 is the last entry: none
            return refs[place] if site is None else refs[place, site[:, None]]

        return look_up


@dataclass(frozen=True)
class PreparedTokens:
    """The :class:`ragimpute.imputation.imputer.PreparedWindow` of token models.

    Attributes
    ----------
    imputer, target
        What imputes, and the window.
    copying
        The window in the form that is copied from, and the parameters; None: the model does not
        ask what copying says.
    """

    imputer: TokenImputer
    target: TargetWindow
    copying: tuple[Window, CopyingParameters | None] | None

    def impute(self, *, batch: int, put: Callable[[int, int, np.ndarray], None]) -> WindowSays:
        """See :meth:`ragimpute.imputation.imputer.PreparedWindow.impute`.

        A token model does not impute typed sites, and leaves out no sample of the panel.
        """
        self.imputer.impute(self.target, self.copying, batch=batch, put=put)
        return WindowSays()


def _built(panel: Panel) -> WindowIndex:
    """The panel's index, in memory."""
    from ragimpute.retrieval.index import WindowIndex

    return WindowIndex.build(panel)


def _sites_of(known: np.ndarray, left: int, start: int, stop: int) -> np.ndarray:
    """Alleles at sites [start, stop), (n, m): ``known`` (k, n) begins at ``left``; elsewhere -1."""
    out = np.full((known.shape[1], stop - start), -1, np.int8)
    low, high = max(start, left), min(stop, left + len(known))
    if low < high:
        out[:, low - start : high - start] = known[low - left : high - left].T
    return out
