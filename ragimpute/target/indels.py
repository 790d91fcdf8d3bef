"""One spelling for each insertion and deletion: as far left as the known bases allow.

References
----------
Tan, Abecasis and Kang 2015, "Unified representation of genetic variants": the algorithm, which is
that of ``bcftools norm``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ragimpute.sites import Key, Sites

_BASES = frozenset("ACGTN")
# How far an indel may be moved by what the panel's REF alleles say, and how far away one of the
# same bases is looked for.
_REACH_BP = 1000
_NEAR_BP = 200


def trimmed(position: int, ref: str, alt: str) -> Key:
    """A site without the bases that both alleles share at the end, then at the start."""
    most = min(len(ref), len(alt)) - 1
    if most < 1:
        return position, ref, alt
    # Bases are counted and cut off at once: alleles of structural variants have many thousands.
    end = 0
    while end < most and ref[-1 - end] == alt[-1 - end]:
        end += 1
    start = 0
    while start < most - end and ref[start] == alt[start]:
        start += 1
    return position + start, ref[start : len(ref) - end], alt[start : len(alt) - end]


def left_aligned(key: Key, base_at: Callable[[int], str]) -> Key:
    """A site moved to the left while its alleles end alike, and trimmed.

    Parameters
    ----------
    key
        Position, and alleles in upper case.
    base_at
        The base of the reference at a position; "" where it is not known, and there it ends.
    """
    position, ref, alt = key
    if not is_indel(key):
        return trimmed(*key)
    while ref[-1] == alt[-1]:
        if len(ref) > 1 and len(alt) > 1:
            ref, alt = ref[:-1], alt[:-1]
            continue
        before = base_at(position - 1)
        if not before:
            break
        position, ref, alt = position - 1, before + ref[:-1], before + alt[:-1]
    return trimmed(position, ref, alt)


def is_indel(key: Key) -> bool:
    """Whether the alleles are of bases and of unlike lengths."""
    _, ref, alt = key
    if not ref or not alt:  # a BCF can hold an empty allele
        return False
    return len(ref) != len(alt) and _BASES.issuperset(ref) and _BASES.issuperset(alt)


def known_bases(sites: Sites, indels: np.ndarray) -> dict[int, str]:
    """The bases that a panel's REF alleles tell, up to 1,000 bp before the places of indels.

    Parameters
    ----------
    sites
        The panel's sites, sorted by position.
    indels
        Positions, sorted, int64.

    Returns
    -------
    Bases by position; "" where the panel's sites contradict each other.
    """
    if not len(indels):
        return {}
    position = sites.position_bp.astype(np.int64)
    after = np.minimum(np.searchsorted(indels, position), len(indels) - 1)
    distance = indels[after] - position
    near = np.flatnonzero((distance >= 0) & (distance <= _REACH_BP))
    found: dict[int, str] = {}
    for i in near.tolist():
        first, ref = int(position[i]), sites.ref[i].upper()
        for place, base in _bases_near(first, ref, indels):
            if base == "N":
                continue
            if found.setdefault(place, base) != base or base not in "ACGT":
                found[place] = ""
    return found


def _bases_near(first: int, ref: str, indels: np.ndarray) -> Iterable[tuple[int, str]]:
    """The bases of a REF allele, of a long one those alone that are near an indel."""
    if len(ref) <= _REACH_BP:
        return enumerate(ref, start=first)
    place = np.arange(first, first + len(ref))
    after = np.searchsorted(indels, place - _NEAR_BP)
    is_near = indels[np.minimum(after, len(indels) - 1)] <= place + _REACH_BP
    is_near &= after < len(indels)
    return ((int(place[k]), ref[k]) for k in np.flatnonzero(is_near).tolist())


def look_alikes(
    key: Key, panel_indels: list[Key], positions: np.ndarray, known: dict[int, str]
) -> Iterator[Key]:
    """Panel indels that are ``key`` itself if the bases between them repeat as they must.

    Parameters
    ----------
    key
        A trimmed indel that the panel seems to lack.
    panel_indels, positions
        The panel's indels, trimmed and sorted by position; and their positions, int64.
    known
        See :func:`known_bases`: a known base that does not fit tells two indels apart.
    """
    change = _change(key)
    if change is None:
        return
    sign, bases, at = change
    first, stop = np.searchsorted(positions, [key[0] - _NEAR_BP, key[0] + _NEAR_BP + 1]).tolist()
    for other in panel_indels[first:stop]:
        found = _change(other)
        if found is None or found[0] != sign or len(found[1]) != len(bases):
            continue
        there = found[2]
        turned = "".join(bases[(there + i - at) % len(bases)] for i in range(len(bases)))
        between = range(min(at, there), max(at, there))
        if turned == found[1] and all(
            known.get(x, "") in ("", bases[(x - at) % len(bases)]) for x in between
        ):
            yield other


def _change(key: Key) -> tuple[int, str, int] | None:
    """1 or -1, what is inserted or deleted, and its first base's position; None if neither."""
    position, ref, alt = key
    if len(ref) == 1 and alt[:1] == ref and len(alt) > 1:
        return 1, alt[1:], position + 1
    if len(alt) == 1 and ref[:1] == alt and len(ref) > 1:
        return -1, ref[1:], position + 1
    return None
