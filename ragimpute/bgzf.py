"""Write BGZF: gzip in blocks of at most 64 kB, compressed in threads, the same at any number."""

from __future__ import annotations

import struct
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
from isal import isal_zlib

BLOCK_BYTES = 65_280  # uncompressed, as htslib has it
EOF_MARK = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_HEADER = struct.Struct("<4BI2BH2B2H")
_LEVEL = 1


def compress_block(data: bytes | memoryview) -> bytes:
    """One BGZF block of at most ``BLOCK_BYTES`` bytes.

    References
    ----------
    SAM specification, section 4.1.
    """
    body = isal_zlib.compress(data, _LEVEL, -15)
    if len(body) + 26 > 65_536:  # does not compress: a stored block
        size = len(data)
        body = struct.pack("<BHH", 1, size, size ^ 0xFFFF) + bytes(data)
    head = _HEADER.pack(31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2, len(body) + 25)
    return head + body + struct.pack("<II", isal_zlib.crc32(data), len(data))


def check_blocks(file: BinaryIO, start: int, stop: int) -> bool:
    """Whether the blocks that start in [start, stop] of a BGZF file are whole and undamaged."""
    file.seek(start)
    while start <= stop:
        head = file.read(18)
        if not head and start == stop:
            return True
        if len(head) < 18 or head[:4] != EOF_MARK[:4] or head[10:16] != EOF_MARK[10:16]:
            return False
        size = int.from_bytes(head[16:18], "little") + 1
        body = file.read(size - 18)
        if size < 26 or len(body) < size - 18:
            return False
        try:
            data = isal_zlib.decompress(body[:-8], -15)
        except isal_zlib.IsalError:  # type: ignore[misc]  # its stub is wrong
            return False
        if struct.unpack("<II", body[-8:]) != (isal_zlib.crc32(data), len(data)):
            return False
        start += size
    return True


class BgzfWriter:
    """Cuts what is written into blocks of one size; knows where each begins.

    The file is the caller's to open and close.
    """

    def __init__(self, file: BinaryIO, *, threads: int = 1) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._pending: deque[Future[bytes]] = deque()
        self._max_pending = 16 * threads
        self._rest = bytearray()
        self._starts = [0]  # of each block in the file, and its end
        self._first = 0  # the block that ``mark`` counts from

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        view = memoryview(data)
        at = 0
        if self._rest:
            at = min(len(view), BLOCK_BYTES - len(self._rest))
            self._rest += view[:at]
            if len(self._rest) < BLOCK_BYTES:
                return
            self._put(bytes(self._rest))
            self._rest.clear()
        while at + BLOCK_BYTES <= len(view):
            block = view[at : at + BLOCK_BYTES]
            self._put(bytes(block) if self._pool else block)
            at += BLOCK_BYTES
        self._rest += view[at:]

    def mark(self) -> None:
        """End the block here; :meth:`virtual_offsets` counts from this place."""
        self._flush()
        self._first = len(self._starts) - 1

    def finish(self) -> None:
        """Write what is left and the end mark."""
        self._flush()
        self._file.write(EOF_MARK)
        if self._pool:
            self._pool.shutdown()

    def abort(self) -> None:
        """Stop the threads; nothing more is written."""
        self._pending.clear()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def virtual_offsets(self, position: np.ndarray) -> np.ndarray:
        """BGZF virtual offsets of uncompressed positions, counted from the last mark.

        Parameters
        ----------
        position
            Bytes, int64; good after :meth:`finish`.

        Returns
        -------
        uint64: the block's place in the file times 65,536, plus the place in the block.
        """
        starts = np.array(self._starts[self._first :], dtype=np.uint64)
        block, inside = np.divmod(position, BLOCK_BYTES)
        return (starts[block] << np.uint64(16)) | inside.astype(np.uint64)

    def _flush(self) -> None:
        """Write every block that is under way."""
        if self._rest:
            self._put(bytes(self._rest))
            self._rest.clear()
        while self._pending:
            self._emit(self._pending.popleft().result())

    def _put(self, block: bytes | memoryview) -> None:
        """Compress a block, now or in a thread."""
        if self._pool is None:
            self._emit(compress_block(block))
            return
        self._pending.append(self._pool.submit(compress_block, block))
        while self._pending and (self._pending[0].done() or len(self._pending) > self._max_pending):
            self._emit(self._pending.popleft().result())

    def _emit(self, block: bytes) -> None:
        """Write a compressed block."""
        self._file.write(block)
        self._starts.append(self._starts[-1] + len(block))
