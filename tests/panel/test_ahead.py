"""A panel that is read ahead gives what it gives anyway."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from ragimpute import example
from ragimpute.errors import PanelError
from ragimpute.panel.ahead import PanelAhead
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare


@pytest.fixture(scope="module")
def panel_h5(tmp_path_factory):
    path = tmp_path_factory.mktemp("ahead") / "panel.h5"
    prepare(example.path("panel.bcf"), path, cm_per_mb=1.0)
    return path


@pytest.fixture
def panel(panel_h5):
    with Panel.open(panel_h5) as opened:
        yield opened


def same(found, expected):
    for name in ("offsets", "carriers", "row", "bits", "alt_is_minor"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("stretch", [(0, 900), (10, 20)])
@pytest.mark.parametrize("asked", [(0, 900), (5, 300)])
def test_any_stretch_at_any_time(panel, stretch, asked):
    expected = panel.haplotypes(*asked)
    ahead = PanelAhead(panel, *stretch)
    for _ in range(2):
        same(ahead.haplotypes(*asked), expected)
    ahead.finish()
    assert ahead.num_sites == panel.num_sites
    assert ahead.bytes_per_site() == panel.bytes_per_site()
    np.testing.assert_array_equal(ahead.af, panel.af)


def test_it_is_read_once_and_beside_what_is_done(panel, monkeypatch):
    asked, go = [], threading.Event()
    read = panel.haplotypes

    def slowly(self, start, stop):
        asked.append((start, stop, threading.current_thread() is threading.main_thread()))
        go.wait(10)
        return read(start, stop)

    monkeypatch.setattr(Panel, "haplotypes", slowly)
    ahead = PanelAhead(panel, 3, 40)
    go.set()
    same(ahead.haplotypes(3, 40), read(3, 40))
    assert asked == [(3, 40, False)]
    ahead.haplotypes(3, 40)
    assert asked[1:] == [(3, 40, True)]


def test_what_goes_wrong_is_told_where_haplotypes_are_asked_for(panel, monkeypatch):
    def fail(self, start, stop):
        raise PanelError("it is damaged")

    monkeypatch.setattr(Panel, "haplotypes", fail)
    ahead = PanelAhead(panel, 0, 5)
    ahead.finish()
    with pytest.raises(PanelError, match="damaged"):
        ahead.haplotypes(0, 5)
