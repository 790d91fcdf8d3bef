"""PLINK's file sets read as targets: what was written comes back, faults are one clear line."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from plink_fixtures import write_bed, write_pgen

from ragimpute.cli.describe import describe
from ragimpute.errors import InputError
from ragimpute.io.plink.file_set import PlinkFile, plink_file
from ragimpute.io.target_file import files_of, open_target
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.io.vcf.read.records import VcfFile
from ragimpute.sites import Region

VARIANTS = [("20", 10, "rs1", "A", "C"), ("20", 20, ".", "G", "T"), ("21", 5, "x", "C", "G")]
ALLELES = [[[0, 1], [1, 1]], [[-1, -1], [0, 0]], [[0, 1], [0, 1]]]
SAMPLES = ["a", "b"]


def sorted_pairs(alleles):
    """Genotypes as a bed keeps them: of a heterozygote nobody knows the order."""
    return np.sort(np.asarray(alleles), axis=2)


@st.composite
def genotypes(draw, most=1):
    """Alleles (m, N, 2) of 1 to 9 variants and samples; both alleles are missing, or none is."""
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    alleles = draw(arrays(np.int8, (*shape, 2), elements=st.integers(0, most)))
    alleles[draw(arrays(bool, shape))] = -1
    return alleles


def table(alleles, positions):
    """A variant for each row, at one of the positions."""
    return [("20", p, f"rs{i}", "A", "C") for i, p in enumerate(positions[: len(alleles)])]


@settings(max_examples=40, deadline=None)
@given(genotypes(), st.lists(st.integers(1, 50), min_size=9, max_size=9), st.data())
def test_bed_round_trip(alleles, positions, data):
    num = alleles.shape[1]
    samples = [f"s{i}" for i in range(num)]
    chosen = data.draw(st.one_of(st.none(), st.sets(st.sampled_from(samples), min_size=1)))
    with tempfile.TemporaryDirectory() as folder:
        path = write_bed(f"{folder}/x.y", table(alleles, positions), alleles, samples)
        target = PlinkFile(path).read(Region("20"), samples=chosen)
    order = np.argsort(positions[: len(alleles)], kind="stable")
    kept = [i for i, name in enumerate(samples) if chosen is None or name in chosen]
    assert target.samples == [samples[i] for i in kept]
    assert target.sites.position_bp.tolist() == sorted(positions[: len(alleles)])
    assert target.sites.id.tolist() == [f"rs{i}" for i in order]
    expected = sorted_pairs(alleles)[order][:, kept]
    np.testing.assert_array_equal(target.alleles, expected)
    np.testing.assert_array_equal(target.phased, expected[:, :, 0] == expected[:, :, 1])


@settings(max_examples=40, deadline=None)
@given(genotypes(most=2), st.data())
def test_pgen_round_trip(alleles, data):
    phased = data.draw(arrays(bool, alleles.shape[:2]))
    variants = [("20", 10 + i, ".", "A", "C,G") for i in range(len(alleles))]
    samples = [f"s{i}" for i in range(alleles.shape[1])]
    with tempfile.TemporaryDirectory() as folder:
        path = write_pgen(f"{folder}/x", variants, alleles, samples, phased=phased)
        target = PlinkFile(path).read(Region("20"))
    same = alleles[:, :, 0] == alleles[:, :, 1]
    known = same | phased
    for alt in (1, 2):
        rows = target.sites.alt == "CG"[alt - 1]
        got = target.alleles[rows]
        expected = np.where(alleles > 0, alleles == alt, alleles)
        expected = np.where(known[:, :, None], expected, np.sort(expected, axis=2))
        np.testing.assert_array_equal(np.where(known[:, :, None], got, np.sort(got, 2)), expected)
        of_row = expected[:, :, 0] == expected[:, :, 1]
        np.testing.assert_array_equal(target.phased[rows], phased | of_row)
    assert target.record.tolist() == [i // 2 for i in range(2 * len(alleles))]
    assert target.num_further_alts == len(alleles) == target.num_records


@pytest.mark.parametrize("kind", ["prefix", "suffix", "other suffix"])
def test_a_file_set_is_told_by_content(tmp_path, kind):
    path = write_bed(tmp_path / "my.data", VARIANTS, ALLELES, SAMPLES)
    assert plink_file(tmp_path / "my.data") == path
    given = {"prefix": tmp_path / "my.data", "suffix": path}.get(kind)
    if kind == "other suffix":
        given = path.rename(tmp_path / "my.data.genotypes")
    file = open_target(given)
    assert isinstance(file, PlinkFile)
    assert file.contigs == {"20": None, "21": None}
    assert file.samples == SAMPLES
    parts = [p.name for p in files_of(given, open_target(given)).values()][1:]
    assert parts == ["my.data.bim", "my.data.fam"]
    assert file.read(Region("21")).sites.keys() == [(5, "C", "G")]
    assert file.read(Region("20", 15)).alleles.tolist() == [[[-1, -1], [0, 0]]]


def test_a_text_called_bed_is_no_file_set(tmp_path):
    (tmp_path / "x.bed").write_text("20\t1\t100\n")
    assert isinstance(open_target(tmp_path / "x.bed"), VcfFile)
    assert isinstance(open_target(tmp_path / "absent"), VcfFile)


def test_a_prefix_of_two_sets_is_refused(tmp_path):
    write_bed(tmp_path / "x", VARIANTS, ALLELES, SAMPLES)
    write_pgen(tmp_path / "x", VARIANTS, ALLELES, SAMPLES)
    with pytest.raises(InputError, match=r"x.bed and of x.pgen"):
        open_target(tmp_path / "x")
    with pytest.raises(InputError, match="part of a file set"):
        open_target(tmp_path / "x.fam")


def test_no_alleles_no_positions_and_rows_of_one_allele(tmp_path):
    variants = [
        ("20", 10, "a", "A", "0"),  # all homozygous for A2
        ("20", 20, "b", "0", "T"),  # all homozygous for A1
        ("20", 30, "c", "0", "0"),
        ("20", -5, "d", "A", "C"),
        ("0", 0, "e", "A", "C"),
    ]
    alleles = [[[0, 0]], [[1, 1]], [[-1, -1]], [[0, 1]], [[0, 1]]]
    file = PlinkFile(write_bed(tmp_path / "x", variants, alleles, ["a"]))
    assert list(file.contigs) == ["20"]
    target = file.read(Region("20"))
    assert target.sites.keys() == [(10, "A", "."), (20, "T", ".")]
    assert target.alleles.tolist() == [[[0, 0]], [[0, 0]]]
    assert [(alt.position_bp, alt.reason) for alt in target.left_out] == [(30, "no_alt")]
    assert target.facts.counts["variants at no position (0 or less)"] == 1
    assert target.num_records == 3


def test_xy_and_par_are_read_along_with_x(tmp_path):
    variants = [("25", 10, "p", "A", "C"), ("23", 20, "x", "A", "C"), ("24", 5, "y", "A", "C")]
    alleles = [[[0, 1]], [[1, 1]], [[0, 0]]]
    file = PlinkFile(write_bed(tmp_path / "x", variants, alleles, ["a"]))
    assert list(file.contigs) == ["23", "24"]
    target = file.read(Region("23"))
    assert target.sites.position_bp.tolist() == [10, 20]
    assert target.in_par.tolist() == [True, False]
    assert target.take(slice(1, 2)).in_par.tolist() == [False]


def test_cattle_have_a_chromosome_25(tmp_path):
    variants = [(str(n), 10, ".", "A", "C") for n in (23, 25, 29)]
    file = PlinkFile(write_bed(tmp_path / "x", variants, [[[0, 1]]] * 3, ["a"]))
    assert list(file.contigs) == ["23", "25", "29"]
    assert file.read(Region("23")).in_par is None


def test_names_of_samples(tmp_path):
    path = write_bed(
        tmp_path / "x", VARIANTS, [[[0, 1]] * 3] * 3, ["1", "2", "1"], families=["f", "g", "h"]
    )
    assert PlinkFile(path).samples == ["f_1", "2", "h_1"]
    (tmp_path / "x.fam").write_text("f 1 0 0 0 -9\n" * 3)
    with pytest.raises(InputError, match="names sample f_1 twice"):
        _ = PlinkFile(path).samples


def test_psam_and_pvar_as_plink2_writes_them(tmp_path):
    path = write_pgen(tmp_path / "x", VARIANTS, ALLELES, SAMPLES)
    (tmp_path / "x.psam").write_text("##x\n#FID\tIID\tSID\tSEX\nf\ta\t1\tM\nf\tb\t1\tNA\n")
    (tmp_path / "x.pvar").write_text(
        "##contig=<ID=20,length=500>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        "20\t10\trs1\tA\tC\t.\tPASS\tPR\n20\t20\t.\tG\tT\t.\tq10\t.\n21\t5\tx\tC\tG\t.\t.\t.\n"
    )
    file = PlinkFile(path)
    target = file.read(Region("20"))
    assert file.sample_table.sex.tolist() == [1, 0]
    assert file.declared == {"20": 500}
    assert target.contig_length == 500
    assert target.num_filtered == 1
    assert "1 male, 1 unknown" in dict(target.facts.rows())["sex"]
    for name in ("pvar", "psam"):
        Path(tmp_path / f"x.{name}").unlink()
    write_bed(tmp_path / "x", VARIANTS, ALLELES, SAMPLES)
    assert PlinkFile(path).read(Region("20")).sites.keys() == target.sites.keys()


@pytest.mark.parametrize("frames", [1, 2])
def test_a_compressed_pvar(tmp_path, frames):
    import zstandard

    path = write_pgen(tmp_path / "x", VARIANTS, ALLELES, SAMPLES)
    text = (tmp_path / "x.pvar").read_bytes()
    (tmp_path / "x.pvar").unlink()
    pieces = [text] if frames == 1 else [text[:40], text[40:]]
    packed = b"".join(map(zstandard.compress, pieces))
    (tmp_path / "x.pvar.zst").write_bytes(packed)
    assert PlinkFile(path).read(Region("20")).sites.keys() == [(10, "A", "C"), (20, "G", "T")]
    (tmp_path / "x.pvar.zst").write_bytes(packed[:-7])
    with pytest.raises(InputError, match=r"x\.pvar\.zst"):
        PlinkFile(path).read(Region("20"))


def test_dosages_become_hard_calls_and_are_counted(tmp_path):
    dosages = [[0.0, 1.0, 2.0, 1.02, 1.5, -9.0]]
    path = write_pgen(
        tmp_path / "x", VARIANTS[:1], np.zeros((1, 6, 2)), list("abcdef"), dosages=dosages
    )
    target = PlinkFile(path).read(Region("20"))
    assert target.alleles[0].sum(axis=1).tolist() == [0, 1, 2, 1, -2, -2]
    assert target.facts.counts["dosages that are no whole number"] == 2
    assert "1 of them have none" in target.facts.warnings[0]


def spoil_bim(change):
    """A fault of the bim: ``change`` makes another text of it."""

    def spoil(prefix):
        path = Path(f"{prefix}.bim")
        path.write_bytes(change(path.read_bytes()))

    return spoil


def test_info_describes_a_set(tmp_path):
    path = write_bed(tmp_path / "x", VARIANTS, ALLELES, SAMPLES, sex=[1, 0])
    rows = dict(describe(path))
    assert rows["kind"] == "PLINK 1 (bed, bim, fam)"
    assert rows["samples"] == "2 (a, b)"
    assert rows["contig 20"] == "2 records"
    assert rows["sex"] == "1 male, 1 unknown"


FAULTS = {
    "cut": (lambda p: p.with_suffix(".bed").write_bytes(b"\x6c\x1b\x01\0"), "x.bed is truncated"),
    "long": (lambda p: p.with_suffix(".bed").write_bytes(b"\x6c\x1b\x01" + bytes(9)), "too long"),
    "sample-major": (
        lambda p: p.with_suffix(".bed").write_bytes(b"\x6c\x1b\x00" + bytes(3)), "sample-major",
    ),
    "no bim": (lambda p: p.with_suffix(".bim").unlink(), "needs x.bim beside it"),
    "no fam": (lambda p: p.with_suffix(".fam").unlink(), "needs x.fam beside it"),
    "empty bim": (spoil_bim(lambda _: b""), "x.bim is empty"),
    "blank fam": (lambda p: p.with_suffix(".fam").write_bytes(b"\n \n"), "x.fam is empty"),
    "columns": (spoil_bim(lambda b: b.replace(b"\t0\t20", b"\t20")), "line 2: 5 columns"),
    "more": (spoil_bim(lambda b: b.replace(b"\t0\t20", b"\t0\t0\t20")), "line 2: 7 columns"),
    "all of one": (spoil_bim(lambda _: b"20\n"), "line 1: 1 columns, expected 6"),
    "fam": (lambda p: p.with_suffix(".fam").write_text("a a 0\nb b 0\n"), "line 1: 3 columns"),
    "position": (spoil_bim(lambda b: b.replace(b"\t20\t", b"\t2e1\t")), "'2e1' is no whole number"),
    "huge": (spoil_bim(lambda b: b.replace(b"\t20\t", b"\t3000000000\t")), "is above 2,147,"),
    "no text": (spoil_bim(lambda b: b.replace(b"rs1", b"\xff\xfe")), "no text in UTF-8"),
    "other bim": (spoil_bim(lambda b: b + b), "for 6 variants"),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_one_clear_line(tmp_path, fault):
    path = write_bed(tmp_path / "x", VARIANTS, ALLELES, SAMPLES)
    spoil, message = FAULTS[fault]
    spoil(tmp_path / "x")
    with pytest.raises(InputError, match=message) as caught:
        open_target(path).read(Region("20"))
    assert caught.value.hint
    assert "\n" not in str(caught.value.message)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_gives_a_target_or_one_error(data):
    """Any bytes of any of the files may be others, or missing at the end."""
    with tempfile.TemporaryDirectory() as folder:
        write = data.draw(st.sampled_from([write_bed, write_pgen]))
        path = write(f"{folder}/x", VARIANTS, ALLELES, SAMPLES)
        spoiled = data.draw(st.sampled_from(sorted(Path(folder).iterdir())))
        raw = bytearray(spoiled.read_bytes())
        for _ in range(data.draw(st.integers(0, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        spoiled.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
        with suppress(InputError):
            file = open_target(path)
            if isinstance(file, PlinkFile):
                target = file.read(Region(next(iter(file.contigs), "20")))
                assert target.alleles.shape == (len(target.sites), len(target.samples), 2)
                assert set(np.unique(target.alleles)) <= {-1, 0, 1}


@pytest.mark.parametrize("kind", ["bed", "pgen"])
def test_without_a_target_they_are_named(tmp_path, kind):
    """Commands that read no targets say what the file is, and how to make a VCF of it."""
    write = write_bed if kind == "bed" else write_pgen
    path = write(tmp_path / "x", VARIANTS, ALLELES, SAMPLES)
    with pytest.raises(InputError, match="which impute and phase read as a target") as caught:
        read_target(path)
    assert "plink2 --" in caught.value.hint


@pytest.mark.needs_program("plink2")
@pytest.mark.parametrize("words", [["--make-bed"], ["--make-pgen"], ["--make-pgen", "vzs"]])
def test_files_of_plink2(tmp_path, make_vcf, words):
    rows = [
        (10, "A", "C", "0|1", "1|0", "./."),
        (20, "AT", "A", "0/1", "1/1", "0/0"),
        (30, "G", "T", "1|1", "0|1", "0|0"),
    ]
    path = make_vcf(rows, ("a", "b", "c"))
    subprocess.run(
        ["plink2", "--vcf", path, *words, "--out", tmp_path / "x"], check=True, capture_output=True
    )
    got, expected = open_target(tmp_path / "x").read(Region("20")), read_target(path)
    assert got.sites.keys() == expected.sites.keys()
    assert got.samples == expected.samples
    if words == ["--make-bed"]:
        np.testing.assert_array_equal(got.alleles, sorted_pairs(expected.alleles))
    else:
        np.testing.assert_array_equal(got.alleles, expected.alleles)
        np.testing.assert_array_equal(got.phased, expected.phased)


@pytest.mark.needs_program("plink2")
def test_a_sample_major_bed_is_turned_by_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bed("my x", VARIANTS, ALLELES, SAMPLES)
    # The same genotypes, a byte for each sample.
    Path("my x.bed").write_bytes(b"\x6c\x1b\x00" + bytes([0b00_10_01_10, 0b00_10_11_00]))
    with pytest.raises(InputError) as caught:
        open_target("my x").read(Region("20"))
    command = caught.value.hint.split(": ", 1)[1]
    subprocess.run(["bash", "-c", command], check=True, capture_output=True)
    out = command.split("--out ")[1].strip("'")
    np.testing.assert_array_equal(
        open_target(out).read(Region("20")).alleles, sorted_pairs(ALLELES[:2])
    )
