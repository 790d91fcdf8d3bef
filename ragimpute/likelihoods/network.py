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
    with_reads,
)
from ragimpute.model.folder import read_numbers
from ragimpute.model.site_net import ROWS_AT_ONCE, hidden_layer, sigmoid
from ragimpute.model.trust import Trust, fit_genotype_trust
from ragimpute.presets import models_dir

#: The folder of the shipped network, and its file.
FOLDER, FILE = "likelihoods", "weights.safetensors"
#: What the weights' header says that they read.
INPUT = f"likelihoods-{len(FEATURES)}-1"
#: Samples are classed by the share of sites at which they have reads; the classes end here. These
#: shares are those of mean depths of 0.22 and 0.92.
SHARES = (0.2, 0.6)
_LAYERS = ("embed", "hidden", "last")
# Evidence is held within so many standard deviations of what was trained on.
_FARTHEST = 6.0
# By so many standard errors the squared error of left-out samples has to gain in each class. At
# 0.1x the network changes nothing for Europeans with 600 panel haplotypes, and raises 1 - r2 by 3 %
# with 4,508 of 26 populations, although it has seen neither. From 0.5x on it lowers 1 - r2 by 2 to
# 10 %, so that it is used unless the panel's own samples, which are few, say that they lose.
_LEAST_GAIN = (1.0, -1.0, -1.0)


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
        What is added is multiplied by it, by the minor allele's frequency; one for each class of
        samples by their share of sites with reads, see :data:`SHARES`. None: it is taken as it is.
    """

    mean: np.ndarray
    scale: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    trust: tuple[Trust, ...] | None = None

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
        for first in range(0, len(features), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
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
            of_class = np.stack([trust.of(features[:, MAF]) for trust in self.trust])
            change = change * of_class[_class_of(features), np.arange(len(features))][:, None]
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
        before = features[:, [HET, HOM]]
        log = np.zeros((len(features), 3))
        np.cumsum(before, axis=1, out=log[:, 1:])
        log += np.log(likelihoods)
        added = np.zeros((len(features), 3))
        np.cumsum(self.change(features), axis=1, out=added[:, 1:])
        of_class = _class_of(features)
        trust = []
        for c, least in enumerate(_LEAST_GAIN):
            k = np.flatnonzero(of_class == c)
            given = log[k], added[k], minor[k], features[k, MAF], sample[k]
            trust.append(_trust(*given, least))
        return replace(self, trust=tuple(trust))


def _class_of(features: np.ndarray) -> np.ndarray:
    """The class of the sample by its share of sites with reads, shape (n,), int64."""
    return np.searchsorted(np.log(SHARES), features[:, COVERAGE])


def _trust(
    log: np.ndarray,
    added: np.ndarray,
    minor: np.ndarray,
    maf: np.ndarray,
    sample: np.ndarray,
    least: float,
) -> Trust:
    """The trust of a class of samples; none if their dosages do not gain enough by it.

    ``log``, ``added`` (n, 3): logits of genotypes, and what the network adds to them. ``least``:
    the gain in squared error, in its standard errors.
    """
    trust = fit_genotype_trust(log, added, minor, maf, sample)
    samples, of = np.unique(sample, return_inverse=True)
    gain = np.zeros(len(samples))
    for sign, logits in ((1, log), (-1, log + trust.of(maf)[:, None] * added)):
        weight = np.exp(logits - logits.max(axis=1, keepdims=True))
        dosage = weight @ np.arange(3) / weight.sum(axis=1)
        gain += sign * np.bincount(of, np.square(dosage - minor), len(samples))
    if len(samples) < 2:
        return trust
    error = gain.std(ddof=1) / math.sqrt(len(samples))
    if gain.mean() > least * error:
        return trust
    return replace(trust, share=np.zeros_like(trust.share))
