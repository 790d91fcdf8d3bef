"""Write BGZF: gzip in blocks of at most 64 kB, compressed in threads, the same at any number."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import BinaryIO

import deflate
import numpy as np

BLOCK_BYTES = 65_280  # uncompressed, as htslib has it
EOF_MARK = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_HEADER = struct.Struct("<4BI2BH2B2H")
_FOOTER = struct.Struct("<II")
_LEVEL = 1
_AHEAD = 64  # blocks
_GROUP = 8  # blocks that a thread compresses in one go


def compress_block(data: bytes | memoryview) -> bytes:
    """One BGZF block of at most ``BLOCK_BYTES`` bytes.

    References
    ----------
    SAM specification, section 4.1.
    """
    body: bytes | bytearray = deflate.deflate_compress(data, _LEVEL)
    if len(body) + 26 > 65_536:  # does not compress: a stored block
        size = len(data)
        body = struct.pack("<BHH", 1, size, size ^ 0xFFFF) + bytes(data)
    head = _HEADER.pack(31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2, len(body) + 25)
    return head + body + _FOOTER.pack(deflate.crc32(data), len(data))


def _compress_all(blocks: list[bytes | memoryview]) -> list[bytes]:
    """Some blocks, one after the other."""
    return [compress_block(block) for block in blocks]


def read_blocks(file: BinaryIO, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Compressed blocks of a BGZF file, and where each begins, from the one at ``start`` on.

    Raises
    ------
    ValueError
        If the bytes there are not a block, or the file ends within one.
    """
    file.seek(start)
    while head := file.read(18):
        if len(head) < 18 or head[:4] != EOF_MARK[:4] or head[10:16] != EOF_MARK[10:16]:
            raise ValueError(f"no whole BGZF block begins at byte {start}")
        size = int.from_bytes(head[16:18], "little") + 1
        body = file.read(size - 18)
        if size < 26 or len(body) < size - 18:
            raise ValueError(f"the BGZF block at byte {start} is cut short")
        yield start, body
        start += size


def inflate(body: bytes) -> bytes:
    """What a block holds, given all of it but its head.

    Raises
    ------
    ValueError
        If it does not inflate to what its checksum says.
    """
    checksum, size = _FOOTER.unpack(body[-8:])
    try:
        data = deflate.deflate_decompress(body[:-8], min(size, 65_536))
    except deflate.DeflateError as error:
        raise ValueError(f"a BGZF block does not inflate: {error}") from error
    if (checksum, size) != (deflate.crc32(data), len(data)):
        raise ValueError("a BGZF block does not match its checksum")
    return bytes(data)


def inflate_from(
    file: BinaryIO, offset: int, *, piece_bytes: int, pool: Executor | None = None
) -> Iterator[bytes]:
    """What a BGZF file holds from a virtual offset on, in pieces of about ``piece_bytes``.

    Parameters
    ----------
    pool
        Inflates blocks ahead of their use; None: in this thread.
    """
    skip = offset & 0xFFFF
    blocks = (body for _, body in read_blocks(file, offset >> 16))
    pending: deque[Future[bytes]] = deque()
    parts: list[bytes] = []
    size = 0

    def inflated() -> Iterator[bytes]:
        if pool is None:
            yield from map(inflate, blocks)
            return
        for body in blocks:
            pending.append(pool.submit(inflate, body))
            if len(pending) > _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    for data in inflated():
        part = data[skip:] if skip else data
        skip = 0
        parts.append(part)
        size += len(part)
        if size >= piece_bytes:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def check_blocks(file: BinaryIO, start: int, stop: int) -> bool:
    """Whether the blocks that start in [start, stop] of a BGZF file are whole and undamaged."""
    try:
        for _, body in read_blocks(file, start):
            inflate(body)
            if file.tell() > stop:
                return True
    except ValueError:
        return False
    return file.tell() == stop


class BgzfWriter:
    """Cuts what is written into blocks of one size; knows where each begins.

    The file is the caller's to open and close.
    """

    def __init__(self, file: BinaryIO, *, threads: int = 1) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._pending: deque[Future[list[bytes]]] = deque()
        self._max_pending = 4 * threads
        self._group: list[bytes | memoryview] = []  # blocks that are compressed by one call
        self._rest = bytearray()
        self._starts = [0]  # of each block in the file, and its end
        self._first = 0  # the block that ``mark`` counts from
        self._num_told = 0  # of the starts, by checkpoints

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
        # Bytes stay as they are; what else there is may change before it is compressed.
        kept = self._pool is None or isinstance(data, bytes)
        while at + BLOCK_BYTES <= len(view):
            block = view[at : at + BLOCK_BYTES]
            self._put(block if kept else bytes(block))
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
        self._group = []
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def checkpoint(self) -> dict[str, np.ndarray]:
        """Write all whole blocks; what a later process needs to go on from there.

        Returns
        -------
        "starts": of blocks, since the last call; "first": the block of the mark; "rest": bytes
        that wait for their block to be full. :meth:`restore` takes them.
        """
        self._drain()
        starts = np.array(self._starts[self._num_told :], np.int64)
        self._num_told = len(self._starts)
        rest = np.frombuffer(bytes(self._rest), np.uint8)
        return {"starts": starts, "first": np.array(self._first), "rest": rest}

    def restore(self, states: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Take up what checkpoints told in an earlier process; the file is where it was then."""
        self._starts = np.concatenate([state["starts"] for state in states]).tolist()
        self._num_told = len(self._starts)
        self._first = int(states[-1]["first"])
        self._rest = bytearray(states[-1]["rest"].tobytes())

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
        self._drain()

    def _drain(self) -> None:
        """Write the blocks that are being compressed."""
        self._submit()
        while self._pending:
            self._emit_all(self._pending.popleft().result())

    def _put(self, block: bytes | memoryview) -> None:
        """Compress a block, now or in a thread."""
        if self._pool is None:
            self._emit_all([compress_block(block)])
            return
        self._group.append(block)
        if len(self._group) == _GROUP:
            self._submit()

    def _submit(self) -> None:
        """Give a group of blocks to a thread; write what others have done."""
        if self._pool is not None and self._group:
            self._pending.append(self._pool.submit(_compress_all, self._group))
            self._group = []
        while self._pending and (self._pending[0].done() or len(self._pending) > self._max_pending):
            self._emit_all(self._pending.popleft().result())

    def _emit_all(self, blocks: list[bytes]) -> None:
        """Write compressed blocks."""
        self._file.write(b"".join(blocks))
        for block in blocks:
            self._starts.append(self._starts[-1] + len(block))
