"""Runs commands, each in a process of its own, so that a crash or a hang is seen and attributed.

As a script it is a server: it loads what commands load once, and forks for each command that it
reads as a line of JSON from standard input. :class:`Worker` starts one and talks to it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_CAUGHT = 70  # the exit code of a command that ended by an exception
MEMORY_BYTES = 3 * 2**30  # that a command may take beyond what is loaded
SHORT_SECONDS = 0.002


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes
    ----------
    code
        Exit code; negative: the signal that ended it; None: it was stopped, for it took too long.
    seconds
        Wall-clock time.
    out, err
        What it printed.
    """

    code: int | None
    seconds: float
    out: str
    err: str


class Worker:
    """A server to run commands by; a context manager."""

    def __init__(self, good: Path, *, limit_s: float = 30.0) -> None:
        """``good``: a folder of inputs, to load what commands need; ``limit_s``: of one."""
        self.limit_s = limit_s
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(good)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160", "PYTHONPATH": str(ROOT)},
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def run(self, words: tuple[str, ...], folder: Path, logs: Path) -> Outcome:
        """Run ``ragimpute`` with ``words`` in ``folder``; what it prints goes through ``logs``."""
        task = {"words": words, "folder": str(folder), "logs": str(logs), "limit_s": self.limit_s}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the server itself ended, with {self.process.wait()}"
        done = json.loads(line)
        text = [(logs / name).read_bytes().decode(errors="replace") for name in ("out", "err")]
        return Outcome(done["code"], done["seconds"], *text)


def serve(good: Path) -> None:
    """Answer each line of standard input by a line of standard output."""
    answers = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    _load(good)
    for line in sys.stdin:
        task = json.loads(line)
        began = time.perf_counter()
        child = os.fork()
        if child == 0:
            _child(task)
        code = _wait(child, began + task["limit_s"])
        answers.write(json.dumps({"code": code, "seconds": time.perf_counter() - began}) + "\n")
        answers.flush()


def _load(good: Path) -> None:
    """Import what commands import, and their kernels, by running each on good inputs."""
    from fuzz_corpus import WARM_UP, link_inputs

    with tempfile.TemporaryDirectory() as folder:
        link_inputs(good, Path(folder))
        os.chdir(folder)
        for words in WARM_UP:
            code = _call(words)
            if code:
                raise SystemExit(f"{' '.join(words)} ended with {code} on good input")
        os.chdir(good)


def _call(words: list[str] | tuple[str, ...]) -> int:
    """Run a command as the program does; its exit code."""
    import logging

    from ragimpute.cli import main as cli

    logging.getLogger("ragimpute").handlers.clear()
    sys.argv = ["ragimpute", *words]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _child(task: dict) -> None:
    """In a process of its own: run a task and end."""
    import faulthandler
    import traceback

    code = NOT_CAUGHT
    try:
        os.setpgid(0, 0)
        os.chdir(task["folder"])
        logs = Path(task["logs"])
        _redirect(logs / "out", logs / "err")
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        faulthandler.enable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        faulthandler.dump_traceback_later(0.9 * task["limit_s"])  # says where it hangs
        code = _call(task["words"])
        faulthandler.cancel_dump_traceback_later()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(out: str | Path, err: str | Path) -> None:
    """Let standard output and error, of libraries in C too, go to files."""
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
        os.close(file)


def _wait(child: int, until: float) -> int | None:
    """The exit code of a child, or its signal, negative; None where it had to be stopped."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.perf_counter() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(SHORT_SECONDS)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
