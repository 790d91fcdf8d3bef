"""The network that corrects P(genotype) where a sample with likelihoods is in doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ragimpute.kernels.linear import linear_rows
from ragimpute.likelihoods.evidence import (
    COVERAGE,
    FEATURES,
    HET,
    HOM,
    MAF,
    Evidence,
    log_genotypes,
    with_reads,
)
from ragimpute.model.folder import read_numbers
from ragimpute.model.site_net import hidden_layer, sigmoid, softmax
from ragimpute.model.trust import Trust, fit_genotype_trust
from ragimpute.presets import models_dir

#: The folder of the shipped network, and its file.
FOLDER, FILE = "likelihoods", "weights.safetensors"
#: What the weights' header says that they read.
INPUT = f"likelihoods-{len(FEATURES)}-1"
#: Samples with reads at a smaller share of sites, a mean depth of 0.22, are not corrected. At 0.1x
#: the network raises 1 - r2 by 3 % for 600 haplotypes of Europeans and for 4,508 of 26 populations,
#: none of which it has seen.
LEAST_SHARE = 0.2
#: Other samples are classed by this share, a mean depth of 0.92.
SHARE = 0.6
_LAYERS = ("embed", "hidden", "last")
# Evidence is held within so many standard deviations of what was trained on.
_FARTHEST = 6.0
# Few enough rows that intermediate results stay in the cache.
_ROWS_AT_ONCE = 256
# From 0.5x on it lowers 1 - r2 of people that it has not seen by 1 to 10 %. So it is used unless
# the squared error of the panel's own samples, which are few, grows by more than so many standard
# errors.
_MOST_LOSS = 1.0


@dataclass(frozen=True)
class GenotypeNetwork:
    """A network of three layers that adds to the two logits of a genotype.

    Attributes
    ----------
    mean, scale
        Shape (F,), float32: features are standardised by them.
    layers
        Weights (D, K) and biases (D,), float32; the last D is 2.
    trust
        What is added is multiplied by it, by the minor allele's frequency: of samples that have
        reads at a share of sites below :data:`SHARE`, and of others. None: it is taken as it is.
    """

    mean: np.ndarray
    scale: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    trust: tuple[Trust, Trust] | None = None

    @classmethod
    def shipped(cls) -> GenotypeNetwork | None:
        """The network that ships; None if its file is not there.

        Raises
        ------
        ModelError
            If its file is damaged, or was made for other evidence.
        """
        path = models_dir() / FOLDER / FILE
        return cls.read(path) if path.is_file() else None

    @classmethod
    def read(cls, path: Path) -> GenotypeNetwork:
        """The network in a file of weights.

        Raises
        ------
        ModelError
            If it is damaged, or was made for other evidence.
        """
        found = read_numbers(path, INPUT)
        layers = tuple((found[f"{name}.weight"], found[f"{name}.bias"]) for name in _LAYERS)
        return cls(found["mean"], found["scale"], layers)

    def tensors(self) -> dict[str, np.ndarray]:
        """What :meth:`read` reads, by name."""
        out = {"mean": self.mean, "scale": self.scale}
        for name, (weight, bias) in zip(_LAYERS, self.layers, strict=True):
            out |= {f"{name}.weight": weight, f"{name}.bias": bias}
        return out

    def standardised(self, features: np.ndarray) -> np.ndarray:
        """Features (n, F) as the first layer reads them, float32."""
        x = (features - self.mean) / self.scale
        out: np.ndarray = np.clip(x, -_FARTHEST, _FARTHEST).astype(np.float32)
        return out

    def change(self, features: np.ndarray) -> np.ndarray:
        """What is added to the logits of n genotypes, before trust: shape (n, 2), float32."""
        out = np.empty((len(features), 2), np.float32)
        for first in range(0, len(features), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            x = self.standardised(features[rows])
            for weight, bias in self.layers[:-1]:
                x = hidden_layer(x, weight, bias, sigmoid, linear_rows)
            out[rows] = linear_rows(x, *self.layers[-1])
        return out

    def genotypes(self, evidence: Evidence) -> np.ndarray:
        """P(number of minor alleles) at the sites in doubt, shape (n, 3), float32."""
        features = evidence.features
        change = self.change(features)
        if self.trust is not None:
            few, many = (trust.of(features[:, MAF]) for trust in self.trust)
            change = change * np.where(_has_few(features), few, many)[:, None]
        return with_reads(features[:, [HET, HOM]] + change, evidence.likelihoods)

    def trusted(
        self, features: np.ndarray, likelihoods: np.ndarray, minor: np.ndarray, sample: np.ndarray
    ) -> GenotypeNetwork:
        """The network with the trust that samples teach of which the genotypes are known.

        Parameters
        ----------
        features, likelihoods
            Shape (n, F) and (n, 3): evidence of sites in doubt.
        minor
            Shape (n,), int: their minor alleles.
        sample
            Shape (n,), int64: which sample each is of.
        """
        log = log_genotypes(features[:, [HET, HOM]]) + np.log(likelihoods)
        added = log_genotypes(self.change(features))
        few = _has_few(features)

        def of(k: np.ndarray) -> Trust:
            return _trust(log[k], added[k], minor[k], features[k, MAF], sample[k])

        return replace(self, trust=(of(few), of(~few)))


def _has_few(features: np.ndarray) -> np.ndarray:
    """Whether the sample has reads at a share of sites below SHARE, shape (n,), bool."""
    out: np.ndarray = features[:, COVERAGE] < np.log(SHARE)
    return out


def _trust(
    log: np.ndarray, added: np.ndarray, minor: np.ndarray, maf: np.ndarray, sample: np.ndarray
) -> Trust:
    """The trust of a class of samples; none if their dosages lose by it.

    ``log``, ``added`` (n, 3): logits of genotypes, and what the network adds to them.
    """
    trust = fit_genotype_trust(log, added, minor, maf, sample)
    samples, of = np.unique(sample, return_inverse=True)
    if len(samples) < 2:
        return trust
    gain = np.zeros(len(samples))
    for sign, logits in ((1, log), (-1, log + trust.of(maf)[:, None] * added)):
        dosage = softmax(logits) @ np.arange(3)
        gain += sign * np.bincount(of, np.square(dosage - minor), len(samples))
    error = gain.std(ddof=1) / math.sqrt(len(samples))
    if gain.mean() < -_MOST_LOSS * error:
        return replace(trust, share=np.zeros_like(trust.share))
    return trust
