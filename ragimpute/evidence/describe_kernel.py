"""Compute the evidence features of one target haplotype at its sites in doubt.

:func:`_describe_interval` measures the most probable states between two typed sites, once for all
sites in doubt there; :func:`_describe_site` then fills the features of one site; :func:`measure`
calls both. The walks along the typed sites, which call :func:`measure`, are in ``shared_kernel``
and ``sliding_kernel``. ``features`` says what each feature means, ``kernel_arrays`` what the
bundles of arrays hold. Kernels hold only loops: the arguments are checked in ``collect``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.copying.shared_kernel import list_carriers
from ragimpute.evidence.doubt import BEFORE, NEXT, PLACE, SITE
from ragimpute.evidence.features import (
    AGES,
    COPYING,
    COPYING_FEATURES,
    LOGIT_LIMIT,
    NUM_TOP,
    YOUNGER,
)
from ragimpute.evidence.kernel_arrays import WEIGHTED, Interval
from ragimpute.evidence.likely_states_kernel import TABLE, TIE, group_maxima, top_states
from ragimpute.evidence.match_lengths_kernel import REACH, find_reach, kin_of, list_at
from ragimpute.evidence.state_set import fill_tokens, posterior_shares, rank_table
from ragimpute.kernels.compile import inlined

# "room_left" and "room_right" are the cM up to the window's first and last typed site, where all
# matches end. Beyond this many cM, more room makes no difference.
MOST_ROOM_CM = 2.0

# Is added to each state's posterior, so that sums are not 0 where no carrier is probable.
_LEAST_WEIGHT = 1e-12


class SideColumns(NamedTuple):
    """The columns of features that there are both for carriers and for the other states.

    Their names are those of the features without "carrier_" or "other_". The first eight are also
    the columns of ``Measuring.best``: the longest match (both sides added), the longest shorter
    side, and the same two past one mismatch, in cM and in typed sites.
    """

    match: int
    match_short: int
    match_1: int
    match_short_1: int
    sites: int
    sites_short: int
    sites_1: int
    sites_short_1: int
    left: int
    right: int
    sites_left: int
    sites_right: int


BEST = SideColumns(*range(len(SideColumns._fields)))
CARRIERS = SideColumns(*(COPYING_FEATURES.index(f"carrier_{x}") for x in SideColumns._fields))
OTHERS = SideColumns(*(COPYING_FEATURES.index(f"other_{x}") for x in SideColumns._fields))


@inlined
def logit(p):
    """Logit of a probability, clipped to [-LOGIT_LIMIT, LOGIT_LIMIT]."""
    p = min(max(p, 1e-6), 1.0 - 1e-6)
    return min(max(np.log(p / (1.0 - p)), -LOGIT_LIMIT), LOGIT_LIMIT)


@inlined
def _root(mass):
    """Square root of a state's weight."""
    return np.sqrt(np.float32(mass + _LEAST_WEIGHT))


@inlined
def _describe_interval(t, stamp, masses, one, evidence):
    """Measure the most probable states between typed sites t and t + 1.

    Fills the table with a row for each of them. ``one``: Matched, the target.
    """
    measuring, typed_cm = evidence.measuring, one.typed_cm
    top, table = measuring.top, measuring.table
    here = one.states[list_at(t, one.states)]
    total, effective = group_maxima(masses.key, measuring.few)
    num_top = top_states(
        masses.key, here, evidence.panel.signature, measuring.few, top, measuring.ranks
    )
    for i in range(num_top):
        s = top[i]
        table[i, TABLE.mass] = masses.key[s] * masses.scales[0]
        reach = table[i, TABLE.reach :]
        find_reach(s, t, one, reach)
        table[i, TABLE.log_left] = np.log(np.float32(1.0 + reach[REACH.sites_left]))
        table[i, TABLE.log_right] = np.log(np.float32(1.0 + reach[REACH.sites_right]))
        table[i, TABLE.root] = _root(table[i, TABLE.mass])
        table[i, TABLE.kin] = kin_of(s, one)
        table[i, TABLE.younger] = -1.0
        measuring.stamp[s] = stamp + i
    low = max(t - 5, 0)
    high = min(t + 6, typed_cm.shape[0] - 1)
    density = (high - low + 1) / (typed_cm[high] - typed_cm[low] + 1e-3)
    return Interval(num_top, stamp, total * masses.scales[0], effective, density)


@inlined
def _add_match(reach, gaps, logs, weights, best, weighted):
    """Add one state's match with the target to the sums and maxima of the states of its allele.

    ``reach`` is measured from the typed sites beside; ``gaps`` are the distances from these to the
    site, and ``logs`` the ln(1 + typed sites) of the match to the left and to the right. ``best``
    keeps the longest matches, ``weighted`` sums weighted by the state's posterior. ``weights``: the
    posterior, its square root, and the weight of how alike state and target are.
    """
    left = max(reach[REACH.cm_left] + gaps[0], 0.0)
    right = max(reach[REACH.cm_right] + gaps[1], 0.0)
    left_1 = max(reach[REACH.cm_left_1] + gaps[0], 0.0)
    right_1 = max(reach[REACH.cm_right_1] + gaps[1], 0.0)
    best[BEST.match] = max(best[BEST.match], left + right)
    best[BEST.match_short] = max(best[BEST.match_short], min(left, right))
    best[BEST.match_1] = max(best[BEST.match_1], left_1 + right_1)
    best[BEST.match_short_1] = max(best[BEST.match_short_1], min(left_1, right_1))
    sites, on_right = reach[REACH.sites_left], reach[REACH.sites_right]
    best[BEST.sites] = max(best[BEST.sites], sites + on_right)
    best[BEST.sites_short] = max(best[BEST.sites_short], min(sites, on_right))
    sites, on_right = reach[REACH.sites_left_1], reach[REACH.sites_right_1]
    best[BEST.sites_1] = max(best[BEST.sites_1], sites + on_right)
    best[BEST.sites_short_1] = max(best[BEST.sites_short_1], min(sites, on_right))
    mass, root, kin = weights
    weight = mass + _LEAST_WEIGHT
    weighted[WEIGHTED.weight] += weight
    weighted[WEIGHTED.left] += weight * np.log(np.float32(left + 1e-3))
    weighted[WEIGHTED.right] += weight * np.log(np.float32(right + 1e-3))
    weighted[WEIGHTED.sites_left] += weight * logs[0]
    weighted[WEIGHTED.sites_right] += weight * logs[1]
    weighted[WEIGHTED.root] += root
    weighted[WEIGHTED.square] += weight * weight
    weighted[WEIGHTED.kin] += weight * kin


@inlined
def _add_ages(reach, between, mass, younger):
    """Add the part of a state's posterior whose match is younger than an allele, for each age.

    ``between``: the cM between the typed sites beside; outside of all typed sites it is 0. A match
    of m cM is younger than an allele whose age is e (per cM, as a rate) with a probability of about
    x^2 / (x^2 + 2 x + 2), with x = e m: this is close to 1 - exp(-x) (1 + x), the chance that the
    sum of two exponential lengths is shorter than the match, and takes no exponential.
    """
    length = np.float32(reach[REACH.cm_left] + between + reach[REACH.cm_right])
    for k in range(len(AGES)):
        x = np.float32(AGES[k]) * length
        square = x * x
        younger[k] += mass * (square / (square + x + x + np.float32(2.0)))


@inlined
def _sum_carriers(listed, count, masses):
    """Sum f b, f and b over the carriers in ``listed``; count those that the target may copy."""
    fb, from_f, from_b = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    number = 0
    for i in range(count):
        s = listed[i]
        x = masses.f[s, masses.lane]
        y = masses.b[s, masses.lane]
        fb += x * y
        from_f += x
        from_b += y
        number += x > np.float32(0.0)
    return fb, from_f, from_b, number


@inlined
def _describe_posterior(u, t, masses, interval, panel, carried, out):
    """Fill the features that need no match lengths. ``carried``: see :func:`_sum_carriers`."""
    left, right = panel.near.left[u], panel.near.right[u]
    fb, from_f, from_b, number = carried
    fb, from_f, from_b = fb * masses.scales[0], from_f * masses.scales[1], from_b * masses.scales[2]
    share = number / masses.num_states
    stay, from_left, from_right, both = posterior_shares(left, right)
    out[COPYING.posterior] = logit(
        (stay * fb + from_left * from_f + from_right * from_b + both * share)
        / (stay * interval.total + from_left + from_right * masses.right_sum + both)
    )
    out[COPYING.posterior_left] = logit((1.0 - left) * from_f + left * share)
    out[COPYING.posterior_right] = logit(
        ((1.0 - right) * from_b + right * share) / ((1.0 - right) * masses.right_sum + right)
    )
    out[COPYING.num_carriers] = np.log1p(number)
    out[COPYING.num_states] = np.log(max(interval.effective, 1.0))
    out[COPYING.panel_size] = np.log(masses.num_states)
    out[COPYING.density] = np.log(interval.density)
    cm, typed_cm = panel.position_cm[u], panel.typed_cm
    last = typed_cm.shape[0] - 1
    out[COPYING.gap_left] = np.log(max(cm - typed_cm[max(t, 0)], 0.0) + 1e-4)
    out[COPYING.gap_right] = np.log(max(typed_cm[min(t + 1, last)] - cm, 0.0) + 1e-4)
    out[COPYING.room_left] = np.log(min(max(cm - typed_cm[0], 0.0), MOST_ROOM_CM) + 1e-3)
    out[COPYING.room_right] = np.log(min(max(typed_cm[last] - cm, 0.0), MOST_ROOM_CM) + 1e-3)


@inlined
def _mark_carriers(u, t, masses, interval, one, evidence, num, gaps):
    """Say in the table which states are carriers; add carriers that are not in it to the sums.

    Carriers that are less probable than the table's states are looked at only where the panel
    lists the site's carriers, ``num`` of which are in ``measuring.listed``. Otherwise they are
    looked up in the bits.
    """
    measuring, minor = evidence.measuring, evidence.panel.minor
    table, reach = measuring.table, measuring.reach
    if minor.row[u] < 0:
        for i in range(interval.num_top):
            table[i, TABLE.carrier] = 0.0
        for i in range(num):
            s = measuring.listed[i]
            if measuring.stamp[s] >= interval.stamp:
                table[measuring.stamp[s] - interval.stamp, TABLE.carrier] = 1.0
            elif masses.f[s, masses.lane] > np.float32(0.0):
                find_reach(s, t, one, reach)
                logs = (
                    np.log(np.float32(1.0 + reach[REACH.sites_left])),
                    np.log(np.float32(1.0 + reach[REACH.sites_right])),
                )
                mass = masses.key[s] * masses.scales[0]
                weights = (mass, _root(mass), kin_of(s, one))
                _add_match(reach, gaps, logs, weights, measuring.best[0], measuring.weighted[0])
                _add_ages(reach, gaps[0] + gaps[1], mass, measuring.weighted[0, WEIGHTED.younger :])
        return
    here = one.states[list_at(t, one.states)]
    for i in range(interval.num_top):
        h = here[measuring.top[i]]
        word = minor.bits[minor.row[u], h >> 6]
        table[i, TABLE.carrier] = np.float64((word >> np.uint64(h & 63)) & np.uint64(1))


@inlined
def _describe_top(gaps, interval, measuring, out):
    """Fill the features of the most probable states together, and add them to the sums."""
    table = measuring.table
    num_carriers = 0
    best_mass = 0.0
    top_sum = 0.0
    most = 0.0
    for i in range(interval.num_top):
        mass = table[i, TABLE.mass]
        most = max(most, mass)
        side = 0 if table[i, TABLE.carrier] > 0.0 else 1
        if side == 0:
            num_carriers += 1
            best_mass = max(best_mass, mass)
        top_sum += mass
        _add_match(table[i, TABLE.reach :], gaps,
                   (table[i, TABLE.log_left], table[i, TABLE.log_right]),
                   (mass, table[i, TABLE.root], table[i, TABLE.kin]),
                   measuring.best[side], measuring.weighted[side])  # fmt: skip
        if side == 0:
            if table[i, TABLE.younger] < 0.0:  # it is the first site here of which it is a carrier
                table[i, TABLE.younger : TABLE.reach] = 0.0
                _add_ages(
                    table[i, TABLE.reach :], gaps[0] + gaps[1], mass, table[i, TABLE.younger :]
                )
            for k in range(len(AGES)):
                measuring.weighted[0, WEIGHTED.younger + k] += table[i, TABLE.younger + k]
    best_rank = NUM_TOP
    if num_carriers > 0:  # the order of equally probable states means nothing: they tie
        equal = best_mass * (1.0 + TIE)
        best_rank = 0
        for i in range(interval.num_top):
            best_rank += table[i, TABLE.mass] > equal
    out[COPYING.top_posterior] = most / interval.total
    out[COPYING.top_share] = top_sum / interval.total
    out[COPYING.top_carriers] = num_carriers / interval.num_top
    out[COPYING.best_rank] = np.log1p(best_rank)


@inlined
def _write_side(best, weighted, columns, out):
    """Fill the features of carriers, or of the other states."""
    out[columns.match] = np.log(np.float32(best[BEST.match] + 1e-3))
    out[columns.match_short] = np.log(np.float32(best[BEST.match_short] + 1e-3))
    out[columns.match_1] = np.log(np.float32(best[BEST.match_1] + 1e-3))
    out[columns.match_short_1] = np.log(np.float32(best[BEST.match_short_1] + 1e-3))
    out[columns.sites] = np.log(np.float32(1.0 + best[BEST.sites]))
    out[columns.sites_short] = np.log(np.float32(1.0 + best[BEST.sites_short]))
    out[columns.sites_1] = np.log(np.float32(1.0 + best[BEST.sites_1]))
    out[columns.sites_short_1] = np.log(np.float32(1.0 + best[BEST.sites_short_1]))
    weight = weighted[WEIGHTED.weight]
    if weight > 0.0:
        out[columns.left] = weighted[WEIGHTED.left] / weight
        out[columns.right] = weighted[WEIGHTED.right] / weight
        out[columns.sites_left] = weighted[WEIGHTED.sites_left] / weight
        out[columns.sites_right] = weighted[WEIGHTED.sites_right] / weight
    else:
        out[columns.left] = np.log(1e-3)
        out[columns.right] = np.log(1e-3)
        out[columns.sites_left] = 0.0
        out[columns.sites_right] = 0.0


@inlined
def _share(carriers, others, least):
    """Logit of the carriers' share of a sum; ``least`` is added to both parts."""
    return logit((carriers + least) / (carriers + others + 2.0 * least))


@inlined
def _write_shares(weighted, out):
    """Fill the features that weigh states otherwise than by their posterior, and the ages."""
    carriers, others = weighted[0], weighted[1]
    out[COPYING.share_root] = _share(carriers[WEIGHTED.root], others[WEIGHTED.root], 1e-3)
    out[COPYING.share_square] = _share(carriers[WEIGHTED.square], others[WEIGHTED.square], 1e-6)
    out[COPYING.share_kin] = _share(carriers[WEIGHTED.kin], others[WEIGHTED.kin], 1e-4)
    scale = 1.0 / max(carriers[WEIGHTED.weight], 1e-30)
    for k in range(len(AGES)):
        out[YOUNGER + k] = carriers[WEIGHTED.younger + k] * scale


@inlined
def _describe_site(u, t, masses, interval, one, evidence, num, carried, out):
    """Fill the features of one pair, of a site u in the interval after typed site t.

    ``num`` carriers of the site are in ``measuring.listed``; if the panel stores the site as bits,
    the list may be empty. ``carried`` is what :func:`_sum_carriers` returns. The mass of a state
    that is hidden from the target is 0.
    """
    panel, measuring = evidence.panel, evidence.measuring
    _describe_posterior(u, t, masses, interval, panel, carried, out)
    out[COPYING.maf] = logit(panel.num_minor[u] / evidence.slot_of.shape[0])
    cm, typed_cm = panel.position_cm[u], panel.typed_cm
    right = typed_cm[min(t + 1, typed_cm.shape[0] - 1)]
    gaps = (cm - typed_cm[max(t, 0)], right - cm)
    # Row 0 of ``best`` and ``weighted`` is for carriers, row 1 for the other states.
    measuring.best[:, :] = 0.0
    measuring.weighted[:, :] = 0.0
    _mark_carriers(u, t, masses, interval, one, evidence, num, gaps)
    _describe_top(gaps, interval, measuring, out)
    _write_side(measuring.best[0], measuring.weighted[0], CARRIERS, out)
    _write_side(measuring.best[1], measuring.weighted[1], OTHERS, out)
    _write_shares(measuring.weighted, out)


@inlined
def begin_measuring(num_typed, evidence):
    """Reset the buffers that would carry results over from the targets before."""
    evidence.measuring.keys[:, :] = np.float32(-1.0)
    evidence.measuring.stamp[:] = -1
    evidence.measuring.ends[:, :, :] = num_typed
    evidence.at[:] = 0


@inlined
def _list_slots(u, t, states, minor, slot_of, listed):
    """List the slots of states with the minor allele of site u, in interval t; returns how many."""
    if minor.row[u] < 0 or 4 * states.shape[1] >= slot_of.shape[0]:
        return list_carriers(u, minor, slot_of, states.shape[1], listed)
    num = 0  # the states are few of the panel's haplotypes: look up the bit of each
    here = states[list_at(t, states)]
    for s in range(here.shape[0]):
        word = minor.bits[minor.row[u], here[s] >> 6]
        if (word >> np.uint64(here[s] & 63)) & np.uint64(1):
            listed[num] = s
            num += 1
    return num


@inlined
def scales_of(sum_f, sum_b, num_states):
    """Factors by which f b and f sum to 1, and b to 1 or, if states are new in a word, to less."""
    scale_f = np.float32(1.0) / sum_f
    scale_b = np.float32(1.0) / sum_b
    return scale_f * scale_b * num_states, scale_f, scale_b


@inlined
def measure(stop, t, masses, one, evidence, first_site):
    """Compute the features of the next pairs up to ``stop``, all of one target and one interval.

    ``masses``: IntervalMasses; ``one``: Matched; ``first_site``: the site of row 0 of
    ``evidence.kept``. If this is empty, sums over carriers are computed here.
    """
    panel, measuring, pairs = evidence.panel, evidence.measuring, evidence.pairs
    p = evidence.at[NEXT]
    stamp = np.int64(evidence.at[BEFORE] + p) * NUM_TOP
    interval = _describe_interval(t, stamp, masses, one, evidence)
    with_tokens = evidence.tokens.shape[0] > 0
    if with_tokens:
        rank_table(measuring.ranks, interval.num_top, measuring.order)
    for q in range(p, stop):
        u, place = pairs[q, SITE], pairs[q, PLACE]
        num = 0
        if evidence.kept.shape[0] > 0 and panel.minor.row[u] >= 0 and not with_tokens:
            sums, lane = evidence.kept[u - first_site], masses.lane
            carried = (sums[0, lane], sums[1, lane], sums[2, lane], np.int64(sums[3, lane]))
        else:
            listed = measuring.listed
            num = _list_slots(u, t, one.states, panel.minor, evidence.slot_of, listed)
            carried = _sum_carriers(listed, num, masses)
        _describe_site(u, t, masses, interval, one, evidence, num, carried, evidence.out[place])
        if with_tokens:
            fill_tokens(u, t, masses, interval, one, evidence, num, evidence.tokens[place])
    evidence.at[NEXT] = stop
