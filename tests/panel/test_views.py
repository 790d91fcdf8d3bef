"""Views of a panel: some of its haplotypes, and a stretch that is read in advance."""

from __future__ import annotations

import copy
import pickle
import threading
import time

import numpy as np
import pytest
from panel_fixtures import FlatMap, make_batch, names, random_alleles

from ragimpute.errors import PanelError
from ragimpute.panel.haplotypes import keep_haplotypes
from ragimpute.panel.ploidy import Ploidy
from ragimpute.panel.reader import Panel, PanelFile
from ragimpute.panel.views import (
    PanelAhead,
    PanelLeftOut,
    PanelView,
    PanelWithout,
    parts_of,
    require_one_ploidy,
)
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.retrieval.index import WindowIndex
from ragimpute.runtime.threads import Crew


@pytest.fixture
def panel(tmp_path):
    """A panel of 70 samples, 500 sites, and its alleles; sample 3 is haploid in [100, 350)."""
    alleles = random_alleles(np.random.default_rng(5), 500, 70)
    alleles[100:350, 3, 1] = -2
    slots = np.ones((3, 70, 2), bool)
    slots[1, 3, 1] = False
    batch = make_batch(alleles)
    at = batch.sites.position_bp
    ploidy = Ploidy(np.array([0, at[100], at[350]]), slots)
    write_panel(tmp_path / "p.h5", [batch], samples=names(70), genetic_map=FlatMap(), ploidy=ploidy)
    with Panel.open(tmp_path / "p.h5") as opened:
        yield opened, alleles.reshape(500, -1)


def test_some_of_the_haplotypes(panel):
    opened, alleles = panel
    kept = np.random.default_rng(1).random(140) < 0.6
    block = keep_haplotypes(opened.haplotypes(20, 480), kept)
    np.testing.assert_array_equal(block.alleles(), np.maximum(alleles, 0)[20:480, kept])
    assert block.num_haplotypes == kept.sum()
    assert ((block.row >= 0) | (np.diff(block.offsets) >= 0)).all()
    assert (block.row >= 0).any()  # both kinds of rows are met
    assert (np.diff(block.offsets) > 0).any()
    none = keep_haplotypes(opened.haplotypes(7, 7), kept)
    assert none.alleles().shape == (0, kept.sum())


def test_parts_follow_the_ploidy(panel):
    opened, alleles = panel
    parts = parts_of(opened, 50, 400)
    assert [(start, stop) for start, stop, _ in parts] == [(50, 100), (100, 350), (350, 400)]
    assert [part.num_haplotypes for _, _, part in parts] == [140, 139, 140]
    middle = parts[1][2]
    there = np.delete(alleles, 7, axis=1)[100:350]
    np.testing.assert_array_equal(middle.haplotypes(100, 350).alleles(), there)
    np.testing.assert_allclose(middle.af[100:350], there.mean(axis=1), atol=1e-7)
    assert np.bincount(middle.haplotype_sample).tolist() == [1 if i == 3 else 2 for i in range(70)]
    assert (middle.num_sites, middle.contig) == (500, "20")
    assert [(start, stop) for start, stop, _ in parts_of(opened, 120, 130)] == [(120, 130)]


def test_peers_24_what_cannot_follow_the_ploidy_says_so(panel):
    opened, _ = panel
    with pytest.raises(PanelError, match="changes at 20:2000, 20:4500, and an index") as caught:
        WindowIndex.build(opened)
    assert "--region" in caught.value.hint
    with pytest.raises(PanelError, match="and training cannot follow"):
        require_one_ploidy(opened, "training")


def test_a_panel_of_one_ploidy_is_its_own_part(panel_h5):
    with Panel.open(panel_h5) as panel:
        assert parts_of(panel, 3, 9) == [(3, 9, panel)]


@pytest.fixture
def example_panel(panel_h5):
    with Panel.open(panel_h5) as opened:
        yield opened


def same(found, expected):
    for name in ("offsets", "carriers", "row", "bits", "alt_is_minor"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("stretch", [(0, 900), (10, 20)])
@pytest.mark.parametrize("asked", [(0, 900), (5, 300)])
def test_any_stretch_at_any_time(example_panel, stretch, asked):
    expected = example_panel.haplotypes(*asked)
    ahead = PanelAhead(example_panel, *stretch)
    for _ in range(2):
        same(ahead.haplotypes(*asked), expected)
    ahead.forget()
    assert ahead.num_sites == example_panel.num_sites
    assert ahead.bytes_per_site() == example_panel.bytes_per_site()
    np.testing.assert_array_equal(ahead.af, example_panel.af)


def test_a_stretch_is_read_once_and_beside_what_is_done(example_panel, monkeypatch):
    asked, go = [], threading.Event()
    read = example_panel.haplotypes

    def slowly(self, start, stop):
        asked.append((start, stop, threading.current_thread() is threading.main_thread()))
        go.wait(10)
        return read(start, stop)

    monkeypatch.setattr(PanelFile, "haplotypes", slowly)
    with Crew(2):
        ahead = PanelAhead(example_panel, 3, 40)
        while not asked:
            time.sleep(0.001)
        go.set()
        same(ahead.haplotypes(5, 9), read(5, 9))  # which leaves what is read ahead
        same(ahead.haplotypes(3, 40), read(3, 40))
    assert asked == [(3, 40, False), (5, 9, True)]
    ahead.haplotypes(3, 40)
    assert asked[2:] == [(3, 40, True)]


@pytest.mark.parametrize(
    ("stretches", "times"), [([(3, 40)], 1), ([(3, 20), (20, 40)], 2), ([], 2)]
)
def test_what_is_read_ahead_is_kept_only_where_it_is_wanted(
    example_panel, monkeypatch, stretches, times
):
    asked, read = [], example_panel.haplotypes

    def noted(self, start, stop):
        asked.append((start, stop))
        return read(start, stop)

    monkeypatch.setattr(PanelFile, "haplotypes", noted)
    with Crew(2):
        ahead = PanelAhead(example_panel, 3, 40)
        while not asked:
            time.sleep(0.001)
        PanelView(ahead).will_read(stretches)
        same(ahead.haplotypes(3, 40), read(3, 40))
    assert asked == [(3, 40)] * times


def test_what_goes_wrong_is_told_where_haplotypes_are_asked_for(example_panel, monkeypatch):
    def fail(self, start, stop):
        raise PanelError("it is damaged")

    monkeypatch.setattr(PanelFile, "haplotypes", fail)
    ahead = PanelAhead(example_panel, 0, 5)
    ahead.forget()
    with pytest.raises(PanelError, match="damaged"):
        ahead.haplotypes(0, 5)


def test_a_view_passes_on_what_it_does_not_answer(example_panel):
    view = PanelView(example_panel)
    assert isinstance(view, Panel)
    assert view.sites is example_panel.sites
    assert view.checksum == example_panel.checksum
    assert view.site_range(None) == (0, example_panel.num_sites)
    np.testing.assert_array_equal(view.genotype_freq(3, 9), example_panel.genotype_freq(3, 9))
    np.testing.assert_array_equal(view.af_population(3, 9), example_panel.af_population(3, 9))
    view.verify()
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = view.no_such_name
    view.close()
    assert example_panel._file is None


def test_views_can_be_copied_and_sent_to_another_process(example_panel):
    kept = np.arange(example_panel.num_haplotypes) % 3 > 0
    view = PanelWithout(example_panel, kept)
    expected = view.haplotypes(5, 40)
    for other in (copy.copy(view), pickle.loads(pickle.dumps(view))):
        same(other.haplotypes(5, 40), expected)
        assert other.num_haplotypes == kept.sum()
        assert other.contig == example_panel.contig


def test_samples_that_are_left_out_are_in_no_frequency(tmp_path):
    alleles = random_alleles(np.random.default_rng(6), 60, 20)
    alleles[:, 4, 1] = -2  # a haploid sample
    slots = np.ones((1, 20, 2), bool)
    slots[0, 4, 1] = False
    populations = ["A"] * 12 + ["B"] * 8
    write_panel(
        tmp_path / "p.h5", [make_batch(alleles)], samples=names(20), genetic_map=FlatMap(),
        ploidy=Ploidy(np.array([0]), slots),
        population_of=dict(zip(names(20), populations, strict=True)),
    )  # fmt: skip
    with Panel.open(tmp_path / "p.h5") as panel:
        out = np.isin(panel.haplotype_sample, [0, 7, 13, 19])
        view = PanelLeftOut(panel, ~out, 10, 50)
        stay = [i for i in range(20) if i not in (0, 7, 13, 19)]
        for u in range(5, 55):
            if not 10 <= u < 50:
                assert view.af[u] == panel.af[u]
                np.testing.assert_array_equal(
                    view.af_population(u, u + 1), panel.af_population(u, u + 1)
                )
                np.testing.assert_array_equal(
                    view.genotype_freq(u, u + 1), panel.genotype_freq(u, u + 1)
                )
                continue
            rest = {i: [a for a in alleles[u, i] if a >= 0] for i in stay}
            every = [a for i in stay for a in rest[i]]
            assert view.af[u] == pytest.approx(np.mean(every), abs=1e-6)
            for group, name in enumerate(panel.populations):
                mine = [a for i in stay if populations[i] == name for a in rest[i]]
                found = view.af_population(u, u + 1)[group, 0]
                assert found == pytest.approx(np.mean(mine), abs=1e-6)
            kinds = [0 if sum(x) == 0 else 2 if sum(x) == len(x) else 1 for x in rest.values()]
            shares = [kinds.count(k) / len(stay) for k in range(3)]
            np.testing.assert_allclose(view.genotype_freq(u, u + 1)[0], shares, atol=1e-6)
        np.testing.assert_array_equal(
            view.af_population(5, 55)[:, 7], view.af_population(12, 13)[:, 0]
        )
        np.testing.assert_array_equal(
            view.haplotypes(0, 60).alleles(), panel.haplotypes(0, 60).alleles()[:, ~out]
        )
