"""The command line: bad input is answered in one line, and nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import BAD, IMPUTE, OUT, PLAIN, columns, edit, rename, shift
from typer.testing import CliRunner
from vcf_fixtures import bcftools, read_imputed, view

from ragimpute import __version__, example
from ragimpute.accuracy.evaluate import evaluate
from ragimpute.cli import main as cli
from ragimpute.config import load_config
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import save_model
from ragimpute.token_model.build_index import build_index

COMMANDS = ("prepare", "index", "train", "plan", "phase", "impute", "merge", "evaluate", "report",
            "info", "models", "demo")  # fmt: skip


@pytest.fixture
def command(command_line, tmp_path, monkeypatch):
    """Runs a command in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return command_line


@pytest.fixture(scope="session")
def inputs(panel_h5, tmp_path_factory):
    """A folder of inputs that are good."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in example.NAMES:
        shutil.copy(example.path(name), folder / name)
    shutil.copy(panel_h5, folder / "panel.h5")
    bcftools("view", "-Ov", "-o", folder / "target.vcf", folder / "target.vcf.gz")
    region = ["-r", "20:2000000-2050000"]
    bcftools("view", *region, "-Ov", "-o", folder / "panel.vcf", example.path("panel.bcf"))
    build_index(panel_h5, folder / "panel.index")
    config = load_config("default")
    torch.manual_seed(1)
    save_model(folder / "model", build(config.model), config, {})
    return folder


@pytest.fixture
def here(inputs, tmp_path):
    """A copy of the good inputs, to be spoilt."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_design7_10_bad_input(command, here, name):
    spoil, words, message, hint = BAD[name]
    spoil(here)
    before = {path: path.lstat().st_mtime_ns for path in here.rglob("*")}
    code, out, err = command(*words)
    lines = [line for line in err.splitlines() if not line.startswith("WARNING: ")]
    assert code == 1, err
    assert out == ""
    assert lines[0].startswith("Error: "), err
    assert not any(line.startswith("Error: ") for line in lines[1:])
    assert "Traceback" not in err
    assert_matches(message, lines[0])
    if hint:
        assert lines[1].startswith("  hint: "), err
        assert_matches(hint, lines[1])
    assert len(lines) == 1 + any("hint:" in line for line in lines), err
    after = {path: path.lstat().st_mtime_ns for path in here.rglob("*")}
    assert after == before


def assert_matches(pattern, text):
    assert re.search(pattern, text), f"{pattern!r} not in {text!r}"


def test_a_folder_that_may_not_be_written_to(command, here):
    folder = Path("/sys") if os.geteuid() == 0 else here / "locked"
    if folder == here / "locked":
        folder.mkdir(mode=0o500)
    code, _, err = command(*IMPUTE[:-1], folder / OUT)
    assert code == 1
    assert err.startswith("Error: ")
    assert err.count("Error: ") == 1
    assert "hint: " in err
    assert str(folder) in err


@pytest.mark.parametrize(
    "words",
    [
        ("imput",),
        ("impute",),
        ("impute", "target.vcf.gz", "-p", "panel.h5"),
        (*IMPUTE, "--thread", "2"),
        (*IMPUTE, "--palindromes", "maybe"),
        (*IMPUTE, "--min-r2", "1.5"),
        (*IMPUTE, "--threads", "0"),
        (*IMPUTE, "--threads", "two"),
        (*IMPUTE, "--ne", "-3"),
        (*IMPUTE, "--err", "0.9"),
        ("--log-level", "loud", "info", "panel.h5"),
        ("index", "panel.h5", "-o", "i", "--kind", "hnsw"),
        ("info",),
    ],
)
def test_usage_errors(command, words):
    code, out, err = command(*words)
    assert code == 2
    assert out == ""
    assert "Usage: ragimpute" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["--version", "-V"])
def test_version(command, name):
    assert command(name) == (0, f"ragimpute {__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name):
    result = CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "Example:" in result.output
    assert f"ragimpute {name}" in result.output
    assert "--help" in result.output


def test_help_lists_every_command():
    result = CliRunner().invoke(cli.app, ["-h"], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    for name in COMMANDS:
        assert name in result.output
    assert "Usage: ragimpute" in CliRunner().invoke(cli.app, []).output


def test_from_panel_to_figures(command, here):
    def succeed(*words):
        code, out, err = command(*words)
        other = "WARNING: index p.index is not used: its arrays were made for another --ne\n"
        assert (code, err) == (0, other if "--ne" in words else "")
        return out

    area = ("-r", "20:2000000-2200000")
    out = succeed("prepare", "panel.bcf", "-o", "p.h5", "--map", "chr20.b37.gmap.gz", *area)
    assert "250 (HG00096" in out
    out = succeed("index", "p.h5", "-o", "p.index", "--sites", "target.vcf.gz")
    assert "178 of 689 sites, 511 not in panel; 1 windows" in out
    words = ("impute", "target.vcf.gz", "-p", "p.h5", "--index", "p.index")
    out = succeed(*words, "-o", "i.bcf", "--report", "r.html", "--report", "r.json", "-t", "2")
    assert "1,454, of which 178 typed" in out
    assert (here / "r.html").read_text().lower().startswith("<!doctype")
    report = json.loads((here / "r.json").read_text())
    assert (report["num_sites"], report["num_typed"]) == (1_454, 178)
    assert set(report["peak_mib"]) <= {
        "read", "model", "impute", "dosages", "load", "write",
    }  # fmt: skip
    assert succeed(*words, "-o", "j.vcf", "--quiet", "--ne", "1e4", "--format", "GT,DS,HDS") == ""
    words = ("evaluate", "--truth", "truth.bcf", "-p", "p.h5", "--typed", "target.vcf.gz", *area)
    imputed = ("--imputed", "i.bcf", "--imputed", "j.vcf")
    out = succeed(*words, *imputed, "--json", "e.json", "--html", "e.html")
    assert "i.bcf" in out
    figures = evaluate("truth.bcf", "i.bcf", "p.h5", typed="target.vcf.gz")
    assert figures.overall.r2 > 0.8
    assert f"{figures.overall.r2:.5f}" in (here / "e.html").read_text()
    assert set(json.loads((here / "e.json").read_text())) == {"i.bcf", "j.vcf"}
    out = succeed("info", "p.h5", "p.index", "model", "i.bcf", "chr20.b37.gmap.gz")
    for kind in ("panel", "index of a panel", "model", "BCF", "genetic map"):
        assert kind in out


def test_threads_and_quiet_are_not_recorded(command, here):
    area = ("-r", "20:2000000-2050000", "--ne", "1e5", "--err", "1e-3", "--no-fine-tune")
    command(*IMPUTE, *area, "--threads", "1")
    first = (here / OUT).read_bytes()
    for more in (("-t", "2"), ("--threads=2",), ("-t", "2", "-q")):
        assert command(*IMPUTE, *area, *more)[0] == 0
        assert (here / OUT).read_bytes() == first
    line = next(line for line in view(here / OUT).splitlines() if "ragimpute_command" in line)
    assert line == f"##ragimpute_command=ragimpute {' '.join(IMPUTE[:-2])} {' '.join(area[2:])}"


def test_headers_are_the_same_whatever_the_region_and_the_names(command, here):
    headers = set()
    for i, region in enumerate(("20:2000000-2020000", "20:2020001-2050000")):
        more = (
            f"-o{i}.vcf",
            f"--region={region}",
            "--sites",
            f"s{i}.vcf",
            "--excluded-sites=x.tsv",
        )
        assert command(*IMPUTE[:-2], *more, "--ne", "1e5", "--err", "1e-3")[0] == 0
        lines = (here / f"{i}.vcf").read_text().splitlines()
        headers.add("\n".join(line for line in lines if line.startswith("#")))
    assert len(headers) == 1
    assert f"ragimpute_command=ragimpute {' '.join(IMPUTE[:-2])} --ne" in headers.pop()


def test_qc_only_compares_and_writes_what_is_left_out(command, here):
    words = ("impute", "target.vcf", "-p", "panel.h5", "--qc-only", "--excluded-sites", "x.tsv")
    code, out, err = command(*words)
    assert (code, err) == (0, "")
    assert "reference overlap" in out
    assert "100.00%" in out
    assert "strand flip and allele switch" in out
    assert len((here / "x.tsv").read_text().splitlines()) == 1
    assert not (here / OUT).exists()
    # The table is written before a failure.
    edit(here / "target.vcf", columns(shift))
    code, out, err = command(*words)
    assert code == 1
    assert "than chance would make" in err
    rows = [line.split("\t") for line in (here / "x.tsv").read_text().splitlines()]
    assert len(rows) > 600
    assert {row[5] for row in rows[1:]} <= {"not_in_panel", "allele_mismatch", "ambiguous_strand"}


def test_standard_output_is_the_vcf_alone(command, here):
    area = ("-r", "20:2000000-2050000", "--ne", "1e5", "--err", "1e-3", "--no-fine-tune")
    code, out, err = command(*IMPUTE[:-1], "-", *area)
    assert code == 0
    assert err.splitlines()[0].split() == ["output", "-"]  # the summary keeps out of its way
    (here / "piped.vcf").write_text(out)
    assert command(*IMPUTE[:-1], "-", *area, "-q") == (0, out, "")
    command(*IMPUTE, *area)
    found, expected = read_imputed(here / "piped.vcf"), read_imputed(here / OUT)
    assert found.keys == expected.keys
    np.testing.assert_array_equal(found.dosage, expected.dosage)


def test_log_level(command, here):
    rename(here / "target.vcf", "20", "chr20")
    area = ("-r", "20:2000000-2050000", "--ne", "1e5", "--err", "1e-3", "--no-fine-tune")
    code, _, err = command(*PLAIN, *area)
    assert code == 0
    assert err.startswith("WARNING: contig 20 of the panel is chr20")
    code, _, err = command("--log-level", "error", *PLAIN, *area)
    assert (code, err) == (0, "")


def test_the_network_is_as_shipped_where_asked_for(command, here):
    area = ("-r", "20:2000000-2050000", "--ne", "1e5", "--err", "1e-3")
    found = []
    for words in ((), ("--fine-tune",), ("--no-fine-tune",)):
        code, _, err = command(*IMPUTE, *area, *words)
        assert (code, err) == (0, "")
        found.append(read_imputed(here / OUT).dosage)
    np.testing.assert_array_equal(found[0], found[1])
    off = np.abs(found[2] - found[0])
    assert off.max() > 1e-3  # of what is written
    assert off.mean() < 0.01


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("info", "panel.h5"), 0, "250 (HG00096"),
        (("info", "nothing.h5"), 1, "Error: "),
        (("info", "--nothing"), 2, "Usage: ragimpute info"),
    ],
)
def test_the_installed_program_ends_with_a_code(inputs, words, code, said):
    done = subprocess.run(
        [Path(sys.executable).with_name("ragimpute"), *words],
        cwd=inputs, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert said in (done.stderr if code else done.stdout)  # all of it comes through a pipe
    assert (done.stdout == "") == bool(code)
    assert "Traceback" not in done.stderr


def test_the_program_ends_without_cleaning_up(monkeypatch, capsys):
    """Its exit code is that of the command, whatever way the command ends."""
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    for end in (None, 0, 1, 2, 143, "a word"):

        def main(end=end):
            print("said", end=" ")
            raise SystemExit(end)

        monkeypatch.setattr(cli, "main", main)
        cli.run()
    monkeypatch.setattr(cli, "main", lambda: None)
    cli.run()
    assert left == [0, 0, 1, 2, 143, 1, 0]
    assert capsys.readouterr().out == "said " * 6

    def fail():
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "main", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.run()
    assert len(left) == 7


@pytest.mark.parametrize(("given", "kept"), [(None, "0"), ("1", "1")])
def test_numpy_asks_for_huge_pages_where_a_user_wants_them(given, kept):
    code = (
        "import os, sys\n"
        "sys.argv = ['ragimpute', '--version']\n"
        "from ragimpute.cli.main import main\n"
        "assert 'numpy' not in sys.modules\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(os.environ['NUMPY_MADVISE_HUGEPAGE'])\n"
    )
    known = {k: v for k, v in os.environ.items() if k != "NUMPY_MADVISE_HUGEPAGE"}
    if given is not None:
        known["NUMPY_MADVISE_HUGEPAGE"] = given
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=known
    )
    assert run.stdout.split()[-1] == kept


@pytest.mark.parametrize("words", [["impute", "--help"], ["phase"], ["--version"], ["imputed"], []])
def test_the_program_for_a_command_line_says_what_the_whole_says(words):
    whole, part = (CliRunner().invoke(app, words) for app in (cli.app, cli.program_for(words)))
    assert (part.exit_code, part.output) == (whole.exit_code, whole.output)
    assert (len(cli.program_for(words).registered_commands) == 1) == (
        words[:1] in (["impute"], ["phase"])
    )
    assert len(cli.app.registered_commands) == len(cli.ORDER)
