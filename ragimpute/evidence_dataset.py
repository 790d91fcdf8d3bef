"""Leave-one-out training examples for the copying fusion: evidence at sites in doubt.

For every array drawn, panel haplotypes of training samples are imputed from the rest of the
training samples, without their own; validation samples are imputed from the training samples. So
a validation sample is neither trained on nor retrieved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ragimpute.config import RunConfig
from ragimpute.copying import COPY_ALL_UP_TO, Window, copy_haplotypes, pack_words
from ragimpute.correction import split_sequences
from ragimpute.errors import PanelError
from ragimpute.evidence import collect_evidence, pairs_in_doubt
from ragimpute.likelihood import fit_parameters
from ragimpute.masking import draw_array
from ragimpute.panel import Panel
from ragimpute.retrieval import Retriever

# Example windows are no longer than this: rows of so many sites for every haplotype left out.
_MAX_SITES = 30_000
_MAX_PAIRS = 600_000
_VALIDATION_ARRAYS = 2


@dataclass
class Examples:
    """Left-out haplotypes imputed with one array.

    Attributes
    ----------
    evidence, label, maf, position_cm, haplotype
        Of the P pairs in doubt: shapes (P, F) float32; (P,) int8, 1 = minor allele; (P,) float32;
        (P,) float32; (P,) int64, ascending.
    sequences
        Shape (S, <= L): pairs that see each other, -1 where a sequence is shorter.
    rest
        Of the untyped pairs not in doubt: probability of the minor allele, label and MAF, (R,);
        for validation only.
    """

    evidence: np.ndarray
    label: np.ndarray
    maf: np.ndarray
    position_cm: np.ndarray
    haplotype: np.ndarray
    sequences: np.ndarray
    rest: tuple[np.ndarray, np.ndarray, np.ndarray] | None


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
    ) -> None:
        self.panel = panel
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
        self._epoch: tuple[int, list[Examples]] | None = None
        self._validation: list[Examples] | None = None

    def _haplotypes_of(self, samples: np.ndarray) -> np.ndarray:
        """Panel haplotypes of some samples, ascending."""
        return np.flatnonzero(np.isin(self.panel.haplotype_sample, samples)).astype(np.int32)

    def standardisation(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each feature over the first epoch's pairs: (F,), (F,)."""
        x = np.concatenate([part.evidence for part in self.examples(0)])
        if len(x) == 0:
            return torch.zeros(x.shape[1]), torch.ones(x.shape[1])
        return torch.from_numpy(x.mean(0)), torch.from_numpy(x.std(0))

    def num_train_batches(self, epoch: int = 0) -> int:
        """Batches of an epoch."""
        rows = sum(len(part.sequences) for part in self.examples(epoch))
        return max(1, -(-rows // (2 * self.config.train.batch_size)))

    def examples(self, epoch: int) -> list[Examples]:
        """The epoch's left-out haplotypes, one entry for each array; the last epoch is kept."""
        if self._epoch is None or self._epoch[0] != epoch:
            data = self.config.data
            parts = []
            for array in range(data.num_arrays):
                rng = np.random.default_rng([self.seed, 1, epoch, array])
                low, high = np.log(data.typed_per_mb)
                density = float(np.exp(rng.uniform(low, high)))
                left_out = rng.permutation(self.pool)[: data.max_haplotypes]
                parts.append(self._leave_out(np.sort(left_out), density, rng))
            self._epoch = (epoch, parts)
        return self._epoch[1]

    def validation(self) -> list[Examples]:
        """Held-out haplotypes, imputed with a few fixed arrays over the range of densities."""
        if self._validation is None:
            low, high = np.log(self.config.data.typed_per_mb)
            self._validation = []
            for i in range(_VALIDATION_ARRAYS):
                rng = np.random.default_rng([self.seed, 2, i])
                density = float(np.exp(low + (high - low) * (i + 1) / (_VALIDATION_ARRAYS + 1)))
                self._validation.append(
                    self._leave_out(self.held_out, density, rng, with_rest=True)
                )
        return self._validation

    def train_batches(self, epoch: int, first_step: int = 0) -> Iterator[dict[str, Tensor]]:
        """The epoch's batches from ``first_step`` on, in an order that the seed fixes."""
        parts = self.examples(epoch)
        which = np.concatenate([np.full(len(p.sequences), i) for i, p in enumerate(parts)])
        row = np.concatenate([np.arange(len(p.sequences)) for p in parts])
        order = np.random.default_rng([self.seed, 3, epoch]).permutation(len(row))
        yield from self._batches(parts, which[order], row[order], first_step)

    def validation_batches(self) -> Iterator[dict[str, Tensor]]:
        """All held-out pairs in doubt."""
        parts = self.validation()
        which = np.concatenate([np.full(len(p.sequences), i) for i, p in enumerate(parts)])
        row = np.concatenate([np.arange(len(p.sequences)) for p in parts])
        yield from self._batches(parts, which, row, 0)

    def validation_rest(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Held-out pairs that the network leaves as they are: P(minor), label, MAF."""
        for part in self.validation():
            if part.rest is not None:
                yield part.rest

    def _batches(
        self, parts: list[Examples], which: np.ndarray, row: np.ndarray, first_step: int
    ) -> Iterator[dict[str, Tensor]]:
        """Sequences in order, two to a row of the batch."""
        size = 2 * self.config.train.batch_size
        for start in range(first_step * size, len(row), size):
            chosen = list(zip(which[start : start + size], row[start : start + size], strict=True))
            length = max(parts[i].sequences.shape[1] for i, _ in chosen)
            num_features = parts[0].evidence.shape[1]
            half = -(-len(chosen) // 2)
            batch: dict[str, Tensor] = {}
            for h, members in (("h1", chosen[:half]), ("h2", chosen[half:])):
                evidence = np.zeros((half, length, num_features), np.float32)
                pos = np.zeros((half, length), np.float32)
                af = np.full((half, length), 0.5, np.float32)
                label = np.full((half, length), -1, np.int64)
                for i, (part_index, r) in enumerate(members):
                    part = parts[part_index]
                    at = part.sequences[r]
                    at = at[at >= 0]
                    evidence[i, : len(at)] = part.evidence[at]
                    pos[i, : len(at)] = part.position_cm[at]
                    af[i, : len(at)] = part.maf[at]
                    label[i, : len(at)] = part.label[at]
                batch[f"evidence_{h}"] = torch.from_numpy(evidence)
                batch[f"ls_logit_{h}"] = torch.from_numpy(evidence[..., 0].copy())
                batch[f"pos_{h}"] = torch.from_numpy(pos)
                batch[f"af_{h}"] = torch.from_numpy(af)
                batch[f"label_{h}"] = torch.from_numpy(label)
                batch[f"pad_{h}"] = torch.from_numpy(label < 0)
                batch[f"mask_{h}"] = torch.from_numpy(label >= 0)
            yield batch

    def _leave_out(
        self,
        left_out: np.ndarray,
        density: float,
        rng: np.random.Generator,
        *,
        with_rest: bool = False,
    ) -> Examples:
        """Impute haplotypes from the training samples without their own, with a drawn array."""
        panel = self.panel
        start = 0
        if panel.num_sites > _MAX_SITES:
            start = int(rng.integers(panel.num_sites - _MAX_SITES + 1))
        stop = min(panel.num_sites, start + _MAX_SITES)
        typed = draw_array(panel, start, stop, density, rng) - start
        haplotypes = panel.haplotypes(start, stop)
        window = Window.build(haplotypes, panel.position_cm[start:stop], typed)
        # Chosen as for imputation: the network sees what it will see.
        parameters = fit_parameters(
            window, panel.haplotype_sample, seed=self.seed, threads=self.threads
        )
        alleles = haplotypes.alleles()[:, left_out]
        target = np.ascontiguousarray(alleles[typed])
        states, own = self._states(window, target, left_out)
        prob = copy_haplotypes(window, target, parameters, states=states, threads=self.threads)
        observed = np.zeros(prob.shape, bool)
        observed[:, typed] = True
        net = self.config.model.copying
        pairs = pairs_in_doubt(prob, observed, doubt=net.doubt)
        if len(pairs) > _MAX_PAIRS:
            keep = rng.permutation(len(left_out))[
                : max(1, len(left_out) * _MAX_PAIRS // len(pairs))
            ]
            pairs = pairs[np.isin(pairs[:, 0], keep)]
        evidence = collect_evidence(
            window, target, parameters, pairs, states=states, own=own, threads=self.threads
        )
        # Frequencies without the left-out sample: what an outside target would see.
        minor = haplotypes.alt_is_minor
        count = window.num_minor()
        carrier = (alleles == minor[:, None]).T  # (n, M)
        label = carrier[pairs[:, 0], pairs[:, 1]].astype(np.int8)
        maf = (count / panel.num_haplotypes).astype(np.float32)
        rest = None
        if with_rest:
            untyped = ~observed
            untyped[pairs[:, 0], pairs[:, 1]] = False
            h, u = np.nonzero(untyped)
            p_minor = np.where(minor[u], prob[h, u], 1 - prob[h, u]).astype(np.float32)
            rest = (p_minor, carrier[h, u].astype(np.float32), maf[u])
        return Examples(
            evidence=evidence,
            label=label,
            maf=maf[pairs[:, 1]],
            position_cm=window.position_cm[pairs[:, 1]].astype(np.float32),
            haplotype=pairs[:, 0],
            sequences=split_sequences(pairs[:, 0], net.max_context),
            rest=rest,
        )

    def _states(
        self, window: Window, target: np.ndarray, left_out: np.ndarray
    ) -> tuple[Callable[[int], np.ndarray], Callable[[int], np.ndarray]]:
        """Callables: states of haplotype i, and the haplotypes of its own sample."""
        of = self.panel.haplotype_sample

        def own(i: int) -> np.ndarray:
            return np.flatnonzero(of == of[left_out[i]]).astype(np.int32)

        if len(self.pool) <= COPY_ALL_UP_TO:
            pool_sample = of[self.pool]

            def states(i: int) -> np.ndarray:
                return self.pool[pool_sample != of[left_out[i]]][None]

            return states, own
        retriever = Retriever(window.typed.words[:, self.pool], seed=self.seed)
        place = np.full(len(of), -1, np.int32)
        place[self.pool] = np.arange(len(self.pool), dtype=np.int32)
        exclude = place[np.array([[*own(i), -1][:2] for i in range(len(left_out))])]
        found = self.pool[retriever.states(pack_words(target)[0], exclude)]
        return (lambda i: found[i]), own


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

    def examples(self, epoch: int) -> list[Examples]:
        """The epoch's left-out haplotypes of all panels."""
        return [examples for part in self.parts for examples in part.examples(epoch)]

    def validation(self) -> list[Examples]:
        """Held-out haplotypes of all panels."""
        return [examples for part in self.parts for examples in part.validation()]
