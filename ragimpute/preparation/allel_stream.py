"""Read scikit-allel HDF5 files in a process of its own.

The format has no checksums, and HDF5 trusts what it reads: a damaged file can make it loop for ever
or crash. In a process of its own this ends only that process, and the user reads one clear line.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ragimpute.errors import InputError
from ragimpute.io.counts import RecordCounts
from ragimpute.io.vcf.read.genotypes import SiteBatch
from ragimpute.preparation.allel_hdf5 import BATCH_BYTES, HINT, AllelReader
from ragimpute.sites import Region

# If nothing comes for so long, HDF5 is taken to hang. A batch takes less than a second.
PATIENCE_S = 20.0
_START_S = 120.0


class AllelStream:
    """A scikit-allel HDF5, read in batches by another process.

    Attributes
    ----------
    path
        The file.
    samples, contig, num_sites, counts
        See :class:`ragimpute.preparation.allel_hdf5.AllelReader`.
    patience_s
        How long the process may be silent before it is taken to hang, in seconds.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        region: Region | None = None,
        batch_bytes: int = BATCH_BYTES,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Start the process, and wait for what the file holds.

        Raises
        ------
        InputError
            As :class:`ragimpute.preparation.allel_hdf5.AllelReader`; or if HDF5 crashes or does not
            come back.
        """
        self.path = Path(path)
        self._arguments = (self.path, region, batch_bytes)
        self.counts = RecordCounts()
        self.patience_s = patience_s
        self._start()

    def _start(self) -> None:
        """Start a process, and wait until it has read what the file holds."""
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(there, *self._arguments), name="hdf5", daemon=True
        )
        self._process.start()
        there.close()
        self._receive(_START_S)
        self.samples, self.contig, self.num_sites = self._receive()

    def __iter__(self) -> Iterator[SiteBatch]:
        """Batches of about 16 MB of genotypes, one row for each ALT."""
        if not self._process.is_alive():
            self._start()
        whole = False
        try:
            self._pipe.send("read")
            while not whole:
                batch, self.counts = self._receive()
                whole = batch is None
                if not whole:
                    yield batch
        finally:
            if not whole:  # a later reading must not find the rest in the pipe
                self._stop()

    def _receive(self, patience: float | None = None) -> Any:
        """The next value that the process sends; its signs of life are passed over."""
        patience = patience or self.patience_s
        while True:
            try:
                if not self._pipe.poll(patience):
                    self._stop()
                    raise InputError(
                        f"{self.path} cannot be read as HDF5: nothing came for {patience:g} s, "
                        "so it is taken to be damaged",
                        hint=HINT,
                    )
                kind, value = self._pipe.recv()
            except (EOFError, OSError) as error:
                self._stop()
                raise InputError(
                    f"{self.path} cannot be read as HDF5, which ended without a word, so it is "
                    "taken to be damaged",
                    hint=HINT,
                ) from error
            if kind == "error":
                self._stop()
                raise value
            if kind == "value":
                return value
            patience = self.patience_s

    def _stop(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, path: Path, region: Region | None, batch_bytes: int) -> None:
    """Read the file for the process at the other end, as often as it asks."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the other process handles them, and kills this one

    def alive() -> None:
        pipe.send(("alive", None))

    with suppress(BrokenPipeError, EOFError, ConnectionResetError):  # the other process ended
        pipe.send(("value", None))
        try:
            reader = AllelReader(path, region=region, batch_bytes=batch_bytes, alive=alive)
            pipe.send(("value", (reader.samples, reader.contig, reader.num_sites)))
            while pipe.recv() == "read":
                for batch in reader:
                    pipe.send(("value", (batch, reader.counts)))
                pipe.send(("value", (None, reader.counts)))
        except (InputError, MemoryError) as error:
            pipe.send(("error", error))
