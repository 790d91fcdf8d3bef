"""Ways to spoil a file: bytes, BGZF blocks, lines and cells, values of HDF5, JSON or YAML."""

from __future__ import annotations

import gzip
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ragimpute.io.vcf.bgzf import compress_block
from ragimpute.panel.format import DATASETS, content_checksum, digest_array, new_digest
from ragimpute.retrieval.index_manifest import manifest_digest

Mutation = Callable[[random.Random, Path], None]

_EOF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_BLOCK_BYTES = 700  # small, so that a small file has several

#: Cells that a column of numbers, names, alleles or genotypes should not hold.
CELLS = [
    b"", b".", b"-1", b"0", b"1", b"2147483647", b"2147483648", b"-2147483649", b"9" * 30,
    b"1e308", b"1e-400", b"nan", b"inf", b"-inf", b"0x10", b"1_000", b" 1", b"1 ", b"\x00",
    b"\xff\xfe",
    "１".encode(), "ü".encode(), "\u202e".encode(), b"A" * 5000, b"<DEL>", b"<", b"*", b",",
    b"A,C,G,T",
    b"A,A", b"[20:1[", b"0/1/1/0", b"9|9", b"1|", b"|", b"/", b"./1", b"0", b"-1|0",
    b"4294967296|0",
    b"0|0|0", b"GT", b"DS:GT", b"GT:GT", b"PASS", b"##", b"#", b"%3B", b"20", b"chr20", b"X",
    b"DR2",
    b"TYPED=5", b"AF=x", b"AF=.,.", b"END=1", b"SVLEN=-9", b"0:0", b"0|1:9", b"0|1:-1:1:1",
    b"=", b";",
]  # fmt: skip
#: Header lines that lie about what follows.
HEADER_LINES = [
    b"##contig=<ID=20,length=1>", b"##contig=<ID=20,length=-5>", b"##contig=<ID=20,length=x>",
    b"##contig=<ID=20,length=99999999999999>", b"##contig=<ID=>", b"##contig=<ID=20", b"##contig=",
    b"##contig=<ID=20,IDX=7>", b"##contig=<ID=21,IDX=0>", b"##contig=<ID=20,IDX=2147483647>",
    b"##FORMAT=<ID=GT,Number=1,Type=Integer,Description=\"x\">",
    b"##FORMAT=<ID=GT,Number=G,Type=String,Description=\"x\">",
    b"##FORMAT=<ID=DS,Number=A,Type=String,Description=\"x\">",
    b"##FORMAT=<ID=DS,Number=99,Type=Integer,Description=\"x\">",
    b"##FORMAT=<ID=GT,Number=1,Type=Strange,Description=\"x\">",
    b"##INFO=<ID=AF,Number=1,Type=Flag,Description=\"x\">", b"##INFO=<ID=AF", b"##INFO=<>",
    b"##FILTER=<ID=PASS,Description=\"no\">", b"##fileformat=VCFv9.9", b"##fileformat=", b"##",
    b"#",
    b"##x=" + b"y" * 200_000, b"##ragimpute_dr2=nan", b"##ALT=<ID=DEL,Description=\"\xff\">", b"",
    b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ta\ta", b"#CHROM\tPOS", b"\xef\xbb\xbf",
]  # fmt: skip
WORDS = [b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0" * 4, b"\x01\0\0\0", b"\0\0\1\0"]
VALUES: list[Any] = [
    None, True, 0, -1, 2**31, 2**63, 10**30, 1e308, -0.5, float("nan"), float("inf"), "", "x",
    "\x00",
    "../../x", "/", "9" * 400, [], {}, [[]], [None], {"": 1}, [0, 10**12], "nan", "1e9", "默认",
]  # fmt: skip


# ---- any file


def spoil_bytes(draw: random.Random, data: bytes) -> bytes:
    """One change of bytes."""
    size = len(data)
    at = draw.randrange(size + 1)
    some = draw.choice([1, 2, 4, 8, 30, 200])
    kind = draw.randrange(11)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[at:]
    if kind <= 4:  # flipped bits
        out = bytearray(data)
        for _ in range(draw.choice([1, 1, 2, 8]) if size else 0):
            out[draw.randrange(size)] ^= 1 << draw.randrange(8)
        return bytes(out)
    if kind == 5:
        return data[:at] + bytes(some) + data[at + some :]
    if kind == 6:
        return data[:at] + draw.randbytes(some) + data[draw.choice([at, at + some]) :]
    if kind == 7:
        return data[:at] + data[at + some :]
    if kind == 8:
        return data[:at] + data[at : at + some] + data[at:]
    if kind == 9:
        word = draw.choice(WORDS)
        return data[:at] + word + data[at + len(word) :]
    return draw.choice([b"", data + draw.randbytes(some), data + data, data[::-1], b"\0" * size])


def raw(draw: random.Random, path: Path) -> None:
    """Change the bytes of the file."""
    path.write_bytes(spoil_bytes(draw, path.read_bytes()))


def payload(draw: random.Random, path: Path) -> None:
    """Change the bytes within the compression, which then is whole again."""
    write_bgzf(path, spoil_bytes(draw, gzip.decompress(path.read_bytes())))


def first_bytes(draw: random.Random, path: Path) -> None:
    """Change bytes of a record or header in a BCF: a word of it becomes another."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    start = 9 + struct.unpack_from("<I", data, 5)[0]
    at = draw.choice(
        [5, start, start + 4, draw.randrange(start, start + 60), draw.randrange(len(data))]
    )
    word = draw.choice(WORDS)[: draw.choice([1, 2, 4])]
    data[at : at + len(word)] = word
    write_bgzf(path, bytes(data))


def bcf_header(draw: random.Random, path: Path) -> None:
    """Change the text of a BCF's header; its length is told truly, or not."""
    data = gzip.decompress(path.read_bytes())
    (size,) = struct.unpack_from("<I", data, 5)
    text = spoil_header(draw, data[9 : 9 + size].rstrip(b"\0")) + b"\0"
    told = len(text) if draw.random() < 0.8 else draw.choice([0, 1, size, 2**31, 2**32 - 1])
    write_bgzf(path, data[:5] + struct.pack("<I", told) + text + data[9 + size :])


def write_bgzf(path: Path, data: bytes, *, end: bytes = _EOF) -> None:
    """Compress into many small blocks."""
    parts = [data[at : at + _BLOCK_BYTES] for at in range(0, len(data), _BLOCK_BYTES)]
    path.write_bytes(b"".join(map(compress_block, parts)) + end)


def blocks(draw: random.Random, path: Path) -> None:
    """Change the blocks of a BGZF file: their order, their number, what they say of themselves."""
    data = gzip.decompress(path.read_bytes())
    parts = [
        bytearray(compress_block(data[at : at + _BLOCK_BYTES]))
        for at in range(0, len(data), _BLOCK_BYTES)
    ]
    end, which = _EOF, draw.randrange(len(parts))
    kind = draw.randrange(11)
    if kind == 0:
        end = b""
    elif kind == 1:
        del parts[which]
    elif kind == 2:
        parts.insert(which, parts[draw.randrange(len(parts))])
    elif kind == 3:
        draw.shuffle(parts)
    elif kind == 4:  # BSIZE
        parts[which][16:18] = draw.randbytes(2)
    elif kind == 5:  # CRC-32
        parts[which][-8:-4] = draw.randbytes(4)
    elif kind == 6:  # ISIZE
        parts[which][-4:] = draw.choice(WORDS)
    elif kind == 7:
        parts.insert(which, bytearray(_EOF))
    elif kind == 8:
        parts[which] = parts[which][: draw.randrange(len(parts[which]))]
    elif kind == 9:
        parts.insert(which, bytearray(draw.randbytes(50)))
    path.write_bytes(b"".join(parts) + end if kind < 10 else gzip.compress(data, mtime=0))


# ---- text


def encoding(draw: random.Random, path: Path) -> None:
    """Write text another way."""
    data = path.read_bytes()
    kind = draw.randrange(7)
    if kind <= 1:
        data = data.decode("latin-1").encode(["utf-16", "utf-32"][kind])
    elif kind == 2:
        data = b"\xef\xbb\xbf" + data
    elif kind == 3:
        data = data.replace(b"\n", b"\r\n")
    elif kind == 4:
        data = data.replace(b"\n", b"\r")
    elif kind == 5:
        data = data.replace(b"\t", draw.choice([b" ", b",", b"  ", b"\t\t"]))
    else:
        data = data.rstrip(b"\n") + draw.choice([b"", b"\n\n\n", b"\n\0", b"\n\x1a"])
    path.write_bytes(data)


def lines(draw: random.Random, path: Path) -> None:
    """Change the order or number of lines."""
    rows = path.read_bytes().splitlines(keepends=True)
    i, j = (draw.randrange(len(rows)) for _ in range(2))
    kind = draw.randrange(5)
    if kind == 0:
        rows[i], rows[j] = rows[j], rows[i]
    elif kind == 1:
        del rows[min(i, j) : max(i, j)]
    elif kind == 2:
        rows.insert(i, rows[j])
    elif kind == 3:
        body = [k for k, row in enumerate(rows) if not row.startswith(b"#")]
        rows = rows[: body[0]] + draw.sample(rows[body[0] :], len(rows) - body[0])
    else:
        rows[i] = rows[i].rstrip(b"\n")
    path.write_bytes(b"".join(rows))


def cells(draw: random.Random, path: Path) -> None:
    """Change cells of one row, or a column of many rows."""
    rows = path.read_bytes().split(b"\n")
    body = [k for k, row in enumerate(rows) if row and not row.startswith(b"#")]
    gap = b"\t" if b"\t" in rows[body[-1]] else b" "
    column = draw.randrange(rows[body[0]].count(gap) + 1)
    cell = draw.choice(CELLS)
    for k in body if draw.random() < 0.2 else [draw.choice(body)]:
        parts = rows[k].split(gap)
        kind = draw.randrange(10)
        if kind == 0:
            del parts[column:]
        elif kind == 1:
            parts.insert(column, cell)
        else:
            parts[column % len(parts)] = cell
        rows[k] = gap.join(parts)
    path.write_bytes(b"\n".join(rows))


def spoil_header(draw: random.Random, text: bytes) -> bytes:
    """Change the lines of a VCF's header."""
    rows = text.split(b"\n")
    head = max(1, sum(row.startswith(b"#") for row in rows))
    at = draw.randrange(head)
    kind = draw.randrange(7)
    if kind == 0:
        del rows[at]
    elif kind == 1:
        rows.insert(at, draw.choice(HEADER_LINES))
    elif kind == 2:
        rows[at] = draw.choice(HEADER_LINES)
    elif kind == 3:
        rows[at] = spoil_bytes(draw, rows[at])
    elif kind == 4:
        rows.insert(at, rows[draw.randrange(head)])
    else:
        columns = rows[head - 1].split(b"\t")
        which = draw.randrange(len(columns))
        if kind == 5:
            columns[which] = draw.choice([columns[-1], *CELLS])
        else:
            columns[which : which + 1] = draw.choice([[], [columns[which], b"new"]])
        rows[head - 1] = b"\t".join(columns)
    return b"\n".join(rows)


def header(draw: random.Random, path: Path) -> None:
    """Change a VCF's header."""
    path.write_bytes(spoil_header(draw, path.read_bytes()))


def within(change: Mutation) -> Mutation:
    """The same for a file that is compressed."""

    def apply(draw: random.Random, path: Path) -> None:
        path.write_bytes(gzip.decompress(path.read_bytes()))
        change(draw, path)
        write_bgzf(path, path.read_bytes())

    apply.__name__ = change.__name__
    return apply


# ---- structured files


def _spoil_value(draw: random.Random, value: Any) -> Any:
    """Change one value somewhere in nested lists and mappings, or leave it out."""
    if isinstance(value, dict | list) and value and draw.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = draw.choice(list(keys))
        if draw.random() < 0.1:
            del value[key]
        else:
            value[key] = _spoil_value(draw, value[key])
        return value
    if isinstance(value, int | float) and draw.random() < 0.3:
        return draw.choice([value + 1, -value, value * 10**6, str(value), [value]])
    return draw.choice(VALUES)


def json_values(draw: random.Random, path: Path) -> None:
    """Change values of a JSON file; an index's manifest then has the checksum that it should."""
    about = _spoil_value(draw, json.loads(path.read_text()))
    if isinstance(about, dict) and "manifest_sha256" in about and draw.random() < 0.8:
        about["manifest_sha256"] = manifest_digest(about)
    path.write_text(json.dumps(about))


def yaml_values(draw: random.Random, path: Path) -> None:
    """Change values of a YAML file (JSON is YAML, too)."""
    import yaml

    path.write_text(yaml.safe_dump(_spoil_value(draw, yaml.safe_load(path.read_text()))))


def yaml_text(draw: random.Random, path: Path) -> None:
    """Put what YAML takes for syntax into a line."""
    rows = path.read_text().splitlines()
    piece = draw.choice(
        ["&a [*a, *a]", "*b", "!!python/object:os.system x", "<<: {a: 1}", "? [a]", "{a: [", "---",
         "%YAML 9", "\t- x", "- " * 3000 + "x", "[" * 3000, "a: &a [x, x]\nb: &b [*a, *a]",
         "2026-01-01",
         "extends: x", "extends: [default]", "name: ''", "train: 3", "model: {fusion: {name: x}}",
         "1: 2", "null: 3", "true: 1", "name: a\nname: b", "'", '"']
    )  # fmt: skip
    rows.insert(draw.randrange(len(rows) + 1), piece)
    path.write_text("\n".join(rows) + "\n")


def hdf5_values(draw: random.Random, path: Path) -> None:
    """Change values, shapes, types and names in an HDF5; a panel's checksums then fit, mostly."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
        name = draw.choice(names)
        kind = draw.randrange(9)
        if kind == 0:
            del file[name]
        elif kind == 1 and len(file.attrs):
            attribute = draw.choice(list(file.attrs))
            wrong = draw.choice([0, -1, 2**40, np.nan, b"x", b"\xff", "ü", b"", [1, 2]])
            file.attrs[attribute] = wrong
        elif kind == 2:
            file.move(name, "elsewhere")
        elif kind == 3:
            del file[name]
            file.create_group(name)
        else:
            values = file[name][...]
            attributes = dict(file[name].attrs)
            del file[name]
            file[name] = _spoil_array(draw, values)
            for key, value in attributes.items():
                file[name].attrs[key] = value
        if draw.random() < 0.8:
            _mend_checksums(file)


def _spoil_array(draw: random.Random, values: np.ndarray) -> np.ndarray:
    """Another array: values, order, shape or type."""
    kind = draw.randrange(8)
    numbers = values.dtype.kind in "iuf"
    if kind <= 2 and values.size and numbers:
        out = values.reshape(-1).copy()
        top = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else np.inf
        low = np.iinfo(values.dtype).min if values.dtype.kind in "iu" else np.nan
        wrong = draw.choice([top, low, 0, 1])
        out[draw.randrange(out.size)] = wrong
        return out.reshape(values.shape)
    if kind == 3:
        return values[::-1]
    if kind == 4:
        return values[: len(values) // 2]
    if kind == 5:
        return np.concatenate([values, values])
    if kind == 6:
        return values[..., None]
    return values.astype(draw.choice(["f4", "i8", "u1"])) if numbers else np.zeros(3, dtype="i4")


def _mend_checksums(file: h5py.File) -> None:
    """Give a panel the digests of what it holds now."""
    digests = {}
    for name in DATASETS:
        item = file.get(name)
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "iuf":
            return
        digest = new_digest()
        digest_array(digest, item[...])
        digests[name] = digest.hexdigest()
        item.attrs["digest"] = np.bytes_(digests[name])
    contig = file.attrs.get("contig")
    if isinstance(contig, bytes):
        file.attrs["checksum"] = np.bytes_(content_checksum(contig.decode("latin-1"), digests))


def tensors(draw: random.Random, path: Path) -> None:
    """Change the header of a safetensors file: a length, a type, a name, where values lie."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    about = _spoil_value(draw, json.loads(data[8 : 8 + size]))
    text = json.dumps(about).encode()
    told = len(text) if draw.random() < 0.8 else draw.choice([0, size, 2**40, 2**64 - 1])
    path.write_bytes(struct.pack("<Q", told) + text + data[8 + size :])
