"""Blocks of imputed genotypes to rows of text or records of BCF, in threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from ragimpute.io.vcf.write.bcf import BcfEncoder
from ragimpute.io.vcf.write.info_text import info_columns, row_starts
from ragimpute.io.vcf.write.sample_text import RowFormatter, max_row_bytes
from ragimpute.sites import Sites

_SLICE_BYTES = 2**22  # of text that is formatted at once

# Sites, the bytes of their rows, and where each ends in these.
Rows = tuple[Sites, bytes | memoryview, np.ndarray]


@dataclass(frozen=True)
class ImputedBlock:
    """Imputed genotypes at consecutive sites of one contig.

    Attributes
    ----------
    sites
        m sites, sorted by position, none before those of the last block.
    allele_prob
        Shape (m, N, 2), float32, P(ALT) of each haplotype in [0, 1]; NaN in [..., 1] where the
        sample is haploid.
    called
        Shape (m, N, 2), int8: observed alleles, 0 or 1, which stay as GT; -1 where there is none;
        -2 in [..., 1] where the sample is haploid.
    info
        For each INFO field of ``vcf_fields.INFOS`` to be written, shape (m,), float32; NaN where
        it is to be left out.
    typed
        Shape (m,), bool: flagged TYPED, else IMP; or integers, which of ``vcf_fields.FLAGS``.
    """

    sites: Sites
    allele_prob: np.ndarray
    called: np.ndarray
    info: dict[str, np.ndarray]
    typed: np.ndarray


class RowMaker:
    """Makes rows of blocks; with threads, of some blocks at once.

    Parameters
    ----------
    formats, num_samples
        FORMAT fields in order; N.
    encoder
        Of BCF; None: text.
    threads
        Blocks that are made into rows at once. Those of BCF are not: Python itself makes them.
    """

    def __init__(
        self, formats: Sequence[str], num_samples: int, encoder: BcfEncoder | None, *, threads: int
    ) -> None:
        self._formats, self._num_samples, self._encoder = formats, num_samples, encoder
        self._threads = threads if encoder is None else 1
        self._formatters: SimpleQueue[RowFormatter] = SimpleQueue()
        for _ in range(self._threads):
            self._formatters.put(RowFormatter(formats))
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None
        self._waiting: deque[Future[list[Rows]]] = deque()

    def of(self, block: ImputedBlock) -> Iterator[Rows]:
        """Rows of a block, or, with threads, of one that was given before, if they are ready.

        Each is good until the next is asked for.
        """
        if self._pool is None:
            return self._made(block)
        self._waiting.append(self._pool.submit(self._all_made, block))
        return self._next(self._threads)

    def rest(self) -> Iterator[Rows]:
        """The rows that are still waited for."""
        return self._next(0)

    def abort(self) -> None:
        """Drop what is under way."""
        self._waiting.clear()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _next(self, most: int) -> Iterator[Rows]:
        """Rows of the blocks that were given first, until so many blocks are left."""
        while len(self._waiting) > most:
            yield from self._waiting.popleft().result()

    def _made(self, block: ImputedBlock) -> Iterator[Rows]:
        """A block's rows, so many at a time as fit the processor's cache."""
        info = info_columns(block.info, len(block.sites))
        step = max(1, _SLICE_BYTES // max_row_bytes(self._formats, self._num_samples))
        formatter = self._formatters.get()
        try:
            for start in range(0, len(block.sites), step):
                rows = slice(start, start + step)
                part = {name: column.take(rows) for name, column in info.items()}
                sites, typed = block.sites.take(rows), block.typed[rows]
                prob, called = block.allele_prob[rows], block.called[rows]
                if self._encoder is not None:
                    records = self._encoder.encode(sites, prob, called, part, typed)
                    ends = np.cumsum([len(record) for record in records])
                    yield sites, b"".join(records), ends
                else:
                    starts = row_starts(sites, typed, part, self._formats)
                    yield sites, *formatter.format(prob, called, starts)
        finally:
            self._formatters.put(formatter)

    def _all_made(self, block: ImputedBlock) -> list[Rows]:
        """A block's rows, all of which are kept."""
        return [(sites, bytes(data), ends) for sites, data, ends in self._made(block)]
