"""The table of docs/species.md, made of what a comparison leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import species_page

from ragimpute.errors import InputError

DOCS = Path(__file__).parents[1] / "docs"


def bins(r2, *leads):
    """Figures of two bins and over all; ``leads`` are pairs of a lead and its standard error."""
    rows = [{"label": label, "r2": r2, "r2_error": 0.002} for label in ("<=0.1", "<=0.5", "all")]
    for row, (lead, error) in zip(rows, leads, strict=False):
        row |= {"lead": lead, "lead_error": error}
    return rows


@pytest.fixture
def results():
    """One organism, phased and not."""
    ahead, behind, unsure = (0.01, 0.002), (-0.01, 0.002), (0.01, 0.008)
    dense = {"name": "dense", "accuracy": [
        {"tool": "ragimpute", "bins": bins(0.91)},
        {"tool": "Beagle", "bins": bins(0.5, ahead, ahead, ahead)},
        {"tool": "Beagle, ne 500", "bins": bins(0.92, behind, unsure, behind)},
        {"tool": "Minimac4", "bins": bins(0.9, ahead, ahead, ahead)},
    ]}  # fmt: skip
    loose = {"name": "dense-unphased", "accuracy": [
        {"tool": "ragimpute", "bins": bins(0.9)},
        {"tool": "Beagle", "bins": bins(None, ahead, (None, None), ahead)},
    ]}  # fmt: skip
    data = {"name": "a_fish", "about": "a stock", "num_haplotypes": 1_200,
            "densities": [dense, loose]}  # fmt: skip
    return {"data": [data], "versions": {"ragimpute": "9.8", "Beagle": "5.4", "numpy": "2"}}


def test_rows_tell_where_it_is_ahead_for_sure_and_where_behind(results):
    first, second = species_page.rows_of(results["data"][0])
    assert first == ["a fish", "dense", "1,200", "0.9100 ± 0.0020", "0.5000", "0.9200", "0.9000",
                     "0 of 2", "≤ 0.1"]  # fmt: skip
    assert second == ["a fish", "dense, unphased", "1,200", "0.9000 ± 0.0020", "-", "-", "-",
                      "1 of 2", "none"]  # fmt: skip


def test_the_table_replaces_what_stands_between_the_marks(results, tmp_path):
    page = tmp_path / "species.md"
    page.write_text(f"# A\n\n{species_page.BEGIN}\nof yesterday\n{species_page.END}\n\nafter\n")
    (tmp_path / "out" / "a_fish").mkdir(parents=True)
    (tmp_path / "out" / "a_fish" / "results.json").write_text(json.dumps(results))
    words = ["--results", str(tmp_path / "out"), "--markdown", str(page)]
    species_page.main(words)
    text = page.read_text()
    assert text.startswith(f"# A\n\n{species_page.BEGIN}\n\nragimpute 9.8, Beagle 5.4; no tool")
    assert text.endswith(f"{species_page.END}\n\nafter\n")
    assert "yesterday" not in text
    assert "- a fish: a stock" in text
    assert "| a fish | dense | 1,200 | 0.9100 ± 0.0020 |" in text
    species_page.main(words)
    assert page.read_text() == text


@pytest.mark.parametrize("text", ["", "{begin}", "{end} {begin}", "{begin} {end} {begin} {end}"])
def test_a_page_without_its_marks_is_left_as_it_is(text, tmp_path):
    page = tmp_path / "x.md"
    page.write_text(text.format(begin=species_page.BEGIN, end=species_page.END))
    before = page.read_text()
    with pytest.raises(InputError, match=r"x\.md must hold"):
        species_page.replace_table(page, "new")
    assert page.read_text() == before


def test_the_page_of_the_docs_has_its_marks(tmp_path):
    page = tmp_path / "species.md"
    page.write_text((DOCS / "species.md").read_text())
    species_page.replace_table(page, "| a |")
    assert "| a |" in page.read_text()


def test_each_folder_is_compared_by_itself(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(species_page.compare, "main", seen.append)
    folders = [tmp_path / "fish", tmp_path / "rice"]
    species_page.measure(folders, tmp_path / "out", ["500", "rice=7"], "2")
    assert [words[0] for words in seen] == list(map(str, folders))
    told = [[word for word in words if word in ("500", "rice=7")] for words in seen]
    assert told == [["500"], ["500", "rice=7"]]
    assert all(words[words.index("--repeats") + 1] == "0" for words in seen)


def test_a_wrong_call_is_said(tmp_path, capsys):
    for words in ([], ["-o", "a", "--results", "b"]):
        with pytest.raises(SystemExit):
            species_page.main([*words, "--markdown", str(tmp_path / "x.md")])
        assert "either -o or --results" in capsys.readouterr().err
    with pytest.raises(InputError, match="holds no"):
        species_page.main(["--results", str(tmp_path), "--markdown", "x.md"])
