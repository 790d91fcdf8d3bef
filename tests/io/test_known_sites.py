"""Positions of well-known sites, and the builds that they tell."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragimpute.contigs import HUMAN_LENGTHS
from ragimpute.io.known_sites import BUILDS, KNOWN_SITES, build_by_positions, build_by_shift


def test_each_number_is_vouched_for_by_another_site():
    """Neighbouring sites have the same distance in all builds; all lie within the chromosome."""
    names = {}
    for name, (contig, places) in KNOWN_SITES.items():
        assert len(set(places)) == 3, name
        for build, place in zip(BUILDS, places, strict=True):
            assert 0 < place < HUMAN_LENGTHS[build][contig], name
        names.setdefault(contig, []).append(name)
    assert set(names) == {*map(str, range(1, 23)), "X"}
    for some in names.values():
        assert len(some) >= 2
        for one, other in combinations(some, 2):
            apart = {a - b for a, b in zip(*(KNOWN_SITES[x][1] for x in (one, other)), strict=True)}
            assert len(apart) == 1, (one, other)


@pytest.mark.parametrize("i", range(3))
def test_builds_are_told(i):
    assert build_by_positions({name: at[i] for name, (_, at) in KNOWN_SITES.items()}) == (
        BUILDS[i], len(KNOWN_SITES), len(KNOWN_SITES)
    )  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(sorted(KNOWN_SITES)), st.integers(-1, 2)), max_size=12))
def test_no_build_is_told_where_sites_are_few_or_contradict_each_other(chosen):
    chosen = dict(chosen)
    found = build_by_positions(
        {"rs1": 1} | {name: KNOWN_SITES[name][1][i] if i >= 0 else 5 for name, i in chosen.items()}
    )
    counts = [sum(k == i for k in chosen.values()) for i in range(3)]
    assert found.num_known == len(chosen)
    assert found.num_agree == max(counts)
    if found.build is None:
        assert max(counts) < 2 or max(counts) < 0.7 * len(chosen)
    else:
        assert counts[BUILDS.index(found.build)] == max(counts) > len(chosen) / 2
        assert max(counts) >= 2


def test_a_shift_tells_the_build():
    assert build_by_shift("2", "GRCh37", 757_570) == "GRCh38"
    assert build_by_shift("2", "GRCh38", -757_570) == "GRCh37"
    assert build_by_shift("2", "GRCh37", 757_571) is None
    assert build_by_shift("3", "GRCh37", 757_570) is None
    assert build_by_shift("2", "T2T-CHM13", 757_570) is None
    assert build_by_shift("2", None, 757_570) is None
