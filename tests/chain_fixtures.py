"""Chain files of made-up pieces, for tests."""

from __future__ import annotations


def chain_text(pieces, *, source="chr20", size=1000, other_sizes=None, number=1):
    """Chains of pieces (start, stop, contig, other start, strand), all 0-based and half-open.

    The other start is that of the piece on the forward strand of the other build.
    """
    other_sizes = other_sizes or {}
    lines = []
    for start, stop, contig, other, strand in pieces:
        length, other_size = stop - start, other_sizes.get(contig, 1000)
        if strand == "-":
            other = other_size - other - length
        lines.append(
            f"chain 100 {source} {size} + {start} {stop} {contig} {other_size} {strand} {other} "
            f"{other + length} {number}\n{length}\n\n"
        )
        number += 1
    return "".join(lines)


def inverse(pieces, source="chr20"):
    """The pieces that lift back."""
    return [
        (other, other + stop - start, source, start, strand)
        for start, stop, _, other, strand in pieces
    ]
