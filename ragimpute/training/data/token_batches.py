"""Leave-one-out training examples for token models: windows, masks and retrieved haplotypes.

An example is a window of the panel and a training sample: two haplotypes under one mask. Each
haplotype retrieves the training haplotypes that resemble it most at the sites that stay typed;
those of its own sample are left out. Validation samples are neither trained on nor retrieved.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ragimpute.config import RunConfig
from ragimpute.errors import PanelError
from ragimpute.model.bert_rag import BERTWithRAG
from ragimpute.model.folder import searches_index
from ragimpute.panel.reader import Panel
from ragimpute.token_model.copying_evidence import CopyingEvidence
from ragimpute.token_model.references import ReferenceTable
from ragimpute.token_model.windows import TokenWindows, cut_windows_to
from ragimpute.training.data.arrays import WindowSites, panel_sites
from ragimpute.training.data.copied_windows import CopiedWindows
from ragimpute.training.data.masks import MaskMixture, linkage_blocks
from ragimpute.training.data.share import WHOLE, Share
from ragimpute.training.data.token_examples import Examples, draw_alone, draw_in_units

if TYPE_CHECKING:  # FAISS is imported only where an index is searched
    from ragimpute.retrieval.index import WindowIndex

_MIN_TRAIN = 2
# Validation examples, at most, whatever the size of the panel; windows_per_epoch may lower it.
_MAX_VALIDATION = 2048
# Streams of random numbers: each draw has a generator seeded by (seed, stream, place).
_ORDER, _TRAIN, _VALIDATION = 11, 12, 13
# Batches are mixed from so many examples, if what copying says of them takes no more memory than
# this.
_MIXED, _MIXED_BYTES = 4096, 2**28


def split_samples(
    panel: Panel, share: float, max_validation: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold samples out for validation, the same share of every population.

    Parameters
    ----------
    panel
        The panel.
    share
        Share of its samples to hold out, in (0, 1); at least one is held out.
    max_validation
        Samples to hold out at most, >= 1.
    seed
        Draws them.

    Returns
    -------
    Training and validation samples, ascending indices into ``panel.samples``, int64.

    Raises
    ------
    PanelError
        If fewer than two samples would be left to train on.
    """
    samples = np.unique(panel.haplotype_sample)
    count = max(1, min(max_validation, round(share * len(samples))))
    count = min(count, len(samples) - _MIN_TRAIN)
    if count < 1:
        raise PanelError(
            f"panel {panel.path} has {len(samples)} samples: training needs two, and validation "
            "another",
            hint="train on a larger panel; imputation works with the default model",
        )
    rng = np.random.default_rng([seed, len(samples)])
    samples = rng.permutation(samples)
    # The i-th sample of a population of n is given the place (i + 1/2) / n. In the order of places,
    # any number of first samples holds about the same share of every population.
    place = np.empty(len(samples))
    group = panel.population[samples]
    for population in np.unique(group):
        members = np.flatnonzero(group == population)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.argsort(place, kind="stable")
    held_out, kept = samples[order[:count]], samples[order[count:]]
    return np.sort(kept).astype(np.int64), np.sort(held_out).astype(np.int64)


class TokenBatches:
    """Batches of masked windows for training and validation of a token model.

    Every draw depends only on the seed, the epoch and the place of the example in the epoch.

    Parameters
    ----------
    panel
        The panel.
    index
        Its index; the sites of one of its windows that stay typed are what a haplotype retrieves
        by, also where the model reads a part of the window only (``data.max_sites``). None if
        haplotypes are retrieved by site: then the panel's windows take the place of the index's.
    config
        Its ``data``, ``mask`` and ``train`` groups count.
    seed
        Of every draw.
    train_samples, validation_samples
        Shape (k,), int: panel samples.
    share
        The rows of each batch, and the validation batches, that this process builds.
    """

    def __init__(
        self,
        panel: Panel,
        index: WindowIndex | None,
        config: RunConfig,
        *,
        seed: int,
        train_samples: np.ndarray,
        validation_samples: np.ndarray,
        share: Share = WHOLE,
    ) -> None:
        self.panel = panel
        self.index = index if searches_index(config) else None
        if self.index is None and searches_index(config):
            raise ValueError("haplotypes retrieved by window need an index")
        self.searched = panel.windows if self.index is None else self.index.windows
        self.config = config
        self.seed = seed
        self.share = share
        self.train_samples = np.unique(train_samples)
        self.validation_samples = np.unique(validation_samples)
        self.masks = MaskMixture(config.mask)
        ranges, self.search_window = cut_windows_to(self.searched, config.data.max_sites)
        self.windows = TokenWindows(panel, ranges)
        self.allowed = np.isin(panel.haplotype_sample, self.train_samples)
        self._pairs = _haplotype_pairs(panel)
        self._linkage: dict[int, np.ndarray] = {}
        self._examples: tuple[int, Examples] | None = None
        self._group: tuple[int, int, np.ndarray, list[np.ndarray], CopyingEvidence] | None = None
        self._validation = self._validation_examples()
        self._baseline: dict[int, np.ndarray] = {}
        searched = np.unique(self.search_window[self._validation[:, 0]]).tolist()
        self._copied = CopiedWindows(
            self.windows, self.searched, config.data, seed=seed, allowed=self.allowed,
            fit_at=((w, self._validation_mask(w)) for w in searched),
        )  # fmt: skip
        self._reads_copying = config.data.retrieval == "site" or config.model.li_stephens.offset

    def add_level(self) -> None:
        """Raise the masks' curriculum by one level."""
        self.masks.add_level()

    def num_examples(self) -> int:
        """Training examples of an epoch."""
        every = len(self.windows.ranges) * len(self.train_samples)
        return min(every, self.config.data.windows_per_epoch or every)

    def num_train_batches(self, epoch: int = 0) -> int:
        """Batches of an epoch; the last one may be short."""
        return -(-self.num_examples() // self.config.train.batch_size)

    def train_batches(self, epoch: int, first_step: int = 0) -> Iterator[dict[str, Tensor]]:
        """The epoch's batches from ``first_step`` on, by as many workers as the config says."""
        steps = range(first_step, self.num_train_batches(epoch))
        workers = min(self.config.data.num_workers, len(steps))
        if workers == 0:
            yield from (self.train_batch(epoch, step) for step in steps)
            return
        # Forked workers share the memory of what was read. None of them uses the accelerator.
        yield from DataLoader(
            _Epoch(self, epoch),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            multiprocessing_context=multiprocessing.get_context("fork"),
            worker_init_fn=None if self.index is None else _start_worker,
        )

    def train_batch(self, epoch: int, step: int) -> dict[str, Tensor]:
        """This process's rows of a training batch.

        See :meth:`ragimpute.token_model.windows.TokenWindows.batch`.
        """
        examples = self._examples_of(epoch)
        size = self.config.train.batch_size
        num = min(size, len(examples.sample) - step * size)
        places = step * size + self.share.rows(num)
        copied = None
        if self._reads_copying:
            masks, copied = self._copied_of_group(epoch, step, places)
        else:
            masks = self._draw_masks(epoch, examples, places)
        window, sample = examples.window[places], examples.sample[places]
        return self.share.counted(self._collate(window, sample, masks, copied), num)

    def _examples_of(self, epoch: int) -> Examples:
        """The examples of an epoch, in the order of its batches."""
        if self._examples is not None and self._examples[0] == epoch:
            return self._examples[1]
        rng = np.random.default_rng([self.seed, _ORDER, epoch])
        samples, num = self.train_samples, self.num_examples()
        if self._reads_copying:
            drawn = draw_in_units(self.search_window, samples, num, self._group_size, rng)
        else:
            drawn = draw_alone(len(self.windows.ranges), samples, num, rng)
        self._examples = epoch, drawn
        return drawn

    @property
    def _group_size(self) -> int:
        """How many examples are copied at a time: those of some whole batches."""
        size = self.config.train.batch_size
        each = CopyingEvidence.bytes_of(2, self.config.data.num_retrieved, self.windows.length)
        return size * max(1, min(_MIXED, _MIXED_BYTES // each) // size)

    def _draw_masks(self, epoch: int, examples: Examples, places: np.ndarray) -> list[np.ndarray]:
        """The mask of the index window of each example: hidden, shape (n,), bool.

        Examples of one unit in one index window share it.
        """
        drawn: dict[tuple[int, int], np.ndarray] = {}
        search = self.search_window[examples.window[places]]
        keys = list(zip(examples.unit[places].tolist(), search.tolist(), strict=True))
        for unit, window in keys:
            if (unit, window) not in drawn:
                place = [unit, window] if self._reads_copying else [unit]
                rng = np.random.default_rng([self.seed, _TRAIN, epoch, *place])
                drawn[unit, window] = self.masks.draw(self._sites(window), rng)
        return [drawn[key] for key in keys]

    def _copied_of_group(
        self, epoch: int, step: int, places: np.ndarray
    ) -> tuple[list[np.ndarray], CopyingEvidence]:
        """The masks of some examples of a batch, and what copying says of them.

        Those of the whole group that the batch is of are kept.
        """
        examples, size = self._examples_of(epoch), self.config.train.batch_size
        group = step * size // self._group_size
        if self._group is None or self._group[:2] != (epoch, group):
            first = group * self._group_size
            last = min(first + self._group_size, len(examples.sample))
            mine = np.concatenate(
                [i + self.share.rows(min(size, last - i)) for i in range(first, last, size)]
            )
            masks = self._draw_masks(epoch, examples, mine)
            found = self._copy(examples.window[mine], examples.sample[mine], masks)
            self._group = epoch, group, mine, masks, found
        _, _, mine, masks, found = self._group
        row = np.searchsorted(mine, places)
        both = np.stack([2 * row, 2 * row + 1], axis=1).ravel()
        return [masks[i] for i in row.tolist()], found.part(both)

    def _copy(
        self, window: np.ndarray, sample: np.ndarray, masks: list[np.ndarray]
    ) -> CopyingEvidence:
        """What copying says of samples in windows under masks of their index windows."""
        out = CopyingEvidence.empty(
            2 * len(window), self.config.data.num_retrieved, self.windows.length
        )
        search = self.search_window[window]
        for s in np.unique(search).tolist():
            rows = np.flatnonzero(search == s)
            here = [masks[i] for i in rows]
            self._copied.fill(out, s, rows, here, window, self._pairs[sample])
        return out

    def validation_batches(self, *, every: bool = False) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """This process's validation batches, or those of all processes, each with its number.

        They hold held-out samples in windows spread over the panel, with a fixed mask for each
        window.
        """
        size = self.config.train.batch_size
        num = -(-len(self._validation) // size)
        for i in range(num):
            if every or self.share.owns(i, num):
                window, sample = self._validation[i * size : (i + 1) * size].T
                search = self.search_window[window].tolist()
                drawn = {w: self._validation_mask(w) for w in sorted(set(search))}
                yield i, self._collate(window, sample, [drawn[w] for w in search])

    def validation_samples_of(self, i: int) -> np.ndarray:
        """The sample of each row of the ``i``-th validation batch, shape (B,), int64."""
        size = self.config.train.batch_size
        return self._validation[i * size : (i + 1) * size, 1]

    def training_af(self, i: int) -> np.ndarray:
        """ALT frequency without the held-out samples at the sites of the ``i``-th validation batch.

        Shape (B, L), float32; 0 at padded sites.
        """
        size = self.config.train.batch_size
        window = self._validation[i * size : (i + 1) * size, 0]
        held_out = np.unique(self._pairs[self.validation_samples])
        out = np.zeros((len(window), self.windows.length), np.float32)
        for w in np.unique(window).tolist():
            start, stop = self.windows.ranges[w].tolist()
            count = self.windows.alleles(start, stop, held_out).sum(axis=0, dtype=np.int64)
            left = self.panel.alt_count[start:stop] - count
            num = self.panel.num_haplotypes - len(held_out)
            out[window == w, : stop - start] = left / num
        return out

    def ls_baseline(self, i: int) -> dict[str, np.ndarray]:
        """Plain Li-Stephens for the ``i``-th validation batch.

        Returns
        -------
        "h1", "h2": shape (B, L), float32, P(ALT) of each haplotype by copying from all training
        haplotypes, from the same typed sites by which it retrieved; 0 at padded sites.
        """
        size = self.config.train.batch_size
        chosen = self._validation[i * size : (i + 1) * size]
        out = np.zeros((2, len(chosen), self.windows.length), np.float32)
        for row, (window, sample) in enumerate(chosen.tolist()):
            search = int(self.search_window[window])
            if search not in self._baseline:
                pairs = self._pairs[self.validation_samples]
                mask = self._validation_mask(search)
                self._baseline[search] = self._copied.probs(search, mask, pairs)
            start, stop = self.windows.ranges[window] - self.searched[search, 0]
            place = np.searchsorted(self.validation_samples, sample)
            out[:, row, : stop - start] = self._baseline[search][place, :, start:stop]
        return {"h1": out[0], "h2": out[1]}

    def refresh_references(
        self,
        model: BERTWithRAG,
        epoch: int,
        device: torch.device,
        *,
        keep_weights: bool = False,
    ) -> None:
        """Encode references for the model to look up, once an epoch or once a run.

        Parameters
        ----------
        model
            A token model of ``reference.mode: precomputed``.
        epoch
            Counted from 0.
        device
            Where embeddings are made, when they are first asked for, and kept as float16.
        keep_weights
            Encode with the weights of the last refresh: needed if a run is resumed amid an epoch.
        """
        if model.tokens is None or model.tokens.frozen is None:
            raise ValueError("the model does not look references up")
        fresh = self.config.model.reference.refresh == "epoch" or epoch == 0
        if fresh and not keep_weights:
            model.tokens.frozen.refresh(model.tokens.references)
        elif model.tokens.table is not None:
            return
        table: Callable[[Tensor, Tensor], Tensor] = ReferenceTable(model, self.windows, device)
        if self.config.train.compile:  # torch.compile cannot trace the look-ups, which numpy does
            table = torch.compiler.disable(table)
        model.tokens.table = table

    def _sites(self, search: int) -> WindowSites:
        """The sites of an index window as masks see them."""
        start, stop = self.searched[search].tolist()
        if self.masks.needs_blocks and search not in self._linkage:
            alleles = self.windows.block(start, stop).haplotypes.alleles()[:, self.allowed]
            self._linkage[search] = linkage_blocks(alleles, self.config.mask.ld_r2)
        return panel_sites(self.panel, start, stop, block=self._linkage.get(search))

    def _validation_mask(self, search: int) -> np.ndarray:
        """The mask of an index window in validation."""
        rng = np.random.default_rng([self.seed, _VALIDATION, search])
        return self.masks.draw_validation(self._sites(search), rng)

    def _validation_examples(self) -> np.ndarray:
        """Windows and samples, shape (n, 2): all samples in each of some index windows."""
        samples = self.validation_samples
        limit = min(_MAX_VALIDATION, self.config.data.windows_per_epoch or _MAX_VALIDATION)
        parts = np.bincount(self.search_window)
        num = int(np.clip(limit / (len(samples) * parts.mean()), 1, len(parts)))
        searched = np.unique((np.arange(num) + 0.5) * len(parts) / num // 1).astype(np.int64)
        window = np.flatnonzero(np.isin(self.search_window, searched))
        return np.stack([np.repeat(window, len(samples)), np.tile(samples, len(window))], axis=1)

    def _collate(
        self,
        window: np.ndarray,
        sample: np.ndarray,
        masks: list[np.ndarray],
        copied: CopyingEvidence | None = None,
    ) -> dict[str, Tensor]:
        """Retrieve for samples in windows under masks of their index windows, and batch them.

        ``copied``: what copying says of them, if that is known.
        """
        num, k = len(window), self.config.data.num_retrieved
        search = self.search_window[window]
        by_site = self.config.data.retrieval == "site"
        length = self.windows.length
        alleles = np.full((num, 2, length), -1, np.int8)
        hidden = np.zeros((num, length), bool)
        found = np.full((num, 2, k, length) if by_site else (num, 2, k), -1, np.int32)
        if self._reads_copying and copied is None:
            copied = self._copy(window, sample, masks)
        pairs = self._pairs[sample]  # (B, 2)
        for s in np.unique(search).tolist():
            rows = np.flatnonzero(search == s)
            start, stop = self.searched[s].tolist()
            ids, inverse = np.unique(pairs[rows], return_inverse=True)
            true = self.windows.alleles(start, stop, ids)[inverse.reshape(-1, 2)]  # (b, 2, n)
            for i, row in enumerate(rows.tolist()):
                low, high = self.windows.ranges[window[row]] - start
                alleles[row, :, : high - low] = true[i, :, low:high]
                hidden[row, : high - low] = masks[row][low:high]
            if self.index is not None:
                query = np.where(np.stack([masks[i] for i in rows])[:, None], -1, true)
                found[rows] = self.index.search(
                    s, query.astype(np.int8).reshape(-1, stop - start), k,
                    exclude=np.repeat(pairs[rows], 2, axis=0), allowed=self.allowed,
                ).reshape(-1, 2, k)  # fmt: skip
        if by_site:
            assert copied is not None
            found = copied.ids.reshape(found.shape)
        return self.windows.batch(window, alleles, hidden, found, copied, own=pairs)


def _haplotype_pairs(panel: Panel) -> np.ndarray:
    """Both haplotypes of each sample, shape (N, 2), int64; a haploid sample's one twice."""
    haplotype = np.arange(panel.num_haplotypes)
    pairs = np.full((len(panel.samples), 2), -1, np.int64)
    pairs[panel.haplotype_sample[::-1], 0] = haplotype[::-1]
    pairs[panel.haplotype_sample, 1] = haplotype
    return pairs


def _start_worker(worker: int) -> None:
    """Keep a forked worker to one thread; torch does so for itself."""
    from ragimpute.retrieval.faiss_threads import search_with_one_thread

    search_with_one_thread()


class _Epoch(Dataset[Any]):
    """A training epoch as a map from step to batch."""

    def __init__(self, batches: TokenBatches, epoch: int) -> None:
        self._batches, self._epoch = batches, epoch

    def __len__(self) -> int:
        return self._batches.num_train_batches(self._epoch)

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self._batches.train_batch(self._epoch, step)
