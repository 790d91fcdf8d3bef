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
from ragimpute.model.trust import Trust, fit_confidence, fit_genotype_trust
from ragimpute.presets import models_dir

#: The folder of the shipped network, and its file.
FOLDER, FILE = "likelihoods", "weights.safetensors"
#: What the weights' header says that they read.
INPUT = f"likelihoods-{len(FEATURES)}-1"
#: The network corrects samples with reads at such a share of sites, a mean depth of 0.1. Below it
#: brings nothing on panels that it has not seen (2.0 +- 1.3 % of the squared error are added).
CORRECTED_SHARE = 0.095
#: Of samples with fewer reads, 0.04x, little is known beside the panel's frequencies, which no
#: confidence must change: they stay as they are.
LEAST_SHARE = 0.04
#: Classes of samples end at these shares of sites with reads, mean depths of 0.22 and 0.92.
SHARES = (0.2, 0.6)
_EDGES = np.log(np.array(SHARES, np.float32))
_LAYERS = ("embed", "hidden", "last")
# Evidence is held within so many standard deviations of what was trained on.
_FARTHEST = 6.0
# Few enough rows that intermediate results stay in the cache.
_ROWS_AT_ONCE = 256
# It lowers 1 - r2 of people that it has not seen, by 1 % at 0.1x and up to 10 % above. So it is
# used unless the squared error of the panel's own samples, which are few, grows by more than so
# many standard errors.
_MOST_LOSS = 1.0


@dataclass(frozen=True)
class Belief:
    """How far a class of samples is to be corrected.

    Attributes
    ----------
    trust
        What the network adds is multiplied by it, by the minor allele's frequency.
    confidence
        The logits are then multiplied by it, > 0: above 1, genotypes are made more certain.
    """

    trust: Trust
    confidence: float


@dataclass(frozen=True)
class GenotypeNetwork:
    """A network of three layers that adds to the two logits of a genotype.

    Attributes
    ----------
    mean, scale
        Shape (F,), float32: features are standardised by them.
    layers
        Weights (D, K) and biases (D,), float32; the last D is 2.
    beliefs
        Of classes of samples, by :data:`SHARES`. None: what is added is taken as it is.
    """

    mean: np.ndarray
    scale: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    beliefs: tuple[Belief, ...] | None = None

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

    def _added(self, features: np.ndarray) -> np.ndarray:
        """As :meth:`change`; 0 for samples with so few reads that they are not corrected."""
        enough = features[:, COVERAGE] >= np.log(np.float32(CORRECTED_SHARE))
        out = np.zeros((len(features), 2), np.float32)
        out[enough] = self.change(features[enough])
        return out

    def genotypes(self, evidence: Evidence) -> np.ndarray:
        """P(number of minor alleles) at the sites in doubt, shape (n, 3), float32."""
        features = evidence.features
        logits = features[:, [HET, HOM]]
        if self.beliefs is None:
            return with_reads(logits + self.change(features), evidence.likelihoods)
        change = self._added(features)
        trust, confidence = np.empty(len(features), np.float32), np.empty(len(features), np.float32)
        of = _classes(features)
        for c, belief in enumerate(self.beliefs):
            k = of == c
            trust[k], confidence[k] = belief.trust.of(features[k, MAF]), belief.confidence
        logits = confidence[:, None] * (logits + trust[:, None] * change)
        return with_reads(logits, evidence.likelihoods)

    def trusted(
        self, features: np.ndarray, likelihoods: np.ndarray, minor: np.ndarray, sample: np.ndarray
    ) -> GenotypeNetwork:
        """The network with the beliefs that samples teach of which the genotypes are known.

        Parameters
        ----------
        features, likelihoods
            Shape (n, F) and (n, 3): evidence of sites in doubt.
        minor
            Shape (n,), int: their minor alleles.
        sample
            Shape (n,), int64: which sample each is of.
        """
        log, reads = log_genotypes(features[:, [HET, HOM]]), np.log(likelihoods)
        added = log_genotypes(self._added(features))
        maf, of = features[:, MAF], _classes(features)

        def belief(k: np.ndarray) -> Belief:
            trust = _trust(log[k] + reads[k], added[k], minor[k], maf[k], sample[k])
            corrected = log[k] + trust.of(maf[k])[:, None] * added[k]
            return Belief(trust, fit_confidence(corrected, reads[k], minor[k], sample[k]))

        return replace(self, beliefs=tuple(belief(of == c) for c in range(len(SHARES) + 1)))


def _classes(features: np.ndarray) -> np.ndarray:
    """The class of each row's sample, shape (n,), int64, by its share of sites with reads."""
    return np.searchsorted(_EDGES, features[:, COVERAGE], side="right")


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
