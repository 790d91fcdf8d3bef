"""Compare the age of an allele with the age of a target's match with its carriers.

If the target and a carrier share an ancestor who lived before the mutation, the target has not
inherited it from there. How old the mutation is shows in how much its carriers share around it:
stretches of about 2 / e cM, where e is its age as a rate per cM. A match of m cM is younger than
the mutation with probability 1 - exp(-e m) (1 + e m), as the length to either side is exponential.

References
----------
Albers & McVean 2020 (the ages of mutations from the stretches that carriers share).
"""

from __future__ import annotations

import numpy as np

from ragimpute.evidence.features import (
    AGE_FEATURES,
    AGES,
    COPYING,
    LOGIT_LIMIT,
    SITE_FEATURES,
    YOUNGER,
)

_SHARING = SITE_FEATURES.index("sharing")
_LEAST = 1e-4


def age_features(copied: np.ndarray, of_site: np.ndarray) -> np.ndarray:
    """The features of pairs that weigh carriers by whether their match is younger than the allele.

    Parameters
    ----------
    copied
        Shape (pairs, NUM_COPIED), float32: what the kernels have written of each pair.
    of_site
        Shape (pairs, len(SITE_FEATURES)), float32: ``sharing`` gives the allele's age.

    Returns
    -------
    Shape (pairs, len(AGE_FEATURES)), float32, finite. Between two ages of :data:`AGES`, the share
    is taken to be linear in the logarithm of the age.
    """
    age = np.log(2.0) - of_site[:, _SHARING]
    step = np.log(AGES[1] / AGES[0])
    place = np.clip((age - np.log(AGES[0])) / step, 0, len(AGES) - 1)
    low = np.minimum(place.astype(np.int64), len(AGES) - 2)
    rows = np.arange(len(copied))
    below, above = copied[rows, YOUNGER + low], copied[rows, YOUNGER + low + 1]
    share = below + (place - low) * (above - below)
    posterior = 1 / (1 + np.exp(-copied[:, COPYING.posterior]))
    p = np.clip(posterior * share, _LEAST, 1 - _LEAST)
    out = np.empty((len(copied), len(AGE_FEATURES)), np.float32)
    out[:, 0] = np.clip(np.log(p / (1 - p)), -LOGIT_LIMIT, LOGIT_LIMIT)
    out[:, 1] = share
    return out
