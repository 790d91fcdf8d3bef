"""The comparison with the peers: what it reads, measures, counts and writes."""

from __future__ import annotations

import json
import re
import shutil
import sys

import compare
import comparison_page
import dr2
import dr2_thresholds
import kills
import numpy as np
import peers
import pytest
import readme_figure
import unphased
from measure import measure

from ragimpute import example
from ragimpute.accuracy.evaluate import evaluate
from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.errors import InputError, ModelError
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.panel.reader import Panel
from ragimpute.preparation.genetic_map import GeneticMap

LABELS = [f"<={edge:g}" for edge in MAF_BINS[1:]] + ["all"]


def runs(*wall):
    """Runs with these wall times; CPU time is twice, memory a hundred times as much."""
    return [{"wall_s": w, "cpu_s": 2 * w, "peak_mib": 100 * w} for w in wall]


def accuracy(tool, r2):
    """One tool's figures: the same r2 in all bins but the first, where it is undefined."""
    rows = [{"label": label, "num_sites": 10, "r2": r2, "mean_site_r2": r2 / 2, "concordance": 0.9}
            for label in LABELS]  # fmt: skip
    rows[0] |= {"num_sites": 0, "r2": None, "mean_site_r2": None}
    rows[-1]["num_sites"] = 1_280
    phase = {"switch_rate": 0.0123, "flip_rate": 0.002}
    return {"tool": tool, "absent": 3, "phase": phase, "bins": rows}


@pytest.fixture
def results():
    """What a run of two tools on one data set leaves."""
    timed = [
        {"tool": "ragimpute", "threads": 1, "runs": runs(2.0, 1.0, 9.0)},
        {"tool": "Beagle", "threads": 1, "runs": runs(5.0, 4.0, 3.0)},
        {"tool": "ragimpute", "threads": 4, "runs": runs(1.0, 1.0, 1.0)},
        {"tool": "Beagle", "threads": 4, "runs": runs(0.5, 0.5, 0.5)},
    ]
    density = {
        "name": "dense", "phased": True, "num_samples": 20, "num_typed": 1_000,
        "accuracy": [accuracy("ragimpute", 0.912345), accuracy("Beagle", 0.9)], "runs": timed,
    }  # fmt: skip
    prepare = [{"tool": "ragimpute", "size_bytes": 4_200, "runs": runs(0.1, 0.3, 0.2)}]
    return {
        "format": compare.FORMAT, "date": "2025-01-02", "command": "python compare.py somewhere",
        "machine": {"cpu": "A <fast> one", "cores": 3, "memory_gib": 7.5, "system": "Linux x86_64"},
        "versions": {"ragimpute": "9.8.7", "Beagle": "5.4"}, "repeats": 3,
        "data": [{"name": "some", "contig": "20", "first_bp": 1, "last_bp": 2_000,
                  "num_sites": 5_000, "num_haplotypes": 600,
                  "prepare": prepare, "densities": [density]}],
        "notes": ["Minimac4 is left out"],
    }  # fmt: skip


def test_costs_are_medians_and_ratios_to_ragimpute(results):
    density = results["data"][0]["densities"][0]
    header, *rows = comparison_page.cost_table(density, "ragimpute")
    by = {(row[0], row[1]): dict(zip(header, row, strict=True)) for row in rows}
    slow = by["1", "Beagle"]
    assert (slow["wall, s"], slow["CPU, s"], slow["peak, MiB"]) == ("4.00", "8.00", "400")
    assert slow["range"] == "3.00 – 5.00"
    # Of the pairs 5 / 2, 4 / 1 and 3 / 9.
    found = [slow[f"{name} ratio"] for name in ("wall", "CPU", "memory")]
    assert found == ["2.50 (0.33 – 4.00)"] * 3
    against_as_many_threads = by["4", "Beagle"]["wall ratio"]
    assert against_as_many_threads == "0.50 (0.50 – 0.50)"
    assert by["4", "ragimpute"]["wall ratio"] == "1.00 (1.00 – 1.00)"


def test_a_single_pair_has_no_range(results):
    density = results["data"][0]["densities"][0]
    for row in density["runs"]:
        del row["runs"][1:]
    rows = comparison_page.cost_table(density, "ragimpute")
    assert [row[-3] for row in rows] == ["wall ratio", "1.00", "2.50", "1.00", "0.50"]


def test_the_summary_has_accuracy_and_time_of_all(results):
    header, *rows = comparison_page.summary_table(results)
    assert header == [
        "target", "tool", "r², all", "r², MAF ≤ 0.01", "wall, s, 1 thread", "wall, s, 4 threads",
        "peak, MiB",
    ]  # fmt: skip
    assert rows == [
        ["some, dense", "ragimpute", "0.91234", "0.9123", "2.00", "1.00", "200"],
        ["some, dense", "Beagle", "0.90000", "0.9000", "4.00 (× 2.50)", "0.50 (× 0.50)", "400"],
    ]
    results["data"][0]["densities"][0]["runs"] = []
    assert [len(row) for row in comparison_page.summary_table(results)] == [4, 4, 4]


def test_ratios_without_a_reference(results):
    density = results["data"][0]["densities"][0]
    density["runs"] = [row for row in density["runs"] if row["tool"] == "Beagle"]
    assert comparison_page.reference_of(results) == "Beagle"
    for row in comparison_page.cost_table(density, "ragimpute")[1:]:
        assert row[-3:] == ["-", "-", "-"]


def test_accuracy_table(results):
    rows = comparison_page.accuracy_table(results["data"][0]["densities"][0])
    assert rows[0][1:3] == ["≤ 0.002", "≤ 0.005"]
    assert rows[1] == ["sites", "0", *["10"] * 7, "1,280", "", "", ""]
    assert rows[2] == ["ragimpute", "-", *["0.9123"] * 7, "0.91234", "0.4562", "0.9000", "3"]
    assert {len(row) for row in rows} == {13}


def test_unphased_targets_show_errors_of_phase(results):
    density = results["data"][0]["densities"][0] | {"phased": False}
    density["accuracy"][1]["phase"] = None
    rows = comparison_page.accuracy_table(density)
    assert rows[0][-2:] == ["switches", "flips"]
    assert rows[2][-2:] == ["1.23%", "0.20%"]
    assert rows[3][-2:] == ["-", "-"]
    assert {len(row) for row in rows} == {15}


def with_errors(results):
    """The same results, Beagle behind by 0.0123 ± 0.0050, or ± 0.0070 in the bin of 0.005."""
    for entry in results["data"][0]["densities"][0]["accuracy"]:
        for row in entry["bins"]:
            row["r2_error"] = None if row["r2"] is None else 0.004
            if entry["tool"] == "Beagle":
                error = 0.007 if row["label"] == "<=0.005" else 0.005
                row |= {"lead": 0.0123, "lead_error": error}
    return results


def test_errors_stand_beside_each_bin(results):
    density = results["data"][0]["densities"][0]
    assert comparison_page.error_table(density) == []  # results of earlier versions
    header, *rows = comparison_page.error_table(with_errors(results)["data"][0]["densities"][0])
    assert header == ["MAF", *(label.replace("<=", "≤ ") for label in LABELS[1:])]
    assert rows == [
        ["standard error, ragimpute", *["0.0040"] * 8],
        ["standard error, Beagle", *["0.0040"] * 8],
        ["ahead of Beagle", "+0.0123 ± 0.0070", *["**+0.0123 ± 0.0050**"] * 7],
    ]
    density["accuracy"][1]["bins"][1]["lead_error"] = None
    density["accuracy"][1]["bins"][2]["lead"] = None
    assert comparison_page.error_table(density)[-1][1:3] == ["+0.0123", "-"]


def test_the_page_shows_errors_and_needs_no_times(results, tmp_path, capsys):
    results["repeats"] = 0
    results["data"][0] |= {"about": "a fish", "made_by": ""}
    with_errors(results)["data"][0]["densities"][0]["runs"] = []
    comparison_page.write_page(results, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "ahead of Beagle | +0.0123 ± 0.0070 | **+0.0123 ± 0.0050** |" in text
    assert "ragimpute 9.8.7, Beagle 5.4" in text
    assert "Only accuracy was measured." in text
    assert "These stand for a fish." in text
    assert "cost.png" not in text
    assert "wall, s | range" not in text
    comparison_page.print_tables(results)
    printed = capsys.readouterr().out
    assert "how far ragimpute is ahead" in printed
    assert "**" not in printed


def test_a_target_without_its_phase(tmp_path):
    out = tmp_path / "out.vcf.gz"
    unphased.write_unphased(example.path("target.vcf.gz"), out)
    found, true = read_target(out), read_target(example.path("target.vcf.gz"))
    np.testing.assert_array_equal(found.alleles, np.sort(true.alleles, axis=2))
    differ = found.alleles[:, :, 0] != found.alleles[:, :, 1]
    np.testing.assert_array_equal(found.phased, ~differ)
    assert found.samples == true.samples


def test_page(results, tmp_path):
    page = tmp_path / "page.md"
    comparison_page.write_page(results, page)
    text = page.read_text()
    assert "ragimpute 9.8.7, Beagle 5.4, on 2025-01-02" in text
    assert "A <fast> one, 3 cores, 7.5 GiB" in text
    assert "- Minimac4 is left out" in text
    three = " | ".join(["2.50 (0.33 – 4.00)"] * 3)
    assert f"| 1 | Beagle | 4.00 | 3.00 – 5.00 | 8.00 | 400 | {three} |" in text
    assert text.index("## At first sight") < text.index("## some")
    images = re.findall(r"!\[.+?\]\((.+?)\)", text)
    assert images == ["images/some-cost.png", "images/some-dense-r2.png"]
    for image in images:
        data = (tmp_path / image).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) < 200_000
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1


def test_page_says_who_made_the_data(results, tmp_path):
    results["data"][0]["made_by"] = "python benchmarks/simulate.py -o some"
    comparison_page.write_page(results, tmp_path / "page.md")
    assert "Made by `python benchmarks/simulate.py -o some`." in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("note", ["Minimac4 is left out", "the machine was busy with other work"])
def test_the_figure_of_the_readme(results, tmp_path, capsys, note):
    results["notes"] = [note]
    results["data"][0]["densities"].insert(
        0, results["data"][0]["densities"][0] | {"phased": False, "num_samples": 999}
    )
    (tmp_path / "results.json").write_text(json.dumps(results))
    out = tmp_path / "figure.svg"
    readme_figure.main([str(tmp_path / "results.json"), "-o", str(out)])
    first = out.read_bytes()
    assert first.startswith(b"<?xml")
    readme_figure.main([str(tmp_path / "results.json"), "-o", str(out)])
    assert out.read_bytes() == first
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("some dense: 600 panel haplotypes, 20 targets with 1,000 typed sites")
    assert "ragimpute 9.8.7, Beagle 5.4. A <fast> one, 3 cores" in said
    time = "processor time" if "busy" in note else "wall time"
    assert f"{time}, s, median of 3 runs; 2025-01-02." in said


def test_what_the_figure_of_the_readme_cannot_be_made_of(results, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    for name in ("broken.json", "missing.json"):
        with pytest.raises(InputError, match=name):
            readme_figure.main([str(tmp_path / name), "-o", str(tmp_path / "x.svg")])
    results["data"][0]["densities"][0]["phased"] = False
    (tmp_path / "unphased.json").write_text(json.dumps(results))
    with pytest.raises(InputError, match="no phased target"):
        readme_figure.main([str(tmp_path / "unphased.json"), "-o", str(tmp_path / "x.svg")])
    assert not (tmp_path / "x.svg").exists()


def test_tables_are_printed(results, capsys):
    comparison_page.print_tables(results)
    printed = capsys.readouterr().out
    assert "some dense: aggregate r² at untyped sites" in printed
    assert "0.91234" in printed


def test_options():
    options = compare.parse(["a", "b", "-o", "out"])
    assert (options.threads, options.repeats, options.model) == ([1, 2], 3, ["default"])
    assert options.tools == list(peers.TOOLS)
    options = compare.parse(["--example", "-o", "out", "--threads", "4", "--threads", "4"])
    assert options.threads == [4]
    assert options.beagle_ne == {}
    told = ["--beagle-ne", "1000", "--beagle-ne", "rice=20"]
    assert compare.parse(["a", "-o", "x", *told]).beagle_ne == {"": 1000, "rice": 20}
    assert compare.parse(["a", "-o", "x", "--repeats", "0"]).repeats == 0
    for wrong in ([], ["a"], ["-o", "x"], ["a", "-o", "x", "--threads", "0"],
                  ["a", "-o", "x", "--tools", "impute5"], ["a", "-o", "x", "--repeats", "-1"],
                  ["a", "-o", "x", "--beagle-ne", "many"],
                  ["a", "-o", "x", "--beagle-ne", "a=0"]):  # fmt: skip
        with pytest.raises(SystemExit):
            compare.parse(wrong)


def test_the_command_names_no_folder_outside():
    said = compare.describe_command(["/data/set", "../other", "a b", "--markdown", "docs/x.md"])
    assert said == "python benchmarks/compare.py set other 'a b' --markdown docs/x.md"


def test_missing_peers_are_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    tools, notes = peers.choose_tools(list(peers.TOOLS), ["default", "some/folder/mine"])
    assert [tool.name for tool in tools] == ["ragimpute", "ragimpute mine"]
    assert [tool.slug for tool in tools] == ["ragimpute", "ragimpute-mine"]
    assert len(notes) == 2
    assert notes[0].startswith("Beagle is left out")
    assert notes[0].endswith("install the Debian packages beagle bcftools")
    assert notes[1].endswith("minimac4 not found: install the Debian package minimac4")


def test_a_row_of_runs_that_know_the_array(tmp_path):
    plain, known = peers.choose_tools(["ragimpute"], ["default"], index=True)[0]
    assert (plain.name, known.name) == ("ragimpute", "ragimpute, index")
    assert plain.slug != known.slug
    target, out = tmp_path / "target.dense.vcf.gz", tmp_path / "o.vcf.gz"
    one, two = (tool.impute(target, tmp_path / "m", tmp_path, out, 2) for tool in (plain, known))
    option = two.index("--index")
    assert two[option + 1] == str(known.index_folder(target, tmp_path))
    assert [x for i, x in enumerate(two) if i not in (option, option + 1)] == one


def test_commands_get_what_they_are_given(tmp_path):
    target, genetic_map = tmp_path / "t.vcf.gz", tmp_path / "x.map"
    for kind in peers.TOOLS:
        tool = peers.Tool(kind, kind, "v10" if kind == "ragimpute" else "")
        command = tool.impute(target, genetic_map, tmp_path, tmp_path / "o.vcf.gz", 7)
        said = " ".join(command)
        assert str(target) in said
        assert str(tmp_path / tool.panel_name()) in said
        assert str(tmp_path / "o") in said
        assert re.search(r"(--threads |-t |nthreads=)7\b", said)
        assert ("--model v10" in said) == (kind == "ragimpute")
        made, stdout = tool.prepare(tmp_path / "p.bcf", genetic_map, tmp_path)
        assert str(tmp_path / "p.bcf") in " ".join(made)
        assert str(tmp_path / tool.panel_name()) in [*made, stdout]


def test_data_folders(tmp_path):
    with pytest.raises(InputError, match=r"no panel\.bcf"):
        compare.open_folder(tmp_path)
    for name in ("panel.bcf", "truth.bcf"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"no target\.DENSITY\.vcf\.gz"):
        compare.open_folder(tmp_path)
    for name in ("target.sparse.vcf.gz", "target.a.b.vcf.gz", "target.sparse.vcf.gz.tbi"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"holds 0 files \*\.map"):
        compare.open_folder(tmp_path)
    (tmp_path / "c.map").touch()
    data = compare.open_folder(tmp_path)
    assert list(data.targets) == ["a.b", "sparse"]
    assert data.genetic_map == tmp_path / "c.map"
    assert list(compare.open_folder(tmp_path, ["sparse", "dense"]).targets) == ["sparse"]
    assert data.made_by == ""
    (tmp_path / "made_by.txt").write_text("python benchmarks/simulate.py -o x\n")
    assert compare.open_folder(tmp_path).made_by == "python benchmarks/simulate.py -o x"
    with pytest.raises(InputError, match="has no dense; it holds"):
        compare.open_folder(tmp_path, ["dense"])


def folder_of(path):
    """A data folder whose files are empty."""
    path.mkdir()
    for name in ("panel.bcf", "truth.bcf", "target.dense.vcf.gz", "x.map"):
        (path / name).touch()
    return path


def test_a_folder_tells_the_ne_for_beagle(tmp_path):
    fish, rice = folder_of(tmp_path / "fish"), folder_of(tmp_path / "rice")
    (fish / "benchmark.toml").write_text('about = "a fish"\nbeagle_ne = 500\n')
    sets = [compare.open_folder(folder) for folder in (fish, rice)]
    assert [(data.about, data.beagle_ne) for data in sets] == [("a fish", 500), ("", None)]

    def ne(told):
        return [data.beagle_ne for data in compare.with_beagle_ne(sets, told)]

    assert ne({}) == [500, None]
    assert ne({"": 7}) == [500, 7]
    assert ne({"rice": 8}) == [500, 8]
    assert ne({"fish": 9, "rice": 8, "": 7}) == [9, 8]
    with pytest.raises(InputError, match="--beagle-ne names mice; the data are fish, rice"):
        ne({"mice": 5})


@pytest.mark.parametrize(
    "text", ["beagle_ne = 0", "beagle_ne = true", "beagle_ne = 1.5", "about = 3", "ne = 5", "x"]
)
def test_a_wrong_note_is_refused(text, tmp_path):
    fish = folder_of(tmp_path / "fish")
    (fish / "benchmark.toml").write_text(text + "\n")
    with pytest.raises(InputError, match=r"benchmark\.toml"):
        compare.open_folder(fish)


def test_beagle_has_a_row_more_where_its_ne_is_told(tmp_path):
    tools = [peers.Tool(kind.title(), kind) for kind in peers.TOOLS]
    assert peers.told_ne(tools, None) == tools
    found = peers.told_ne(tools, 1_500)
    assert [tool.name for tool in found] == ["Ragimpute", "Beagle", "Beagle, ne 1,500", "Minimac4"]
    assert len({tool.slug for tool in found}) == 4
    commands = [
        tool.impute(tmp_path / "t.vcf.gz", tmp_path / "m", tmp_path, tmp_path / "o.vcf.gz", 1)
        for tool in found
    ]
    assert ["ne=1500" in command for command in commands] == [False, False, True, False]


def test_how_far_a_tool_is_ahead(tmp_path):
    truth, panel = example.path("truth.bcf"), example.path("panel.bcf")
    whole = evaluate(truth, truth, panel, jackknife=True)
    blurred = compare.evaluate(truth, example.path("target.vcf.gz"), panel, jackknife=True)
    (*_, own), (*_, other) = (
        compare.describe_accuracy("x", score, ahead_of=whole)["bins"] for score in (whole, blurred)
    )
    assert "lead" not in own
    assert other["lead"] == pytest.approx(whole.overall.r2 - blurred.overall.r2)
    plain = np.std(whole.r2_without[:, -1] - blurred.r2_without[:, -1]) * np.sqrt(49)
    assert other["lead_error"] == pytest.approx(plain)
    assert other["r2_error"] > 0


def test_a_target_of_some_samples_has_its_own_truth(tmp_path):
    truth = example.path("truth.bcf")
    names = read_target(truth).samples
    assert compare.truth_of([*names, "more"], truth, tmp_path / "t.bcf") == truth
    few = compare.truth_of(names[2:4], truth, tmp_path / "t.bcf")
    assert read_target(few).samples == names[2:4]
    assert len(read_target(few).sites) == len(read_target(truth).sites)


def test_the_map_that_the_peers_read_is_the_same(tmp_path):
    data = compare.open_example()
    compare.write_plink_map(data, tmp_path / "plink.map")
    given, written = GeneticMap.read(data.genetic_map), GeneticMap.read(tmp_path / "plink.map")
    np.testing.assert_array_equal(written.position_bp, given.position_bp)
    np.testing.assert_allclose(written.map_cm, given.map_cm, rtol=0, atol=1e-7)


def test_python_keeps_what_it_compiled_where_it_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "some.py").write_text("x = 1\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import some"
    measure([sys.executable, "-c", code], log=str(tmp_path / "log"))
    assert (tmp_path / "__pycache__").is_dir()


def test_measure(tmp_path):
    ballast = np.ones(60_000_000, np.uint8)  # must not count as the child's
    log = str(tmp_path / "log")
    code = "import sys, time; print('out'); print('err', file=sys.stderr); time.sleep(0.3)"
    used = measure([sys.executable, "-I", "-S", "-c", code], log=log, stdout=str(tmp_path / "out"))
    assert used["wall_s"] >= 0.3
    assert used["cpu_s"] < used["wall_s"]
    assert 3 < used["peak_mib"] < 50
    assert (tmp_path / "out").read_text() == "out\n"
    assert (tmp_path / "log").read_text() == "err\n"
    used = measure([sys.executable, "-c", f"x = b'1' * {len(ballast)}"], log=log)
    assert used["peak_mib"] > 60
    with pytest.raises(RuntimeError, match="failed: no way"):
        measure([sys.executable, "-c", "import sys; sys.exit('well\\nno way')"], log=log)
    with pytest.raises(RuntimeError, match="failed: Error: no way"):
        measure(
            [sys.executable, "-c", "import sys; sys.exit('Error: no way\\n  hint: x')"], log=log
        )
    with pytest.raises(RuntimeError, match=r"no-such-program failed: .*No such file"):
        measure(["no-such-program"], log=str(tmp_path / "new"))


def test_machine():
    machine = compare.describe_machine()
    assert machine["cores"] >= 1
    assert machine["memory_gib"] > 0.1
    assert machine["cpu"]


def test_models_without_weights_are_noted(tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.yaml").write_text("extends: default\nname: bare\n")
    tools = [peers.Tool("ragimpute bare", "ragimpute", str(tmp_path / "bare")),
             peers.Tool("Beagle", "beagle")]  # fmt: skip
    (note,) = compare.describe_untrained(tools)
    assert note.startswith("ragimpute bare: model bare has no weights")
    with pytest.raises(ModelError):
        compare.describe_untrained([peers.Tool("x", "ragimpute", "no-such-model")])


def test_a_busy_machine_is_noted(monkeypatch):
    cores = compare.describe_machine()["cores"]
    monkeypatch.setattr(compare.os, "getloadavg", lambda: (0.1 * cores, 9.0, 9.0))
    assert compare.describe_load() == []
    monkeypatch.setattr(compare.os, "getloadavg", lambda: (3.0 * cores, 0.0, 0.0))
    (note,) = compare.describe_load()
    assert f"load {3.0 * cores:.1f} on {cores} cores" in note


def test_dr2_beside_the_true_r2(panel_h5, monkeypatch):
    monkeypatch.setattr(dr2, "DRAWS", 1)
    target, truth = (read_target(example.path(name)) for name in ("target.vcf.gz", "truth.bcf"))
    with Panel.open(panel_h5) as panel:
        found = dict(dr2.differences(panel, target, truth, model="default", threads=1))
    assert list(found) == ["1", "5", "20", "all 50"]
    evaluated = found["all 50"]
    assert np.isfinite(evaluated).sum() >= 6
    assert np.nanmax(np.abs(evaluated)) < 0.08
    assert any((found[size] != evaluated).any() for size in ("1", "5", "20"))


def test_example_end_to_end(tmp_path, capsys):
    page = tmp_path / "page.md"
    compare.main([
        "--example", "-o", str(tmp_path / "out"), "--tools", "ragimpute", "--threads", "2",
        "--repeats", "1", "--markdown", str(page),
    ])  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (data,) = results["data"]
    assert (data["num_haplotypes"], data["num_sites"]) == (500, 6_127)
    density, loose = data["densities"]
    assert (loose["name"], loose["phased"]) == ("omni-unphased", False)
    assert 0 < loose["accuracy"][0]["phase"]["switch_rate"] < 0.04
    assert loose["accuracy"][0]["bins"][-1]["r2"] > 0.93
    assert (density["num_samples"], density["num_typed"], density["phased"]) == (50, 689, True)
    (row,) = density["runs"]
    assert (row["tool"], row["threads"], len(row["runs"])) == ("ragimpute", 2, 1)
    assert row["runs"][0]["wall_s"] > 0.1
    assert row["runs"][0]["peak_mib"] > 50
    (figures,) = density["accuracy"]
    imputed = tmp_path / "out" / "example" / "ragimpute.omni.vcf.gz"
    direct = evaluate(
        example.path("truth.bcf"), imputed, example.path("panel.bcf"),
        typed=example.path("target.vcf.gz"),
    )  # fmt: skip
    assert figures["bins"][-1]["r2"] == direct.overall.r2
    assert 0.94 < direct.overall.r2 < 1
    assert figures["absent"] == 0
    assert 0 < figures["bins"][-1]["r2_error"] < 0.01
    assert f"{direct.overall.r2:.5f}" in page.read_text()
    assert f"{direct.overall.r2:.5f}" in capsys.readouterr().out
    assert str(tmp_path) not in page.read_text()


def test_kills_end_in_identical_bytes(tmp_path, capsys):
    assert kills.measure(tmp_path, 1, 3, "0.05") == 0
    assert "identical bytes: 1 of 1" in capsys.readouterr().out


def test_what_a_threshold_of_dr2_keeps():
    maf = np.array([0.001, 0.004, 0.3, 0.3, 0.3, 0.3])
    dr2 = np.array([0.2, 0.2, 0.2, 0.4, 0.85, 0.95])
    r2 = np.array([0.1, 0.3, 0.1, 0.5, 0.8, 1.0])
    header, *rows = dr2_thresholds.table(maf, dr2, r2)
    assert header[2:] == ["all", "DR2 ≥ 0.3", "DR2 ≥ 0.5", "DR2 ≥ 0.8", "DR2 ≥ 0.9"]
    assert rows[0] == ["0 – 0.005", "2", "100%, r² 0.20", *["–"] * 4]
    assert rows[1][1:] == ["0", *["–"] * 5]
    assert rows[3] == ["0.05 – 0.5", "4", "100%, r² 0.60", "75%, r² 0.77", "50%, r² 0.90",
                       "50%, r² 0.90", "25%, r² 1.00"]  # fmt: skip


def test_thresholds_of_dr2_on_the_example(tmp_path):
    import ragimpute as ri

    out = tmp_path / "x.vcf.gz"
    ri.impute(example.path("target.vcf.gz"), example.path("panel.bcf"), out,
           region="20:2000000-2200000")  # fmt: skip
    maf, dr2, r2 = dr2_thresholds.compare(example.path("truth.bcf"), out, example.path("panel.bcf"))
    assert len(maf) > 300
    assert maf.min() > 0
    assert maf.max() <= 0.5
    assert r2[dr2 >= 0.8].mean() > r2.mean() + 0.02
    with pytest.raises(InputError, match="no untyped site"):
        dr2_thresholds.compare(
            example.path("truth.bcf"), example.path("truth.bcf"), example.path("panel.bcf")
        )


def test_output_size_tells_every_format_and_what_rounding_changes(tmp_path, capsys):
    import output_size
    from imputed_blocks import random_block

    from ragimpute.io.vcf.header import Heading

    block = random_block(1, 30, 4)
    output_size.sizes([block], Heading([f"s{i}" for i in range(4)], [("20", None)]), tmp_path)
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[3:]]
    assert len(rows) == 26
    assert {row[0].strip("| ") for row in rows} == {"vcf.gz", "bcf"}
    for package in ("bgen", "pgenlib", "zstandard"):
        pytest.importorskip(package)
    many = random_block(1, 600, 40)
    heading = Heading([f"s{i}" for i in range(40)], [("20", None)])
    written = output_size.formats([many], heading, tmp_path)
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[3:]]
    assert len(rows) == len(written) >= 13
    assert all(float(row[1]) > 0 for row in rows)
    page = output_size.page(written, 600, 40, "python benchmarks/output_size.py")
    assert "40 samples at 600 sites" in page
    for row in written:
        assert f"| {row.title} | {row.megabytes:.2f} |" in page
    text = example.path("truth.bcf")
    blocks = [
        random_block(2, 1, 50)
        for _ in range(3)  # at places of which the truth says nothing
    ]
    known = output_size.alleles_of(text)
    keys = sorted(known)[:40]
    rng = np.random.default_rng(1)
    noisy = np.clip(np.stack([known[key] for key in keys])[..., None] / 2 + rng.normal(
        0, 0.1, (40, 50, 2)), 0, 1)  # fmt: skip
    from imputed_blocks import make_block

    blocks.append(make_block(
        noisy, position=[key[0] for key in keys], ref=[key[1] for key in keys],
        alt=[key[2] for key in keys],
    ))  # fmt: skip
    output_size.r2_changes(blocks, text, example.path("panel.bcf"))
    changes = {
        line.split(" | ")[0]: float(line.split(" | ")[-1].strip("| "))
        for line in capsys.readouterr().out.splitlines()
        if "change by" in line
    }
    assert abs(changes["| change by 4 decimals"]) <= abs(changes["| change by 2 decimals"])
