"""Raw texts of vendors read as targets: what was written comes back, faults are one clear line."""

from __future__ import annotations

import subprocess
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_text_fixtures import HEADS, pack, raw_text

from ragimpute.cli.describe import describe
from ragimpute.contigs import HUMAN_LENGTHS
from ragimpute.errors import InputError
from ragimpute.io.raw_text.raw_text import RawTextFile
from ragimpute.io.raw_text.vendor import build_of, layout_of
from ragimpute.io.target_file import files_of, open_target
from ragimpute.io.vcf.read.records import VcfFile, site_table
from ragimpute.sites import Region
from ragimpute.target.named_alleles import with_panel_alleles

ROWS = [
    ("rs1", "1", 100, "AG"),
    ("rs2", "1", 90, "CC"),
    ("rs3", "1", 120, ""),
    ("i4", "1", 130, "DI"),
    ("rs5", "X", 50, "AT"),
    ("rs6", "MT", 70, "GG"),
]
letters = st.sampled_from("ACGT")
genotype = st.one_of(
    st.just(""), st.tuples(letters, letters).map("".join), st.sampled_from(["II", "DD", "DI"])
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(HEADS)),
    st.sampled_from(["plain", "bom", "utf-16", "gz", "zip"]),
    st.lists(st.tuples(st.integers(1, 60), genotype), min_size=1, max_size=12),
    st.sampled_from([36, 37, 38]),
)
def test_round_trip(vendor, how, calls, build):
    rows = [(f"rs{i}", "7", position, pair) for i, (position, pair) in enumerate(calls)]
    with tempfile.TemporaryDirectory() as folder:
        path = pack(Path(folder, "my genome.txt"), raw_text(vendor, rows, build=build), how)
        file = open_target(path)
        assert isinstance(file, RawTextFile)
        target = file.read(Region("7"))
        assert files_of(path, open_target(path)) == {"target input": path}
    assert file.samples == ["my genome"]
    named = {36: "NCBI36", 37: "GRCh37", 38: "GRCh38"}[build] if vendor != "FTDNA" else None
    assert (file.layout.vendor, file.layout.build) == (vendor, named)
    assert file.contigs == {"7": HUMAN_LENGTHS[named]["7"] if named else None}
    order = sorted(range(len(rows)), key=lambda i: rows[i][2])
    assert target.sites.id.tolist() == [f"rs{i}" for i in order]
    for i, site, pair in zip(order, target.sites.keys(), target.alleles[:, 0], strict=True):
        position, told = calls[i]
        assert site[0] == position
        spelled = "".join(site[1 + code] if code >= 0 else "" for code in pair)
        assert spelled == told
    assert target.num_records == len(rows)
    assert target.facts.counts["no-calls"] == sum(not pair for _, pair in calls)


@pytest.mark.parametrize("vendor", list(HEADS))
def test_chromosomes_and_codes(tmp_path, vendor):
    rows = [*ROWS, ("rs7", "XY", 10, "AG"), ("rs8", "Y", 5, "CC"), ("rs9", "0", 0, "CC")]
    file = open_target(pack(tmp_path / "x.txt", raw_text(vendor, rows)))
    assert list(file.contigs) == ["1", "X", "MT", "Y"]
    target = file.read(Region("X"))
    assert target.sites.position_bp.tolist() == [10, 50]
    assert target.in_par.tolist() == [True, False]
    assert file.num_records["1"] == 4
    assert file.read(Region("1", 95, 125)).sites.position_bp.tolist() == [100, 120]


def test_haploid_and_odd_genotypes(tmp_path):
    text = HEADS["23andMe"].format(build=37) + (
        "a\tX\t1\tA\r\nb\tX\t2\t-\r\nc\tX\t3\t--\r\nd\tX\t4\tAC\r\ne\tX\t5\tI\r\n"
        "f\t1\t6\tA\r\ng\t1\t7\tA-\r\nh\t1\t8\tAI\r\ni\t1\t9\tXQ\r\nj\t1\t10\tac\r\n"
        "k\t1\t11\tACG\r\n"
    )
    (tmp_path / "x.txt").write_text(text, newline="")
    file = open_target(tmp_path / "x.txt")
    x = file.read(Region("X"))
    assert x.alleles[:, 0].tolist() == [[0, -2], [-1, -2], [-1, -1], [0, 1], [0, -2]]
    assert x.sites.ref.tolist() == ["A", ".", ".", "A", "I"]
    one = file.read(Region("1"))
    assert one.sites.keys() == [(6, ".", "."), (7, ".", "."), (10, "A", "C")]
    assert [(alt.position_bp, alt.reason) for alt in one.left_out] == [
        (8, "invalid"), (9, "invalid"), (11, "invalid"),
    ]  # fmt: skip
    assert one.num_records == len(one.sites) + len(one.left_out)


@pytest.mark.parametrize(
    ("share", "single", "sex"),
    [(0.0, 0, 1), (0.01, 0, 1), (0.2, 0, 2), (0.04, 0, 0), (0.0, 400, 1)],
)
def test_sex_by_the_x(tmp_path, share, single, sex):
    hets = round(300 * share)
    rows = [(f"rs{i}", "X", i + 1, "AG" if i < hets else "AA") for i in range(300)]
    rows += [(f"rs{i}", "X", i + 1, "A") for i in range(300, 300 + single)]
    file = open_target(pack(tmp_path / "x.txt", raw_text("23andMe", [("a", "1", 5, "AG"), *rows])))
    assert file.sex[0] == sex
    facts = file.read(Region("1")).facts
    assert facts.sexes.tolist() == [sex]
    assert facts.rows()[0] == ("file", "raw text of 23andMe, GRCh37 by its header")
    assert {1: "male", 2: "female", 0: "uncertain"}[sex] in dict(facts.rows())["sex"]


def test_bcftools_1645_rows_that_show_one_allele_or_none():
    """https://github.com/samtools/bcftools/issues/1645: "GG" became REF G, ALT "." by bcftools.

    Beside a panel the other allele is known, and the row is a genotype of its site.
    """
    panel = SimpleNamespace(
        sites=site_table("1", [776546, 794332, 801536], list("AAT"), list("GGC"), ["."] * 3),
        contig="1",
    )  # fmt: skip
    text = "rs12124819\t1\t776546\t--\nrs12127425\t1\t794332\tGG\nrs79373928\t1\t801536\tTT\n"
    with tempfile.TemporaryDirectory() as folder:
        target = RawTextFile(pack(Path(folder, "me.txt"), text)).read(Region("1"))
    got = with_panel_alleles(target, panel)
    assert got.sites.keys() == panel.sites.keys()
    assert got.alleles[:, 0].tolist() == [[-1, -1], [1, 1], [0, 0]]


def test_rows_of_x_without_a_genotype(tmp_path):
    """They say nothing of the sex, and are counted as records that give no row."""
    text = 'RSID,CHROMOSOME,POSITION,RESULT\n"rs1","X","5000000",""\n"rs2","X","5000001","AC"\n'
    file = RawTextFile(pack(tmp_path / "x.csv", text))
    target = file.read(Region("X"))
    assert (len(target.sites), [one.reason for one in target.left_out]) == (1, ["invalid"])
    assert file.sex == (0, "uncertain: 1 diploid genotypes on X are too few")


def test_info_describes_a_raw_text(tmp_path):
    rows = dict(describe(pack(tmp_path / "me.txt", raw_text("AncestryDNA", ROWS), "gz")))
    assert rows["kind"] == "raw text of AncestryDNA"
    assert (rows["samples"], rows["build"]) == ("1 (me)", "GRCh37, by its header")
    assert rows["contig 1"] == "4 records"


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("human assembly build 37 (also", "GRCh37"),
        ("NCBI36 / hg18", "NCBI36"),
        ("GRCh38.p13", "GRCh38"),
        ("hg19, not build 36", "GRCh37"),
        ("build 3", None),
        ("", None),
    ],
)
def test_builds(text, build):
    assert build_of(text) == build


OTHERS = {
    "vcf": "##fileformat=VCFv4.2\n#CHROM\tPOS\n20\t5\n",
    "bim": "1\trs1\t0\t100\tA\tC\n",
    "plink map": "20 rs1 0.5 100\n20 rs2 0.6 200\n",
    "shapeit map": "pos chr cM\n100 20 0.5\n",
    "ped": "f i 0 0 1 -9 A A C C\n",
    "prose": "Dear all,\nhere is my genome.\n",
    "csv": "a,b,c,d\n1,2,3,4\n",
    "bed of regions": "1\t100\t200\tgene\n",
    "empty": "",
}


@pytest.mark.parametrize("kind", list(OTHERS))
def test_other_texts_are_none(tmp_path, kind):
    (tmp_path / "x.txt").write_text(OTHERS[kind])
    assert layout_of(OTHERS[kind]) is None
    assert isinstance(open_target(tmp_path / "x.txt"), VcfFile)


@pytest.mark.parametrize(
    "text",
    [
        "rs1\t1\t100\tAG\nrs2\t1\t200\tCC\n",  # no header
        "rs1 1 100 AG\nrs2 1 200 CC\n",
        "rsid,chromosome,position,genotype\nrs1,1,100,AG\nrs2,1,200,CC\n",
        "SNP Name\tx\n"
        and "name\tchr\tpos\tallele1\tallele2\nrs1\t1\t100\tA\tG\nrs2\t1\t200\tC\tC",
        "RSID,CHROMOSOME,POSITION,RESULT\nrs1,1,100,AG\nRSID,CHROMOSOME,POSITION,RESULT\n"
        "rs2,chr1,200,CC\n",  # two files of one person, joined
        "rs1\t1\t100\tAG\rrs2\t1\t200\tCC\r",
    ],
)
def test_forms_of_other_vendors(tmp_path, text):
    (tmp_path / "x.csv").write_bytes(text.encode())
    target = open_target(tmp_path / "x.csv").read(Region("1"))
    assert target.sites.keys() == [(100, "A", "G"), (200, "C", ".")]


FAULTS = {
    "cut row": (lambda t: t[: t.rindex("\t70")], r"line 10: 2 columns, expected 4"),
    "more": (lambda t: t.replace("\tAT", "\tA\tT"), r"line 9: 5 columns, expected 4"),
    "no rows": (lambda t: t[: t.index("rs1\t")], "holds no genotypes"),
    "position": (lambda t: t.replace("\t90\t", "\t9e1\t"), "'9e1' is no whole number"),
    "large": (lambda t: t.replace("\t90\t", "\t9000000000\t"), "'9000000000' is no whole number"),
    "letters": (lambda t: t.replace("rs2", "rs²"), "line 6: a letter that is not ASCII"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_one_clear_line(tmp_path, fault):
    change, message = FAULTS[fault]
    path = tmp_path / "x.txt"
    path.write_bytes(change(raw_text("23andMe", ROWS)).encode("latin-1"))
    with pytest.raises(InputError, match=message) as caught:
        open_target(path).read(Region("1"))
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_comments_may_be_in_any_encoding(tmp_path):
    text = raw_text("23andMe", ROWS).replace("# This", "# Zoë's\r\n# This")
    (tmp_path / "x.txt").write_bytes(text.encode("latin-1"))
    assert len(open_target(tmp_path / "x.txt").read(Region("1")).sites) == 4


@pytest.mark.parametrize("how", ["two", "none", "cut", "password"])
def test_archives(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    text = raw_text("FTDNA", ROWS)
    with zipfile.ZipFile("my x.zip", "w") as archive:
        for name in {"two": ["a b.csv", "c.csv"], "none": []}.get(how, ["a b.csv"]):
            archive.writestr(name, text)
    data = Path("my x.zip").read_bytes()
    if how == "cut":
        Path("my x.zip").write_bytes(data[:-30])
    if how == "password":  # the bit that says so, in both headers
        data = bytearray(data)
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
        Path("my x.zip").write_bytes(bytes(data))
    with pytest.raises(InputError) as caught:
        _ = open_target("my x.zip").contigs
    assert "zip" in caught.value.message
    if how == "two":
        command = caught.value.hint.split(": ", 1)[1]
        subprocess.run(["bash", "-c", command], check=True)
        assert len(open_target(command.split("> ")[1].strip("'")).read(Region("1")).sites) == 4


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damage_gives_a_target_or_one_error(data):
    """Any bytes may be others, or missing at the end."""
    with tempfile.TemporaryDirectory() as folder:
        vendor = data.draw(st.sampled_from(list(HEADS)))
        how = data.draw(st.sampled_from(["plain", "gz", "zip", "bom"]))
        path = pack(Path(folder, "x.txt"), raw_text(vendor, ROWS), how)
        raw = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(0, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
        with suppress(InputError):
            file = open_target(path)
            contig = next(iter(file.contigs), "1")
            if isinstance(file, RawTextFile):
                target = file.read(Region(contig))
                assert target.alleles.shape == (len(target.sites), 1, 2)
                assert set(np.unique(target.alleles)) <= {-2, -1, 0, 1}
