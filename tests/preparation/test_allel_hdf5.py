"""HDF5 files as scikit-allel writes them, made here with h5py."""

from __future__ import annotations

from itertools import chain

import h5py
import numpy as np
import pytest

from ragimpute.errors import InputError
from ragimpute.io.counts import RecordCounts
from ragimpute.preparation.allel_hdf5 import AllelReader
from ragimpute.sites import Region

GENOTYPES = np.array(
    [
        [[0, 1], [0, 0], [1, 1]],
        [[0, 2], [1, 0], [0, 0]],
        [[0, 0], [0, 0], [1, 0]],
        [[0, 0], [0, 0], [0, 0]],
    ],
    dtype=np.int8,
)


def _text(values, kind):
    """Strings of fixed ("S") or variable ("O") length."""
    return np.array(values, dtype="S10" if kind == "S" else h5py.string_dtype())


def write_call_set(group, *, contig="20", kind="O", genotypes=GENOTYPES, samples=("a", "b", "c")):
    """The four sites of GENOTYPES in the fields that allel.vcf_to_hdf5 writes."""
    columns = {
        "CHROM": [contig] * 4,
        "ID": ["rs1", ".", "", "rs4"],
        "REF": ["A", "C", "AT", "G"],
        "ALT": [["G", "", ""], ["T", "G", ""], ["A", "", ""], ["", "", ""]],
    }
    for name, values in columns.items():
        group[f"variants/{name}"] = _text(values, kind)
    group["variants/POS"] = np.array([100, 200, 300, 400], dtype=np.int32)
    group.create_dataset("calldata/GT", data=genotypes, chunks=(2, *genotypes.shape[1:]))
    if samples:
        group["samples"] = _text(samples, kind)


def collect(stream):
    batches = list(stream)
    keys = list(chain.from_iterable(batch.sites.keys() for batch in batches))
    return keys, np.concatenate([batch.alleles for batch in batches])


@pytest.mark.parametrize("kind", ["O", "S"])
@pytest.mark.parametrize("place", ["/", "20", "chr20"])
def test_fields_and_multiallelic_rows(tmp_path, kind, place):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        write_call_set(file.require_group(place), kind=kind)
    stream = AllelReader(path)
    assert stream.samples == ["a", "b", "c"]
    assert stream.contig == "20"
    assert stream.num_sites == 4
    keys, alleles = collect(stream)
    assert keys == [(100, "A", "G"), (200, "C", "T"), (200, "C", "G"), (300, "AT", "A")]
    expected = [
        [[0, 1], [0, 0], [1, 1]],
        [[0, 0], [1, 0], [0, 0]],
        [[0, 1], [0, 0], [0, 0]],
        [[0, 0], [0, 0], [1, 0]],
    ]
    np.testing.assert_array_equal(alleles, expected)
    assert stream.counts == RecordCounts(4, 1, {"no_alt": 1})
    (batch,) = list(stream)
    assert batch.sites.id.tolist() == ["rs1", ".", ".", "."]
    assert batch.phased.all()


def test_missing_and_haploid(tmp_path):
    genotypes = GENOTYPES.copy()
    genotypes[:, 1, 1] = -1
    genotypes[0, 2] = -1
    genotypes[2, 0, 0] = -1
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        write_call_set(file, genotypes=genotypes)
    _, alleles = collect(AllelReader(path))
    assert (alleles[:, 1, 1] == -2).all()
    assert (alleles[0, 2] == -1).all()
    assert alleles[3, 0].tolist() == [-1, 0]


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 1)])
def test_all_haploid(tmp_path, shape):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        write_call_set(file, genotypes=GENOTYPES[:, :, 0].reshape(shape))
    _, alleles = collect(AllelReader(path))
    assert (alleles[..., 1] == -2).all()
    np.testing.assert_array_equal(alleles[0, :, 0], [0, 0, 1])


def test_batches_join(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        write_call_set(file)
    whole = collect(AllelReader(path))
    assert len(list(AllelReader(path, batch_bytes=12))) == 2
    parts = collect(AllelReader(path, batch_bytes=12))
    assert parts[0] == whole[0]
    np.testing.assert_array_equal(parts[1], whole[1])


def test_region_and_contigs(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        write_call_set(file.create_group("1"), contig="1")
        write_call_set(file.create_group("2"), contig="2")
    with pytest.raises(InputError, match=r"2 contigs \(1, 2\)"):
        AllelReader(path)
    with pytest.raises(InputError, match=r"no contig 3; it holds 1, 2"):
        AllelReader(path, region=Region("3"))
    stream = AllelReader(path, region=Region.parse("chr2:150-300"))
    assert stream.contig == "2"
    assert [key[0] for key in collect(stream)[0]] == [200, 200, 300]
    assert list(AllelReader(path, region=Region.parse("2:500-600"))) == []


def test_several_contigs_in_one_group(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        write_call_set(file)
        file["variants/CHROM"][2:] = "21"
    assert [k[0] for k in collect(AllelReader(path, region=Region("21")))[0]] == [300]
    assert [k[0] for k in collect(AllelReader(path, region=Region("20")))[0]] == [100, 200, 200]


def test_without_chrom_or_samples(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        write_call_set(file, samples=None)
        del file["variants/CHROM"]
    with pytest.raises(InputError, match="contig is unknown"):
        AllelReader(path)
    stream = AllelReader(path, region=Region("7"))
    assert stream.contig == "7"
    assert stream.samples == ["sample_1", "sample_2", "sample_3"]


def test_unfit_files(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["other"] = [1]
    with pytest.raises(InputError, match="not of scikit-allel"):
        AllelReader(path)
    for genotypes in (np.zeros((4, 3, 4), np.int8), np.zeros((3, 3, 2), np.int8)):
        with h5py.File(path, "w") as file:
            write_call_set(file, genotypes=genotypes)
        with pytest.raises(InputError, match="calldata/GT has shape"):
            AllelReader(path)
    with h5py.File(path, "w") as file:
        write_call_set(file, samples=("a", "b"))
    with pytest.raises(InputError, match="names 2 samples, but calldata/GT has 3"):
        AllelReader(path)
    with h5py.File(path, "w") as file:
        write_call_set(file)
        del file["variants/ALT"]
    with pytest.raises(InputError, match="no variants/ALT"):
        AllelReader(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        AllelReader(path)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("REF", np.zeros(3, dtype="S1"), r"variants/REF has shape \(3,\)"),
        ("ALT", np.zeros((9, 3), dtype="S1"), r"variants/ALT has shape \(9, 3\)"),
        ("ALT", np.zeros((4, 3, 1), dtype="S1"), r"variants/ALT has shape \(4, 3, 1\)"),
        ("ID", np.zeros((4, 2), dtype="S1"), r"variants/ID has shape \(4, 2\)"),
        ("POS", np.array([1, 2, 3, 2**40]), r"position 1099511627776 in row 4"),
        ("POS", np.array([1, -2, 3, 4]), r"position -2 in row 2"),
        ("POS", np.array([1.0, 2.0, 3.0, np.nan]), "no column of integers"),
        ("POS", np.ones((4, 1), dtype=int), "no column of integers"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, name, values, message):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        write_call_set(file)
        del file[f"variants/{name}"]
        file[f"variants/{name}"] = values
    with pytest.raises(InputError, match=message):
        list(AllelReader(path))


def test_a_contig_in_several_groups_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        for name, contig in (("a", "1"), ("b", "1"), ("c", "2")):
            write_call_set(file.create_group(name), contig=contig)
    with pytest.raises(InputError, match=r"holds contig 1 in 2 groups: /a \(4 rows\), /b"):
        AllelReader(path, region=Region("1"))
    assert AllelReader(path, region=Region("2")).num_sites == 4


def test_names_that_are_not_utf_8(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        write_call_set(file, samples=None)
        file["samples"] = np.array([b"a", b"b", b"Jos\xe9"])
    with pytest.raises(InputError, match="is a text that is not UTF-8"):
        AllelReader(path)


@pytest.mark.parametrize("kind", ["O", "S"])
def test_structural_variants_end_where_the_file_says(tmp_path, kind):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_call_set(file, kind=kind)
        alt = [["<DEL>", "", ""], ["<CN0>", "<CN2>", ""], ["A", "", ""], ["", "", ""]]
        file["variants/ALT"][...] = _text(alt, kind)
        file["variants/END"] = np.array([150, 260, -1, -1], np.int32)
        file["variants/SVLEN"] = np.array([[-50, -1], [-60, 60], [-1, -1], [-1, -1]], np.int32)
        file["variants/SVTYPE"] = _text(["DEL", "CNV", "", "."], kind)
    (batch,) = list(AllelReader(tmp_path / "x.h5"))
    assert batch.sites.keys() == [
        (100, "A", "<DEL>:END=150"), (200, "C", "<CN0>:END=260"), (200, "C", "<CN2>:END=260"),
        (300, "AT", "A"),
    ]  # fmt: skip
    assert batch.sites.info.tolist() == [
        "END=150;SVLEN=-50;SVTYPE=DEL", "END=260;SVLEN=-60;SVTYPE=CNV",
        "END=260;SVLEN=60;SVTYPE=CNV", "",
    ]  # fmt: skip
