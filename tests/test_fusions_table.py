"""The comparison of fusions: what it trains, measures and writes."""

from __future__ import annotations

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


def test_every_fusion_is_trained_alike():
    forms = fusions.fusion_forms(123.4)
    assert [form.fusion for form in forms if not form.extra] == list(get_args(FusionName))
    configs = [load_config(form.preset, overrides=form.overrides) for form in forms]
    assert [c.model.fusion.name for c in configs] == [form.fusion for form in forms]
    first = configs[0]
    for form, config in zip(forms, configs, strict=True):
        assert config.train.epochs == first.train.epochs
        assert config.train.early_stopping.patience == 0  # as many steps for all
        if form.fusion == "copying":
            assert config.data.typed_per_mb == (123.4, 123.4)
            continue
        same = ("mask", "loss", "optimizer", "schedule", "data")
        assert all(getattr(config, name) == getattr(first, name) for name in same)
        assert config.model.encoder == first.model.encoder
        assert config.mask.validation.rate == fusions.HIDDEN
    changed = {form.extra: c for form, c in zip(forms, configs, strict=True) if form.extra}
    assert changed["another seed"].train.seed != first.train.seed
    assert changed["position CNN"].model.embedding.position_cnn
    assert changed["attention between haplotypes"].model.fusion.haplotype_attention
    assert changed["looked-up references"].model.reference.mode == "precomputed"


def test_the_table_covers_every_fusion(tmp_path, monkeypatch, capsys):
    """All of it on the packaged example, trained in this process to be quick."""
    panels = []

    def train_here(panel, preset, out, overrides):
        panels.append(panel.name)
        found = train_once.train_once(panel, preset, out, list(overrides))
        return found | {"wall_s": 1.0, "cpu_s": 1.0, "peak_mib": found["start_mib"] + 12.0}

    monkeypatch.setattr(fusions, "train_measured", train_here)
    page = tmp_path / "page.md"
    settings = [word for setting in TINY for word in ("--set", setting)]
    results = fusions.main(["--example", "-o", str(tmp_path / "out"), "--grid", "1x16 2x32",
                            "--grid-sites", "64", "--markdown", str(page), *settings])  # fmt: skip
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    assert panels == ["panel.h5"] * 15 + ["part.h5"] * 4  # three of them untimed
    text = page.read_text()
    assert str(tmp_path) not in text
    assert "500 haplotypes, 6,127 sites in 20:" in text
    every, looked_up = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)[-2:]
    rows = cells(every)
    plain = [re.fullmatch("`(.+)`", row[0]) for row in rows]
    assert [m[1] for m in plain if m] == list(get_args(FusionName))
    for row, found in zip(rows, results["fusions"], strict=True):
        parameters, memory, seconds, *figures = map(number, row[1:])
        assert parameters == found["parameters"] > 1_000
        assert memory == 12
        assert 0 < seconds < 60
        assert seconds == pytest.approx(found["step_cpu_s"], abs=6e-4)
        r2, ls, _, _, f1 = figures
        assert figures == pytest.approx(
            [found["figures"][k] for k in ("r2_all", "ls_r2_all", "r2_rare", "ls_r2_rare", "f1")],
            abs=6e-5,
        )
        assert 0 <= r2 <= 1
        assert 0.5 < ls <= 1
        assert 0 <= f1 <= 1
        assert found["steps"] == results["fusions"][0]["steps"] == 3
    ls = {row[5] for row in rows if "copying" not in row[0] and "seed" not in row[0]}
    assert len(ls) == 1  # the same sites of the same samples
    rows = cells(looked_up)
    assert [row[:2] for row in rows] == [["1", "16"], ["2", "32"]]
    for row in rows:
        read, kept, ratio = map(number, row[2:5])
        assert ratio == pytest.approx(kept / read, rel=0.02)
        assert row[5:] == ["12", "12"]
    assert every in capsys.readouterr().out


def test_the_page_in_docs_covers_every_fusion():
    text = PAGE.read_text(encoding="utf-8")
    every, looked_up = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)[-2:]
    rows = cells(every)
    extras = [form.extra for form in fusions.fusion_forms(1.0) if form.extra]
    names = [f"`{name}`" for name in get_args(FusionName)]
    assert [row[0] for row in rows] == names + [f"{names[0]} + {extra}" for extra in extras]
    for row in rows:
        parameters, memory, seconds, *figures = map(number, row[1:])
        assert min(parameters, memory, seconds) > 0
        assert len(figures) == 5
        assert all(0 <= figure <= 1 for figure in figures)
    rows = cells(looked_up)
    assert [(int(row[0]), int(row[1])) for row in rows] == list(fusions.GRID)
    for row in rows:
        read, kept, ratio = map(number, row[2:5])
        assert ratio == pytest.approx(kept / read, rel=0.02)


def test_undefined_figures_are_dashes():
    figures = dict.fromkeys(("r2_all", "ls_r2_all", "r2_rare", "ls_r2_rare", "f1"))
    row = {"fusion": "concat", "extra": "", "parameters": 1234, "step_cpu_s": 0.5,
           "peak_mib": 500.0, "start_mib": 400.4, "figures": figures}  # fmt: skip
    (_, cells) = fusions_page.fusion_table({"fusions": [row]})
    assert cells == ["`concat`", "1,234", "100", "0.500", *["-"] * 5]


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


def test_steps_are_timed_within_an_epoch(monkeypatch):
    cpu = iter([1.0, 1.5, 3.0, 10.0, 10.25])
    monkeypatch.setattr(train_once.time, "process_time", lambda: next(cpu))
    clock = train_once.StepClock()
    for stage, done in (("epoch 1/2", 1), ("epoch 1/2", 2), ("validation", 1), ("epoch 2/2", 1),
                        ("epoch 2/2", 2)):  # fmt: skip
        clock(stage, done, 2)
    assert clock.cpu_s == [0.5, 0.25]
    assert len(clock.wall_s) == 2


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
