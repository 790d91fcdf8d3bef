"""Why files share few sites: what is said of builds, strands, arrays and regions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from panel_fixtures import FlatMap, make_batch, names

from ragimpute.io.vcf.read.records import site_table
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.sites import Sites
from ragimpute.target.overlap import (
    Overlap,
    compare_positions,
    human_build,
    likely_cause,
    no_overlap,
)

BASES = "ACGT"


@pytest.fixture
def panel(tmp_path):
    """2,000 SNPs, 10 bp apart, with a bp of play."""
    rng = np.random.default_rng(3)
    position = 10_000 + 10 * np.arange(2000) + rng.integers(0, 2, 2000)
    ref = rng.integers(0, 4, 2000)
    alt = (ref + rng.integers(1, 4, 2000)) % 4
    alleles = rng.integers(0, 2, (2000, 4, 2))
    batch = make_batch(alleles, position, ref=[BASES[b] for b in ref], alt=[BASES[b] for b in alt])
    write_panel(
        tmp_path / "p.h5", [batch], samples=names(4), genetic_map=FlatMap(),
        contig_length=64_444_167,
    )  # fmt: skip
    with Panel.open(tmp_path / "p.h5") as opened:
        yield opened


def target_of(sites: Sites, length=None):
    """What the functions read of a target."""
    return SimpleNamespace(sites=sites, contig_length=length)


def moved(sites: Sites, by: int) -> Sites:
    """The same sites somewhere else."""
    return Sites(sites.contig, sites.position_bp + by, sites.ref, sites.alt, sites.id)


def cause(sites, panel, length=None):
    target = target_of(sites, length)
    return likely_cause(target, panel, compare_positions(target, panel, 0, panel.num_sites))


def test_peers_1_another_build_by_the_headers(panel):
    sites = moved(panel.sites, 5)
    said = cause(sites, panel, 63_025_520)
    assert "target is of GRCh37 and the panel of GRCh38" in said
    assert "build" in cause(sites, panel)
    assert "GRCh" not in cause(sites, panel, 64_444_167)


def test_another_build_by_the_bases(panel):
    # Where positions agree by chance, the bases do not.
    said = cause(moved(panel.sites, 11), panel)
    assert "different genome builds" in said


def test_an_array_that_the_panel_lacks(panel):
    some = panel.sites.take(slice(0, 2000, 20))
    others = moved(panel.sites.take(np.arange(2000) % 20 > 12), 4)
    position = np.concatenate([some.position_bp, others.position_bp])
    order = np.argsort(position, kind="stable")
    columns = [np.concatenate([getattr(some, x), getattr(others, x)]) for x in ("ref", "alt", "id")]
    sites = site_table("20", position[order], *(column[order] for column in columns))
    assert "the panel lacks most of the array's sites" in cause(sites, panel)


def test_peers_34_alleles_that_do_not_fit(panel):
    sites = panel.sites
    other = {base: BASES[(i + 1) % 4] for i, base in enumerate(BASES)}
    turned = site_table(
        "20", sites.position_bp, [other[x] for x in sites.ref], [other[x] for x in sites.alt],
        sites.id,
    )  # fmt: skip
    assert "+fixref" in cause(turned, panel)


def test_positions_are_compared(panel):
    sites = panel.sites.take(slice(0, 10))
    found = compare_positions(target_of(sites), panel, 0, 2000)
    assert (found.num_records, found.num_at_position, found.num_ref_agree) == (10, 10, 10)
    assert isinstance(found, Overlap)
    assert compare_positions(target_of(sites), panel, 5, 2000).num_at_position == 5
    assert compare_positions(target_of(sites), panel, 5, 5).num_records == 0


def test_the_error_names_both_ranges(panel):
    error = no_overlap(target_of(moved(panel.sites, 100_000)), panel, 0, 2000)
    assert "target 20:110" in error.message
    assert "panel 20:10" in error.message
    assert "0% of records agree by position" in error.message
    assert "ranges do not meet" in error.hint
    error = no_overlap(target_of(moved(panel.sites, 100_000), 63_025_520), panel, 0, 2000)
    assert "GRCh37" in error.hint
    error = no_overlap(target_of(panel.sites.take(slice(0))), panel, 0, 2000)
    assert "no record on" in error.message


def test_builds_by_length():
    assert human_build("chr20", 64_444_167) == "GRCh38"
    assert human_build("23", 155_270_560) == "GRCh37"
    assert human_build("20", 155_270_560) is None
    assert human_build("20", None) is None
    assert human_build("Chr31", 6_153_034) is None
