"""Run a command and say what it used: wall time, CPU time and peak memory.

A process starts with the peak memory of the one that it was forked from, so that a small program
started by a large one seems large. This file is therefore a program of its own, which imports
little (about 10 MiB): :func:`measure` starts it, it starts the command.
"""

from __future__ import annotations

import json
import os
import sys
import time


def measure(command: list[str], *, log: str, stdout: str | None = None) -> dict[str, float]:
    """Run a command to its end.

    Parameters
    ----------
    command
        The program and its arguments.
    log
        File for standard error, and for standard output where ``stdout`` is None; replaced.
    stdout
        File for standard output; replaced.

    Returns
    -------
    ``wall_s``, ``cpu_s`` (user and system), seconds; ``peak_mib``, peak resident memory, MiB. All
    of them count the processes that the command waited for; the peak is that of the largest.

    Raises
    ------
    RuntimeError
        If the command fails; the message ends with the last error, or last line, of the log.
    """
    import subprocess

    launcher = [sys.executable, "-I", "-S", __file__, log, stdout or "", *command]
    done = subprocess.run(launcher, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        with open(log, errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        errors = [line for line in lines if line.lower().startswith("error")]
        said = (errors or lines or ["it said nothing"])[-1]
        raise RuntimeError(f"{os.path.basename(command[0])} failed: {said}")
    return json.loads(done.stdout)


def _launch(log: str, stdout: str, command: list[str]) -> int:
    """Start the command, print what it used, and return its exit status."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions: list[tuple] = [(os.POSIX_SPAWN_OPEN, 2, log, flags, 0o644)]
    if stdout:
        actions.append((os.POSIX_SPAWN_OPEN, 1, stdout, flags, 0o644))
    else:
        actions.append((os.POSIX_SPAWN_DUP2, 2, 1))
    # Python programs keep what they compiled of themselves, as where a user installs them.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    try:
        process = os.posix_spawnp(command[0], command, environment, file_actions=actions)
    except OSError as error:
        with open(log, "w") as file:
            file.write(f"{error}\n")
        return 1
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - started
    used = {
        "wall_s": round(wall, 3),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),  # ru_maxrss is in KiB on Linux
    }
    print(json.dumps(used))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(1 if _launch(sys.argv[1], sys.argv[2], sys.argv[3:]) else 0)
