"""Fits of stretches by themselves; test_impute_models has them at work."""

from __future__ import annotations

import numpy as np
import pytest

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.window import Window
from ragimpute.copying_model import panel_fit as stretch_fits
from ragimpute.copying_model.panel_fit import BackgroundNetwork, FitOptions, StretchFits
from ragimpute.evidence.site_quality import measure_sites
from ragimpute.model.folder import open_folder
from ragimpute.panel.reader import Panel
from ragimpute.retrieval.retriever import Retriever


@pytest.fixture(scope="module")
def panel(panel_h5):
    with Panel.open(panel_h5) as opened:
        yield opened


def fits_of(panel, typed_index, **options):
    network = BackgroundNetwork(open_folder("default"), device="cpu", threads=1)
    array_fit = options.pop("array_fit", None)
    given = FitOptions(**{"ne": 1e5, "err": 1e-3, "fine_tune": False, **options})
    return StretchFits(panel, typed_index, network, given, array_fit)


def test_what_was_fitted_is_said_and_nothing_before(panel):
    typed_index = np.arange(0, 600, 12)
    fits = fits_of(panel, typed_index)
    assert fits.settings() == {"ne": "", "err": ""}
    window = Window.build(panel.haplotypes(0, 600), panel.position_cm[:600], typed_index)
    one = fits.at(typed_index[:30], window, (0, 400), {})
    assert fits.settings() == {"ne": "1e+05", "err": "0.001"}
    assert one.parameters.ne(panel.num_haplotypes) == pytest.approx(1e5)
    assert one.tuned.result()[1] is None
    assert one.tuned.result()[0] is not None
    # Another window of the same stretch is given the same.
    assert fits.at(typed_index[20:], window, (300, 600), {}) is one


def test_a_network_is_fitted_to_the_panel(panel, monkeypatch):
    typed_index = np.arange(0, 600, 12)
    window = Window.build(panel.haplotypes(0, 600), panel.position_cm[:600], typed_index)
    retriever, asked = object(), []

    def fit_panel(given, sample, *, retriever, **_):
        asked.append((given, retriever))
        return CopyingParameters(5, 1e-3)

    monkeypatch.setattr(stretch_fits, "fit_panel", fit_panel)
    monkeypatch.setattr(
        stretch_fits,
        "adapt_network",
        lambda network, *_, **__: asked.append("tuned") or (network, None),
    )
    fits = fits_of(panel, typed_index, ne=None, err=None, fine_tune=True)
    fits.at(typed_index, window, (0, 600), {}, lambda: retriever).tuned.result()
    # The run's only window, and its retriever, serve the fit as well.
    assert asked[0][0] is window
    assert asked[0][1] is retriever
    assert asked[1:] == ["tuned"]


def test_a_network_is_read_once(monkeypatch):
    network = BackgroundNetwork(open_folder("default"), device="cpu", threads=1)
    assert network.trained
    assert not network.uses_torch
    network.start()  # nothing is begun in the background for a network that needs no torch
    first = network.ready()
    monkeypatch.setattr(network, "_load", lambda: pytest.fail("read again"))
    assert network.ready() is first


@pytest.mark.parametrize("num_sites", [600, 300])
def test_what_the_window_has_is_not_read_again(panel, monkeypatch, num_sites):
    typed_index = np.arange(0, 600, 12)
    first = (600 - num_sites) // 2
    within = typed_index[(typed_index >= first) & (typed_index < first + num_sites)]
    here = slice(first, first + num_sites)
    window = Window.build(
        panel.haplotypes(here.start, here.stop), panel.position_cm[here], within - first
    )
    monkeypatch.setattr(stretch_fits, "_TUNE_TYPED", 20)
    given = []
    monkeypatch.setattr(
        stretch_fits,
        "adapt_network",
        lambda network, window, *_, **__: given.append(window) or (network, None),
    )
    read = panel.haplotypes(*(typed_index[[15, 34]] + [0, 1]))
    monkeypatch.setattr(type(panel), "haplotypes", lambda *_: pytest.fail("read again"))
    fits = fits_of(panel, typed_index, fine_tune=True)
    fits.at(within, window, (here.start, here.stop), {}).tuned.result()
    np.testing.assert_array_equal(given[0].haplotypes.alleles(), read.alleles())
    np.testing.assert_array_equal(given[0].typed_index + typed_index[15], typed_index[15:35])


def test_where_states_are_retrieved_one_set_of_samples_measures_and_checks(panel, monkeypatch):
    typed_index = np.arange(0, 600, 6)
    window = Window.build(panel.haplotypes(0, 600), panel.position_cm[:600], typed_index)
    retriever = Retriever(window.typed.words, num_slots=24, num_background=8)
    asked = []

    def measure(parameters, words):
        asked.append(words)
        return measure_sites(
            window, panel.haplotype_sample, parameters,
            retriever=retriever, num_samples=4, kept_words=words,
        )  # fmt: skip

    monkeypatch.setattr(stretch_fits, "_TUNE_TYPED", 40)
    monkeypatch.setattr(stretch_fits, "adapt_network", lambda *_, **__: pytest.fail("not needed"))
    fits = fits_of(panel, typed_index, fine_tune=True)
    fit = fits.at(typed_index, window, (0, 600), {}, lambda: retriever, measure)
    network, quality = fit.tuned.result()
    assert fit.sites == (0, 600)
    assert asked == [(0, 3)]  # the words of typed sites 30 to 69
    assert network.trust is not None
    assert quality.copies is None
    assert len(quality.measured) == 600
    # A window that has not the middle of the stretch is no place to check the network.
    away = Window.build(panel.haplotypes(0, 200), panel.position_cm[:200], typed_index[:30])
    monkeypatch.setattr(stretch_fits, "adapt_network", lambda network, *_, **__: (network, None))
    fits = fits_of(panel, typed_index, fine_tune=True)
    fit = fits.at(typed_index[:30], away, (0, 200), {}, lambda: retriever, measure)
    assert (fit.sites, fit.tuned.result()[1], len(asked)) == (None, None, 1)
