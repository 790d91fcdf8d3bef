"""Every feature of :data:`ragimpute.evidence.features.FEATURES`, and tokens, by plain loops, for
the tests.

Where the names in FEATURES leave room, this is how they are read:

- A match reaches from the site to the nearest mismatching typed site on each side, or to the first
  or last typed site of the window; "past one mismatch" to the second nearest. A state that came or
  left between two words (see ``copying``) ends there. A side without a typed site has length 0, and
  the gap to a typed site that does not exist is 0.
- Carriers are measured among the NUM_TOP most probable states and, where the panel lists carriers,
  among all of the list that are states; others among the most probable states only.
- Most probable: by posterior at the interval between the typed sites, as if the site were at both
  (forward mass on the left times backward mass on the right); so are num_states, top_posterior,
  top_share and the weights of carrier_left ... other_right (each + 1e-12).
- Typed sites of a match are those between the site and its end, and up to the second end all
  between, the first end included.
- density counts the typed sites from five before to six after the interval's left one.
- share_root, share_square and share_kin are sums over the same states as carrier_left and
  other_left. A target whose states change along the chromosome has equal weights of kinship.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from slow_copying import SlowCopying

from ragimpute.evidence.describe_kernel import MOST_ROOM_CM
from ragimpute.evidence.features import AGES, LOGIT_LIMIT, NUM_TOP
from ragimpute.evidence.likely_states_kernel import TIE
from ragimpute.kernels.bits import WORD


def logit(p: float) -> float:
    """Logit within the limits."""
    p = min(max(p, 1e-6), 1 - 1e-6)
    return min(max(math.log(p / (1 - p)), -LOGIT_LIMIT), LOGIT_LIMIT)


def match_ends(slow: SlowCopying, h: int, t: int, step: int) -> list[int]:
    """Typed sites at which a state's match ends on one side: the nearest and the next end.

    ``step`` -1: at or before t; +1: after t.
    """
    ends: list[int] = []
    at = t if step < 0 else t + 1
    word = max(t, 0) // WORD
    while 0 <= at < slow.num_typed and len(ends) < 2:
        if at // WORD != word:
            if h not in slow.states_at(at):  # not a state there: it ends at the border
                border = (at // WORD + 1) * WORD - 1 if step < 0 else at
                return (ends + [border] * 2)[:2]
            word = at // WORD
        if slow.mismatch(at, h):
            ends.append(at)
        at += step
    return (ends + [0 if step < 0 else slow.num_typed - 1] * 2)[:2]


def lengths(slow: SlowCopying, h: int, t: int, cm: float) -> list[float]:
    """cM to the left, right, and both past one mismatch."""
    left, right = match_ends(slow, h, t, -1), match_ends(slow, h, t, +1)
    at = slow.typed_cm
    signed = [cm - at[left[0]], at[right[0]] - cm, cm - at[left[1]], at[right[1]] - cm]
    return [max(0.0, x) for x in signed]


def typed_sites(slow: SlowCopying, h: int, t: int) -> list[int]:
    """Typed sites to the left, right, and both up to the second mismatch."""
    words = range(slow.num_typed)
    out = []
    for nth in (1, 2):
        for at, step in ((t, -1), (t + 1, +1)):
            count, ends, word = 0, 0, max(t, 0) // WORD
            while at in words:
                if at // WORD != word and h not in slow.states_at(at):
                    break
                word = at // WORD
                ends += slow.mismatch(at, h)
                if ends == nth:
                    break
                count += 1
                at += step
            out.append(count)
    return out


def describe(
    slow: SlowCopying, minor: list[bool], listed: bool, t: int, cm: float
) -> tuple[dict[str, float], float]:
    """Features by name, and how clearly the most probable states differ from all others.

    ``minor`` says for each panel haplotype whether it has the minor allele; ``listed`` whether
    the site's carriers are a list.
    """
    here = slow.states_at(t)
    both, from_left, from_right = slow.masses(t, cm)
    joint = {h: slow.left[t][h] * slow.right[t].get(h, 0.0) for h in here}
    total = sum(joint.values())
    ranked = sorted(here, key=lambda h: -joint[h])
    top = ranked[:NUM_TOP]
    clear = gap(joint, ranked, NUM_TOP)

    out = {
        "posterior": logit(sum(both[h] for h in here if minor[h])),
        "posterior_left": logit(sum(from_left[h] for h in here if minor[h])),
        "posterior_right": logit(sum(from_right[h] for h in here if minor[h])),
    }
    out["maf"] = logit(sum(minor) / len(minor))
    out["num_carriers"] = math.log(1 + sum(minor[h] for h in here))
    at, last = slow.typed_cm, slow.num_typed - 1
    out["gap_left"] = math.log((cm - at[t] if t >= 0 else 0.0) + 1e-4)
    out["gap_right"] = math.log((at[t + 1] - cm if t < last else 0.0) + 1e-4)

    carriers = [h for h in here if minor[h] and (listed or h in top)]
    rest = [h for h in top if not minor[h]]
    for side, group in (("carrier", carriers), ("other", rest)):
        size = [lengths(slow, h, t, cm) for h in group]
        for suffix, i in (("", 0), ("_1", 2)):
            longest = max((x[i] + x[i + 1] for x in size), default=0.0)
            shorter = max((min(x[i], x[i + 1]) for x in size), default=0.0)
            out[f"{side}_match{suffix}"] = math.log(longest + 1e-3)
            out[f"{side}_match_short{suffix}"] = math.log(shorter + 1e-3)
        counts = [typed_sites(slow, h, t) for h in group]
        for suffix, i in (("", 0), ("_1", 2)):
            longest = max((x[i] + x[i + 1] for x in counts), default=0)
            shorter = max((min(x[i], x[i + 1]) for x in counts), default=0)
            out[f"{side}_sites{suffix}"] = math.log(1 + longest)
            out[f"{side}_sites_short{suffix}"] = math.log(1 + shorter)
        weight = [joint[h] + 1e-12 for h in group]
        for i, name in enumerate(("left", "right")):
            mean = math.log(1e-3)
            if group:
                logs = [w * math.log(x[i] + 1e-3) for w, x in zip(weight, size, strict=True)]
                mean = sum(logs) / sum(weight)
            out[f"{side}_{name}"] = mean
            logs = [w * math.log(1 + x[i]) for w, x in zip(weight, counts, strict=True)]
            out[f"{side}_sites_{name}"] = sum(logs) / sum(weight) if group else 0.0

    out["num_states"] = math.log(max(1.0, total**2 / sum(v * v for v in joint.values())))
    out["top_posterior"] = joint[top[0]] / total
    out["top_share"] = sum(joint[h] for h in top) / total
    out["top_carriers"] = sum(minor[h] for h in top) / len(top)
    best = max((joint[h] for h in top if minor[h]), default=None)
    ahead = NUM_TOP if best is None else sum(joint[h] > best * (1 + TIE) for h in top)
    out["best_rank"] = math.log(1 + ahead)
    out["panel_size"] = math.log(len(here))
    describe_shares(slow, out, joint, carriers, rest, t)
    low, high = max(t - 5, 0), min(t + 6, last)
    out["density"] = math.log((high - low + 1) / (at[high] - at[low] + 1e-3))
    out["room_left"] = math.log(min(max(cm - at[0], 0.0), MOST_ROOM_CM) + 1e-3)
    out["room_right"] = math.log(min(max(at[last] - cm, 0.0), MOST_ROOM_CM) + 1e-3)
    return out, clear


def describe_shares(
    slow: SlowCopying,
    out: dict[str, float],
    joint: dict[int, float],
    carriers: list[int],
    rest: list[int],
    t: int,
) -> None:
    """The shares of carriers under other weights, and those younger than an allele of each age.

    A match is as long as the typed sites are apart at which it ends. ``younger`` has the weight of
    carriers whose match is likely to be younger, for each of AGES.
    """
    kin = kin_of(slow) if slow.same_everywhere else dict.fromkeys(joint, 1.0)
    weight = {h: joint[h] + 1e-12 for h in joint}

    def share(least: float, of: Callable[[int], float]) -> float:
        one, other = (sum(map(of, group)) + least for group in (carriers, rest))
        return logit(one / (one + other))

    out["share_root"] = share(1e-3, lambda h: math.sqrt(weight[h]))
    out["share_square"] = share(1e-6, lambda h: weight[h] ** 2)
    out["share_kin"] = share(1e-4, lambda h: weight[h] * kin[h])
    for k, age in enumerate(AGES):
        younger = 0.0
        for h in carriers:
            ends = [match_ends(slow, h, t, step)[0] for step in (-1, +1)]
            x = age * max(0.0, slow.typed_cm[ends[1]] - slow.typed_cm[ends[0]])
            younger += joint[h] * x * x / (x * x + 2 * x + 2)
        out[f"younger_{k}"] = younger / max(sum(weight[h] for h in carriers), 1e-30)


def describe_ages(copied: dict[str, float], sharing: float) -> dict[str, float]:
    """The features of the ages of match and allele, of what :func:`describe` returns.

    ``sharing`` is the site's: the mean ln of the cM that carriers share.
    """
    age = min(max(2 / math.exp(sharing), AGES[0]), AGES[-1])
    above = next((k for k in range(1, len(AGES)) if age <= AGES[k]), len(AGES) - 1)
    part = math.log(age / AGES[above - 1]) / math.log(AGES[above] / AGES[above - 1])
    share = (1 - part) * copied[f"younger_{above - 1}"] + part * copied[f"younger_{above}"]
    p = share / (1 + math.exp(-copied["posterior"]))
    p = min(max(p, 1e-4), 1 - 1e-4)
    return {"age_posterior": logit(p), "age_share": share}


def kin_of(slow: SlowCopying) -> dict[int, float]:
    """How alike each state and the target are at the observed sites, as a weight."""
    here = slow.states_at(0)
    observed = [t for t in range(slow.num_typed) if slow.target[t] >= 0]
    if len(here) < 2 or not observed:
        return dict.fromkeys(here, 1.0)
    equal = {h: sum(not slow.mismatch(t, h) for t in observed) / len(observed) for h in here}
    mean = sum(equal.values()) / len(here)
    deviation = max(math.sqrt(sum((x - mean) ** 2 for x in equal.values()) / len(here)), 1e-3)
    return {h: math.exp(0.7 * min(4.0, max(-4.0, (equal[h] - mean) / deviation))) for h in here}


def describe_tokens(
    slow: SlowCopying, minor: list[bool], t: int, cm: float, num_tokens: int
) -> list[tuple[list[list[float]], float]]:
    """Tokens of carriers and of others, each with how clearly they differ from those left out.

    Columns as in :data:`ragimpute.evidence.features.TOKEN_FEATURES`. Carriers are the most probable
    of all, others the most probable of those among the NUM_TOP most probable states.
    """
    here = [h for h in slow.states_at(t) if slow.left[t][h] > 0]
    posterior, _, _ = slow.masses(t, cm)
    joint = {h: slow.left[t][h] * slow.right[t].get(h, 0.0) for h in here}
    right_sum = sum(slow.right[t].get(h, 0.0) for h in here)
    ranked = sorted(here, key=lambda h: -joint[h])
    out = []
    for group, clear in (
        ([h for h in ranked if minor[h]], 1.0),
        ([h for h in ranked[:NUM_TOP] if not minor[h]], gap(joint, ranked, NUM_TOP)),
    ):
        tokens = []
        for h in group[: num_tokens // 2]:
            mass = [posterior[h], slow.left[t][h], slow.right[t].get(h, 0.0) / right_sum]
            tokens.append(
                [1.0]
                + [math.log(x + 1e-6) for x in mass]
                + [math.log(x + 1e-3) for x in lengths(slow, h, t, cm)]
            )
        out.append((tokens, min(clear, gap(joint, group, num_tokens // 2))))
    return out


def gap(joint: dict[int, float], ranked: list[int], at: int) -> float:
    """By which share the first state that is left out is less probable than the last one kept."""
    if len(ranked) <= at:
        return 1.0
    least = joint[ranked[at - 1]]
    return 1 - joint[ranked[at]] / least if least > 0 else 0.0
