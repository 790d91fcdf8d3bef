"""What a network reads of a diploid sample at the sites where its genotype is in doubt.

All is about the minor allele, and nothing but one column depends on the reads of the site itself:
the network corrects what is known before they are looked at, and they are multiplied afterwards.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.likelihoods.evidence_kernel import (
    NUM_COLUMNS,
    Asked,
    EvidenceScratch,
    HaploidSteps,
    describe_copying,
)
from ragimpute.likelihoods.model import SiteMismatch
from ragimpute.likelihoods.states import Groups, Reads, Walk, beside

#: A genotype is in doubt if no genotype is as probable as this before its own reads. With .9998,
#: five times as many sites are described, whose errors are 4 % of all at 1x.
DOUBT = 0.999
#: Logits in the evidence lie within +- this.
LIMIT = 9.0

_HAPLOTYPE = (
    "prob",  # logit of P(minor allele is copied) by the reads on both sides
    "left",  # the same by those on the left
    "right",  # and on the right
    "square",  # by squared posteriors, as if reads were more certain
    "num_states",  # ln of the effective number of states
    "minor_left",  # ln of the mean cM since a switch on the left of states with the minor allele
    "minor_right",
    "major_left",  # the same of other states
    "major_right",
)
#: Names of the columns. "more" and "less" are the haplotypes that are more and less likely to have
#: the minor allele.
FEATURES = (
    "het",  # ln of P(one minor allele) over P(none), before the site's reads
    "hom",  # ln of P(two minor alleles) over P(one), before them
    "gain",  # ln of P(minor allele | the major one is copied)
    "loss",  # ln of P(major allele | the minor one is copied)
    "maf",  # logit of the minor allele's frequency
    "path_more",  # logit of P(minor allele) along the likeliest pair of groups
    "path_less",
    *(f"more_{name}" for name in _HAPLOTYPE),
    *(f"less_{name}" for name in _HAPLOTYPE),
    "gap_left",  # ln of the cM to the next site with reads, + 1e-4
    "gap_right",
    "density",  # ln of sites with reads per cM, within .1 cM
    "coverage",  # ln of the share of sites with reads
    "edge",  # ln of the cM to the end of the stretch
    "surprise_near",  # mean of -ln P(reads) of other sites within .03 cM
    "usual_near",  # the same if genotypes were known by allele frequencies alone
    "surprise_far",  # within .2 cM
    "usual_far",
)
#: Columns of the logits that are corrected.
HET, HOM = FEATURES.index("het"), FEATURES.index("hom")
MAF, COVERAGE = FEATURES.index("maf"), FEATURES.index("coverage")
_NEAR, _FAR, _DENSITY = 0.03, 0.2, 0.1
# A mean over few sites is drawn to 0 as by so many that say nothing.
_USUAL_SITES = 3


class Evidence(NamedTuple):
    """Of the n sites in doubt.

    Attributes
    ----------
    site
        Shape (n,), int64: the sites of the stretch, ascending.
    features
        Shape (n, len(FEATURES)), float32.
    likelihoods
        Shape (n, 3), float32: P(reads | number of minor alleles).
    """

    site: np.ndarray
    features: np.ndarray
    likelihoods: np.ndarray

    def between(self, low: int, high: int, first: int) -> Evidence:
        """That of the sites [low, high) of the panel, numbered so; the stretch begins at first."""
        site = self.site + first
        k = slice(*np.searchsorted(site, [low, high]).tolist())
        return Evidence(site[k], self.features[k], self.likelihoods[k])

    @staticmethod
    def joined(parts: list[Evidence]) -> Evidence:
        """That of several stretches."""
        none = np.zeros(0, np.int64), np.zeros((0, len(FEATURES))), np.zeros((0, 3))
        columns = zip(none, *parts, strict=True)
        types = (np.int64, np.float32, np.float32)
        return Evidence(*(np.concatenate(c).astype(t) for c, t in zip(columns, types, strict=True)))


class Paired(NamedTuple):
    """What the pass over pairs has found in a stretch.

    Attributes
    ----------
    groups, walk
        The groups that were paired, and the steps over them.
    copied
        Shape (m, 3), float32: P(number of ALT that are copied | all reads).
    along
        Shape (m, 2), float32: P(ALT) along the likeliest pair.
    allele_prob
        Shape (m, 2), float32: P(ALT) of both haplotypes.
    """

    groups: Groups
    walk: Walk
    copied: np.ndarray
    along: np.ndarray
    allele_prob: np.ndarray


def before_reads(copied: np.ndarray, emission: np.ndarray, given: np.ndarray) -> np.ndarray:
    """P(genotype) by all reads but those of the site itself.

    Parameters
    ----------
    copied
        Shape (m, 3): P(number of ALT that are copied | all reads).
    emission
        Shape (m, 3), > 0: P(reads of the site | number of ALT that are copied).
    given
        Shape (m, 3, 3): P(genotype g | c ALT are copied), axes (site, c, g).

    Returns
    -------
    Shape (m, 3), float64; sums to 1.
    """
    without = np.maximum(copied, 1e-7) / np.maximum(emission, 1e-30)
    joint = np.einsum("mc,mcg->mg", without, given)
    out: np.ndarray = joint / joint.sum(axis=1, keepdims=True)
    return out


def log_genotypes(logits: np.ndarray) -> np.ndarray:
    """ln P of 0, 1 and 2, but for a constant, of ln P(1) / P(0) and ln P(2) / P(1): (n, 3)."""
    out = np.zeros((len(logits), 3))
    np.cumsum(logits, axis=1, out=out[:, 1:])
    return out


def with_reads(logits: np.ndarray, likelihoods: np.ndarray) -> np.ndarray:
    """P(genotype) of logits before the site's reads, and of these.

    Parameters
    ----------
    logits
        Shape (n, 2): ln P(1) / P(0) and ln P(2) / P(1).
    likelihoods
        Shape (n, 3).

    Returns
    -------
    Shape (n, 3), float32; sums to 1.
    """
    log = log_genotypes(logits)
    joint = np.exp(log - log.max(axis=1, keepdims=True)) * likelihoods
    out: np.ndarray = (joint / joint.sum(axis=1, keepdims=True)).astype(np.float32)
    return out


def minor_first(of_alt: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Turn numbers (m, 3) by ALT alleles to those by minor alleles, or back."""
    out: np.ndarray = np.where(turned[:, None], of_alt[:, ::-1], of_alt)
    return out


def collect(
    stretch: Reads,
    likelihoods: np.ndarray,
    given: np.ndarray,
    mismatch: SiteMismatch,
    paired: Paired,
) -> Evidence:
    """Describe the sites of a stretch where a diploid sample is in doubt.

    Parameters
    ----------
    stretch
        The sample, m sites.
    likelihoods
        Shape (m, 3), float32, normalised.
    given
        Shape (m, 3, 3): P(genotype | number of ALT that are copied).
    mismatch
        Of the sites.
    paired
        What the pass over pairs has found.
    """
    turned = stretch.turned
    prior = minor_first(before_reads(paired.copied, stretch.emission, given), turned)
    reads = minor_first(likelihoods, turned)
    site = np.flatnonzero(prior.max(axis=1) < DOUBT)
    at = prior[site]
    maf = np.minimum(stretch.af, 1 - stretch.af)[site]
    up, down = mismatch.alt_if_ref[site], mismatch.ref_if_alt[site]
    flip = turned[site]
    along = _logit(np.where(flip[:, None], 1 - paired.along[site], paired.along[site]))
    columns = [
        np.log(at[:, 1] / at[:, 0]), np.log(at[:, 2] / at[:, 1]),
        np.log(np.where(flip, down, up)), np.log(np.where(flip, up, down)), _logit(maf),
        along.max(axis=1), along.min(axis=1),
    ]  # fmt: skip
    described = _haplotypes(stretch, paired, site)
    columns += [*described[0].T, *described[1].T, *_around(stretch, prior, reads, site)]
    features = np.stack([column.astype(np.float32) for column in columns], axis=1)
    return Evidence(site, features, np.ascontiguousarray(reads[site]))


def _logit(prob: np.ndarray) -> np.ndarray:
    """Logits within the limit, float32."""
    p = np.clip(prob, 1e-6, 1 - 1e-6)
    out: np.ndarray = np.clip(np.log(p / (1 - p)), -LIMIT, LIMIT).astype(np.float32)
    return out


def _haplotypes(stretch: Reads, paired: Paired, site: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both haplotypes at some sites, each (n, 9), the one with more of the minor allele first."""
    walk, cm, rate = paired.walk, stretch.cm, stretch.rate
    num_states = len(paired.groups.size)
    num_steps = max(walk.num, 1)
    at = walk.at[:num_steps]
    left = np.searchsorted(at, site) - 1
    right = np.searchsorted(at, site, side="right")
    length = np.zeros((len(site), 2), np.float32)
    rho = np.ones((len(site), 2), np.float32)
    for side, step, has in ((0, left, left >= 0), (1, right, right < num_steps)):
        gap = np.abs(cm[site[has]] - cm[at[step[has]]])
        length[has, side] = gap
        rho[has, side] = np.maximum(-np.expm1(-rate * gap), 1e-7)
    first, stop = walk.sites.start[site], walk.sites.start[site + 1]
    start = np.concatenate([[0], np.cumsum(stop - first)]).astype(np.int64)
    entry = np.arange(start[-1]) + np.repeat(first - start[:-1], stop - first)
    asked = Asked(left, right, rho, length, start, walk.sites.state[entry], walk.sites.share[entry])
    alleles = np.ascontiguousarray(walk.alleles[:num_steps, :num_states])
    weight = paired.groups.prior
    scratch = EvidenceScratch.empty(num_steps, num_states)
    steps_cm = np.diff(cm[at], prepend=cm[at[0]]).astype(np.float32)
    found = []
    for side in range(2):
        emission = walk.pad(beside(stretch.emission, paired.allele_prob[:, 1 - side]))
        steps = HaploidSteps(
            alleles, np.ascontiguousarray(emission[:num_steps]), walk.rho[:num_steps], steps_cm,
            weight,
        )  # fmt: skip
        out = np.empty((len(site), NUM_COLUMNS), np.float32)
        describe_copying(steps, asked, scratch, out)
        found.append(out)
    turn = (found[0][:, 0] < found[1][:, 0])[:, None]
    more, less = np.where(turn, found[1], found[0]), np.where(turn, found[0], found[1])
    return _as_features(more), _as_features(less)


def _as_features(of: np.ndarray) -> np.ndarray:
    """Logits and logarithms of what the kernel gives, (n, 9)."""
    lengths = np.log(np.clip(of[:, 5:], 0, 5) + 1e-3)
    num_states = np.log(np.maximum(of[:, 4:5], 1))
    return np.concatenate([_logit(of[:, :4]), num_states, lengths], axis=1).astype(np.float32)


def _around(
    stretch: Reads, prior: np.ndarray, reads: np.ndarray, site: np.ndarray
) -> list[np.ndarray]:
    """How many reads there are around some sites, and how well they are explained."""
    cm, seen = stretch.cm, stretch.seen
    with_reads_cm, here = cm[seen], cm[site]
    before, after = np.searchsorted(seen, site), np.searchsorted(seen, site, side="right")
    last = len(seen) - 1
    left = np.where(before > 0, here - with_reads_cm[np.maximum(before - 1, 0)], 1.0)
    right = np.where(after <= last, with_reads_cm[np.minimum(after, last)] - here, 1.0)

    def near(width: float) -> tuple[np.ndarray, np.ndarray]:
        low = np.searchsorted(with_reads_cm, here - width)
        return low, np.searchsorted(with_reads_cm, here + width, side="right")

    low, high = near(_DENSITY)
    span = np.minimum(here + _DENSITY, cm[-1]) - np.maximum(here - _DENSITY, cm[0])
    maf = np.minimum(stretch.af, 1 - stretch.af)[seen]
    usual = np.stack([(1 - maf) ** 2, 2 * maf * (1 - maf), maf**2], axis=1)
    at = reads[seen]
    out = [
        np.log(left + 1e-4), np.log(right + 1e-4),
        np.log((high - low + 1) / (span + 1e-3)),
        np.full(len(site), np.log(len(seen) / len(cm))),
        np.log(np.minimum(here - cm[0], cm[-1] - here) + 1e-3),
    ]  # fmt: skip
    own = after > before
    place = np.minimum(before, last)
    for width in (_NEAR, _FAR):
        low, high = near(width)
        for genotypes in (prior[seen], usual):
            surprise = -np.log((genotypes * at).sum(axis=1) + 1e-6)
            sums = np.concatenate([[0.0], np.cumsum(surprise)])
            others = sums[high] - sums[low] - np.where(own, surprise[place], 0)
            out.append(others / (high - low + _USUAL_SITES))
    return out
