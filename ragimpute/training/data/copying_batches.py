"""Leave-one-out training examples for the copying fusion: evidence at sites in doubt.

For every array that is drawn, a group of training samples is imputed from a panel of the other
training samples, and validation samples from a panel of all training samples. The whole group is
left out of the panel together, so that nothing that is measured on the panel, such as the quality
of its sites, depends on the alleles that are to be predicted. A validation sample is neither
trained on nor retrieved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ragimpute.config import RunConfig
from ragimpute.copying.choose_parameters import fit_panel
from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.states import retriever_for, states_for
from ragimpute.copying.window import Window
from ragimpute.copying_model.pair_network import split_sequences
from ragimpute.errors import PanelError
from ragimpute.evidence.collect import collect_evidence
from ragimpute.evidence.doubt import pairs_in_doubt
from ragimpute.evidence.features import TOKEN_UNIT
from ragimpute.evidence.kernel_arrays import empty_tokens
from ragimpute.evidence.other_haplotype import homolog_probs, homologs_of
from ragimpute.evidence.site_quality import measure_sites
from ragimpute.panel.haplotypes import Haplotypes, keep_haplotypes
from ragimpute.panel.reader import Panel
from ragimpute.training.data.arrays import draw_array, draw_length, draw_stretch
from ragimpute.training.data.masks import MaskMixture
from ragimpute.training.data.share import WHOLE, Share

# An example window has at most so many sites: memory holds a row of them for each haplotype that is
# left out.
_MAX_SITES = 30_000
_SHORT_SITES = 800, 10_000  # range of the number of sites of a short stretch
_VALIDATION_ARRAYS = 2
_MOMENTS_OF = 10  # mean and deviation of tokens are computed from every tenth pair
# Arrays type at most and at least so large shares of a panel's sites.
_MOST_TYPED, _LEAST_TYPED = 0.5, 0.025
_LEFT_OUT_SHARE = 0.2  # largest share of training samples left out: the panel must stay alike


@dataclass
class Examples:
    """Left-out haplotypes imputed with one array.

    Attributes
    ----------
    evidence, label, maf, position_cm, haplotype
        Of the P pairs in doubt: shapes (P, F) float; (P,) int8, 1 = minor allele; (P,) float32;
        (P,) float32; (P,) int64, ascending.
    tokens
        Shape (P, S, C), int16, of the same pairs; None where the network reads no states.
    sequences
        Shape (S, <= L): pairs that see each other, -1 where a sequence is shorter.
    rest
        Of the untyped pairs not in doubt: probability of the minor allele, label and MAF, (R,);
        for validation only.
    """

    evidence: np.ndarray
    tokens: np.ndarray | None
    label: np.ndarray
    maf: np.ndarray
    position_cm: np.ndarray
    haplotype: np.ndarray
    sequences: np.ndarray
    rest: tuple[np.ndarray, np.ndarray, np.ndarray] | None


class _Joined:
    """The examples of several arrays, joined so that one look-up makes a batch.

    The arrays of each :class:`Examples` become views of the joined ones, so that nothing is held
    twice. Evidence is kept as float16: it consists of logarithms and shares, of which training
    needs three digits.
    """

    def __init__(self, parts: list[Examples]) -> None:
        edges = np.cumsum([0, *(len(part.label) for part in parts)])
        self.evidence: np.ndarray = _join(parts, "evidence", edges, np.float16)
        self.label: np.ndarray = _join(parts, "label", edges)
        self.maf: np.ndarray = _join(parts, "maf", edges)
        self.position_cm: np.ndarray = _join(parts, "position_cm", edges)
        self.tokens: np.ndarray | None = None
        if parts[0].tokens is not None:
            self.tokens = _join(parts, "tokens", edges)
        length = max(part.sequences.shape[1] for part in parts)
        self.sequences = np.full((sum(len(p.sequences) for p in parts), length), -1, np.int64)
        first = 0
        for part, start in zip(parts, edges[:-1], strict=True):
            stop = first + len(part.sequences)
            there = part.sequences >= 0
            rows = self.sequences[first:stop, : part.sequences.shape[1]]
            rows[there] = part.sequences[there] + start
            first = stop

    def batch(self, chosen: np.ndarray, share: Share = WHOLE) -> dict[str, Tensor]:
        """Make a share of a batch of sequences: its first half becomes h1, the others h2."""
        num_rows = -(-len(chosen) // 2)
        rows = share.rows(num_rows)
        half = len(rows)
        both = np.full(2 * num_rows, -1, np.int64)
        both[: len(chosen)] = chosen
        both = both.reshape(2, num_rows)[:, rows].ravel()  # (2 half,)
        index = np.full((2 * half, self.sequences.shape[1]), -1, np.int64)
        index[both >= 0] = self.sequences[both[both >= 0]]
        index = index[:, : max(1, int((index >= 0).sum(axis=1).max()))]
        pad = index < 0
        at = np.where(pad, 0, index)

        def numbers(of: np.ndarray, nothing: float) -> np.ndarray:
            out: np.ndarray = of[at]
            out[pad] = nothing
            return out

        found = {
            "evidence": numbers(self.evidence, 0).astype(np.float32),
            "pos": numbers(self.position_cm, 0),
            "af": numbers(self.maf, 0.5),
            "label": numbers(self.label, -1).astype(np.int64),
            "pad": pad,
            "mask": ~pad,
        }
        found["ls_logit"] = found["evidence"][..., 0].copy()
        if self.tokens is not None:
            found["tokens"] = numbers(self.tokens, 0)
        batch = {
            f"{name}_{h}": torch.from_numpy(of[part])
            for name, of in found.items()
            for h, part in (("h1", slice(half)), ("h2", slice(half, None)))
        }
        return share.counted(batch, num_rows)


def _join(
    parts: list[Examples], name: str, edges: np.ndarray, dtype: type | None = None
) -> np.ndarray:
    """Join one field of all parts; the field of each part becomes a view of the joined array."""
    first = getattr(parts[0], name)
    whole = np.empty((int(edges[-1]), *first.shape[1:]), dtype or first.dtype)
    for part, start, stop in zip(parts, edges[:-1], edges[1:], strict=True):
        whole[start:stop] = getattr(part, name)
        setattr(part, name, whole[start:stop])
    return whole


class EvidenceBatches:
    """Batches of sites in doubt for training and validation of a copying model.

    Parameters
    ----------
    panel
        The panel.
    config
        Its ``data``, ``mask`` and ``train`` groups count.
    seed
        Of every draw; the same seed, epoch and step give the same batch.
    train_samples, validation_samples
        Shape (k,), int: panel samples.
    threads
        For the copying.
    share
        The rows of each batch, and the validation batches, that this process builds.
    """

    def __init__(
        self,
        panel: Panel,
        config: RunConfig,
        *,
        seed: int,
        train_samples: np.ndarray,
        validation_samples: np.ndarray,
        threads: int = 1,
        share: Share = WHOLE,
    ) -> None:
        self.panel = panel
        self.share = share
        self.config = config
        self.seed = seed
        self.threads = threads
        self.pool = self._haplotypes_of(train_samples)
        self.held_out = self._haplotypes_of(validation_samples)
        if len(np.unique(panel.haplotype_sample[self.pool])) < 2:
            raise PanelError(
                f"panel {panel.path} has {len(train_samples)} samples to train on",
                hint="training leaves samples out and needs three at least",
            )
        self._masks = MaskMixture(config.mask)
        self._drawn: tuple[int, list[Examples]] | None = None
        self._joined: _Joined | None = None
        self._joined_validation: _Joined | None = None
        self._validation: list[Examples] | None = None

    def _draw_group(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a few training samples to leave out; returns their haplotypes, ascending."""
        of = self.panel.haplotype_sample
        samples = rng.permutation(np.unique(of[self.pool]))
        num = min(self.config.data.max_haplotypes // 2, int(_LEFT_OUT_SHARE * len(samples)))
        return self._haplotypes_of(samples[: max(1, num)])

    def _haplotypes_of(self, samples: np.ndarray) -> np.ndarray:
        """Panel haplotypes of some samples, ascending."""
        return np.flatnonzero(np.isin(self.panel.haplotype_sample, samples)).astype(np.int32)

    def standardisation(self) -> tuple[Tensor, ...]:
        """Mean and standard deviation of each feature over the first epoch's pairs: (F,), (F,).

        If the network reads states one by one, the mean and the standard deviation of each number
        of a token, (C,), (C,), follow.
        """
        parts = self.examples(0)
        moments = _moments([part.evidence for part in parts])
        tokens = [part.tokens[::_MOMENTS_OF] for part in parts if part.tokens is not None]
        if tokens:
            x = np.concatenate(tokens)  # (P, S, C)
            x = (x[x[..., 0] > 0] * TOKEN_UNIT).astype(np.float32)
            x[:, 0] = 0  # this column only says that a token is there: it is not standardised
            moments += _moments([x])
        return moments

    def num_train_batches(self, epoch: int = 0) -> int:
        """Batches of an epoch."""
        rows = sum(len(part.sequences) for part in self.examples(epoch))
        return max(1, -(-rows // (2 * self.config.train.batch_size)))

    def examples(self, epoch: int) -> list[Examples]:
        """The epoch's left-out haplotypes, one entry for each array; the last draw is kept."""
        draw = epoch // self.config.data.epochs_per_draw
        if self._drawn is None or self._drawn[0] != draw:
            self._drawn = self._joined = None  # memory may not hold two draws
            self._drawn = draw, self._draw(draw)
        return self._drawn[1]

    def _draw(self, draw: int) -> list[Examples]:
        """Draw the left-out haplotypes of an epoch, one entry for each array."""
        data = self.config.data
        low, high = self._densities()
        parts = []
        for array in range(data.num_arrays):
            rng = np.random.default_rng([self.seed, 1, draw, array])
            density = float(np.exp(rng.uniform(low, high)))
            is_short = array >= data.num_arrays - data.short_arrays
            num_sites = draw_length(*_SHORT_SITES, rng) if is_short else None
            group = self._draw_group(rng)
            parts.append(self._leave_out(group, density, rng, num_sites=num_sites))
        return parts

    def _densities(self) -> tuple[float, float]:
        """The range of the logarithm of arrays' densities, in typed sites per Mb.

        In a panel that has few sites itself, as one that was typed by an array, arrays type at most
        half of them, and as little as a fortieth.
        """
        low, high = self.config.data.typed_per_mb
        at = self.panel.sites.position_bp
        of_panel = len(at) / max(1e-6 * (int(at[-1]) - int(at[0]) + 1), 1e-6)
        high = min(high, _MOST_TYPED * of_panel)
        low = min(low, _LEAST_TYPED * of_panel, high)
        return float(np.log(low)), float(np.log(high))

    def validation(self) -> list[Examples]:
        """Validation haplotypes, imputed with a few fixed arrays of different densities."""
        if self._validation is None:
            low, high = self._densities()
            self._validation = []
            for i in range(_VALIDATION_ARRAYS):
                rng = np.random.default_rng([self.seed, 2, i])
                density = float(np.exp(low + (high - low) * (i + 1) / (_VALIDATION_ARRAYS + 1)))
                self._validation.append(
                    self._leave_out(self.held_out, density, rng, with_rest=True)
                )
        return self._validation

    def train_batches(self, epoch: int, first_step: int = 0) -> Iterator[dict[str, Tensor]]:
        """This process's rows of the epoch's batches from ``first_step`` on.

        The seed fixes their order.
        """
        parts = self.examples(epoch)
        if self._joined is None:
            self._joined = _Joined(parts)
        joined = self._joined
        order = np.random.default_rng([self.seed, 3, epoch]).permutation(len(joined.sequences))
        size = 2 * self.config.train.batch_size  # two sequences to a row
        for start in range(first_step * size, len(order), size):
            yield joined.batch(order[start : start + size], self.share)

    def validation_batches(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """This process's batches of all held-out pairs in doubt, each with its number."""
        if self._joined_validation is None:
            self._joined_validation = _Joined(self.validation())
        joined = self._joined_validation
        size = 2 * self.config.train.batch_size
        num = -(-len(joined.sequences) // size)
        for i in range(num):
            if self.share.owns(i, num):
                stop = min((i + 1) * size, len(joined.sequences))
                yield i, joined.batch(np.arange(i * size, stop))

    def validation_rest(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Validation pairs not in doubt, which no network changes: P(minor), label, MAF."""
        for part in self.validation():
            if part.rest is not None:
                yield part.rest

    def _leave_out(
        self,
        left_out: np.ndarray,
        density: float,
        rng: np.random.Generator,
        *,
        num_sites: int | None = None,
        with_rest: bool = False,
    ) -> Examples:
        """Impute haplotypes from the other training samples, with a drawn array."""
        panel = self.panel
        start, stop = draw_stretch(panel, num_sites or _MAX_SITES, rng)
        typed = draw_array(panel, start, stop, density, rng) - start
        whole = panel.haplotypes(start, stop)
        window, kept = self._window(whole, left_out, panel.position_cm[start:stop], typed)
        haplotypes, sample = window.haplotypes, panel.haplotype_sample[kept]
        retriever = retriever_for(window.typed.words, seed=self.seed)
        # ne and err are chosen as for imputation: the network is trained on what it will see.
        parameters = fit_panel(window, sample, seed=self.seed, threads=self.threads)
        quality = measure_sites(
            window, sample, parameters,
            retriever=retriever, seed=self.seed, threads=self.threads,
        )  # fmt: skip
        parameters = replace(parameters, site_mismatch_prob=quality.mismatch_prob)
        alleles = whole.alleles()[:, left_out]
        target = np.ascontiguousarray(alleles[typed])
        if not with_rest:
            self._hide(target, rng)
        states = states_for(retriever, len(kept), target)
        prob = copy_haplotypes(window, target, parameters, states=states, threads=self.threads)
        observed = np.zeros(prob.shape, bool)
        observed[:, typed] = (target >= 0).T
        net = self.config.model.copying
        pairs = pairs_in_doubt(prob, observed, doubt=net.doubt)
        most = self.config.data.max_pairs
        if len(pairs) > most:
            keep = rng.permutation(len(left_out))[: max(1, len(left_out) * most // len(pairs))]
            pairs = pairs[np.isin(pairs[:, 0], keep)]
        tokens = empty_tokens(len(pairs), net.num_set_tokens) if net.num_set_tokens else None
        homolog = homologs_of(panel.haplotype_sample[left_out])
        evidence = collect_evidence(
            window, target, parameters, pairs, states=states, quality=quality.features,
            homolog_prob=homolog_probs(prob, homolog, pairs), tokens=tokens, threads=self.threads,
        )  # fmt: skip
        minor = haplotypes.alt_is_minor
        count = window.num_minor
        carrier = (alleles == minor[:, None]).T  # (n, M)
        label = carrier[pairs[:, 0], pairs[:, 1]].astype(np.int8)
        maf = (count / len(kept)).astype(np.float32)
        rest = None
        if with_rest:
            untyped = ~observed
            untyped[pairs[:, 0], pairs[:, 1]] = False
            h, u = np.nonzero(untyped)
            p_minor = np.where(minor[u], prob[h, u], 1 - prob[h, u]).astype(np.float32)
            rest = (p_minor, carrier[h, u].astype(np.float32), maf[u])
        return Examples(
            evidence=evidence,
            tokens=tokens,
            label=label,
            maf=maf[pairs[:, 1]],
            position_cm=window.position_cm[pairs[:, 1]].astype(np.float32),
            haplotype=pairs[:, 0],
            sequences=split_sequences(pairs[:, 0], net.max_context),
            rest=rest,
        )

    def _hide(self, target: np.ndarray, rng: np.random.Generator) -> None:
        """If a random mask is drawn, hide some typed alleles of each haplotype, in place."""
        part = self._masks.draw_part(rng)
        if part.name == "random":
            target[rng.random(target.shape) < part.rate] = -1

    def _window(
        self,
        whole: Haplotypes,
        left_out: np.ndarray,
        position_cm: np.ndarray,
        typed_index: np.ndarray,
    ) -> tuple[Window, np.ndarray]:
        """The panel without what is left out, and the haplotypes that it keeps, ascending."""
        stays = np.zeros(whole.num_haplotypes, bool)
        stays[self.pool] = True
        stays[left_out] = False
        window = Window.build(keep_haplotypes(whole, stays), position_cm, typed_index)
        return window, np.flatnonzero(stays)


def _moments(parts: list[np.ndarray]) -> tuple[Tensor, ...]:
    """Mean and standard deviation of each column of all rows; 0 and 1 where there are none."""
    num, width = sum(map(len, parts)), parts[0].shape[1]
    if num == 0:
        return torch.zeros(width), torch.ones(width)
    mean, square = np.zeros(width), np.zeros(width)
    for part in parts:
        mean += part.sum(axis=0, dtype=np.float64) / num
        square += np.square(part, dtype=np.float64).sum(axis=0) / num
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(deviation.astype(np.float32))


class PooledEvidenceBatches(EvidenceBatches):
    """Batches drawn from several panels at once, so that weights carry over to others.

    Parameters
    ----------
    parts
        The batches of each panel, of one config and seed.
    """

    def __init__(self, parts: Sequence[EvidenceBatches]) -> None:
        if not parts:
            raise ValueError("there is no panel to draw from")
        self.parts = tuple(parts)
        self.config = parts[0].config
        self.seed = parts[0].seed
        self.share = parts[0].share
        self._drawn = self._joined = self._joined_validation = None

    def _draw(self, draw: int) -> list[Examples]:
        """Draw the left-out haplotypes of all panels."""
        return [examples for part in self.parts for examples in part._draw(draw)]

    def validation(self) -> list[Examples]:
        """Held-out haplotypes of all panels."""
        return [examples for part in self.parts for examples in part.validation()]
