"""The text of a file that a vendor of genotypes gives: plain, gzipped, or one of a zip archive."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from ragimpute.commands import command_word, free_name
from ragimpute.errors import InputError

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_COPY = "copy the file again, or download it once more"
# The largest files of vendors have 40 MB; what is so much larger is something else.
_MOST_BYTES = 2**30
START_BYTES = 2**16


def text_start(path: Path) -> str:
    """The first letters of the text in a file; "" if it holds none, or cannot be read.

    Raises
    ------
    InputError
        If it is a zip archive that is damaged, or does not hold one file.
    """
    try:
        with path.open("rb") as raw, _opened(path, raw) as file:
            return _decoded(file.read(START_BYTES))
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        return ""


def read_text(path: Path) -> str:
    """The whole text in a file, with line ends of one kind.

    Letters that are not ASCII may be wrong: comments hold names in any encoding.

    Raises
    ------
    InputError
        If the file cannot be read or is damaged, or an archive does not hold one text.
    """
    try:
        with path.open("rb") as raw, _opened(path, raw) as file:
            data = file.read(_MOST_BYTES + 1)
    except EOFError as error:
        raise InputError(f"{path} is truncated", hint=_COPY) from error
    except (OSError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"{path} is damaged or cannot be read: {error}", hint=_COPY) from error
    except RuntimeError as error:  # zipfile says so of an archive with a password
        out = command_word(free_name(path, ".txt"))
        raise InputError(
            f"{path} cannot be read: {error}",
            hint=f"take its file out: unzip -p {command_word(path)} > {out}",
        ) from error
    if len(data) > _MOST_BYTES:
        raise InputError(
            f"{path} holds more than {_MOST_BYTES:,} bytes, which no raw text of genotypes does",
            hint="give the file that the vendor wrote",
        )
    return _decoded(data).replace("\r\n", "\n").replace("\r", "\n")


def _opened(path: Path, raw: BinaryIO) -> BinaryIO:
    """The decompressed content of an open file."""
    start = raw.read(4)
    raw.seek(0)
    if start[:2] == _GZIP:
        return gzip.open(raw, "rb")  # type: ignore[return-value]
    if start != _ZIP:
        return raw
    try:
        archive = zipfile.ZipFile(raw)
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is a damaged zip archive: {error}", hint=_COPY) from error
    texts = [
        one
        for one in archive.infolist()
        if not one.is_dir() and not one.filename.startswith("__MACOSX/")
        and not Path(one.filename).name.startswith(".")
    ]  # fmt: skip
    if len(texts) != 1:
        names = ", ".join(one.filename for one in texts[:3]) + (", ..." if len(texts) > 3 else "")
        hint = _COPY
        if texts:
            out = command_word(free_name(path, ".txt"))
            one = command_word(texts[0].filename)
            hint = f"take one of them out: unzip -p {command_word(path)} {one} > {out}"
        raise InputError(
            f"{path} is a zip archive of {len(texts)} files ({names or 'none'}), expected one text",
            hint=hint,
        )
    return archive.open(texts[0])  # type: ignore[return-value]


def _decoded(data: bytes) -> str:
    """Bytes as text, by the mark at their beginning, or else as ASCII and what contains it."""
    if data.startswith(_UTF_16):
        return data.decode("utf-16", errors="replace")
    return data.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
