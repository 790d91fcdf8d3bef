"""Names of the evidence features, in the order of their columns."""

from __future__ import annotations

#: Meaning and unit of each number of a site; 0 where the minor allele has fewer than two carriers.
SHARING_FEATURES = (
    "sharing",  # mean over carriers of the ln of their longest match with another, cM + 1e-3
    "sharing_least",  # the same of the carrier whose longest match is the shortest
    "sharing_sites",  # mean over carriers of ln(1 + typed sites) of the longest such match
)

#: Meaning and unit of the features from copying; the minor allele is the rarer one in the panel.
#: Of the states, "carriers" have the minor allele and "others" the other one.
COPYING_FEATURES = (
    "posterior",  # logit of the Li-Stephens probability of the minor allele, within +-9
    "posterior_left",  # the same from typed sites on the left alone
    "posterior_right",  # the same from typed sites on the right alone
    "maf",  # logit of the minor allele's frequency in the panel without the target's own sample
    "num_carriers",  # ln(1 + carriers among the states)
    "gap_left",  # ln of cM to the typed site on the left, + 1e-4
    "gap_right",  # the same on the right
    "carrier_match",  # ln of the longest match of a carrier, cM + 1e-3, both sides added
    "carrier_match_short",  # ln of the longest shorter side of a carrier's match
    "carrier_match_1",  # as carrier_match, past one mismatch on each side
    "carrier_match_short_1",  # as carrier_match_short, past one mismatch on each side
    "other_match",  # the same four of states that carry the other allele
    "other_match_short",
    "other_match_1",
    "other_match_short_1",
    "carrier_left",  # posterior-weighted mean ln length of carriers' matches to the left
    "carrier_right",
    "other_left",
    "other_right",
    "num_states",  # ln of the effective number of states, 1 / sum p^2
    "top_posterior",  # posterior of the most probable state, in (0, 1]
    "top_share",  # posterior of the most probable states together, in (0, 1]
    "top_carriers",  # share of the most probable states that are carriers, in [0, 1]
    "best_rank",  # ln(1 + states more probable than any carrier), NUM_TOP if none is among them
    "panel_size",  # ln of the number of states
    "density",  # ln of typed sites per cM around the site
    "room_left",  # ln of cM to the window's first typed site, where matches end, at most 2, + 1e-3
    "room_right",  # the same to the last
    "carrier_sites",  # ln(1 + typed sites) of the longest match of a carrier, both sides added
    "carrier_sites_short",  # the same of the longest shorter side of a carrier's match
    "carrier_sites_1",  # as carrier_sites, up to the second mismatch on each side
    "carrier_sites_short_1",  # as carrier_sites_short, up to the second mismatch
    "other_sites",  # the same four of states that carry the other allele
    "other_sites_short",
    "other_sites_1",
    "other_sites_short_1",
    "carrier_sites_left",  # posterior-weighted mean ln(1 + typed sites) of matches to the left
    "carrier_sites_right",
    "other_sites_left",
    "other_sites_right",
)

NUM_TOP = 24

#: Meaning and unit of a token's numbers; all are 0 where there is no state.
TOKEN_FEATURES = (
    "there",  # 1: there is a state
    "mass",  # ln of the state's posterior at the site, + 1e-6
    "mass_left",  # the same at the typed site on the left, from typed sites up to it alone
    "mass_right",  # the same on the right
    "left",  # ln of the state's match to the left of the site, cM + 1e-3
    "right",  # the same to the right
    "left_1",  # as left, past one mismatch
    "right_1",
)

#: Tokens are stored as int16 in multiples of this unit, so that many pairs fit into memory.
TOKEN_UNIT = 2.0**-10

MAX_TOKENS = 2 * NUM_TOP

#: Meaning and unit of the features that come from the other haplotype of the pair's sample.
HOMOLOG_FEATURES = (
    "homolog",  # logit of the minor allele's probability on the other haplotype, within +-9
    "homolog_shift",  # what it adds to this one's logit, as a sample's alleles may be dependent
)

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
#: sample, and of the site.
FEATURES = COPYING_FEATURES + HOMOLOG_FEATURES + SITE_FEATURES

NUM_FEATURES = len(FEATURES)

_MAF, _MISSING_HETS = COPYING_FEATURES.index("maf"), SITE_FEATURES.index("quality_hets")
