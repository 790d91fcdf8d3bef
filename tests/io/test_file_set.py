"""What BGEN and PGEN have in common: names, order, and files that appear together or not at all."""

from __future__ import annotations

import os

import numpy as np
import pytest
from imputed_blocks import make_block, random_block

from ragimpute.errors import InputError
from ragimpute.io.bgen.writer import BgenOptions, BgenWriter
from ragimpute.io.file_set import site_names, unfit_name
from ragimpute.io.vcf.header import Heading


def writer(path, samples=2, **options):
    heading = Heading([f"s{i}" for i in range(samples)], [("20", None), ("21", None)])
    return BgenWriter(path, heading, BgenOptions(), **options)


def test_every_site_has_a_name():
    block = make_block(np.zeros((3, 1, 2)), alt=["G", "C", "A" * 2_000])
    block.sites.id[:] = ["rs1", ".", "."]
    first, second, third = site_names(block.sites)
    assert (first, second) == ("rs1", "20:1010:A:C")
    assert third.startswith("20:1020:")
    assert len(third) == len("20:1020:") + 16
    block.sites.alt[2] = "A" * 2_001
    assert site_names(block.sites)[2] != third


@pytest.mark.parametrize(
    ("name", "why"),
    [("a b", "has a blank"), ("a\tb", "has a blank"), ("#a", "begins with #"),
     ("0", "means that there is no name"), ("a\u00a0b", "has a blank")],
)  # fmt: skip
def test_names_that_a_table_of_samples_cannot_hold(name, why):
    assert unfit_name(["fine", name]) == (name, why)
    assert unfit_name(["fine", "A_b-1", "ü"]) is None


def test_blocks_that_do_not_fit(tmp_path):
    good = random_block(1, 4, 2)
    joined = random_block(2, 2, 2)
    object.__setattr__(joined, "locus", np.array([0, 0]))
    for message, *blocks in (
        ("expected \\(4, 2, 2\\)", random_block(3, 4, 3)),
        ("positions decrease", good, make_block(np.zeros((1, 2, 2)), position=[1])),
        ("contig 22 is not", random_block(4, 2, 2, contig="22")),
        ("several ALTs", joined),
        ("not in \\[0, 1\\]", make_block(np.full((1, 2, 2), 1.5), info={})),
        ("not in \\[0, 1\\]", make_block(np.full((1, 2, 2), np.nan), info={})),
        ("INFO \\['XX'\\]", make_block(np.zeros((1, 2, 2)), info={"XX": np.zeros(1)})),
    ):
        with pytest.raises(ValueError, match=message), writer(tmp_path / "x.bgen") as out:  # noqa: PT012
            for block in blocks:
                out.write(block)
        assert os.listdir(tmp_path) == []


def test_an_error_leaves_the_old_files(tmp_path):
    for name in ("x.bgen", "x.bgen.bgi", "x.sample"):
        (tmp_path / name).write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), writer(tmp_path / "x.bgen") as out:  # noqa: PT012
        out.write(random_block(1, 4, 2))
        raise ZeroDivisionError
    assert sorted(os.listdir(tmp_path)) == ["x.bgen", "x.bgen.bgi", "x.sample"]
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"old"}


def test_an_index_that_cannot_be_made_leaves_no_file(tmp_path, monkeypatch):
    from ragimpute.io.bgen import index

    monkeypatch.setattr(index, "_TABLES", ("CREATE TABLE Metadata (one INT)",))
    with pytest.raises(InputError, match=r"cannot write .*x\.bgen: the index"):  # noqa: SIM117
        with writer(tmp_path / "x.bgen") as out:
            out.write(random_block(1, 4, 2))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*x\.bgen: No such file"):
        writer(tmp_path / "none" / "x.bgen")
    (tmp_path / "y.bgen").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        writer(tmp_path / "y.bgen")
    with pytest.raises(ValueError, match="threads"):
        writer(tmp_path / "x.bgen", threads=0)


def test_a_closed_writer_takes_no_more(tmp_path):
    with writer(tmp_path / "x.bgen") as out:
        out.write(random_block(1, 4, 2))
        out.close()
        with pytest.raises(ValueError, match="closed"):
            out.write(random_block(1, 4, 2))
        with pytest.raises(ValueError, match="closed"):
            out.checkpoint()
