"""Compile the kernels that ship, side by side: ``python -m ragimpute.kernels.build``.

``make`` runs it in a checkout, and a wheel's build for each level of processors. It compiles what
is absent, and removes from the folder what no longer matches.
"""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock

from ragimpute import __version__
from ragimpute.kernels.code import code_digest, signature_of
from ragimpute.kernels.processor import processor_of, shipped_levels, this_processor, usable_cores
from ragimpute.kernels.store import (
    MADE_BY,
    SHIPPED,
    SIGNATURES,
    SUFFIX,
    Entry,
    Named,
    absent,
    find_kernel,
    folder_name,
    foreseen,
    read_entry,
    versions,
)


def compile_levels(out: Path, levels: Sequence[str], *, jobs: int, quiet: bool = False) -> int:
    """Compile all kernels that are absent from folders for levels of processors.

    Parameters
    ----------
    out
        The folder of these folders, see :func:`ragimpute.kernels.store.folder_name`.
    levels
        As "x86-64-v3"; this machine's processor need not be of the level.
    jobs
        Processes at a time, >= 1.
    quiet
        No progress.

    Returns
    -------
    How many kernels were compiled.

    Raises
    ------
    RuntimeError
        If a process that compiles fails.
    """
    todo: SimpleQueue[tuple[str, Entry]] = SimpleQueue()
    for level in levels:
        folder = out / folder_name(level)
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        for entry in absent([folder]):
            todo.put((level, entry))
    total = todo.qsize()
    if total:
        progress = _CountOnALine(total, quiet)
        with ThreadPoolExecutor(jobs) as pool:
            for worker in [pool.submit(_work, out, todo, progress) for _ in range(jobs)]:
                worker.result()
    for level in levels:
        made_by = {"ragimpute": __version__, "python": sys.version.split()[0], **versions()}
        (out / folder_name(level) / MADE_BY).write_text(json.dumps(made_by, indent=1) + "\n")
    return total


class _CountOnALine:
    """One line on stderr that counts; off a terminal a line at the beginning and at the end."""

    def __init__(self, total: int, quiet: bool) -> None:
        self._total, self._done, self._quiet = total, 0, quiet
        self._lock = Lock()
        self._live = sys.stderr.isatty()
        self._show()

    def step(self) -> None:
        """One more is done."""
        with self._lock:
            self._done += 1
            if self._live or self._done == self._total:
                self._show()

    def _show(self) -> None:
        if not self._quiet:
            end = "\r" if self._live and self._done < self._total else "\n"
            print(f"compiled {self._done} of {self._total} kernels", end=end, file=sys.stderr,
                  flush=True)  # fmt: skip


def _work(out: Path, todo: SimpleQueue[tuple[str, Entry]], progress: _CountOnALine) -> None:
    """Take kernels from the queue until it is empty, in a process for each level in turn."""
    worker: subprocess.Popen[str] | None = None
    level = None
    try:
        while True:
            try:
                wanted, entry = todo.get_nowait()
            except Empty:
                return
            if wanted != level:
                _stop(worker)
                level, worker = wanted, _start(out, wanted)
            assert worker is not None
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(json.dumps(entry) + "\n")
            worker.stdin.flush()
            if worker.stdout.readline() != "done\n":
                raise RuntimeError(f"{entry.kernel} cannot be compiled for {wanted}; see above")
            progress.step()
    finally:
        _stop(worker)


def _start(out: Path, level: str) -> subprocess.Popen[str]:
    """A process that compiles what it is told on its standard input, and keeps it under ``out``."""
    processor = processor_of(level)
    environment = os.environ | {
        "NUMBA_CPU_NAME": processor.cpu_name,
        "NUMBA_CPU_FEATURES": processor.features,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-m", "ragimpute.kernels.build", "--worker", level, "-o", str(out)]
    return subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def _stop(worker: subprocess.Popen[str] | None) -> None:
    """Let a process end."""
    if worker is not None:
        worker.communicate()


def _serve(out: Path, level: str) -> None:
    """Compile the kernels that come on standard input, a line of JSON each."""
    from ragimpute.kernels import store as kernel_store

    kernel_store.log.setLevel(logging.ERROR)  # that kernels are compiled is no news here
    kernel_store.read_folders = list  # compile, whatever is there
    kernel_store.kept_folder = lambda: out / folder_name(level)
    for line in sys.stdin:
        entry = Entry(*json.loads(line))
        find_kernel(entry.kernel).compile(signature_of(entry.signature))
        print("done", flush=True)


def _remove_stale(folder: Path) -> None:
    """Remove files of kernels that the package no longer has, or whose code is another now."""
    for path in folder.glob(f"*{SUFFIX}"):
        name = Named.parse(path.name)
        if name is None or name.code != _code_of(name.kernel):
            path.unlink(missing_ok=True)


@cache
def _code_of(kernel: str) -> str | None:
    """The digest of a kernel's code as it is now; None if there is no such kernel."""
    try:
        return code_digest(find_kernel(kernel).py_func)
    except (ImportError, AttributeError):
        return None


def _files_of(folder: Path) -> list[Path]:
    """The files of a folder that ship."""
    kernels = [Named.of(find_kernel(entry.kernel).py_func, entry.signature) for entry in foreseen()]
    return [folder / name for name in (MADE_BY, *(kernel.file_name() for kernel in kernels))]


def record(folders: Sequence[Path], signatures: Path = SIGNATURES) -> list[Entry]:
    """Add kernels that commands have compiled, and kept in folders, to those foreseen.

    Those foreseen that the package no longer has, or has with other arguments, are left out.

    Parameters
    ----------
    folders
        Where kernels were kept, at any depth.
    signatures
        The list to add to.

    Returns
    -------
    All that are foreseen now, largest machine code first: it takes longest to compile.
    """
    sizes = dict.fromkeys(foreseen(signatures), 0)
    for folder in folders:
        for path in folder.rglob(f"*{SUFFIX}"):
            entry = read_entry(path)
            if entry is not None:
                sizes[entry] = max(sizes.get(entry, 0), path.stat().st_size)
    known = filter(_is_of_the_package, sizes)
    entries = sorted(known, key=lambda entry: (-sizes[entry], entry))
    lines = ",\n".join(f" {json.dumps(entry)}" for entry in entries)
    signatures.write_text(f"[\n{lines}\n]\n")
    return entries


def _is_of_the_package(entry: Entry) -> bool:
    """Whether the package has such a kernel, with as many arguments."""
    if not entry.kernel.startswith("ragimpute."):
        return False
    try:
        function = find_kernel(entry.kernel).py_func
        return len(inspect.signature(function).parameters) == len(signature_of(entry.signature))
    except (ImportError, AttributeError, ValueError):
        return False


# Names of levels, besides their own.
_LEVELS: dict[str, Callable[[], tuple[str, ...]]] = {
    "shipped": shipped_levels,
    "native": lambda: (this_processor().level,),
}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--level", action="append",
        help="of processors, repeatable; 'shipped': all that ship; 'native', the default: this "
        "machine's",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, default=SHIPPED, metavar="DIR")
    parser.add_argument("--jobs", type=int, default=usable_cores())
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument(
        "--record", type=Path, action="append", metavar="DIR",
        help="add the kernels in a folder to the list of those that ship; repeatable",
    )  # fmt: skip
    parser.add_argument("--print-files", action="store_true", help="print the files that ship")
    parser.add_argument("--worker", metavar="LEVEL", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        _serve(args.output, args.worker)
    elif args.record:
        print(f"{len(record(args.record))} kernels are foreseen")
    else:
        levels = [
            name
            for wanted in args.level or ["native"]
            for name in (_LEVELS[wanted]() if wanted in _LEVELS else (wanted,))
        ]
        compile_levels(args.output, levels, jobs=args.jobs, quiet=args.quiet)
        if args.print_files:
            for level in levels:
                print(*_files_of(args.output.resolve() / folder_name(level)), sep="\n")


if __name__ == "__main__":
    main()
