"""--log: what was run, on what, how long each stage took, and how it ended."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from vcf_fixtures import view

from ragimpute import __version__, example

AREA = ("-r", "20:2000000-2050000", "--ne", "1e5", "--err", "1e-3", "--no-fine-tune")
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (\w+) +(.*)")


@pytest.fixture
def command(command_line, tmp_path, monkeypatch, panel_h5):
    """Runs a command in a folder that has a panel and a target."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(panel_h5, tmp_path / "p.h5")
    shutil.copy(example.path("target.vcf.gz"), tmp_path / "t.vcf.gz")
    return command_line


def read(path):
    """The lines of a log as kind and text, without the first."""
    first, *lines = path.read_text().splitlines()
    assert first == "# ragimpute log"
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches), lines
    return [(match[1], match[2]) for match in matches]


def test_a_log_beside_the_output(command, tmp_path):
    words = ("impute", "t.vcf.gz", "-p", "p.h5", "-o", "x.vcf.gz", *AREA)
    assert command(*words)[0] == 0
    before = view(tmp_path / "x.vcf.gz")
    code, out, err = command(*words, "--log", "auto", "-t", "2")
    assert (code, err) == (0, "")
    assert view(tmp_path / "x.vcf.gz") == before  # its header, too
    lines = read(tmp_path / "x.vcf.gz.log")
    kinds = [kind for kind, _ in lines]
    assert kinds[:6] == ["command", "folder", "versions", "machine", "input", "input"]
    assert kinds[-1] == "end"
    text = dict(reversed(lines))
    assert text["command"] == f"ragimpute {' '.join(words)} --log auto -t 2"
    assert f"ragimpute {__version__}" in text["versions"]
    assert re.search(r"Python \d.*numpy \d.*torch \d", text["versions"])
    assert "cores can be used" in text["machine"]
    size = (tmp_path / "t.vcf.gz").stat().st_size
    assert re.fullmatch(rf"target input: t.vcf.gz, {size:,} bytes, modified \d.*", text["input"])
    for stage in ("read target", "read panel", "measure sites", "copy", "write", "impute"):
        assert ("INFO", f"{stage}: begins") in lines
        assert any(re.fullmatch(rf"{stage}: done in \d+\.\d\d s", told) for _, told in lines)
    told = [" ".join(line.split()) for line in out.splitlines()]
    assert [t.replace(": ", " ", 1) for kind, t in lines if kind == "summary"] == told
    assert re.fullmatch(r"finished, after \d+\.\d s", text["end"])


def test_debug_tells_windows_states_parameters_and_memory(command, tmp_path):
    code, _, err = command(
        "impute", "t.vcf.gz", "-p", "p.h5", "-o", "x.vcf", *AREA, "--log", "run.log",
        "--log-level", "debug",
    )  # fmt: skip
    assert code == 0
    debug = [text for kind, text in read(tmp_path / "run.log") if kind == "DEBUG"]
    assert any(text.startswith("window 20:20000") for text in debug)
    assert "ne 1e+05, err 0.001, states: all panel haplotypes, network" in debug
    assert any(re.fullmatch(r"copy: [\d,]+ MiB of memory held, .*", text) for text in debug)
    assert [line.partition(": ")[2] for line in err.splitlines() if "DEBUG" in line] == debug


@pytest.mark.parametrize("before", [True, False])
def test_info_tells_the_stages_on_standard_error(command, before):
    words = ["impute", "t.vcf.gz", "-p", "p.h5", "-o", "x.vcf", *AREA]
    level = ["--log-level", "info"]
    code, _, err = command(*(level + words if before else words + level))
    assert code == 0
    assert "INFO: copy: begins" in err
    assert "DEBUG" not in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("prepare", "panel.bcf", "-o", "n.h5", "--cm-per-mb", "1"), "prepare"),
        (("phase", "t.vcf.gz", "-p", "p.h5", "-o", "n.vcf", "-r", "20:2000000-2050000"), "phase"),
        (("evaluate", "--truth", "truth.bcf", "--imputed", "t.vcf.gz", "-p", "p.h5",
          "--json", "n.json"), "score"),
        (("index", "p.h5", "-o", "n.index"), "index"),
        (("train", "p.h5", "-o", "n", "-c", "v2-small", "--set", "train.epochs=1",
          "--set", "data.windows_per_epoch=8", "--device", "cpu"), "epoch 1/1"),
    ],
)  # fmt: skip
def test_long_commands_have_a_log(command, tmp_path, words, told):
    for name in ("panel.bcf", "truth.bcf"):
        shutil.copy(example.path(name), tmp_path / name)
    code, _, err = command(*words, "--log", "auto", "--log-level", "error")
    assert code == 0, err
    (path,) = tmp_path.glob("n*.log")
    lines = read(path)
    assert ("INFO", f"{told}: begins") in lines
    assert any(text.startswith(f"{told}: done in ") for _, text in lines)
    assert any(kind == "summary" for kind, _ in lines)
    assert lines[-1][1].startswith("finished, after")


def test_warnings_are_in_the_log_even_if_they_are_not_shown(command, tmp_path):
    words = ("prepare", example.path("panel.bcf"), "-o", "n.h5")
    code, _, err = command(*words, "--log", "a.log", "--log-level", "error", "-q")
    assert (code, err) == (0, "")
    warnings = [text for kind, text in read(tmp_path / "a.log") if kind == "WARNING"]
    assert any("no genetic map was given" in text for text in warnings)


def test_a_failed_run_keeps_its_log_and_the_next_adds_to_it(command, tmp_path):
    words = ("impute", "t.vcf.gz", "-p", "none.h5", "-o", "x.vcf", "--log", "a.log")
    code, out, err = command(*words)
    assert code == 1
    assert out == ""
    assert err.startswith("Error: panel none.h5 does not exist")
    assert len(err.splitlines()) == 2
    first = (tmp_path / "a.log").read_text()
    *_, (kind, end) = read(tmp_path / "a.log")
    assert kind == "end"
    assert end.startswith("failed: panel none.h5 does not exist (hint: ")
    assert "input    panel input: none.h5, no such file or directory" in first
    assert command(*words)[0] == 1
    text = (tmp_path / "a.log").read_text()
    assert text.startswith(first)
    assert text.count("# ragimpute log\n") == 2
    assert not (tmp_path / "x.vcf").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t.vcf.gz", "has the suffix of a result"),
        ("x.bcf", "has the suffix of a result"),
        ("notes.txt", "exists and is not a log of ragimpute"),
        ("none/a.log", "does not exist"),
        ("folder", "is a folder"),
        ("list", "is also the list of samples"),
    ],
)
def test_a_log_never_takes_the_place_of_another_file(command, tmp_path, name, message):
    (tmp_path / "notes.txt").write_text("mine\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "list").write_text("NA20502\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    words = ("impute", "t.vcf.gz", "-p", "p.h5", "-o", "x.vcf", "--samples-file", "list")
    code, _, err = command(*words, "--log", name)
    assert code == 1
    assert message in err.splitlines()[0]
    assert "Traceback" not in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("out", [("-o", "-"), ("--qc-only",)])
def test_no_output_to_put_a_log_beside(command, out):
    code, _, err = command("impute", "t.vcf.gz", "-p", "p.h5", *out, "--log", "auto")
    assert code == 1
    assert err.splitlines()[1] == "  hint: name the log: --log run.log"
    assert command("impute", "t.vcf.gz", "-p", "p.h5", *out, *AREA, "--log", "run.log")[0] == 0


def test_a_stopped_run_says_so_in_its_log(panel_h5, tmp_path):
    words = ["impute", example.path("target.vcf.gz"), "-p", panel_h5, "-o", tmp_path / "x.vcf.gz",
             "--chunk-cm", "0.01", "--ne", "1e5", "--err", "1e-3", "--log", "auto"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "ragimpute", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "x.vcf.gz.log"
    while process.poll() is None and not (log.exists() and "copy: begins" in log.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert re.search(r" end +stopped by SIGTERM: no unfinished output", log.read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["x.vcf.gz.log"]


def test_a_mistake_of_ours_is_in_the_log_with_its_traceback(command, tmp_path, monkeypatch):
    import ragimpute.imputation.impute as module

    monkeypatch.setattr(module, "open_inputs", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("impute", "t.vcf.gz", "-p", "p.h5", "-o", "x.vcf", "--log", "a.log")
    text = (tmp_path / "a.log").read_text()
    assert "failed: ZeroDivisionError: division by zero" in text
    assert "Traceback" in text
