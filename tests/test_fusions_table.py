"""The comparison of fusions: what it trains, measures and writes."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import get_args

import compare
import fusions
import fusions_page
import pytest
import train_once

from ragimpute import example
from ragimpute.config import FusionName, load_config
from ragimpute.errors import ConfigError, InputError
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region

PAGE = Path(__file__).parents[1] / "docs" / "fusions.md"
TINY = ("train.epochs=1", "data.windows_per_epoch=12", "train.batch_size=4",
        "model.encoder.dim=8", "model.encoder.num_heads=2", "model.encoder.num_layers=1",
        "data.max_validation_samples=2", "data.max_haplotypes=8", "data.num_arrays=2",
        "data.max_sites=32")  # fmt: skip


@pytest.fixture(scope="module")
def small_h5(tmp_path_factory):
    """The first 50 kb of the packaged panel."""
    path = tmp_path_factory.mktemp("fusions") / "panel.h5"
    prepare(example.path("panel.bcf"), path, genetic_map=example.path("chr20.b37.gmap.gz"),
            region=Region.parse("20:2000000-2050000"))  # fmt: skip
    return path


def cells(table):
    """The rows of a Markdown table as lists of texts, without its header."""
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    return rows[2:]


def number(text):
    """A table's number."""
    return float(text.replace(",", ""))


def configs_of(trainings):
    """The config of each training by its fusion, part and form."""
    return {
        (one.fusion, one.extra, one.form): load_config(one.preset, overrides=one.overrides)
        for one in trainings
    }


def test_every_fusion_is_trained_alike():
    configs = configs_of(fusions.plan(123.4))
    names = [name for name in get_args(FusionName) if name != "copying"]
    assert {key[0] for key in configs if not key[1] and key[2] == "c"} == set(names)
    assert all((name, "", form) in configs for name in names for form in "abc")
    first = configs[names[0], "", "a"]
    for (name, extra, form), config in configs.items():
        assert config.model.fusion.name == name
        assert config.train.epochs == first.train.epochs
        assert config.train.early_stopping.patience == 0  # as many steps for all
        if name == "copying":
            assert config.data.typed_per_mb == (123.4, 123.4)
            continue
        assert config.mask == first.mask
        assert config.train.batch_size == first.train.batch_size
        assert config.train.seed == (2 if extra == "another seed" else first.train.seed)
        for group in ("loss", "optimizer", "schedule", "data"):  # differ by the form alone
            assert getattr(config, group) == getattr(configs[names[0], "", form], group)
        assert config.model.encoder == configs[names[0], "", form].model.encoder
        assert config.mask.validation.rate == fusions.HIDDEN
        assert {part.name for part in config.mask.parts} == {"array_like"}
        sizes = ("max_sites", "windows_per_epoch", "max_validation_samples")
        assert all(getattr(config.data, size) == getattr(first.data, size) for size in sizes)
    assert configs[names[0], "position CNN", "b"].model.embedding.position_cnn
    assert configs[names[0], "attention between haplotypes", "c"].model.fusion.haplotype_attention
    assert configs[names[0], "looked-up references", "a"].model.reference.mode == "precomputed"


def test_what_the_forms_are():
    configs = configs_of(fusions.plan(1.0))
    a, b, c = (configs["concat", "", form] for form in "abc")
    assert a.data.retrieval == "window"
    assert (a.loss, a.model) == (b.loss, b.model)  # retrieval alone
    assert b.data.retrieval == "site"
    assert b.data == c.data
    assert not b.model.li_stephens.offset
    assert not b.model.li_stephens.features
    assert c.model.li_stephens.offset
    assert c.model.li_stephens.features
    assert (b.loss.kind, c.loss.kind) == ("focal", "cross_entropy")
    assert (b.model.reference.mode, c.model.reference.mode) == ("tokens", "precomputed")
    told = fusions.describe_forms(["data.max_sites=32"])
    assert [told[form]["num_retrieved"] for form in "abc"] == [3, 8, 8]
    assert {told[form]["max_sites"] for form in "abc"} == {32}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Everything made of the packaged example, trained in this process to be quick.

    Results, the page's text, the panels that were trained on, and what was printed.
    """
    panels = []

    def train_here(panel, preset, out, overrides):
        panels.append(panel.name)
        found = train_once.train_once(panel, preset, out, list(overrides))
        return found | {"wall_s": 1.0, "cpu_s": 1.0, "peak_mib": found["start_mib"] + 12.0}

    folder = tmp_path_factory.mktemp("made")
    page = folder / "page.md"
    settings = [word for setting in TINY for word in ("--set", setting)]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(fusions, "train_measured", train_here)
        results = fusions.main(["--example", "-o", str(folder / "out"), "--grid", "1x16 2x32",
                                "--grid-sites", "64", "--markdown", str(page),
                                *settings])  # fmt: skip
    assert json.loads((folder / "out" / "results.json").read_text()) == results
    text = page.read_text()
    assert str(folder) not in text
    return results, text, panels, printed.getvalue()


def tables(text):
    """The page's last three tables."""
    return re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)[-3:]


def check_fusions(table):
    """A table of fusions has every row, and figures that can be; its rows' figures by name."""
    rows = cells(table)
    names = [f"`{name}`" for name in get_args(FusionName)]
    assert [row[0] for row in rows] == names + [f"{names[0]} + {part}" for part in fusions.PARTS]
    out = {}
    for row in rows:
        assert len(row) == 14
        figures = [None if cell == "-" else number(cell) for cell in row[1:]]
        assert all(0 <= figure <= 1 for figure in figures[:10] if figure is not None)
        assert all(0 < seconds < 60 for seconds in figures[10:] if seconds is not None)
        trained = [x is not None for x in figures[10:]]
        part = row[0].partition(" + ")[2]
        forms = "c" if row[0] == "`copying`" else fusions.PARTS[part][1] if part else "abc"
        assert trained == [form in forms for form in "abc"]
        out[row[0]] = figures
    same = [value for name, value in out.items() if name in names and name != "`copying`"]
    for at in (3, 4, 8, 9):  # the same sites of the same samples
        assert len({figures[at] for figures in same}) == 1
    return out


def test_the_table_covers_every_fusion(made):
    results, text, panels, printed = made
    trainings = 7 * 3 + 1 + 3 * 3 + 2
    assert panels == ["panel.h5"] * (3 + trainings) + ["part.h5"] * 4  # three of them untimed
    assert "500 haplotypes, 6,127 sites in 20:" in text
    every, sizes, looked_up = tables(text)
    rows = check_fusions(every)
    for found in results["fusions"]:
        name = "`" + found["fusion"] + "`" + (f" + {found['extra']}" if found["extra"] else "")
        for at, form in enumerate("abc"):
            of = found["forms"].get(form) or (found["forms"].get("") if form == "c" else None)
            if of is None:
                assert [rows[name][i + at] for i in (0, 5, 10)] == [None] * 3
                continue
            figures = of["figures"]
            assert rows[name][at] == pytest.approx(figures["r2_all"], abs=6e-6)
            assert rows[name][5 + at] == pytest.approx(figures["r2_rare"], abs=6e-5)
            assert rows[name][10 + at] == pytest.approx(of["step_cpu_s"], abs=6e-4)
            ls = rows[name][3 if form == "a" else 4]
            assert ls == pytest.approx(figures["ls_r2_all"], abs=6e-5)
            assert 0.5 < ls <= 1
            assert of["steps"] == 3
    for row, found in zip(cells(sizes), results["fusions"], strict=True):
        if {"a", "b", "c"} <= set(found["forms"]):
            a, b, c = (found["forms"][form]["parameters"] for form in "abc")
            assert a == b > 1_000
            assert [number(cell) for cell in row[1:]] == [a, c, 12, 12, 12]
    rows = cells(looked_up)
    assert [row[:2] for row in rows] == [["1", "16"], ["2", "32"]]
    for row in rows:
        read, kept, ratio = map(number, row[2:5])
        assert ratio == pytest.approx(kept / read, rel=0.02)
        assert row[5:] == ["12", "12"]
    assert all(table in printed for table in (every, sizes, looked_up))


def test_a_correction_of_copying_begins_where_copying_is(made):
    """After three steps of a network that starts at 0, it has hardly moved."""
    for found in made[0]["fusions"]:
        if "c" in found["forms"]:
            figures = found["forms"]["c"]["figures"]
            assert figures["r2_all"] == pytest.approx(figures["ls_r2_all"], abs=0.03)


def test_the_page_in_docs_covers_every_fusion():
    every, sizes, looked_up = tables(PAGE.read_text(encoding="utf-8"))
    assert list(check_fusions(every)) == [row[0] for row in cells(sizes)]
    rows = cells(looked_up)
    assert [(int(row[0]), int(row[1])) for row in rows] == list(fusions.GRID)
    for row in rows:
        read, kept, ratio = map(number, row[2:5])
        assert ratio == pytest.approx(kept / read, rel=0.02)


def row_of(fusion="concat", extra="", **forms):
    """A row of results: for each form r2, LS r2, rare r2 and LS rare r2."""
    names = ("r2_all", "ls_r2_all", "r2_rare", "ls_r2_rare")
    out = {"fusion": fusion, "extra": extra, "forms": {}}
    for letter, values in forms.items():
        out["forms"]["" if letter == "copying" else letter] = {
            "parameters": 1234, "step_cpu_s": 0.5, "peak_mib": 500.0, "start_mib": 400.4,
            "figures": dict(zip(names, values, strict=True)),
        }  # fmt: skip
    return out


def test_undefined_figures_are_dashes():
    nothing = [None] * 4
    results = {"fusions": [row_of(a=nothing, b=nothing, c=nothing),
                           row_of("copying", copying=[0.5, 0.4, 0.3, 0.2])]}  # fmt: skip
    header, none, copying = fusions_page.fusion_table(results)
    assert none == ["`concat`", *["-"] * 10, *["0.500"] * 3]
    told = dict(zip(header, copying, strict=True))
    assert {name: value for name, value in told.items() if value != "-"} == {
        "fusion": "`copying`", "r² (c)": "0.50000", "LS (b), (c)": "0.40000",
        "rare r² (c)": "0.3000", "rare LS (b), (c)": "0.2000", "s / step (c)": "0.500",
    }  # fmt: skip
    assert fusions_page.size_table(results)[1:] == [
        ["`concat`", "1,234", "1,234", "100", "100", "100"],
        ["`copying`", "-", "1,234", "-", "-", "100"],
    ]
    assert fusions_page.findings(results) == []


def test_what_the_page_says_of_the_table_is_in_the_table():
    results = {"fusions": [
        row_of("enhanced_rare_variant", a=[0.8, 0.9, 0.2, 0.5], b=[0.85, 0.92, 0.3, 0.4],
               c=[0.93, 0.92, None, 0.4]),
        row_of("concat", a=[0.7, 0.9, 0.1, 0.5], b=[0.84, 0.92, 0.4, 0.4],
               c=[0.92, 0.92, None, 0.4]),
        row_of("copying", copying=[0.99, 0.98, 0.9, 0.9]),
        row_of("enhanced_rare_variant", "another seed", a=[0.7, 0.88, 0.1, 0.5]),
    ]}  # fmt: skip
    assert fusions_page.findings(results) == [
        "- Under (a), 0 of 2 token fusions pass Li–Stephens. The highest r² is 0.80000 "
        "(`enhanced_rare_variant`), the lowest 0.70000 (`concat`).",
        "- Under (b), 0 of 2 token fusions pass Li–Stephens. The highest r² is 0.85000 "
        "(`enhanced_rare_variant`), the lowest 0.84000 (`concat`).",
        "- Under (c), 1 of 2 token fusions pass Li–Stephens, by up to 0.01000. The highest r² is "
        "0.93000 (`enhanced_rare_variant`), the lowest 0.92000 (`concat`).",
        "- Retrieval by site, (b) in place of (a), changes r² by +0.0950 on average (+0.0500 to "
        "+0.1400) and rare r² by +0.2000 on average (+0.1000 to +0.3000) over the token fusions.",
        "- The correction of Li–Stephens, (c) in place of (b), changes r² by +0.0800 on average "
        "(+0.0800 to +0.0800) over the token fusions.",
        "- With another seed, the distance from `enhanced_rare_variant` to Li–Stephens changes by "
        "0.08000 under (a). Two rows of a form that differ by less need not really differ.",
    ]


def test_a_process_of_its_own(small_h5, tmp_path):
    found = fusions.train_measured(small_h5, "v10-small", tmp_path / "m", TINY)
    assert found["peak_mib"] >= found["start_mib"] > 50
    assert found["steps"] == 3
    assert found["figures"]["epoch"] == 1
    assert found["cpu_s"] > 2 * found["step_cpu_s"] > 0
    assert not (tmp_path / "m").exists()
    with pytest.raises(RuntimeError, match=r"train\.epoch is not a setting"):
        fusions.train_measured(small_h5, "v10-small", tmp_path / "m", ["train.epoch=1"])


def test_one_step_cannot_be_timed(small_h5, tmp_path):
    with pytest.raises(ValueError, match="1 steps in 1 epochs"):
        train_once.train_once(small_h5, "v10-small", tmp_path, [*TINY, "train.max_steps=1"])
    with pytest.raises(ConfigError):
        train_once.train_once(small_h5, "v10-small", tmp_path, ["x=1"])


def clocked(monkeypatch, calls):
    """What a clock says of progress calls (CPU seconds, stage)."""
    cpu = iter([seconds for seconds, _ in calls])
    monkeypatch.setattr(train_once.time, "process_time", lambda: next(cpu))
    clock = train_once.StepClock()
    for _, stage in calls:
        clock(stage, 1, 2)
    return clock.steps()


def test_the_steps_of_whole_epochs_are_timed(monkeypatch):
    first = [(0.5, "prepare data"), (1.0, "epoch 1/2"), (1.5, "epoch 1/2"), (3.0, "validation")]
    assert clocked(monkeypatch, first) == [0.5]  # what is done once before the first step is not
    later = [(10.0, "validation"), (14.0, "epoch 2/2"), (14.25, "epoch 2/2"), (20.0, "validation")]
    assert clocked(monkeypatch, first + later) == [4.0, 0.25]
    assert clocked(monkeypatch, first[:1]) == clocked(monkeypatch, first[:2]) == []


def test_data_folders(tmp_path):
    with pytest.raises(InputError, match=r"no panel\.bcf"):
        fusions.find_panel(tmp_path)
    (tmp_path / "panel.bcf").touch()
    with pytest.raises(InputError, match=r"0 files \*\.map, not one"):
        fusions.find_panel(tmp_path)
    (tmp_path / "x.map").touch()
    assert fusions.find_panel(tmp_path) == (tmp_path / "panel.bcf", tmp_path / "x.map")


@pytest.mark.parametrize("words", [["-o", "x"], ["d", "--example", "-o", "x"],
                                   ["d", "-o", "x", "--grid", "3"]])  # fmt: skip
def test_wrong_options(words, capsys):
    with pytest.raises(SystemExit) as end:
        fusions.parse(words)
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_options():
    assert tuple(fusions.parse(["d", "-o", "x"]).grid) == fusions.GRID
    said = compare.describe_command(["../a/set", "-o", "out"], "fusions.py")
    assert said == "python benchmarks/fusions.py set -o out"
