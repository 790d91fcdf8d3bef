"""Names of the evidence features, in the order of their columns.

Kernels write a column by its name: ``out[COPYING.maf]``.
"""

from __future__ import annotations

from typing import NamedTuple


class SharingFeatures(NamedTuple):
    """The columns of how carriers agree; 0 where the minor allele has fewer than two carriers."""

    sharing: int  # mean over carriers of the ln of their longest match with another, cM + 1e-3
    sharing_least: int  # the same of the carrier whose longest match is the shortest
    sharing_sites: int  # mean over carriers of ln(1 + typed sites) of the longest such match


SHARING_FEATURES = SharingFeatures._fields
SHARING = SharingFeatures(*range(len(SHARING_FEATURES)))


class CopyingFeatures(NamedTuple):
    """The columns of the features from copying, with meaning and unit.

    The minor allele is the rarer one in the panel. Of the states, "carriers" have the minor allele
    and "others" the other one.
    """

    posterior: int  # logit of the Li-Stephens probability of the minor allele, within +-9
    posterior_left: int  # the same from typed sites on the left alone
    posterior_right: int  # the same from typed sites on the right alone
    maf: int  # logit of the minor allele's frequency in the panel without the target's own sample
    num_carriers: int  # ln(1 + carriers among the states)
    gap_left: int  # ln of cM to the typed site on the left, + 1e-4
    gap_right: int  # the same on the right
    carrier_match: int  # ln of the longest match of a carrier, cM + 1e-3, both sides added
    carrier_match_short: int  # ln of the longest shorter side of a carrier's match
    carrier_match_1: int  # as carrier_match, past one mismatch on each side
    carrier_match_short_1: int  # as carrier_match_short, past one mismatch on each side
    other_match: int  # the same four of states that carry the other allele
    other_match_short: int
    other_match_1: int
    other_match_short_1: int
    carrier_left: int  # posterior-weighted mean ln length of carriers' matches to the left
    carrier_right: int
    other_left: int
    other_right: int
    num_states: int  # ln of the effective number of states, 1 / sum p^2
    top_posterior: int  # posterior of the most probable state, in (0, 1]
    top_share: int  # posterior of the most probable states together, in (0, 1]
    top_carriers: int  # share of the most probable states that are carriers, in [0, 1]
    best_rank: int  # ln(1 + states more probable than any carrier), NUM_TOP if none is among them
    panel_size: int  # ln of the number of states
    density: int  # ln of typed sites per cM around the site
    room_left: int  # ln of cM to the window's first typed site (matches end there), <= 2, + 1e-3
    room_right: int  # the same to the last
    carrier_sites: int  # ln(1 + typed sites) of the longest match of a carrier, both sides added
    carrier_sites_short: int  # the same of the longest shorter side of a carrier's match
    carrier_sites_1: int  # as carrier_sites, up to the second mismatch on each side
    carrier_sites_short_1: int  # as carrier_sites_short, up to the second mismatch
    other_sites: int  # the same four of states that carry the other allele
    other_sites_short: int
    other_sites_1: int
    other_sites_short_1: int
    carrier_sites_left: int  # posterior-weighted mean ln(1 + typed sites) of matches to the left
    carrier_sites_right: int
    other_sites_left: int
    other_sites_right: int
    # The same question asked with other weights: logits, within +-LOGIT_LIMIT, of the carriers'
    # share if states count by another number than their posterior.
    share_root: int  # by the square root of the posterior, as if the match were less certain
    share_square: int  # by its square, as if it were more certain
    share_kin: int  # by the posterior times how alike state and target are in the whole window


COPYING_FEATURES = CopyingFeatures._fields
COPYING = CopyingFeatures(*range(len(COPYING_FEATURES)))

#: How many of the most probable states are looked at.
NUM_TOP = 24

#: Features that are logits lie within +- this.
LOGIT_LIMIT = 9.0

#: Ages of alleles, as the rate per cM at which the stretches end that carriers share.
AGES = (0.5, 4.0, 32.0, 256.0)
#: After the copying features, kernels write one column for each of these ages: of the posterior of
#: carriers, the share whose match with the target is likely to be younger than the allele.
YOUNGER = len(COPYING_FEATURES)
NUM_COPIED = YOUNGER + len(AGES)


class TokenFeatures(NamedTuple):
    """The columns of a token, with meaning and unit; all are 0 where there is no state."""

    there: int  # 1: there is a state
    mass: int  # ln of the state's posterior at the site, + 1e-6
    mass_left: int  # the same at the typed site on the left, from typed sites up to it alone
    mass_right: int  # the same on the right
    left: int  # ln of the state's match to the left of the site, cM + 1e-3
    right: int  # the same to the right
    left_1: int  # as left, past one mismatch
    right_1: int


TOKEN_FEATURES = TokenFeatures._fields
TOKEN = TokenFeatures(*range(len(TOKEN_FEATURES)))

#: Tokens are stored as int16 in multiples of this unit, so that many pairs fit into memory.
TOKEN_UNIT = 2.0**-10

MAX_TOKENS = 2 * NUM_TOP


class HomologFeatures(NamedTuple):
    """The columns that come from the other haplotype of the pair's sample."""

    homolog: int  # logit of the minor allele's probability on the other haplotype, within +-9
    homolog_shift: int  # what it adds to this one's logit, as a sample's alleles may be dependent


HOMOLOG_FEATURES = HomologFeatures._fields
HOMOLOG = HomologFeatures(*range(len(HOMOLOG_FEATURES)))


class AgeFeatures(NamedTuple):
    """The columns that compare the ages of a match and of the allele, see :func:`age_features`."""

    age_posterior: int  # logit of the posterior of carriers whose match is younger than the allele
    age_share: int  # of the carriers' posterior, the share that they have


AGE_FEATURES = AgeFeatures._fields

#: Meaning of the features of an untyped site that come from imputing left-out samples of the
#: panel. All are about the dosage of the minor allele.
QUALITY_FEATURES = (
    "quality_r2",  # squared correlation of imputed and true dosage, shrunk where alleles are few
    "quality_slope",  # slope of the true on the imputed dosage, shrunk to 1, in [0, 3]
    "quality_excess",  # ln of squared error over the variance that the posteriors claim
    "quality_error",  # ln of squared error over the variance of the true dosage
    "quality_alleles",  # ln(1 + minor alleles of the left-out samples)
    "quality_hets",  # 1 - heterozygous samples / expected heterozygous samples, shrunk to 0
)

#: All features of a site: its quality, and how long its carriers' haplotypes agree.
SITE_FEATURES = QUALITY_FEATURES + SHARING_FEATURES

#: All features of a pair, which a network reads: from copying, from the other haplotype of the
#: sample, from the ages of match and allele, and of the site.
FEATURES = COPYING_FEATURES + HOMOLOG_FEATURES + AGE_FEATURES + SITE_FEATURES

NUM_FEATURES = len(FEATURES)

#: The column of ``quality_hets`` among a site's features.
MISSING_HETS = SITE_FEATURES.index("quality_hets")
