"""Masks hide what their names say, as many sites as asked, by the generator alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names, random_alleles
from pydantic import ValidationError

from ragimpute import example
from ragimpute.config import CurriculumConfig, MaskConfig, MaskPart
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.preparation.prepare import prepare
from ragimpute.target.match import match_sites
from ragimpute.training.data.arrays import WindowSites, draw_array, draw_length, panel_sites
from ragimpute.training.data.masks import MASKS, MaskMixture, draw_mask, linkage_blocks


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """The packaged 1000 Genomes panel."""
    path = tmp_path_factory.mktemp("masking") / "panel.h5"
    prepare(example.path("panel.bcf"), path, genetic_map=example.path("chr20.b37.gmap.gz"))
    with Panel.open(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def window(panel):
    """The first window's sites, with their blocks."""
    start, stop = panel.windows[0]
    block = linkage_blocks(panel.haplotypes(start, stop).alleles(), 0.8)
    return panel_sites(panel, start, stop, block=block)


def some_sites(seed, num_sites):
    """Sites of all kinds, several to a block."""
    rng = np.random.default_rng(seed)
    return WindowSites(
        position_bp=np.sort(rng.integers(1, 50_000, num_sites)),
        maf=rng.beta(0.2, 1, num_sites) / 2,
        is_snp=rng.random(num_sites) < 0.9,
        block=rng.integers(0, max(1, num_sites // 3), num_sites),
    )


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(MASKS)),
    num_sites=st.integers(1, 120),
    rate=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_masks_hide_as_much_as_asked(name, num_sites, rate, seed):
    sites = some_sites(seed, num_sites)
    hidden = draw_mask(name, sites, rate, np.random.default_rng(seed))
    assert hidden.shape == (num_sites,)
    assert hidden.dtype == bool
    want = max(1, round(rate * num_sites))
    if name == "ld_guided":
        largest = int(np.bincount(sites.block).max())
        assert hidden.sum() >= 1
        assert abs(hidden.sum() - want) <= largest
    else:
        assert hidden.sum() == want
    again = draw_mask(name, sites, rate, np.random.default_rng(seed))
    np.testing.assert_array_equal(hidden, again)


@settings(max_examples=60, deadline=None)
@given(
    num_sites=st.integers(4, 300),
    low=st.floats(10, 5000),
    factor=st.floats(1, 10),
    seed=st.integers(0, 2**32 - 1),
)
def test_as_many_sites_of_a_mb_stay_typed_as_asked(num_sites, low, factor, seed):
    sites = some_sites(seed, num_sites)
    part = MaskPart(name="array_like", rate=0.1, typed_per_mb=(low, low * factor))
    mixture = MaskMixture(MaskConfig(parts=(part,), validation=part))
    mixture.add_level()  # of no effect
    mb = (sites.position_bp[-1] - sites.position_bp[0] + 1) * 1e-6
    for draw in (mixture.draw, mixture.draw_validation):
        typed = num_sites - draw(sites, np.random.default_rng(seed)).sum()
        least, most = (min(max(density * mb, 2), num_sites / 2) for density in part.typed_per_mb)
        assert least - 0.51 <= typed <= most + 0.51


def test_a_range_of_densities_ascends():
    with pytest.raises(ValidationError, match=r"9\.0, 3\.0 is not ascending"):
        MaskPart(typed_per_mb=(9, 3))


@pytest.mark.parametrize("name", sorted(MASKS))
def test_masks_differ_from_draw_to_draw(name, window):
    rng = np.random.default_rng(0)
    drawn = {draw_mask(name, window, 0.5, rng).tobytes() for _ in range(5)}
    assert len(drawn) == 5


def test_array_like_keeps_common_spread_out_snps(window):
    rng = np.random.default_rng(0)
    assert (window.maf >= 0.01).mean() < 0.6
    for _ in range(10):
        typed = ~draw_mask("array_like", window, 0.9, rng)
        assert window.is_snp[typed].all()
        assert (window.maf[typed] >= 0.01).mean() > 0.8
        third = np.array_split(typed, 3)
        assert min(part.sum() for part in third) >= 0.1 * typed.sum()


def test_rare_sites_are_hidden_first(window):
    rng = np.random.default_rng(0)
    hidden = np.mean([draw_mask("maf_guided", window, 0.5, rng) for _ in range(50)], axis=0)
    plain = np.mean([draw_mask("random", window, 0.5, rng) for _ in range(50)], axis=0)
    rare, common = window.maf < 0.005, window.maf > 0.2
    assert hidden[rare].mean() > 0.9
    assert hidden[common].mean() < 0.15
    assert plain[rare].mean() == pytest.approx(0.5, abs=0.03)
    assert plain[common].mean() == pytest.approx(0.5, abs=0.03)


def test_ld_guided_leaves_no_proxy(panel, window):
    start, stop = panel.windows[0]
    alleles = panel.haplotypes(start, stop).alleles()
    varies = alleles.min(1) != alleles.max(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = np.corrcoef(alleles) ** 2
    rng = np.random.default_rng(0)
    for rate in (0.2, 0.5, 0.9):
        hidden = draw_mask("ld_guided", window, rate, rng)
        assert abs(hidden.mean() - rate) < 0.1
        assert r2[np.ix_(hidden & varies, ~hidden & varies)].max() < 0.8
        # A mask that knows nothing of linkage does leave proxies.
        shuffled = rng.permutation(hidden)
        assert r2[np.ix_(shuffled & varies, ~shuffled & varies)].max() > 0.99


def test_ld_guided_needs_blocks():
    sites = some_sites(0, 10)
    without = WindowSites(sites.position_bp, sites.maf, sites.is_snp)
    with pytest.raises(ValueError, match="needs the blocks"):
        draw_mask("ld_guided", without, 0.5, np.random.default_rng(0))


def test_blocks_are_components_of_linked_sites():
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 2, (2, 400))
    noisy = np.where(rng.random(400) < 0.02, 1 - a, a)
    constant = np.ones(400, int)
    block = linkage_blocks(np.array([a, b, 1 - a, constant, noisy, constant, b]), 0.8)
    assert block[0] == block[2] == block[4]
    assert block[1] == block[6]
    assert len({block[0], block[1], block[3], block[5]}) == 4
    exact = linkage_blocks(np.array([a, b, 1 - a, constant, noisy, constant, b]), 1.0)
    assert exact[0] == exact[2] != exact[4]


def test_mixture_follows_the_weights():
    sites = some_sites(1, 100)
    parts = (MaskPart(name="random", weight=3, rate=0.2), MaskPart(name="maf_guided", rate=0.7))
    mixture = MaskMixture(MaskConfig(parts=parts))
    assert not mixture.needs_blocks
    rng = np.random.default_rng(0)
    counts = np.array([mixture.draw(sites, rng).sum() for _ in range(400)])
    assert set(counts) == {20, 70}
    assert (counts == 20).mean() == pytest.approx(0.75, abs=0.06)
    assert MaskMixture(MaskConfig(parts=(MaskPart(name="ld_guided"),))).needs_blocks


def test_curriculum_raises_the_rate_up_to_its_limit():
    part = MaskPart(name="random", rate=0.5)
    above = MaskPart(name="random", rate=0.95)
    config = MaskConfig(
        parts=(part,),
        curriculum=CurriculumConfig(every_epochs=1, step=0.15, max_rate=0.9),
        validation=part,
    )
    mixture = MaskMixture(config)
    sites, rng = some_sites(0, 100), np.random.default_rng(0)
    hidden = []
    for _ in range(5):
        hidden.append(int(mixture.draw(sites, rng).sum()))
        assert mixture.draw_validation(sites, rng).sum() == 50
        assert mixture.rate(above) == 0.95
        mixture.add_level()
    assert hidden == [50, 65, 80, 90, 90]
    assert mixture.level == 5


def test_drawn_arrays_resemble_a_real_one(panel):
    target = read_target(example.path("target.vcf.gz"))
    real = match_sites(target, panel, 0, panel.num_sites).panel_index
    span_mb = (panel.sites.position_bp[-1] - panel.sites.position_bp[0]) * 1e-6
    maf = np.minimum(panel.af, 1 - panel.af)

    def describe(typed):
        gap = np.diff(panel.sites.position_bp[typed])
        return [(maf[typed] < 0.01).mean(), (maf[typed] > 0.05).mean(), np.median(gap) / gap.mean()]

    rng = np.random.default_rng(0)
    drawn = [draw_array(panel, 0, panel.num_sites, len(real) / span_mb, rng) for _ in range(20)]
    assert all(abs(len(typed) - len(real)) <= 1 for typed in drawn)
    mean = np.mean([describe(typed) for typed in drawn], axis=0)
    np.testing.assert_allclose(mean, describe(real), atol=0.05)


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, 38),
    length=st.integers(1, 40),
    density=st.floats(0.01, 1e7),
    seed=st.integers(0, 2**32 - 1),
)
def test_arrays_of_small_panels(small_panel, start, length, density, seed):
    stop = min(40, start + length)
    typed = draw_array(small_panel, start, stop, density, np.random.default_rng(seed))
    assert typed.dtype == np.int64
    assert (np.diff(typed) > 0).all()
    assert start <= typed[0]
    assert typed[-1] < stop
    assert min(2, stop - start) <= len(typed) <= max(2, (stop - start) // 2)
    again = draw_array(small_panel, start, stop, density, np.random.default_rng(seed))
    np.testing.assert_array_equal(typed, again)


@pytest.fixture(scope="module")
def small_panel(tmp_path_factory):
    """Forty sites, some that do not vary, of three samples."""
    path = tmp_path_factory.mktemp("small") / "p.h5"
    alleles = random_alleles(np.random.default_rng(0), 40, 3)
    write_panel(path, [make_batch(alleles)], samples=names(3), genetic_map=FlatMap())
    with Panel.open(path) as opened:
        yield opened


@given(least=st.integers(1, 50), more=st.integers(0, 50), seed=st.integers(0, 2**32 - 1))
def test_lengths_are_within_their_range(least, more, seed):
    rng = np.random.default_rng(seed)
    drawn = [draw_length(least, least + more, rng) for _ in range(20)]
    assert all(least <= n <= least + more for n in drawn)


def test_lengths_are_log_uniform():
    rng = np.random.default_rng(1)
    drawn = np.array([draw_length(10, 9_999, rng) for _ in range(6_000)])
    for low, high in ((10, 100), (100, 1_000), (1_000, 10_000)):
        assert ((drawn >= low) & (drawn < high)).mean() == pytest.approx(1 / 3, abs=0.03)


def test_arrays_of_sites_that_are_no_snps(tmp_path):
    alleles = random_alleles(np.random.default_rng(0), 30, 4)
    alleles[28:] = [[[0, 1]] * 4] * 2
    batch = make_batch(alleles, alt=["GT"] * 28 + ["G", "G"])
    write_panel(tmp_path / "p.h5", [batch], samples=names(4), genetic_map=FlatMap())
    with Panel.open(tmp_path / "p.h5") as opened:
        rng = np.random.default_rng(0)
        assert draw_array(opened, 0, 30, 1e6, rng).tolist() == [28, 29]
        assert len(draw_array(opened, 0, 28, 1e6, rng)) == 2
        with pytest.raises(ValueError, match="density 0"):
            draw_array(opened, 0, 30, 0, rng)
        with pytest.raises(ValueError, match=r"\[5, 5\) of 30"):
            draw_array(opened, 5, 5, 100, rng)
