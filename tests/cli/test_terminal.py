"""Real processes: start-up, signals, full disks and closed pipes; and what a terminal shows."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
import typer.main

from ragimpute import __version__, example
from ragimpute.cli import terminal
from ragimpute.cli.app import memory_hint
from ragimpute.cli.main import ORDER, app
from ragimpute.errors import InputError

PROGRAM = [sys.executable, "-m", "ragimpute"]
TARGET = example.path("target.vcf.gz")


def run(*words, **options):
    """A finished process."""
    words = [*PROGRAM, *map(str, words)]
    return subprocess.run(words, capture_output="stdout" not in options, text=True, **options)


def test_help_imports_little():
    """So that it starts at once; benchmarks/start_up.py holds it to its limit of time."""
    code = (
        "import sys\n"
        "from ragimpute.cli.main import main\n"
        "sys.argv += ['--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    heavy = {"torch", "numpy", "faiss", "numba", "scipy", "pandas", "h5py", "cyvcf2", "yaml",
             "safetensors", "accelerate", "torchmetrics", "tensorboard", "matplotlib", "jinja2",
             "deflate", "wandb", "mlflow"}  # fmt: skip
    for command in ([], ["impute"], ["train"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
        )
        assert "Usage: " in done.stdout
        loaded = done.stderr.split()
        assert not heavy & set(loaded)
        assert len(loaded) < 550  # 340 to 440; each takes half a millisecond


def test_as_a_module_and_as_a_script():
    assert run("--version").stdout == f"ragimpute {__version__}\n"
    script = os.path.join(os.path.dirname(sys.executable), "ragimpute")
    if os.path.exists(script):  # not where the package is on the path only
        done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"ragimpute {__version__}\n"


def test_peers_22_47_bad_input_of_a_process():
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
    while len(os.listdir(tmp_path)) < 2 and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None
    time.sleep(0.3)  # any moment will do; here it is more likely to impute than to open files
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 128 + number
    assert err == f"Error: stopped by {number.name}; no unfinished output was left\n"
    assert os.listdir(tmp_path) == ["x.vcf.gz"]
    assert out.read_bytes() == b"of an earlier run"


def test_stopped_while_a_panel_is_prepared_for_the_run(tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    # Many windows, so that the signal comes before the run ends, however late it is sent.
    words = ["impute", TARGET, "-p", example.path("panel.bcf"), "-o", tmp_path / "x.vcf",
             "--chunk-cm", "0.01", "--ne", "1e5", "--err", "1e-3"]  # fmt: skip
    process = subprocess.Popen(
        [*PROGRAM, *map(str, words)], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    while not os.listdir(folder) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
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
    assert process.wait() == 1


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
        (InputError("x" * 9000 + " odd", hint="h"), ["Error: " + "x" * 500 + " ... x", "  hint"]),
        (MemoryError(), ["Error: out of memory", "  hint: use fewer --threads"]),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 1 GiB"),
            ["Error: out of memory", "  hint: use fewer"],
        ),
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
    assert len(printed.err) < 1100  # what a file holds is quoted in part


@pytest.mark.parametrize("error", [ValueError("ours"), RuntimeError("ours")])
def test_a_mistake_of_ours_is_not_hidden(guarded, error):
    def fail():
        raise error

    with pytest.raises(type(error), match="ours"):
        guarded(fail)


@pytest.mark.parametrize("command", [c for c in ORDER if c != "demo"])
def test_a_lack_of_memory_is_answered_by_options_that_the_command_has(monkeypatch, command):
    for words in ([command, "x"], ["--log-level", "info", command, "--threads", "4"]):
        monkeypatch.setattr(sys, "argv", ["ragimpute", *words])
        hint = memory_hint()
        has = {
            name
            for option in typer.main.get_command(app).commands[command].params
            for name in option.opts
        }
        named = set(re.findall(r"--[a-z-]+", hint))
        assert named <= has
        assert ("--region" in named) == ("--region" in has)
        assert ("--threads" in named) == ("--threads" in has and "--threads" in words)
        assert "more memory" in hint


def test_positions_are_no_emoji_and_messages_are_not_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = "site 20:100:A [red] " + "x" * 60
    handler = terminal.ToStderr()
    handler.handle(logging.LogRecord("ragimpute", logging.WARNING, "", 0, text, (), None))
    terminal.print_rows([("20:100:A", "b")])
    printed = capsys.readouterr()
    assert printed.err == f"WARNING: {text}\n"
    assert "20:100:A" in printed.out


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


def on_a_terminal(words, rows=30, columns=100, **variables):
    """Exit code of a process whose streams are a pseudo-terminal, and all that it showed."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(
        [*PROGRAM, *map(str, words)], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(master)
    return process.wait(), shown.decode()


def screen_of(shown):
    """What stands on the screen, and above it, in the end, line by line."""
    lines, at = [""], 0
    for token in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", shown):
        if token == "\n":
            at += 1
            lines += [""] * (at == len(lines))
        elif token.endswith("A") and token[0] == "\x1b":
            at -= int(token[2:-1] or 1)
        elif token == "\x1b[2K":
            lines[at] = ""
        elif token[0] not in "\r\x1b":
            lines[at] += token
    return [line.rstrip() for line in lines]


TRAINING = ("train.epochs=3", "data.num_arrays=1", "data.max_haplotypes=40", "train.batch_size=8",
            "data.max_validation_samples=6", "schedule.warmup_steps=10")  # fmt: skip


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """The words of a short training run, less its output."""
    from ragimpute.preparation.prepare import prepare
    from ragimpute.sites import Region

    panel = tmp_path_factory.mktemp("training") / "panel.h5"
    prepare(example.path("panel.bcf"), panel, genetic_map=example.path("chr20.b37.gmap.gz"),
            region=Region.parse("20:2000000-2100000"))  # fmt: skip
    settings = [w for setting in TRAINING for w in ("--set", setting)]
    return ["train", panel, "--device", "cpu", *settings]


def test_training_on_a_terminal_is_a_live_table(training, tmp_path):
    import csv

    code, shown = on_a_terminal([*training, "-o", tmp_path / "m"])
    assert code == 0, shown
    screen = screen_of(shown)
    with open(tmp_path / "m" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (header,) = (i for i, line in enumerate(screen) if line.split()[:1] == ["epoch"])
    for name in ("train loss", "valid. loss", "F1", "r2 of LS", "rare r2 of LS"):
        assert name in screen[header]
    columns = ("train_loss", "val_loss", "f1", "r2_all", "ls_r2_all", "r2_rare", "ls_r2_rare")
    for i, row in enumerate(rows):
        figures = [f"{float(row[name]):.4f}" for name in columns]
        assert screen[header + 2 + i].split() == [f"{i + 1}/3", *figures]
    assert "bold: the best epoch so far" in screen[header + 6]
    # The bar was there, from the first steps on, and is gone in the end.
    for stage in ("epoch 1/3", "validation"):
        assert re.search(rf"{stage} +(?:\x1b\[[0-9;]*m)*[━╸]", shown), stage
    assert not any("━" in line for line in screen)
    # Each epoch's row was shown as soon as there was one: the first in frames that lack the second.
    row_of = [re.search(rf"(?<!epoch ){i}/3\b", shown).start() for i in (1, 2, 3)]
    assert row_of == sorted(row_of)
    assert "validation " in shown[row_of[0] : row_of[1]]  # the bar under the first
    assert "epoch 1/3  train loss" not in shown
    assert any("best epoch" in line for line in screen)


@pytest.mark.parametrize(
    "where", ["pipe", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dumb", "quiet"))]
)
def test_training_elsewhere_is_plain_lines(training, tmp_path, where):
    words = [*training, "-o", tmp_path / "m"]
    if where == "pipe":
        done = run(*words, env={**os.environ, "COLUMNS": "60", "OMP_NUM_THREADS": "1"})
        code, shown = done.returncode, done.stderr
    elif where == "dumb":
        code, shown = on_a_terminal(words, columns=300, TERM="dumb")
    else:
        code, shown = on_a_terminal([*words, "--quiet"])
        assert (code, shown) == (0, "")
        return
    assert code == 0, shown
    lines = [line for line in shown.splitlines() if line.startswith("epoch ")]
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all("rare " in line for line in lines)  # no line is broken
    assert "━" not in shown
    assert "\x1b[2K" not in shown


def test_a_failed_training_leaves_its_epochs_on_the_terminal(training, tmp_path):
    wrong = ("--set", "optimizer.lr=1e30", "--set", "train.clip=0",
             "--set", "schedule={name: constant, warmup_steps: 0}")  # fmt: skip
    code, shown = on_a_terminal([*training, *wrong, "-o", tmp_path / "m"], columns=200)
    assert code == 1
    screen = screen_of(shown)
    (error,) = (line for line in screen if line.startswith("Error:"))
    assert "the loss is nan at step " in error
    assert shown.endswith("train.precision=no\r\n")
    assert shown.rindex("\x1b[?25h") < shown.index("Error:")  # the cursor is back


def test_a_long_table_fits_the_screen_until_the_end(monkeypatch):
    from io import StringIO

    from rich.console import Console

    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=100, height=14)
    monkeypatch.setattr(terminal, "stderr", console)
    names = ("train_loss", "val_loss", "f1", "r2_all", "ls_r2_all", "r2_rare", "ls_r2_rare")
    with terminal.training_view(quiet=False) as (update, add):
        for epoch in range(1, 21):
            update(f"epoch {epoch}/20", 1, 2)
            add({"epoch": epoch, **dict.fromkeys(names, epoch / 100)}, 20, epoch == 2)
        before = len(shown.getvalue())
    # While it goes on, no frame is taller than the screen: it could not be taken back.
    frames = re.findall(r"(?:\x1b\[1A|\x1b\[2K|\r)+", shown.getvalue())
    assert 10 < max(frame.count("\x1b[1A") for frame in frames) < 14
    last = [line.split() for line in screen_of(shown.getvalue()) if "/20 " in line]
    assert [words[0] for words in last] == [f"{epoch}/20" for epoch in range(1, 21)]
    bold = re.findall(r"\x1b\[1m +(\d+/20)", shown.getvalue()[before:])
    assert bold == ["2/20"]


def test_places_names_and_paths_are_shown_as_they_are(guarded, capsys):
    """rich would make an emoji of :100:, and nothing of [b]."""
    odd = "20:100:A:C of [b]P1  rep[/] in x[1].vcf"

    def fail():
        raise InputError(odd, hint=odd)

    with pytest.raises(SystemExit):
        guarded(fail)
    assert capsys.readouterr().err.splitlines() == [f"Error: {odd}", f"  hint: {odd}"]
    terminal.print_rows([(odd, "y")], title=odd)
    terminal.print_table([[odd], [odd]], title=odd)
    assert capsys.readouterr().out.count(odd) == 5


def test_a_table_that_is_a_little_too_wide_has_no_frame(capsys, monkeypatch):
    from rich.console import Console

    rows = [["MAF", *["abcdefgh"] * 6], ["0.002 - 0.005", *["1"] * 6]]
    for width, framed in ((90, True), (80, False)):
        monkeypatch.setattr(terminal, "stdout", Console(width=width))
        terminal.print_table(rows, title="x")
        lines = capsys.readouterr().out.splitlines()
        assert ("└" in lines[-1]) == framed
        assert sum("0.002 - 0.005" in line for line in lines) == 1  # not wrapped
