"""Read and write BGZF: gzip in blocks of at most 64 kB, each of which can be read alone.

Threads may compress blocks; the bytes that are written do not depend on how many there are.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import BinaryIO

import deflate
import numpy as np

from ragimpute.runtime.threads import Crew, Task, crew_of

BLOCK_BYTES = 65_280  # uncompressed, as htslib has it
EOF_MARK = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_HEADER = struct.Struct("<4BI2BH2B2H")
_FOOTER = struct.Struct("<II")
LEVEL = 1  # of compression, 1 (fast) to 12 (small)
_AHEAD = 64  # blocks that wait, inflated or being inflated, when there are threads
_GROUP = 8  # blocks that a thread compresses before it takes others


def compress_block(data: bytes | memoryview, level: int = LEVEL) -> bytes:
    """One BGZF block of at most ``BLOCK_BYTES`` bytes; ``level`` 0 stores them as they are.

    References
    ----------
    SAM specification, section 4.1.
    """
    body: bytes | bytearray = deflate.deflate_compress(data, level)
    if len(body) + 26 > 65_536:  # does not compress: a stored block
        size = len(data)
        body = struct.pack("<BHH", 1, size, size ^ 0xFFFF) + bytes(data)
    head = _HEADER.pack(31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2, len(body) + 25)
    return head + body + _FOOTER.pack(deflate.crc32(data), len(data))


def _compress_all(blocks: list[bytes | memoryview], level: int) -> list[bytes]:
    """Compress some blocks, one after the other."""
    return [compress_block(block, level) for block in blocks]


def read_blocks(file: BinaryIO, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Read the compressed blocks of a BGZF file, from the one that begins at byte ``start`` on.

    Yields
    ------
    The byte at which each block begins, and the block without its header of 18 bytes.

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
    """Decompress a block, given without its header of 18 bytes.

    Raises
    ------
    ValueError
        If it cannot be decompressed, or its content does not match its checksum.
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
    file: BinaryIO, offset: int, *, piece_bytes: int, crew: Crew | None = None
) -> Iterator[bytes]:
    """Decompress a BGZF file from a place on, in pieces.

    Parameters
    ----------
    file
        The open file.
    offset
        A virtual offset: the byte where a block begins times 65,536, plus a place in the block.
    piece_bytes
        Each piece but the last has at least so many bytes.
    crew
        Inflates blocks before they are needed; None: they are inflated in this thread.
    """
    skip = offset & 0xFFFF
    blocks = (body for _, body in read_blocks(file, offset >> 16))
    pending: deque[Task[bytes]] = deque()
    parts: list[bytes] = []
    size = 0

    def inflated() -> Iterator[bytes]:
        if crew is None:
            yield from map(inflate, blocks)
            return
        for body in blocks:
            pending.append(crew.start(partial(inflate, body)))
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
    """Whether the blocks that begin at the bytes [start, stop] of a BGZF file are undamaged."""
    try:
        for _, body in read_blocks(file, start):
            inflate(body)
            if file.tell() > stop:
                return True
    except ValueError:
        return False
    return file.tell() == stop


class BgzfWriter:
    """Compresses what is written in blocks of one size, and remembers where each block begins.

    The caller opens and closes the file. ``level`` is that of deflate; 0 only stores.
    """

    def __init__(self, file: BinaryIO, *, threads: int = 1, level: int = LEVEL) -> None:
        self._file, self._level = file, level
        self._stack = ExitStack()
        self._crew = self._stack.enter_context(crew_of(threads)) if threads > 1 else None
        self._pending: deque[Task[list[bytes]]] = deque()
        self._max_pending = 4 * threads
        self._group: list[bytes | memoryview] = []  # blocks that are compressed by one call
        self._rest = bytearray()
        self._starts = [0]  # the byte where each block begins in the file, and where the last ends
        self._first = 0  # the number of the first block after the last ``mark``
        self._num_told = 0  # how many of the starts earlier checkpoints have returned

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
        # An object of type bytes never changes. Any other buffer is copied where threads compress,
        # as the caller may overwrite it before a thread comes to it.
        kept = self._crew is None or isinstance(data, bytes)
        while at + BLOCK_BYTES <= len(view):
            block = view[at : at + BLOCK_BYTES]
            self._put(block if kept else bytes(block))
            at += BLOCK_BYTES
        self._rest += view[at:]

    def mark(self) -> None:
        """End the block here; :meth:`virtual_offsets` counts bytes from this place on."""
        self._flush()
        self._first = len(self._starts) - 1

    def finish(self) -> None:
        """Write all blocks that are left, and the end mark."""
        self._flush()
        self._file.write(EOF_MARK)
        self._stack.close()

    def abort(self) -> None:
        """Compress and write nothing more."""
        for task in self._pending:
            task.drop()
        self._pending.clear()
        self._group = []
        self._stack.close()

    def checkpoint(self) -> dict[str, np.ndarray]:
        """Write all full blocks, so that a later process can go on from there.

        Returns
        -------
        What :meth:`restore` needs. "starts": where the blocks begin that were added since the last
        call; "first": the number of the first block after the mark; "rest": the bytes that wait
        for their block to be full.
        """
        self._drain()
        starts = np.array(self._starts[self._num_told :], np.int64)
        self._num_told = len(self._starts)
        rest = np.frombuffer(bytes(self._rest), np.uint8)
        return {"starts": starts, "first": np.array(self._first), "rest": rest}

    def restore(self, states: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Go on from the last of the checkpoints of an earlier process, all of which are given.

        The file must end where it ended at that checkpoint.
        """
        self._starts = np.concatenate([state["starts"] for state in states]).tolist()
        self._num_told = len(self._starts)
        self._first = int(states[-1]["first"])
        self._rest = bytearray(states[-1]["rest"].tobytes())

    def virtual_offsets(self, position: np.ndarray) -> np.ndarray:
        """BGZF virtual offsets of uncompressed positions, counted from the last mark.

        Parameters
        ----------
        position
            Int64. Call this after :meth:`finish`, when it is known where all blocks begin.

        Returns
        -------
        Uint64: the byte where the block begins in the file, times 65,536, plus the place of the
        position in the block.
        """
        starts = np.array(self._starts[self._first :], dtype=np.uint64)
        block, inside = np.divmod(position, BLOCK_BYTES)
        return (starts[block] << np.uint64(16)) | inside.astype(np.uint64)

    def _flush(self) -> None:
        """Write all blocks, also the last one that is not full."""
        if self._rest:
            self._put(bytes(self._rest))
            self._rest.clear()
        self._drain()

    def _drain(self) -> None:
        """Wait for the blocks that are being compressed, and write them."""
        self._submit()
        while self._pending:
            self._emit_all(self._pending.popleft().result())

    def _put(self, block: bytes | memoryview) -> None:
        """Compress a block, now or in a thread."""
        if self._crew is None:
            self._emit_all([compress_block(block, self._level)])
            return
        self._group.append(block)
        if len(self._group) == _GROUP:
            self._submit()

    def _submit(self) -> None:
        """Give a group of blocks to a thread, and write the groups that are done."""
        if self._crew is not None and self._group:
            compress = partial(_compress_all, self._group, self._level)
            self._pending.append(self._crew.start(compress))
            self._group = []
        while self._pending and (
            self._pending[0].is_done or len(self._pending) > self._max_pending
        ):
            self._emit_all(self._pending.popleft().result())

    def _emit_all(self, blocks: list[bytes]) -> None:
        """Write compressed blocks, and note where each begins."""
        self._file.write(b"".join(blocks))
        for block in blocks:
            self._starts.append(self._starts[-1] + len(block))
