"""Names of contigs: aliases between two files, never within one, whatever lies beside the file."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vcf_fixtures import convert, rows_of, vcf_text, view
from vcf_tools import bcftools, write_program

from ragimpute.contigs import (
    HUMAN_LENGTHS,
    bare_contig,
    chromosome,
    human_build,
    human_length,
    is_human,
    other_spellings,
    par_names,
    same_contig,
)
from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import PanelStream, VcfFile, contigs_of, read_target
from ragimpute.panel.reader import Panel
from ragimpute.preparation.genetic_map import GeneticMap
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region
from ragimpute.target.inputs import TargetOptions, take_target
from ragimpute.target.match import target_region
from ragimpute.target.qc import TargetReport

HUMAN_X = HUMAN_LENGTHS["GRCh37"]["X"]
CATTLE = {"23": 52498615, "X": 139009144}


@pytest.mark.parametrize(
    ("wanted", "names", "found"),
    [
        ("20", ["chr20", "20"], "20"),
        ("chr20", ["2", "20"], "20"),
        ("20", ["CHR20"], "CHR20"),
        ("X", ["22", "chr23"], "chr23"),
        ("23", ["X"], "X"),
        ("24", ["chrY"], "chrY"),
        ("XY", ["25"], "25"),
        ("MT", ["chrM"], "chrM"),
        ("M", ["26"], "26"),
        ("20", ["NC_000020.11"], "NC_000020.11"),
        ("chrX", ["CM000685.2"], "CM000685.2"),
        ("NC_000001.10", ["chr1"], "chr1"),
        ("NC_000001.10", ["CM000663.1"], "CM000663.1"),
        ("NC_060944.1", ["20"], "20"),
        ("CP068255.2", ["23"], "23"),
        ("MT", ["NC_012920.1"], "NC_012920.1"),
        ("chr23", ["23", "X"], "23"),
        ("X", ["23", "24", "27"], None),  # more chromosomes than humans have
        ("26", ["MT", "26"], "26"),
        ("X", ["PAR1", "PAR2"], None),
        ("20", ["2", "200"], None),
        ("25", ["X"], None),
        ("NC_000067.6", ["1"], None),  # chromosome 1 of the mouse
        ("chr", ["chr"], "chr"),
    ],
)
def test_names_of_one_contig(wanted, names, found):
    assert same_contig(wanted, names) == found


@pytest.mark.parametrize(
    ("declared", "wanted_of", "found"),
    [
        ({"23": None}, {"X": None}, "23"),
        ({"23": HUMAN_X}, {"X": HUMAN_X}, "23"),
        ({"23": None, "1": HUMAN_LENGTHS["GRCh38"]["1"]}, {"X": None}, "23"),
        ({"23": CATTLE["23"]}, {"X": None}, None),
        ({"23": None}, {"X": CATTLE["X"]}, None),
        (CATTLE, {"X": HUMAN_X}, None),
        ({"23": None, "X": None}, {"X": None}, None),  # declared, though it holds no record
        ({"23": None, "29": None}, {"X": None}, None),
        ({"23": None, "Z": None}, {"X": None}, None),
    ],
)
def test_23_is_x_where_nothing_says_otherwise(declared, wanted_of, found):
    assert same_contig("X", ["23"], declared=declared, wanted_of=wanted_of) == found
    other = same_contig("23", ["X"], declared=wanted_of, wanted_of=declared)
    assert other == (None if found is None else "X")


def test_x_is_told_from_chromosome_23():
    assert (chromosome("23"), chromosome("chr23", {"chr23": HUMAN_X})) == ("X", "X")
    assert chromosome("23", CATTLE) == chromosome("23", {"23": CATTLE["23"]}) == "23"
    assert is_human({"1": HUMAN_LENGTHS["NCBI36"]["1"]}) is True
    assert is_human(CATTLE) is is_human({"20": 72_000_000}) is False
    assert is_human({"20": None, "chr1_gl000191_random": 5}) is None


def test_builds_by_length_and_accession():
    assert human_build("20", 63025520) == human_build("NC_000020.10", None) == "GRCh37"
    assert human_build("Chr31", 6_153_034) is human_build("20", None) is None
    assert human_build("23", 155_270_560) == "GRCh37"
    assert human_build("20", 155_270_560) is None
    assert human_build("chr20", 64444167) == human_build("CM000682.2", None) == "GRCh38"
    assert human_build("NC_000009.10", None) == "NCBI36"
    assert human_build("CP068258.2", None) == human_build("20", 66210255) == "T2T-CHM13"
    assert human_build("20", None) is human_build("NC_000020", None) is None
    assert human_length("NC_000023.11") == HUMAN_LENGTHS["GRCh38"]["X"]
    assert human_length("X") is None


def test_parts_of_x_and_other_spellings_are_known():
    assert par_names(["X", "XY", "PAR1", "chrX_PAR", "1"]) == ["XY", "PAR1", "chrX_PAR"]
    assert par_names(["X", "25", "1"]) == ["25"]
    assert par_names(["23", "25", "29"]) == []  # cattle
    assert other_spellings("20", ["20", "chr20", "21"]) == ["chr20"]
    assert other_spellings("X", ["X", "23", "XY"]) == ["23", "XY"]
    assert other_spellings("23", ["23", "X"], CATTLE) == []


NAMES = st.sampled_from(
    [p + n for p in ("", "chr", "Chr") for n in ("1", "20", "22", "23", "24", "25", "26", "X", "Y",
     "XY", "MT", "M", "29", "PAR1")] + ["NC_000020.11", "CM000685.1", "HLA-A*01:01", "GL000207.1"]
)  # fmt: skip


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True), NAMES)
def test_a_name_of_a_file_is_itself_and_order_is_nothing(names, wanted):
    for name in names:
        assert same_contig(name, names) == name
        assert name not in other_spellings(name, names)
    found = same_contig(wanted, names)
    again = same_contig(wanted, names[::-1])
    assert (found is None) == (again is None)
    if found is not None:
        assert found in names
        assert bare_contig(found) == bare_contig(again)
    if found is not None and bare_contig(found) != bare_contig(wanted):  # by PLINK's numbers
        assert is_human(dict.fromkeys(names)) is not False


ALIKE = ["20", "chr20", "CHR20", "23", "X", "chrX", "24", "Y", "26", "MT", "29", "NC_000023.11"]


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(ALIKE), min_size=1, max_size=3, unique=True),
    st.sampled_from(ALIKE),
    st.booleans(),
)
def test_an_index_beside_changes_nothing(tmp_path, names, wanted, whole):
    rows = [(c, 10 + k, "A", "G", "0|1", "1|1") for c in names for k in range(3)]
    path = tmp_path / "x.vcf"
    path.write_text(vcf_text(rows, contigs=names))
    region = Region(wanted) if whole else Region(wanted, 11, 12)
    found = []
    plain = convert(path, ".vcf.gz", index=False)
    found = [read_or_error(path, region), read_or_error(plain, region)]
    found.append(read_or_error(convert(path, ".bcf", index=False), region))
    found.append(read_or_error(convert(path, ".bcf"), region))
    found.append(read_or_error(convert(path, ".vcf.gz"), region))
    assert len(set(found)) == 1, found
    assert (found[0] == ("absent", True)) == (same_contig(wanted, names) is None)
    (tmp_path / "x.vcf.gz.tbi").unlink()
    (tmp_path / "x.bcf.csi").unlink()


def read_or_error(path, region):
    """What is read of a region."""
    try:
        target = read_target(path, region=region)
    except InputError as error:
        return ("absent", "no records on" in error.message)
    return (target.sites.contig, *target.sites.position_bp.tolist())


def panel_of(tmp_path, contig, length=None, name="p"):
    """A small panel of one contig, with 40 sites and 4 samples."""
    rng = np.random.default_rng(1)
    calls = [[f"{a}|{b}" for a, b in rng.integers(0, 2, (4, 2))] for _ in range(40)]
    rows = [(contig, 100 * (i + 1), "A", "G", *call) for i, call in enumerate(calls)]
    text = vcf_text(rows, samples=("p0", "p1", "p2", "p3"), contigs=(contig,))
    if length:
        text = text.replace(f"ID={contig}>", f"ID={contig},length={length}>")
    path = tmp_path / f"{name}.vcf"
    path.write_text(text)
    out = tmp_path / f"{name}.h5"
    prepare(path, out, cm_per_mb=1.0, par="none", force=True)
    return Panel.open(out)


def cattle_target(tmp_path):
    """A target with 20 records on chromosome 23 and, further on, 20 on X."""
    rows = [("23", 100 * i, "A", "G", "0|1", "1|1") for i in range(1, 21)]
    rows += [("X", 100 * i, "A", "G", "0|0", "0|1") for i in range(21, 41)]
    text = vcf_text(rows, contigs=("23", "X"))
    for name, length in CATTLE.items():
        text = text.replace(f"ID={name}>", f"ID={name},length={length}>")
    path = tmp_path / "cattle.vcf"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("contig", "first"), [("23", 100), ("X", 2100)])
def test_cattle_have_a_23_that_is_no_x(tmp_path, contig, first):
    path = cattle_target(tmp_path)
    report = TargetReport()
    with panel_of(tmp_path, contig, CATTLE[contig]) as panel:
        for file in (path, convert(path, ".vcf.gz"), convert(path, ".bcf", index=False)):
            target, match = take_target(
                file, panel, None, TargetOptions(), report, buffer_cm=1.0, threads=1
            )
            assert target.sites.contig == contig
            assert target.sites.position_bp[0] == first
            assert len(match.panel_index) == len(target.sites) == 20
    assert not [line for line in report.warnings if "rename" in line]


def test_an_x_is_not_imputed_from_an_autosome_23(tmp_path):
    rows = [("23", 100 * i, "A", "G", "0|1", "1|1") for i in range(1, 21)]
    (tmp_path / "t.vcf").write_text(vcf_text(rows, contigs=("23",)))
    with panel_of(tmp_path, "X", CATTLE["X"]) as panel:
        with pytest.raises(InputError, match="no records on the panel's contig X") as caught:
            target_region(tmp_path / "t.vcf", panel, None)
        assert "23 would be X in a human file, but its contigs are not" in caught.value.hint
    with panel_of(tmp_path, "X", HUMAN_X) as panel:  # the same file, where nothing says otherwise
        assert target_region(tmp_path / "t.vcf", panel, None) == Region("23")


def test_lengths_that_plink_makes_up_say_nothing(tmp_path):
    rows = [("23", 100 * i, "A", "G", "0|1", "1|1") for i in range(1, 21)]
    text = vcf_text(rows, contigs=("23",)).replace("ID=23>", "ID=23,length=2001>")
    plink = text.replace("##fileformat=VCFv4.2\n", "##fileformat=VCFv4.2\n##source=PLINKv1.90\n")
    for name, made in (("a", text), ("b", plink)):
        (tmp_path / f"{name}.vcf").write_text(made)
    with panel_of(tmp_path, "X", HUMAN_X) as panel:
        assert target_region(tmp_path / "b.vcf", panel, None) == Region("23")
        with pytest.raises(InputError, match="no records on the panel's contig X"):
            target_region(tmp_path / "a.vcf", panel, None)


def test_prepare_takes_one_name_and_tells_of_the_other(tmp_path):
    rows = [(c, 10 + k, "A", "G", "0|1", "1|1") for c in ("20", "chr20") for k in range(5)]
    path = tmp_path / "both.vcf"
    path.write_text(vcf_text(rows, contigs=("20", "chr20")))
    for file in (path, convert(path, ".vcf.gz"), convert(path, ".bcf", index=False)):
        done = prepare(file, tmp_path / "p.h5", region="20", cm_per_mb=1.0, force=True)
        assert (done.panel.contig, done.panel.num_sites) == ("20", 5)
        assert "holds records on chr20 beside 20, which are not read" in " ".join(done.warnings)
        with pytest.raises(InputError, match=r"holds 2 contigs \(20, chr20\)"):
            prepare(file, tmp_path / "q.h5", cm_per_mb=1.0)


def test_autosome_23_is_prepared_as_an_autosome(tmp_path):
    done = prepare(
        cattle_target(tmp_path), tmp_path / "p.h5", region="23", cm_per_mb=1.0, force=True
    )
    assert done.panel.num_sites == 20
    assert not [line for line in done.warnings if "male" in line]


def test_a_map_has_one_contig_for_one_name(tmp_path):
    path = tmp_path / "x.map"
    path.write_text("23 . 0 1\n23 . 1 1000000\nX . 0 1\nX . 3 1000000\n")
    assert GeneticMap.read(path, contig="X").map_cm.tolist() == [0, 3]
    assert GeneticMap.read(path, contig="23").map_cm.tolist() == [0, 1]
    path.write_text("23 . 0 1\n23 . 1 1000000\n")
    assert GeneticMap.read(path, contig="chrX").map_cm.tolist() == [0, 1]
    path.write_text("20 . 0 1\n20 . 1 1000000\n")
    assert GeneticMap.read(path, contig="NC_000020.11").map_cm.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("names", "contig"),
    [(("XY",), "X"), (("PAR1", "PAR2"), "X"), (("chr20", "20"), "20"), (("23", "X"), "X")],
)
def test_the_command_that_renames_contigs_does_so(tmp_path, monkeypatch, names, contig):
    """What a hint or warning says to run is run here, and gives one contig of all records."""
    rows = [(n, 100 * (10 * k + i), "A", "G", "0|1", "0|0")
            for k, n in enumerate(names) for i in range(1, 5)]  # fmt: skip
    path = tmp_path / "a target.vcf"
    path.write_text(vcf_text(rows, contigs=names))
    report = TargetReport()
    with panel_of(tmp_path, contig) as panel:
        try:
            take_target(path, panel, None, TargetOptions(), report, buffer_cm=1.0, threads=1)
            said = " ".join(report.warnings)
        except InputError as error:
            said = error.hint
        command = "printf" + said.partition("printf")[2]
        write_program(tmp_path)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True)
        renamed = tmp_path / re.search(r"-o '?([^']+)", command)[1]
        assert contigs_of(renamed) == {contig: None}
        assert len(rows_of(view(renamed))) == len(rows)
        _, match = take_target(
            renamed, panel, None, TargetOptions(), report, buffer_cm=1.0, threads=1
        )
        assert len(match.panel_index) == len(rows)


HLA = "HLA-A*01:01:01:01"


@pytest.mark.parametrize(
    ("text", "num"),
    [
        (HLA, 40),
        (f"{{{HLA}}}", 40),
        (f"{{{HLA}}}:100-1000", 10),
        (f"{HLA}:100-1000", 10),
        (f"{HLA}:3901-", 2 - 1),
        (f"{{{HLA}}}:200", 1),
    ],
)
def test_a_contig_with_colons_is_asked_for(tmp_path, text, num):
    with panel_of(tmp_path, HLA) as panel:
        path = tmp_path / "p.vcf"
        region = Region.parse(text)
        start, stop = panel.site_range(region)
        assert stop - start == num
        for file in (path, convert(path, ".vcf.gz"), convert(path, ".bcf"), convert(path, ".u.bcf",
                     index=False)):  # fmt: skip
            assert len(read_target(file, region=text).sites) == num
            streamed = PanelStream(file, region=region)
            assert sum(len(batch.sites) for batch in streamed) == num
            found = target_region(file, panel, region)
            assert VcfFile(file).contigs.keys() == {found.contig} == {HLA}
        assert prepare(
            path, tmp_path / "q.h5", region=text, cm_per_mb=1.0, force=True
        ).panel.num_sites == num  # fmt: skip


def test_a_text_that_is_a_contig_and_a_range_of_another_is_refused(tmp_path):
    names = ("HLA:5", "HLA")
    rows = [(c, p, "A", "G", "0|1", "1|1") for c in names for p in (4, 5, 6)]
    path = tmp_path / "x.vcf"
    path.write_text(vcf_text(rows, contigs=names))
    for file in (path, convert(path, ".vcf.gz")):
        with pytest.raises(InputError, match="may be the contig HLA:5, or a range of HLA") as error:
            read_target(file, region="HLA:5")
        assert error.value.hint == "write {HLA:5}, or {HLA}:5-5"
        assert len(read_target(file, region="{HLA:5}").sites) == 3
        assert len(read_target(file, region="{HLA}:5-5").sites) == 1
        assert len(read_target(file, region="HLA:5:4-5").sites) == 2


def test_positions_beyond_the_last_are_counted_and_refused(tmp_path):
    places = [2**31 - 3, 2**31 - 2, 2**31 - 1, 2**31, 2**31 + 5, 2**32 + 7]
    rows = [("chr1", p, "A", "G", "0|1", "1|1") for p in places]
    path = tmp_path / "long.vcf"
    path.write_text(vcf_text(rows, contigs=("chr1",)))
    packed = tmp_path / "long.vcf.gz"
    convert(path, ".vcf.gz", index=False)
    indexed = tmp_path / "indexed.vcf.gz"
    indexed.write_bytes(packed.read_bytes())
    bcftools("index", "-c", indexed)
    for file in (path, packed, indexed):
        with pytest.raises(InputError, match="3 records on chr1 at positions above") as caught:
            read_target(file)
        assert "2,147,483,648" in caught.value.message
        text = caught.value.hint.partition("'")[2].rstrip("'")
        assert read_target(file, region=text).sites.position_bp.tolist() == places[:3]
        with pytest.raises(InputError, match="3 records on chr1"):
            prepare(file, tmp_path / "q.h5", cm_per_mb=1.0)
        done = prepare(file, tmp_path / "p.h5", region=text, cm_per_mb=1.0, force=True)
        assert (done.panel.num_sites, done.panel.last_bp) == (3, 2**31 - 1)
    path.write_text(vcf_text(rows[3:], contigs=("chr1",)))
    with pytest.raises(InputError, match="3 records on chr1") as caught:
        read_target(path)
    assert "cut the contig" in caught.value.hint


def test_records_at_position_0_are_counted(tmp_path):
    rows = [(p, "A", "G", "0|1", "1|1") for p in (0, 0, 5)]
    path = tmp_path / "x.vcf"
    path.write_text(vcf_text(rows))
    for file in (path, convert(path, ".bcf", index=False)):
        target = read_target(file)
        assert (len(target.sites), target.skipped) == (1, {"position_0": 2})
        assert [alt.reason for alt in target.left_out] == ["position_0"] * 2
    done = prepare(path, tmp_path / "p.h5", cm_per_mb=1.0)
    assert "2 records left out that are at position 0" in " ".join(done.warnings)
