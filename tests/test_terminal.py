"""Real processes: start-up, signals, full disks and closed pipes; and what a terminal shows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ragimpute import __version__, example, terminal
from ragimpute.errors import InputError

PROGRAM = [sys.executable, "-m", "ragimpute"]
TARGET = example.path("target.vcf.gz")


def run(*words, **options):
    """A finished process."""
    words = [*PROGRAM, *map(str, words)]
    return subprocess.run(words, capture_output="stdout" not in options, text=True, **options)


def test_help_starts_at_once():
    code = (
        "import sys\n"
        "from ragimpute.cli import main\n"
        "sys.argv += ['--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'faiss', 'numba', 'scipy', 'pandas', 'h5py', 'cyvcf2'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    for command in ([], ["impute"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
        )
        assert done.stderr == "[]\n"
        assert "Usage: " in done.stdout
    best = float("inf")
    for _ in range(20):  # others may use the machine
        start = time.perf_counter()
        assert run("--help").returncode == 0
        best = min(best, time.perf_counter() - start)
        if best < 0.5:
            break
    assert best < 0.5


def test_as_a_module_and_as_a_script():
    assert run("--version").stdout == f"ragimpute {__version__}\n"
    script = os.path.join(os.path.dirname(sys.executable), "ragimpute")
    if os.path.exists(script):  # not where the package is on the path only
        done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"ragimpute {__version__}\n"


def test_bad_input_of_a_process():
    done = run("impute", "none.vcf", "-p", "none.h5", "-o", "x.vcf")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: panel none.h5 does not exist\n  hint: ")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize(("number", "threads"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_stopped_while_imputing(panel_h5, tmp_path, number, threads):
    out = tmp_path / "x.vcf.gz"
    out.write_bytes(b"of an earlier run")
    # Many windows with wide buffers, so that it runs for long.
    words = ["impute", TARGET, "-p", panel_h5, "-o", out, "--chunk-cm", "0.01", "-t", threads,
             "--ne", "1e5", "--err", "1e-3"]  # fmt: skip
    process = subprocess.Popen([*PROGRAM, *map(str, words)], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while len(os.listdir(tmp_path)) < 2 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert process.poll() is None
    time.sleep(0.3)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == f"Error: stopped by {number.name}; no unfinished output was left\n"
    assert os.listdir(tmp_path) == ["x.vcf.gz"]
    assert out.read_bytes() == b"of an earlier run"


def test_stopped_while_a_panel_is_prepared_for_the_run(tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    words = ["impute", TARGET, "-p", example.path("panel.bcf"), "-o", tmp_path / "x.vcf"]
    process = subprocess.Popen(
        [*PROGRAM, *map(str, words)], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    end = time.monotonic() + 60
    while not os.listdir(folder) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert err.splitlines()[-1].startswith("Error: stopped by SIGTERM")
    assert os.listdir(folder) == []
    assert os.listdir(tmp_path) == ["temporary"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
@pytest.mark.parametrize("command", ["impute", "info", "version"])
def test_no_space_for_standard_output(panel_h5, command):
    words = {
        "impute": ["impute", TARGET, "-p", panel_h5, "-o", "-", "-r", "20:2000000-2100000"],
        "info": ["info", panel_h5],
        "version": ["--version"],
    }[command]
    with open("/dev/full", "w") as full:
        done = run(*words, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Error: ")
    assert "No space left on device" in lines[0]
    assert len(lines) <= 2
    assert all(line.startswith("  hint: ") for line in lines[1:])


def test_a_reader_that_has_enough(panel_h5):
    words = ["impute", TARGET, "-p", panel_h5, "-o", "-", "-r", "20:2000000-2200000"]
    process = subprocess.Popen(
        [*PROGRAM, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"##fileformat=VCFv4.2\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


@pytest.fixture
def guarded(monkeypatch):
    """terminal.guarded, without leaving its signal handlers behind."""
    monkeypatch.setattr(terminal, "install", lambda: None)
    monkeypatch.setattr(terminal, "uninstall", lambda: None)
    return terminal.guarded


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (InputError("a\nb [red]x[/]", hint="do [c]"), ["Error: a b [red]x[/]", "  hint: do [c]"]),
        (InputError("without"), ["Error: without"]),
        (MemoryError(), ["Error: out of memory", "  hint: use fewer --threads"]),
        (PermissionError(13, "Permission denied", "x"), ["Error: Permission denied (x)", "  hint"]),
        (OSError("odd"), ["Error: odd", "  hint: check the path"]),
        (BrokenPipeError(), []),
    ],
)
def test_errors_become_one_line(guarded, capsys, error, lines):
    def fail():
        raise error

    with pytest.raises(SystemExit) as end:
        guarded(fail)
    assert end.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    found = printed.err.splitlines()
    assert len(found) == len(lines)
    assert all(a.startswith(b) for a, b in zip(found, lines, strict=True))


def test_a_mistake_of_ours_is_not_hidden(guarded):
    def fail():
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        guarded(fail)


def test_tables(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    terminal.print_rows([("name", "[value]"), ("b", "x" * 80)], title="t")
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "t"
    assert lines[1].split() == ["name", "[value]"]
    assert "".join(line.split()[-1] for line in lines[2:]) == "x" * 80
    terminal.print_table([["bin", "r2"], ["all", "0.9"]], title="Accuracy")
    out = capsys.readouterr().out
    assert out.startswith("Accuracy ")
    assert "all" in out
    assert "0.9" in out


def test_progress_is_silent_where_nobody_watches(capsys):
    with terminal.progress_bar(quiet=False) as update:
        update("impute", 1, 2)
        update("impute", 2, 2)
        update("prepare", 5, 0)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal(monkeypatch):
    from io import StringIO

    from rich.console import Console

    shown = StringIO()
    monkeypatch.setattr(terminal, "stderr", Console(file=shown, force_terminal=True, width=100))
    with terminal.progress_bar(quiet=False) as update:
        for done in range(4):
            update("impute", done, 3)
    assert "impute" in shown.getvalue()
    assert "3/3" in shown.getvalue()
    hidden = StringIO()
    monkeypatch.setattr(terminal, "stderr", Console(file=hidden, force_terminal=True))
    with terminal.progress_bar(quiet=True) as update:
        update("impute", 1, 3)
    assert hidden.getvalue() == ""
