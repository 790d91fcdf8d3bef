"""Wording: pages name things in words with units, and never show a value as Python writes it."""

from __future__ import annotations

import dataclasses
import re
from html import unescape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_fixtures import Page, evaluation, history, summary

from ragimpute.imputation.summary import ImputeSummary, name_of
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.reports.pages import render_evaluate, render_impute, render_train
from ragimpute.reports.wording import (
    by_stage,
    flat,
    percent,
    setting,
    setting_name,
    stage_name,
    words,
)

SETTINGS = settings(max_examples=60, deadline=None)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_infinity=False),
    st.sampled_from(["", "v10", "a, b"]), st.just(b"raw"), st.just(np.float32(0.5)),
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["a_b", "c", "num_sites"]), inner, max_size=3),
    ),
    max_leaves=8,
)
PYTHON = re.compile(r"\{|\}|\bNone\b|\bTrue\b|\bFalse\b|b'|'|\[|\]|\(\)|array|float32|<.* object")


@SETTINGS
@given(TREES)
def test_values_are_never_as_python_writes_them(tree):
    assert not PYTHON.search(setting(tree)), setting(tree)
    for name, value in flat("", {"tree": tree, "more": [tree, {"x_y": tree}]}):
        assert name
        assert not PYTHON.search(name + value), (name, value)


def test_trees_become_rows():
    tree = {"seed": 3, "panels": [{"name": "a", "num_sites": 2}, {"name": "b", "num_sites": 3}],
            "versions": {"torch": "2.4"}, "empty": "", "list": [1, 2]}  # fmt: skip
    assert flat("", tree) == [
        ("seed", "3"), ("panels 1: name", "a"), ("panels 1: sites", "2"),
        ("panels 2: name", "b"), ("panels 2: sites", "3"), ("versions: torch", "2.4"),
        ("list", "1, 2"),
    ]  # fmt: skip


def test_units_are_labelled():
    assert setting_name("window_cm") == "longest window, cM"
    assert setting_name("something_cm") == "something, cM"
    assert words("peak_mb") == "peak, MiB"
    assert stage_name("fine-tune") == "fit the network"
    assert stage_name("another_stage") == "another stage"
    assert by_stage({"read": 1.0, "write": 2.0}) == {
        "read the inputs": 1.0,
        "write the output": 2.0,
    }
    assert len(by_stage({"read": 1.0, "read the inputs": 2.0})) == 2
    assert percent(None) == "–"


def test_no_page_shows_python(tmp_path):
    odd = {"on": True, "off": None, "nested": {"a": [1, {"b": False}]}, "np": np.float32(0.25)}
    run = summary(settings=odd, versions={"numpy": "2", "torch": "3"})
    provenance = {"panels": [{"name": "x", "masked": True}], "versions": {"torch": "2.4"}}
    render_impute(run, tmp_path / "i.html")
    render_train(history(), "", provenance, tmp_path / "t.html")
    render_evaluate(evaluation(), tmp_path / "e.html")
    for name in "ite":
        text = (tmp_path / f"{name}.html").read_text()
        body = re.sub(r"<svg.*?</svg>", "", text[text.index("<body") :], flags=re.DOTALL)
        shown = unescape(re.sub(r"<[^>]*>", " ", body))
        assert not re.search(r"\{|\}|\b(None|True|False|nan)\b|\[|\]|float32", shown), shown


def test_every_setting_and_stage_of_a_run_has_words(panel_h5, tmp_path):
    """What a real run reports is in the tables of words."""
    from ragimpute import example, impute
    from ragimpute.reports.wording import _SETTINGS, _STAGES

    done = impute(example.path("target.vcf.gz"), panel_h5, tmp_path / "o.vcf.gz",
                  region="20:2000000-2100000")  # fmt: skip
    assert set(done.settings) - {"region"} <= set(_SETTINGS)
    assert set(done.seconds) | set(done.peak_mb) <= set(_STAGES)
    assert done.genetic_map == "chr20.b37.gmap.gz"
    assert done.contig == "20"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", done.started)
    render_impute(done, tmp_path / "i.html")
    page = Page(tmp_path / "i.html")
    for told in ("started", "command", "region", "20:2000000-2100000", "chr20.b37.gmap.gz",
                 "none: called from Python"):  # fmt: skip
        assert told in page.words


def test_a_target_given_from_python_has_a_name():
    from ragimpute import example

    target = read_target(example.path("target.vcf.gz"))
    loose = dataclasses.replace(target, file=None)
    assert name_of(loose) == "genotypes of 50 samples, given from Python"
    assert name_of("x.vcf") == "x.vcf"


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({"command": "ragimpute impute 'a b.vcf'"}, "ragimpute impute 'a b.vcf'"),
        ({"genetic_map": "uniform, 1 cM/Mb"}, "uniform, 1 cM/Mb"),
        ({"genetic_map": ""}, "not recorded in the panel"),
        ({"span_cm": 12.3456}, "12.35 cM"),
        ({"started": "2026-01-02T03:04:05+00:00"}, "2026-01-02 03:04:05+00:00"),
        ({"contig": "chr7"}, "the whole of the panel's contig chr7"),
        ({"settings": {"region": "chr7:5-9"}}, "chr7:5-9"),
    ],
)
def test_the_run_is_told_first(tmp_path, more, shown):
    render_impute(summary(**more), tmp_path / "i.html")
    page = Page(tmp_path / "i.html")
    assert shown in page.words
    assert page.words.index(shown) < page.words.index("Estimated accuracy by allele frequency")


def test_the_grid_has_no_hole_and_tables_scroll(tmp_path):
    run = summary()
    assert isinstance(run, ImputeSummary)
    render_impute(run, tmp_path / "i.html")
    page = Page(tmp_path / "i.html")
    # An odd number of plots: the last one is as wide as both columns.
    assert ".figures > figure:last-child:nth-child(odd) { grid-column: 1 / -1; }" in page.text
    tables = len(page.all("table"))
    pairs = sum("pairs" in attrs.get("class", "") for attrs in page.all("table"))
    scrolling = [attrs for attrs in page.all("div") if attrs.get("class") == "scroll"]
    assert len(scrolling) == tables - pairs
