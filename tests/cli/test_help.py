"""--help: named panels, nothing cut at 80 columns, whole sentences, values listed and completed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner
from vcf_fixtures import view

from ragimpute import example
from ragimpute.cli import complete
from ragimpute.cli import main as cli
from ragimpute.cli.help import OLD_NAMES, PANELS, lines_of, read_parameters
from ragimpute.model.folder import WEIGHTS
from ragimpute.presets import models_dir, preset_names

COMMANDS = {cli.command_name(command): command for command in cli.app.registered_commands}
AREA = ("-r", "20:2000000-2050000", "--ne", "1e5", "--err", "1e-3", "--no-fine-tune")


def help_of(*words, columns=80):
    """What a command's --help prints."""
    shown = CliRunner().invoke(
        cli.app, [*words, "--help"], prog_name="ragimpute", env={"COLUMNS": str(columns)}
    )
    assert shown.exit_code == 0, shown.output
    return shown.output


@pytest.mark.parametrize("columns", [80, 60, 200])
@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_nothing_is_cut(name, columns):
    shown = help_of(*([name] if name else []), columns=columns)
    assert "…" not in shown
    assert not re.search(r"<\w+>", shown)  # no "<bool>"
    assert max(map(len, shown.splitlines())) <= columns
    if name is None:
        return
    words = re.sub(r"[│\s]+", " ", shown)
    for item in read_parameters(COMMANDS[name].callback):
        for option in item.names:
            assert option in shown, option
        assert item.value in shown
        assert item.help in words, item.help
        assert item.help, item.names
        assert item.help.endswith((".", ")")), item.help
        assert item.panel in PANELS[:-1], (item.names, item.panel)
    for old in OLD_NAMES:
        assert not re.search(rf"{old}(?![\w-])", shown)


@given(st.lists(st.tuples(st.text("ab-, ", min_size=1, max_size=50), st.text("abc ", max_size=90))))
def test_the_layout_keeps_every_word_and_the_width(entries):
    rows = lines_of(entries, 76)
    for label, text in rows:
        assert len(label) + len(text) <= 76
    words = " ".join(text for _, text in rows).split()
    assert words == " ".join(text for _, text in entries).split()


def test_values_are_listed():
    shown = help_of("impute")
    for values in ("auto|cpu|cuda", "frequency|keep|drop", "v|z|b|u", "GT,DS,GP",
                   "debug|info|warning|error", "The model: default,"):  # fmt: skip
        assert values in re.sub(r"[│\s]+", " ", shown)
    assert "flat" in help_of("index")
    assert "tsv|json" in help_of("plan")


def test_values_are_completed(monkeypatch):
    trained = [name for name in preset_names() if (models_dir() / name / WEIGHTS).is_file()]
    assert complete.trained_models() == complete.models("") == trained == ["default"]
    assert complete.configs("") == preset_names()
    assert complete.configs("v10-r") == ["v10-rag", "v10-rag-small"]
    assert complete.devices("c") == ["cpu", "cuda"]
    assert complete.par_regions("b") == ["b37", "b38"]
    assert complete.fields("GT,D") == ["GT,DS"]
    assert complete.fields("") == list(complete.FORMATS)
    # The way that a shell asks.
    for words, offered in (
        ("ragimpute impute --model ", {"default"}),
        ("ragimpute impute --device c", {"cpu", "cuda"}),
        ("ragimpute impute --palindromes ", {"frequency", "keep", "drop"}),
        ("ragimpute impute -O ", {"v", "z", "b", "u"}),
        ("ragimpute train --config v2", {"v2", "v2-small"}),
    ):
        monkeypatch.setattr("sys.argv", ["ragimpute"])
        done = CliRunner().invoke(
            cli.app, [], prog_name="ragimpute",
            env={"_RAGIMPUTE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": words},
        )  # fmt: skip
        assert offered <= set(re.findall(r"[\w-]+", done.output)), (words, done.output)


def test_models_are_told_from_presets():
    shown = CliRunner().invoke(cli.app, ["models"], env={"COLUMNS": "80"}).output
    ready, _, presets = shown.partition("Presets without weights")
    assert re.findall(r"^ (\S+)", ready, re.MULTILINE) == ["default"]
    listed = re.findall(r"^ (\S+)", presets, re.MULTILINE)
    assert listed == [name for name in preset_names() if name != "default"]


@pytest.fixture
def command(command_line, tmp_path, monkeypatch, panel_h5):
    """Runs a command in a folder that has a panel and a target."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(panel_h5, tmp_path / "p.h5")
    shutil.copy(example.path("target.vcf.gz"), tmp_path / "t.vcf.gz")
    return command_line


@pytest.mark.parametrize("letter", ["v", "z", "b", "u"])
def test_output_types_of_bcftools(command, tmp_path, letter):
    words = ("impute", "t.vcf.gz", "-p", "p.h5", *AREA)
    assert command(*words, "-o", "plain.vcf")[0] == 0
    assert command(*words, "--out", "without-suffix", f"-O{letter}")[0] == 0
    found = Path("without-suffix")

    def rows(path):
        return [line for line in view(path).splitlines() if not line.startswith("#")]

    start = found.read_bytes()[:4]
    assert (start == b"##fi") == (letter == "v")
    assert rows(found) == rows("plain.vcf")
    sizes = {one: 0 for one in "bu"}
    for one in sizes:
        assert command(*words, "--output", one, "--output-type", one)[0] == 0
        sizes[one] = Path(one).stat().st_size
    assert sizes["u"] > 3 * sizes["b"]
    for name in ("phase", "merge"):
        assert "--output-type" in help_of(name)


def test_an_output_type_that_contradicts_the_suffix(command, tmp_path):
    for words in (("impute", "t.vcf.gz", "-p", "p.h5", *AREA), ("phase", "t.vcf.gz", "-p", "p.h5"),
                  ("merge", "t.vcf.gz", "t.vcf.gz")):  # fmt: skip
        code, _, err = command(*words, "-o", "x.vcf.gz", "-O", "b")
        assert code == 1
        assert err.startswith("Error: --output-type b is bcf, but the output x.vcf.gz has the ")
        assert command(*words, "-o", "x.vcf.gz", "-O", "q")[0] == 2
    assert not Path("x.vcf.gz").exists()


def test_old_names_of_options_still_work(command, tmp_path):
    words = ("impute", "t.vcf.gz", "-p", "p.h5", *AREA, "-q")
    assert command(*words, "-o", "a.vcf", "--typed-only", "--sites", "s.vcf")[0] == 0
    assert command(*words, "-o", "b.vcf", "--all-typed-sites", "--sites-output", "u.vcf")[0] == 0

    def rows(name):
        return [line for line in Path(name).read_text().splitlines() if line[:2] != "##"]

    assert rows("a.vcf") == rows("b.vcf")
    assert rows("s.vcf") == rows("u.vcf")
    for name in ("--sites", "--typed-sites"):
        code, out, err = command("index", "p.h5", "-o", f"i{name}", name, "t.vcf.gz")
        assert code == 0, err
        assert "539" not in out or "sites searched" in out
    tables = set()
    for name in ("--typed", "--typed-sites"):
        code, out, err = command(
            "evaluate", "--truth", example.path("truth.bcf"), "--imputed", "a.vcf", "-p", "p.h5",
            name, "t.vcf.gz",
        )  # fmt: skip
        assert code == 0, err
        tables.add(out)
    assert len(tables) == 1


def test_a_model_that_is_not_there_names_those_that_impute(command):
    words = ("impute", "t.vcf.gz", "-p", "p.h5", "-o", "x.vcf", "--model")
    code, _, err = command(*words, "nope")
    assert code == 1
    assert "choose default, which ships, or a folder" in err
    assert "v10" not in err
    assert command(*words, "default", *AREA)[0] == 0  # what the hint says works
    code, _, err = command(*words, "context")
    assert code == 1
    assert "there is no model context any more" in err
    assert "hint: use --model default" in err  # as was run above
    assert command("models")[0] == 0


def test_errors_of_the_command_line_show_how_it_is_used(command):
    code, _, err = command("impute", "t.vcf.gz", "-p", "p.h5", "-o", "x.vcf", "--modle", "x")
    assert code == 2
    assert err.startswith("Usage: ragimpute impute TARGET --panel FILE [OPTIONS]")
