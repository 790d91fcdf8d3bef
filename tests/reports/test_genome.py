"""The report of a genome: runs add up, whatever their number and order; mixtures are told."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_fixtures import Page, check_alone, summary

from ragimpute.errors import InputError
from ragimpute.reports.by_file_name import report_genome, report_impute
from ragimpute.reports.figures import impute_figures
from ragimpute.reports.genome import Run, genome_figures, karyotype_key, read_runs

SETTINGS = settings(max_examples=30, deadline=None)


def run(folder, name, contig="20", *, first=1_000_000, size=2_000, seed=2, **more):
    """The JSON report of a made-up run."""
    rng = np.random.default_rng(seed)
    given = {
        "contig": contig, "num_sites": size, "num_typed": -(-size // 10),
        "position_bp": first + 10 * np.arange(size, dtype=np.int32),
        "maf": (rng.random(size) / 2).astype(np.float32),
        "dr2": rng.random(size).astype(np.float32),
        "typed": np.arange(size) % 10 == 0,
        "warnings": [], "versions": {"ragimpute": "1"}, "genetic_map": f"chr{contig}.map",
    }  # fmt: skip
    path = folder / f"{name}.json"
    report_impute(summary(**given | more), [path])
    return path


def test_regions_add_up_to_the_whole_run(tmp_path):
    rng = np.random.default_rng(1)
    size = 3_000
    whole = {"maf": (rng.random(size) / 2).astype(np.float32),
             "dr2": rng.random(size).astype(np.float32), "typed": rng.random(size) < 0.2,
             "position_bp": np.arange(1_000, 1_000 + size, dtype=np.int32)}  # fmt: skip
    cuts = [(0, 700), (700, 705), (705, size)]
    paths = []
    for i, (start, stop) in enumerate(cuts):
        part = {name: column[start:stop] for name, column in whole.items()}
        num_typed = int(part["typed"].sum())
        paths.append(run(tmp_path, i, size=stop - start, **part | {"num_typed": num_typed}))
    everything = impute_figures(
        summary(**whole, num_sites=size, num_typed=int(whole["typed"].sum()))
    )
    found = genome_figures(read_runs(paths[::-1]))
    (chromosome,) = found["chromosomes"]
    for one in (chromosome, found["total"]):
        for key in ("num_sites", "num_typed", "num_untyped"):
            assert one[key] == everything[key]
        assert one["mean_dr2"] == pytest.approx(everything["mean_dr2"])
        assert one["share_dr2_0.8"] == pytest.approx(everything["share_dr2_0.8"])
        good = (whole["dr2"][~whole["typed"]] >= 0.3).mean()
        assert one["share_dr2_0.3"] == pytest.approx(good)
        for mine, theirs in zip(one["dr2_by_maf"], everything["dr2_by_maf"], strict=True):
            assert mine["num_sites"] == theirs["num_sites"]
            assert mine["mean_dr2"] == pytest.approx(theirs["mean_dr2"])
        assert one["wall_seconds"] == pytest.approx(3 * 3.75)
        assert one["peak_rss_mib"] == 321.5
    assert [one["first_bp"] for one in found["runs"]] == [1_000, 1_700, 1_705]
    assert found["notes"] == []


def test_chromosomes_stand_in_karyotype_order(tmp_path):
    names = ["chrX", "chr10", "chrM", "chr2", "chr1", "chrY", "chrUn_9", "chrUn_10"]
    paths = [run(tmp_path, name, name, size=20) for name in names]
    report_genome(paths, [tmp_path / "g.html", tmp_path / "g.json"])
    order = ["chr1", "chr2", "chr10", "chrX", "chrY", "chrM", "chrUn_9", "chrUn_10"]
    tree = json.loads((tmp_path / "g.json").read_text())
    assert (tree["format"], tree["format_version"]) == ("ragimpute-genome-report", 1)
    assert [one["contig"] for one in tree["chromosomes"]] == order
    page = Page(tmp_path / "g.html")
    check_alone(page)
    rows = [name for name in re.findall(r'<th scope="row">(chr\w+)</th>', page.text)]
    assert rows[: len(order)] == order
    for words in ("mean DR2", "DR2 ≥ 0.3", "DR2 ≥ 0.8", "peak memory, MiB", "0.2 – 0.5", "all"):
        assert words in page.words
    assert len(page.all("svg")) == 2


@SETTINGS
@given(st.permutations([*map(str, range(1, 30)), "X", "Y", "MT", "2L", "2R"]), st.booleans())
def test_karyotype_key_sorts_numbers_then_letters(names, prefixed):
    names = [f"chr{name}" if prefixed else name for name in names]
    found = [name.removeprefix("chr") for name in sorted(names, key=karyotype_key)]
    numbered = [name for name in found if name.isdecimal()]
    assert numbered == [str(n) for n in range(1, 30)]
    assert found[-3:] == ["X", "Y", "MT"]
    assert found[1:4] == ["2", "2L", "2R"]


@SETTINGS
@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 1)), min_size=1, max_size=6))
def test_means_are_weighted_by_sites(parts):
    runs = []
    for i, (size, mean) in enumerate(parts):
        made = summary(
            contig="1", num_sites=size, num_typed=0, typed=np.zeros(size, bool),
            maf=np.full(size, 0.3, np.float32), dr2=np.full(size, mean),
            position_bp=np.arange(size, dtype=np.int32),
        )  # fmt: skip
        runs.append(Run(f"{i}.json", "1", 100 * i, 100 * i + 99, impute_figures(made)))
    total = genome_figures(runs)["total"]
    num = sum(size for size, _ in parts)
    if num == 0:
        assert total["mean_dr2"] is None
        assert total["share_dr2_0.8"] is None
    else:
        assert total["mean_dr2"] == pytest.approx(sum(n * x for n, x in parts) / num)
        assert math.isclose(total["share_dr2_0.8"], sum(n for n, x in parts if x >= 0.8) / num)


def test_what_is_given_twice_is_refused(tmp_path):
    one, two = run(tmp_path, "one"), run(tmp_path, "two", "chr20", first=1_019_990)
    (tmp_path / "link.json").symlink_to(one)
    for again in (one, tmp_path / "link.json"):
        with pytest.raises(InputError, match="is given twice"):
            read_runs([one, again])
    with pytest.raises(InputError, match=r"one.json \(20:1,000,000-1,019,990\) and .* overlap"):
        read_runs([two, one])
    beside = run(tmp_path, "three", "chr20", first=1_019_991)
    assert len(read_runs([beside, one])) == 2


def test_batches_of_samples_are_refused_by_their_names(tmp_path):
    paths = [run(tmp_path, name) for name in "ab"]
    for path, name in zip(paths, ("s1", "s2"), strict=True):
        tree = json.loads(path.read_text())
        tree["samples"] = [{"name": name, "call_rate": 1.0}]
        path.write_text(json.dumps(tree))
    with pytest.raises(InputError, match="two batches of samples"):
        read_runs(paths)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"num_haplotypes": 750}, "different numbers of panel haplotypes: 500 (1); 750 (2)"),
        ({"num_samples": 49}, "different numbers of samples: 50 (1); 49 (2)"),
        ({"versions": {"ragimpute": "2"}}, "different versions of ragimpute: 1 (1); 2 (2)"),
    ],
)
def test_mixtures_are_told(tmp_path, more, told):
    paths = [run(tmp_path, "a", "1"), run(tmp_path, "b", "2", **more)]
    figures = genome_figures(read_runs(paths))
    assert any(told in line for line in figures["notes"])
    report_genome(paths, [tmp_path / "g.html"])
    assert any(told in words for words in Page(tmp_path / "g.html").words)


def test_another_model_panel_map_spelling_and_a_gap_are_told(tmp_path):
    paths = [
        run(tmp_path, "a", "1", panel_checksum="x"),
        run(tmp_path, "b", "1", first=5_000_000, panel_checksum="y", genetic_map="other.map"),
        run(tmp_path, "c", "chr2"),
        run(tmp_path, "d", "4"),
    ]
    tree = json.loads(paths[2].read_text())
    paths[2].write_text(json.dumps(tree | {"model": "context"}))
    notes = " ".join(genome_figures(read_runs(paths))["notes"])
    for told in ("different models: default (1, 4); context (chr2)", "1 used different panels",
                 "1 used different genetic maps", "spelled in different ways",
                 "no report of chromosome 3"):  # fmt: skip
        assert told in notes


def test_warnings_are_shown_with_their_place(tmp_path):
    path = run(tmp_path, "a", "7", size=10, warnings=["<b>20 records are swapped"])
    report_genome([path], [tmp_path / "g.html"])
    page = Page(tmp_path / "g.html")
    assert "7:1,000,000-1,000,090: <b>20 records are swapped" in page.words


@pytest.mark.parametrize("more", [{"typed": np.ones(5, bool), "num_typed": 5}, {"num_typed": 1}])
def test_runs_of_little(tmp_path, more):
    path = run(tmp_path, "a", size=5, **more)
    report_genome([path], [tmp_path / "g.html", tmp_path / "g.json"])
    check_alone(Page(tmp_path / "g.html"))


def changed(tree, key, value):
    """A tree with one key changed, or removed by ..."""
    tree = dict(tree)
    if value is ...:
        del tree[key]
    else:
        tree[key] = value
    return tree


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("format", "ragimpute-train-report", "is of format 'ragimpute-train-report', expected"),
        ("format", ..., "is no report of ragimpute"),
        ("format_version", 1, "has format_version 1, expected 2"),
        ("num_sites", "many", "not a whole number"),
        ("num_sites", ..., "num_sites"),
        ("num_sites", -1, "not a whole number"),
        ("mean_dr2", 7, r"not in \[0, 1\]"),
        ("wall_seconds", "x", "lacks a figure or has a wrong one"),
        ("dr2_by_maf", [], "other bins"),
        ("num_dr2", {}, "other limits"),
        ("run", [], "lacks a figure or has a wrong one"),
        ("samples", [1], "lacks a figure or has a wrong one"),
        ("warnings", [1], "not text"),
        ("files", 3, "not a tree"),
    ],
)
def test_trees_that_are_not_runs_are_refused(tmp_path, key, value, told):
    path = run(tmp_path, "a")
    path.write_text(json.dumps(changed(json.loads(path.read_text()), key, value)))
    with pytest.raises(InputError, match=told):
        report_genome([path], [tmp_path / "g.html"])
    assert not (tmp_path / "g.html").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"##fileformat=VCF", b"null"])
def test_files_that_are_no_reports_are_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is (not JSON|no report)"):
        report_genome([tmp_path / "a.json"], [tmp_path / "g.json"])
    with pytest.raises(InputError, match="cannot be read"):
        report_genome([tmp_path / "none.json"], [tmp_path / "g.json"])
    with pytest.raises(InputError, match="no report of a run"):
        report_genome([], [tmp_path / "g.json"])
    with pytest.raises(InputError, match="no MultiQC content"):
        report_genome([tmp_path / "a.json"], [tmp_path / "g_mqc.json"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_command_joins_what_impute_reports(command_line, panel_h5, tmp_path, monkeypatch):
    from ragimpute import example

    monkeypatch.chdir(tmp_path)
    target = example.path("target.vcf.gz")
    for name, region in (("b", "20:2450001-2900000"), ("a", "20:2000000-2450000")):
        done = command_line("impute", target, "--panel", panel_h5, "-r", region,
                            "-o", f"{name}.vcf.gz", "--report", f"{name}.json", "-q")  # fmt: skip
        assert done[0] == 0, done
    done = command_line("report", "b.json", "a.json", "-o", "g.html", "-o", "g.json")
    assert done[0] == 0, done
    tree = json.loads((tmp_path / "g.json").read_text())
    (chromosome,) = tree["chromosomes"]
    assert chromosome["num_sites"] == 6_127
    first = tree["runs"][0]["run"]
    assert first["region"] == "20:2000000-2450000"
    assert first["command"].startswith("ragimpute impute ")
    assert first["genetic_map"] == "chr20.b37.gmap.gz"
    assert 0 < first["span_cm"] < 5
    done = command_line("report", "a.json", "a.json", "-o", "again.html")
    assert done[0] == 1
    assert "given twice" in done[2]
    assert not (tmp_path / "again.html").exists()
