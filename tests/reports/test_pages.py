"""report: pages that stand alone, are accessible, and take whatever a run gives."""

from __future__ import annotations

import re

import numpy as np
import pytest
from report_fixtures import Page, check_alone, evaluation, history, summary

from ragimpute.errors import InputError
from ragimpute.reports.pages import (
    plot_curves,
    render_demo,
    render_evaluate,
    render_impute,
    render_train,
)
from ragimpute.target.match import FATES
from ragimpute.target.qc import NOTED, QcSummary


def test_evaluate_page(tmp_path):
    out = tmp_path / "e.html"
    render_evaluate(evaluation(), out, title="ours", others={"Beagle": evaluation(5)})
    page = Page(out)
    check_alone(page)
    assert page.headings()[:2] == ["Accuracy by allele frequency", "Can DR2 be trusted?"]
    assert len(page.all("svg")) == 4
    assert "Beagle" in page.words
    assert f"{evaluation().overall.r2:.5f}" in page.words
    assert 'class="best"' in page.text
    assert "made up" in page.words
    assert [path.name for path in tmp_path.iterdir()] == ["e.html"]
    assert out.stat().st_mode & 0o777 == 0o644


def test_evaluate_page_without_dr2(tmp_path):
    out = tmp_path / "e.html"
    render_evaluate(evaluation(with_dr2=False), out)
    page = Page(out)
    check_alone(page)
    assert "Can DR2 be trusted?" not in page.headings()
    assert "nan" not in page.text.lower().split()
    assert "–" in page.words


def test_impute_page(tmp_path):
    out = tmp_path / "i.html"
    render_impute(summary(), out)
    page = Page(out)
    check_alone(page)
    assert len(page.all("svg")) == 5
    for words in ("2,000", "200 typed", "20 records are swapped", "100000", "GT, DS", "3.75 s"):
        assert words in page.words
    for text in ("matched, REF and ALT swapped", "not in the panel", "180 (87.0%)"):
        assert text in page.words


def test_impute_page_of_samples_and_memory(tmp_path):
    noted = dict.fromkeys(NOTED, 0)
    rates = {f"s{i}": 1 - i / 100 for i in range(20)}
    qc = QcSummary(200, 0.9, dict.fromkeys(FATES, 0), {"found": 0, "other_strand": 0}, noted, rates)
    render_impute(summary(qc=qc, peak_mb={"read": 99.0, "write": 321.5}), tmp_path / "i.html")
    page = Page(tmp_path / "i.html")
    check_alone(page)
    assert len(page.all("svg")) == 7
    assert {"Memory by stage", "Call rates of the samples"} <= set(page.headings())
    assert "81.00%" in page.words
    assert "s19" in page.words
    # The ten lowest alone.
    assert "s10" in page.words
    assert "s9" not in page.words


@pytest.mark.parametrize(
    "more",
    [
        {"counts": {}, "seconds": {}, "wall_seconds": 0.0, "warnings": []},
        {"typed": np.ones(2_000, bool)},
        {"position_bp": np.full(2_000, 77, np.int32)},
        {k: np.zeros(0, t) for k, t in (("position_bp", np.int32), ("maf", np.float32),
                                        ("dr2", np.float32), ("typed", bool))},
    ],
)  # fmt: skip
def test_impute_page_of_little(tmp_path, more):
    render_impute(summary(**more), tmp_path / "i.html")
    check_alone(Page(tmp_path / "i.html"))


def test_maf_in_float32_falls_in_the_bin_of_its_edge(tmp_path):
    size = 2_000
    maf = np.full(size, np.float32(1) - np.float32(0.95))  # 0.05000001
    render_impute(summary(maf=maf), tmp_path / "i.html")
    table = (tmp_path / "i.html").read_text()
    row = re.search(r'<th scope="row">0.02 – 0.05</th><td[^>]*>([\d,]+)<', table)
    assert row[1] == "1,800"


def test_train_page(tmp_path):
    out = tmp_path / "t.html"
    provenance = {"seed": 3, "init": "", "versions": {"torch": "2.4"}, "num_sites": 10}
    render_train(history(), "name: x\nmask: {a: '<b>'}\n", provenance, out, title="v10")
    page = Page(out)
    check_alone(page)
    assert len(page.all("svg")) == 5
    assert "versions: torch" in page.words
    assert "mask: {a: &#39;&lt;b&gt;&#39;}" in page.text
    assert "Li–Stephens 0.8900" in page.words
    assert len(page.all("tr")) >= 7


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{}],
        [{"train_loss": 1.0}],
        [{"epoch": 1.0, "f1": float("nan"), "r2_all": 0.5}],
        [{"train_loss": 5.0, "val_loss": 0.01}, {"train_loss": 0.3}],
        history(1),
    ],
)
def test_train_page_of_little(tmp_path, rows):
    render_train(rows, "", {}, tmp_path / "t.html")
    page = Page(tmp_path / "t.html")
    check_alone(page)
    assert "nan" not in [word.lower() for word in page.words]


def test_demo_page_joins_all(tmp_path):
    out = tmp_path / "d.html"
    render_demo(out, evaluation=evaluation(), summary=summary())
    page = Page(out)
    check_alone(page)
    assert [attrs["id"] for attrs in page.all("section")] == ["accuracy", "impute"]
    assert {attrs["href"] for attrs in page.all("a")} >= {"#accuracy", "#impute"}
    assert len(page.all("svg")) == 4 + 5


def test_text_is_escaped(tmp_path):
    out = tmp_path / "x.html"
    bad = '<script>alert("1")</script>'
    run = summary(warnings=[bad], settings={bad: bad}, counts={bad: 3}, seconds={bad: 1.0})
    run.target = bad
    render_impute(run, out, title=bad)
    page = Page(out)
    check_alone(page)
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    render_evaluate(evaluation(), out, title=bad, others={bad + "2": evaluation(3)})
    page = Page(out)
    check_alone(page)
    assert "<script" not in page.text


def test_same_input_same_bytes(tmp_path):
    for name in ("a.html", "b.html"):
        render_evaluate(evaluation(), tmp_path / name, others={"x": evaluation(2)})
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_dark_and_print_styles(tmp_path):
    render_evaluate(evaluation(), tmp_path / "e.html")
    text = (tmp_path / "e.html").read_text()
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    body = text[text.index("<body") :]
    assert "var(--s1)" in body
    assert "var(--ink)" in body
    used = set(re.findall(r"var\((--\w+)\)", text))
    defined = set(re.findall(r"(--\w+):", text))
    assert used <= defined


def test_output_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        render_evaluate(evaluation(), tmp_path / "none" / "e.html")
    with pytest.raises(InputError, match="cannot write"):
        plot_curves(history(), tmp_path / "none")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        render_evaluate(evaluation(), tmp_path / "folder.html")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]


def test_curves_as_files(tmp_path):
    files = plot_curves(history(), tmp_path)
    names = ["loss", "r2", "r2_by_maf", "f1", "learning_rate"]
    assert [path.name for path in files] == [f"{name}.png" for name in names]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_curves_without_figures_are_left_out(tmp_path):
    files = plot_curves([{"epoch": 1.0, "train_loss": 0.5}], tmp_path)
    assert [path.name for path in files] == ["loss.png"]
    assert plot_curves([], tmp_path) == []
