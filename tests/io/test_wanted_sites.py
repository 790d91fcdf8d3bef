"""Lists of sites: each form that users have gives the same sites, each fault is one clear line."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vcf_fixtures import convert, vcf_text
from wanted_sites_fixtures import score_row, score_text

from ragimpute.errors import InputError
from ragimpute.io.wanted_sites import read_wanted_sites

SITES = [("20", 10, "A", "C"), ("chr2", 30, "GT", "G"), ("X", 25, "T", "A")]


def found(path):
    """Contig, position, other and effect allele of each row."""
    wanted = read_wanted_sites(path)
    place = wanted.places[0]
    return list(
        zip(place.contig, place.position_bp.tolist(), wanted.other, wanted.effect, strict=True)
    )


def forms(sites):
    """The text of each form by name."""
    return {
        "plain": "".join(f"{c} {p} {r} {a}\n" for c, p, r, a in sites),
        "tabs, names": "#CHROM\tPOS\tREF\tALT\n"
        + "".join(f"{c}\t{p}\t{r}\t{a}\n" for c, p, r, a in sites),
        "csv": "chrom,pos,ref,alt\r\n" + "".join(f"{c},{p},{r},{a}\r\n" for c, p, r, a in sites),
        "names of sites": "".join(f"{c}:{p}:{r}:{a}\n" for c, p, r, a in sites),
        "as bcftools call -T": "".join(f"{c}\t{p}\t{r},{a}\n" for c, p, r, a in sites),
        "bim": "".join(f"{c}\trs{p}\t0.1\t{p}\t{a}\t{r}\n" for c, p, r, a in sites),
        "PRS-CS": "".join(f"{c}\trs{p}\t{p}\t{a}\t{r}\t1e-5\n" for c, p, r, a in sites),
        "vcf": vcf_text([(*site, "0|0", "0|1") for site in sites]),
        "sites of a vcf": vcf_text(sites, ()),
        "pvar": "##x\n#CHROM\tPOS\tID\tREF\tALT\n"
        + "".join(f"{c}\t{p}\trs1\t{r}\t{a}\n" for c, p, r, a in sites),
        "harmonised score": score_text([score_row(c, p, a, r) for c, p, r, a in sites]),
        "score": "#genome_build=GRCh37\nchr_name\tchr_position\teffect_allele\tother_allele\n"
        + "".join(f"{c}\t{p}\t{a}\t{r}\n" for c, p, r, a in sites),
        "old score": "# PGS ID = x\nchr_name\tchr_position\teffect_allele\treference_allele\n"
        + "".join(f"{c}\t{p}\t{a}\t{r}\n" for c, p, r, a in sites),
    }


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
    wanted = read_wanted_sites(path)
    assert wanted.places[0].contig == ["chr1", "1", ""]
    assert wanted.places[0].position_bp.tolist() == [7, 9, 0]
    assert wanted.id == ["", "", "rs12"]
    assert wanted.line == [1, 4, 5]
    assert wanted.effect == ["", "", ""]


def test_a_harmonised_score_has_places_in_two_builds(tmp_path):
    path = tmp_path / "s.txt"
    path.write_text(
        score_text([score_row("1", 7, "A", "G", rsID="rs5"), score_row("", 1, "A", "", hm_pos="")])
    )
    wanted = read_wanted_sites(path)
    assert [place.build for place in wanted.places] == ["GRCh37", "GRCh38"]
    assert [place.position_bp.tolist() for place in wanted.places] == [[7, 0], [5007, 0]]
    assert wanted.weight == ["0.1", "0.1"]
    assert wanted.id[0] == "rs5"


def test_an_inferred_other_allele_counts_where_it_is_one(tmp_path):
    path = tmp_path / "s.txt"
    rows = [score_row("1", 7, "A", "", hm_inferOtherAllele=x) for x in ("G", "G/T", "")]
    path.write_text(score_text(rows))
    assert read_wanted_sites(path).other == ["G", "", ""]


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
        ("1\t99\t100\n", "line 1 names no site"),
        ("1 10 A 7\n", "line 1 names no site"),
        ("hello\n", "line 1 names no site"),
    ],
)
def test_what_is_no_list_is_refused_by_its_line(tmp_path, text, expected):
    path = tmp_path / "list"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_wanted_sites(path)
    assert expected in str(caught.value)
    assert caught.value.hint


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_wanted_sites(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        read_wanted_sites(tmp_path)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"1 10\n" * 9999)[:-30])
    with pytest.raises(InputError, match="damaged"):
        read_wanted_sites(path)
    path.write_bytes(b"\x89PNG\0\0\0")
    with pytest.raises(InputError, match="it is no text"):
        read_wanted_sites(path)
