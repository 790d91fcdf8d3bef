"""Lists of sites: each form that users have gives the same sites, each fault is one clear line."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from site_list_fixtures import forms, score_row, score_text
from vcf_fixtures import convert, vcf_text

from ragimpute.errors import InputError
from ragimpute.io.site_list import read_site_list

SITES = [("20", 10, "A", "C"), ("chr2", 30, "GT", "G"), ("X", 25, "T", "A")]


def found(path):
    """Contig, position, other and effect allele of each row."""
    wanted = read_site_list(path)
    place = wanted.places[0]
    return list(
        zip(place.contig, place.position_bp.tolist(), wanted.other, wanted.effect, strict=True)
    )


@pytest.mark.parametrize("name", forms(SITES))
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_gives_the_same_sites(tmp_path, name, packed):
    data = forms(SITES)[name].encode()
    path = tmp_path / "list"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert found(path) == SITES


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["1", "chrX", "scaffold_3"]), st.integers(1, 2**31 - 1),
            st.text("ACGT", min_size=1, max_size=4), st.text("ACGT", min_size=1, max_size=4),
        ),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_forms_agree_on_any_sites(tmp_path_factory, sites):
    path = tmp_path_factory.mktemp("lists") / "list"
    for name, text in forms(sites).items():
        path.write_text(text)
        assert found(path) == sites, name


def test_a_bcf_is_a_list_with_and_without_an_index(tmp_path):
    sites = [("20", 10, "A", "C"), ("20", 30, "G", "A,T"), ("3", 4, "T", "G")]
    (tmp_path / "x.vcf").write_text(
        vcf_text([(*site, "0|0", "0|1") for site in sites], contigs=("20", "3"))
    )
    expected = [sites[0], ("20", 30, "G", "A"), ("20", 30, "G", "T"), sites[2]]
    for index in (False, True):
        assert found(convert(tmp_path / "x.vcf", ".bcf", index=index)) == expected
    assert found(tmp_path / "x.vcf") == expected


def test_positions_and_ids_alone(tmp_path):
    path = tmp_path / "list"
    path.write_text("\ufeffchr1 7\n\n# a remark\n1\t9\nrs12\n")
    wanted = read_site_list(path)
    assert wanted.places[0].contig == ["chr1", "1", ""]
    assert wanted.places[0].position_bp.tolist() == [7, 9, 0]
    assert wanted.id == ["", "", "rs12"]
    assert wanted.line == [1, 4, 5]
    assert wanted.effect == ["", "", ""]


def test_lines_of_a_bed(tmp_path):
    """One base is a site; an indel follows the base before it, as a VCF writes it."""
    path = tmp_path / "x.bed"
    path.write_text(
        "track name=x\nbrowser position chr1\nchr1\t9\t10\trs1\nchr1\t9\t14\nchr1\t9\t9\n"
        "chr1\t0\t1\nchr1\t99\t100\tx\t5\t+\n"
    )
    listed = read_site_list(path)
    assert listed.places[0].position_bp.tolist() == [10, 9, 9, 1, 100]
    assert listed.id == ["rs1", "", "", "", "x"]


def test_a_manifest_of_an_array(tmp_path):
    """Lines before the names of columns, quoted cells, sites without a place, and further parts."""
    path = tmp_path / "array.csv"
    path.write_text(
        "Illumina, Inc.\n[Heading]\nDescriptor File Name,x.bpm\nLoci Count ,3\n[Assay]\n"
        "IlmnID,Name,IlmnStrand,SNP,GenomeBuild,Chr,MapInfo,Source\n"
        'a-1,rs1,TOP,[A/G],37,1,10,"1000G, phase 3"\na-2,rs2,BOT,[T/C],37,0,0,x\n'
        "a-3,rs3,TOP,[D/I],37,XY,30,x\n[Controls]\n21630339,Staining,-99,DNP (20K)\n"
    )
    listed = read_site_list(path)
    assert listed.places[0].contig == ["1", "", "XY"]
    assert listed.places[0].position_bp.tolist() == [10, 0, 30]
    assert listed.id == ["rs1", "rs2", "rs3"]
    path.write_text(
        '"Probe Set ID","dbSNP RS ID","Chromosome","Physical Position","Allele A","Allele B"\n'
        '"AX-1","rs1","1","10","A","G"\n"AX-2","rs2","X","7","C","T"\n'
    )
    listed = read_site_list(path)
    assert (listed.id, listed.other, listed.effect) == (["rs1", "rs2"], ["A", "C"], ["G", "T"])
    assert listed.places[0].position_bp.tolist() == [10, 7]


@pytest.mark.parametrize(
    ("line", "effect", "other", "name"),
    [
        ("1 10 . A G", "G", "A", ""), ("1 10 rs5 A G . PASS", "G", "A", "rs5"),
        ("1 10 A G extra", "G", "A", ""), ("1 10 rs5", "", "", "rs5"), ("1 10 A .", "", "", ""),
        ("1 10 - A", "A", "", ""), ("1 rs7 0.5 10 0 G", "", "", "rs7"),
        ("1 7 0 10 A G", "A", "G", "7"),
        ("1_10_A_G", "G", "A", ""), ("1:10", "", "", ""), ("1 10 A <DEL>", "<DEL>", "A", ""),
        ("1 rs7 10 A G 0.1", "A", "G", "rs7"), ("1,10,A,G", "G", "A", ""),
    ],
)  # fmt: skip
def test_what_a_row_says(tmp_path, line, effect, other, name):
    (tmp_path / "x").write_text(line + "\n")
    listed = read_site_list(tmp_path / "x")
    assert (listed.effect, listed.other, listed.id) == ([effect], [other], [name])
    assert (listed.places[0].contig, listed.places[0].position_bp.tolist()) == (["1"], [10])


def test_a_harmonised_score_has_places_in_two_builds(tmp_path):
    path = tmp_path / "s.txt"
    path.write_text(
        score_text([score_row("1", 7, "A", "G", rsID="rs5"), score_row("", 1, "A", "", hm_pos="")])
    )
    wanted = read_site_list(path)
    assert [place.build for place in wanted.places] == ["GRCh37", "GRCh38"]
    assert [place.position_bp.tolist() for place in wanted.places] == [[7, 0], [5007, 0]]
    assert wanted.weight == ["0.1", "0.1"]
    assert wanted.id[0] == "rs5"


def test_an_inferred_other_allele_counts_where_it_is_one(tmp_path):
    path = tmp_path / "s.txt"
    rows = [score_row("1", 7, "A", "", hm_inferOtherAllele=x) for x in ("G", "G/T", "")]
    path.write_text(score_text(rows))
    assert read_site_list(path).other == ["G", "", ""]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "names no site"),
        ("#only\n#remarks\n", "names no site"),
        ("CHROM POS\n", "names no site"),
        ("1 1,000\n", "line 1 names no site"),
        ("1 10\n1 x\n", "line 2 names no site"),
        ("chrom\tpos\n1\t-4\n", "line 2: position '-4'"),
        ("1:-1:A:C\n", "line 1 names no site"),
        ("1 3000000000\n", "line 1: position '3000000000'"),
        ("1\t99\t300\n", "line 1 names no site"),
        ("1\t99\t98\n", "line 1 names no site"),
        ("1 10 A 7\n", "line 1 names no site"),
        ("hello\n", "line 1 names no site"),
        ("hello\n1 10 A C\n", "line 1 names no site"),
        ("1 10 A C\nchrom pos\n1 20\n", "line 2 names no site"),
        ("[Heading]\nx\n" * 60 + "Chr,MapInfo\n1,10\n", "line 1 names no site"),
    ],
)
def test_what_is_no_list_is_refused_by_its_line(tmp_path, text, expected):
    path = tmp_path / "list"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_site_list(path)
    assert expected in str(caught.value)
    assert caught.value.hint


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_site_list(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        read_site_list(tmp_path)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"1 10\n" * 9999)[:-30])
    with pytest.raises(InputError, match="damaged"):
        read_site_list(path)
    path.write_bytes(b"\x89PNG\0\0\0")
    with pytest.raises(InputError, match="it is no text"):
        read_site_list(path)
