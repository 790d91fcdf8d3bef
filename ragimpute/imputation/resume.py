"""Keep the finished windows of a run beside its output, so that an interrupted run can be resumed.

The folder ``.OUT.resume/`` holds run.json, which says from which inputs and options the windows
were made and how many are finished; a file for each finished window, with what the report and the
writers need; and the phased genotypes, if the target had to be phased. The rows themselves are in
``.OUT.part``. A window counts as finished once run.json says so. That file is replaced in one step,
after everything else is on the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ragimpute import __version__
from ragimpute.errors import InputError
from ragimpute.imputation.options import ImputeOptions
from ragimpute.imputation.outputs import Outputs, states_of
from ragimpute.imputation.windows import NothingKept, PlannedWindow, WindowResult
from ragimpute.io.imputed import part_path
from ragimpute.model.folder import ModelFolder
from ragimpute.runtime.interrupts import Stopped
from ragimpute.runtime.outputs import replacing
from ragimpute.target.inputs import InputFiles

log = logging.getLogger("ragimpute")

FORMAT = 1
# Changes of files up to this size are found by a checksum, of larger ones by size and time.
_HASHED_BYTES = 64 * 2**20
_RESULT = ("dr2", "typed", "correlation", "has_typed", "phase")
_UNREADABLE = (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile)


def fingerprint(path: str | Path) -> dict[str, object]:
    """What differs if a file, or a file of a folder, is changed and keeps its name."""
    path = Path(path)
    if not path.exists():  # the code that reads it raises the error
        return {}
    if path.is_dir():
        return {entry.name: fingerprint(entry) for entry in sorted(path.iterdir())}
    about = path.stat()
    told: dict[str, object] = {"path": str(path.absolute()), "bytes": about.st_size}
    if about.st_size > _HASHED_BYTES or not path.is_file():
        return told | {"changed_ns": about.st_mtime_ns}
    return told | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


class KeptRun(NothingKept):
    """The finished windows of a run, on disk; a context manager, entered before outputs are opened.

    Parameters
    ----------
    outputs
        The files that the run writes; the first is its main output.
    inputs
        The files and folders that the run reads, by what a user calls them; None: not given.
    options
        All else that the output depends on, by name; what JSON can hold.

    Attributes
    ----------
    done
        For each finished window, in order, what :meth:`Outputs.checkpoint` told, and its result.
    num_resumed
        Windows that an earlier process had finished.
    """

    resumable = True

    def __init__(
        self,
        outputs: Sequence[str | Path],
        *,
        inputs: Mapping[str, str | Path | None],
        options: Mapping[str, object],
    ) -> None:
        """Find what an earlier process left, or begin anew.

        Raises
        ------
        InputError
            If another process writes this output, or the folder cannot be written.
        """
        super().__init__()
        main = Path(outputs[0])
        self.folder = main.with_name(f".{main.name}.resume")
        self._parts = [part_path(path) for path in outputs]
        self._windows: list[PlannedWindow] | None = None
        # Converted to JSON and back, because it is compared with what is read from JSON.
        about = {"format": FORMAT, "ragimpute": __version__, "options": dict(options)}
        told = {name: fingerprint(path) for name, path in inputs.items() if path is not None}
        self._about: dict[str, Any] = json.loads(json.dumps(about | {"inputs": told}))
        with self._writing():
            self.folder.mkdir(exist_ok=True)
            self._lock = self._locked()
        try:
            self._take_up()
        except BaseException:
            self._lock.close()
            raise
        self.num_resumed = len(self.done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or not (self.done or self.phased()):
            self._drop()
        else:
            of = "" if self._windows is None else f" of {len(self._windows)}"
            kept = (
                f"{len(self.done)}{of} windows are kept in {self.folder}: the same command with "
                "--resume goes on from there"
            )
            if isinstance(error, Stopped):
                error.left = kept
            else:
                log.warning(kept)
        self._lock.close()

    def plan(self, windows: list[PlannedWindow]) -> list[PlannedWindow]:
        """The windows of the run: those of the process that began it, or else these.

        Later processes use the same windows, whatever memory is free, so that the output is the
        same.
        """
        if self._windows is None:
            self._windows = windows
            self._write_about()
        return self._windows

    def keep(self, result: WindowResult, outputs: Outputs) -> None:
        """Keep a finished window; windows come in order.

        Raises
        ------
        InputError
            If the disk is full, or the folder gone.
        """
        told = outputs.checkpoint()
        told |= {name: np.asarray(getattr(result, name)) for name in _RESULT}
        self._write_arrays(self._window_path(len(self.done)), told)
        self.done.append(told)
        self._write_about()

    def phased(self) -> tuple[np.ndarray, dict[str, object]] | None:
        """The phased alleles that are kept, and what was done, for a report; None if not phased."""
        try:
            with np.load(self.folder / "phased.npz", allow_pickle=False) as file:
                return file["alleles"], json.loads(str(file["said"]))
        except _UNREADABLE:
            return None

    def keep_phased(self, alleles: np.ndarray, said: Mapping[str, object]) -> None:
        """Keep the alleles of a target that was phased."""
        told = {"alleles": alleles, "said": np.array(json.dumps(said))}
        self._write_arrays(self.folder / "phased.npz", told)

    def _take_up(self) -> None:
        """Read what an earlier run left; if it cannot be resumed, say why and remove it."""
        path = self.folder / "run.json"
        if path.exists():
            reason = self._read(path)
            if reason is None:
                return
            log.warning(f"{self.folder} cannot be resumed: {reason}; starting anew")
        self.done, self._windows = [], None
        with self._writing():
            for left in self.folder.iterdir():
                if left.name != "lock":
                    left.unlink()
            for part in self._parts:
                part.unlink(missing_ok=True)
        self._write_about()

    def _read(self, path: Path) -> str | None:
        """Read run.json and the files of windows; returns why they cannot be used, or None."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            reason = self._difference(found)
            if reason is not None:
                return reason
            if found["windows"] is not None:
                self._windows = [(int(n), tuple(map(int, w))) for n, w in found["windows"]]  # type: ignore[misc]
            for number in range(int(found["done"])):
                with np.load(self._window_path(number), allow_pickle=False) as file:
                    self.done.append(dict(file))
            if self.done:
                names = {key.partition(".")[0] for key in self.done[-1]}
                order = [name for name in ("main", "sites", "empirical") if name in names]
                for name, part in zip(order, self._parts, strict=True):
                    num_bytes = int(states_of(name, self.done[-1:])[0]["num_bytes"])
                    if not part.is_file() or part.stat().st_size < num_bytes:
                        return f"{part} is missing or cut short"
        except _UNREADABLE as error:
            return f"it cannot be read ({error})"
        return None

    def _difference(self, found: dict[str, Any]) -> str | None:
        """How the interrupted run differs from this one; None if it does not."""
        for key in ("format", "ragimpute"):
            if found[key] != self._about[key]:
                return f"it was made by ragimpute {found['ragimpute']}, this is {__version__}"
        changed = []
        for key in ("inputs", "options"):
            old, new = found[key], self._about[key]
            changed += [n for n in {**new, **old} if old.get(n) != new.get(n)]
        if changed[1:] and "command" in changed:  # named by its options
            changed.remove("command")
        return f"{', '.join(changed)} changed" if changed else None

    def _window_path(self, number: int) -> Path:
        return self.folder / f"window-{number:06d}.npz"

    def _write_about(self) -> None:
        """Replace run.json: from then on the windows that it counts are finished."""
        about = self._about | {"done": len(self.done), "windows": self._windows}
        self._write(self.folder / "run.json", json.dumps(about, indent=1).encode())

    def _write_arrays(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        """Write an npz file."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its stub takes a keyword for them
        self._write(path, buffer.getvalue())

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file in one step."""
        with self._writing(), replacing(path) as temporary, temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn an error of the system into one clear line."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"cannot write {self.folder}: {error.strerror or error}",
                hint="check that the folder may be written to and has space left",
            ) from error

    def _locked(self) -> io.BufferedWriter:
        """Lock a file of the folder; the system frees the lock however this process ends."""
        while True:
            file = (self.folder / "lock").open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.close()
                raise InputError(
                    f"another run is writing this output: {self.folder} is locked",
                    hint="wait for it, or choose another output name",
                ) from error
            except OSError:  # a file system without locks
                return file
            # The process that held the lock may have removed the file: then lock the new one.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(file.name)):
                    return file
            file.close()
            self.folder.mkdir(exist_ok=True)

    def _drop(self) -> None:
        """Remove all that is kept, run.json first: without it the rest belongs to no run."""
        with suppress(OSError):
            (self.folder / "run.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        for part in self._parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def keep_run(
    out: str | Path,
    files: InputFiles,
    model: ModelFolder,
    options: ImputeOptions,
    command: str | None,
) -> KeptRun:
    """What is kept, or was kept earlier, of a run of ``impute`` with these options.

    Raises
    ------
    InputError
        If another process writes this output, or what is kept cannot be written.
    """
    more = (options.output_options.sites, options.output_options.empirical)
    return KeptRun(
        [path for path in (out, *more) if path is not None],
        inputs=files.named() | options.files_read() | {"model": model.path},
        # The model's config.yaml may extend a file in another folder.
        options=options.of_output()
        | {"command": command, "model configuration": model.config.model_dump(mode="json")},
    )
