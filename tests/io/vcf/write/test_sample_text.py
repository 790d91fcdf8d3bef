"""Numbers as text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imputed_blocks import ALL, blocks, make_block, random_block, write
from vcf_fixtures import view

from ragimpute.io.vcf.write.sample_text import RowFormatter, RowStarts, max_row_bytes


def test_exact_text(tmp_path):
    nan = np.nan
    prob = [
        [[0.0, 0.0], [0.1, 0.9], [0.25, nan]],
        [[1.0, 1.0], [0.5, 0.51], [1.0, nan]],
        [[0.9996, 0.0004], [0.3, 0.3], [0.0004, nan]],
    ]
    called = np.full((3, 3, 2), -1, dtype=np.int8)
    called[:, 2, 1] = -2
    called[2, :, 0] = [0, -1, 1]
    called[2, :2, 1] = [1, -1]
    info = {
        "AF": np.array([0.25, 1 / 3, 1.23456789e-5]),
        "DR2": np.array([0.98765, np.nan, 0.0]),
    }
    block = make_block(prob, called=called, info=info)
    path = write(tmp_path / "x.vcf", block, fields=ALL)
    lines = path.read_text().splitlines()
    table = [line.split("\t")[7:] for line in lines if not line.startswith("#")]
    fields = "GT:DS:GP:HDS:AP1:AP2"
    assert table == [
        [
            "AF=0.25;DR2=0.9876;IMP",
            fields,
            "0|0:0:1,0,0:0,0:0:0",
            "0|1:1:0.09,0.82,0.09:0.1,0.9:0.1:0.9",
            "0:0.25:0.75,0.25:0.25:0.25:.",
        ],
        [
            "AF=0.333333;IMP",
            fields,
            "1|1:2:0,0,1:1,1:1:1",
            "0|1:1.01:0.245,0.5,0.255:0.5,0.51:0.5:0.51",
            "1:1:0,1:1:1:.",
        ],
        [
            "AF=1.23457e-05;DR2=0;TYPED",
            fields,
            "0|1:1:0,1,0:1,0:1:0",
            "0|0:0.6:0.49,0.42,0.09:0.3,0.3:0.3:0.3",
            "1:0:1,0:0:0:.",
        ],
    ]
    names = [line.split("ID=")[1].split(",")[0] for line in lines if line.startswith("##FORMAT")]
    assert names == fields.split(":")
    assert not any("command" in line for line in lines)
    view(path)


def number(count, scale=1000):
    """A number of thousandths, or of another unit, as Python writes it."""
    return f"{count / scale:g}"


def entry(prob, called, names, digits=3):
    """A sample's text, in plain Python."""
    s = 10**digits
    p1, p2 = (float(p) for p in prob)
    haploid = np.isnan(p2) or called[1] == -2
    h1, h2 = int(p1 * s + 0.5), 0 if haploid else int(p2 * s + 0.5)
    alleles = [str(c if c >= 0 else int(p > 0.5)) for c, p in zip(called, (p1, p2), strict=True)]
    if haploid:
        genotypes = [s - h1, h1]
        dosage, alleles, each = h1, alleles[:1], [h1]
    else:
        low, high = int((1 - p1) * (1 - p2) * s + 0.5), int(p1 * p2 * s + 0.5)
        genotypes = [low, max(0, s - low - high), high]
        dosage, each = int((p1 + p2) * s + 0.5), [h1, h2]
    text = {
        "GT": "|".join(alleles),
        "DS": number(dosage, s),
        "GP": ",".join(number(x, s) for x in genotypes),
        "HDS": ",".join(number(x, s) for x in each),
        "AP1": number(h1, s),
        "AP2": "." if haploid else number(h2, s),
    }
    return ":".join(text[name] for name in names)


def texts_of(starts):
    """Rows' first columns as ``row_starts`` gives them."""
    text = np.frombuffer("".join(starts).encode(), np.uint8)
    return RowStarts(text, np.cumsum([0, *map(len, starts)]))


@settings(max_examples=100, deadline=None)
@given(
    block=blocks(),
    fields=st.permutations(["GP", "DS", "AP2", "HDS", "AP1"]),
    count=st.integers(0, 5),
    digits=st.integers(2, 4),
)
def test_rows_are_those_of_plain_python(block, fields, count, digits):
    names = ["GT", *fields[:count]]
    starts = texts_of([f"row {i}" for i in range(len(block.sites))])
    data, ends = RowFormatter(names, digits).format(block.allele_prob, block.called, starts)
    expected = [
        "\t".join([f"row {i}", *(entry(*pair, names, digits) for pair in zip(*row, strict=True))])
        + "\n"
        for i, row in enumerate(zip(block.allele_prob, block.called.tolist(), strict=True))
    ]
    assert bytes(data).decode() == "".join(expected)
    assert ends.tolist() == np.cumsum([len(row) for row in expected]).tolist()


@pytest.mark.parametrize("digits", [2, 3, 4])
def test_every_number(digits):
    s = 10**digits
    prob = np.zeros((2 * s + 1, 1, 2), dtype=np.float32)
    prob[:, 0, 0] = np.minimum(np.arange(2 * s + 1), s) / s
    prob[:, 0, 1] = np.maximum(np.arange(2 * s + 1) - s, 0) / s
    called = np.full(prob.shape, -1, dtype=np.int8)
    data, _ = RowFormatter(["DS"], digits).format(prob, called, texts_of([""] * (2 * s + 1)))
    assert bytes(data).decode().split() == [number(i, s) for i in range(2 * s + 1)]


@pytest.mark.parametrize("digits", [1, 5, 0, -3])
def test_digits_that_cannot_be_written(digits):
    with pytest.raises(ValueError, match="digits must be in"):
        RowFormatter(["GT", "DS"], digits)


def test_the_buffer_is_used_again():
    formatter = RowFormatter(["GT", "GP"])
    small, large = random_block(1, 3, 2), random_block(2, 200, 30)
    sizes = []
    for block in (small, large, small):
        starts = texts_of(["x"] * len(block.sites))
        data, ends = formatter.format(block.allele_prob, block.called, starts)
        sizes.append(bytes(data))
        assert ends[-1] == len(data)
        assert len(data) <= len(block.sites) * (
            1 + max_row_bytes(["GT", "GP"], len(block.called[0]))
        )
    assert sizes[0] == sizes[2]


@pytest.mark.parametrize("wrong", [-0.01, 1.01, np.nan])
def test_numbers_that_are_no_probability(wrong):
    block = random_block(3, 2, 2)
    block.allele_prob[1, 1, 0] = wrong
    with pytest.raises(ValueError, match="must be in"):
        RowFormatter(["GT", "DS"]).format(block.allele_prob, block.called, texts_of(["", ""]))
