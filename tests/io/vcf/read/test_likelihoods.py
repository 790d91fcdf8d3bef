"""Genotype likelihoods (PL, GL, GP): their scale, order and ploidy, and what is wrong with some."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vcf_fixtures import convert, vcf_text

from ragimpute.errors import InputError
from ragimpute.io.vcf.read import likelihoods
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.io.vcf.read.likelihoods import LikelihoodOptions
from ragimpute.sites import Region

FIELD = '##FORMAT=<ID={},Number={},Type={},Description="x">\n'
GT = FIELD.format("GT", 1, "String")
PL = FIELD.format("PL", "G", "Integer")
GL = FIELD.format("GL", "G", "Float")
GP = FIELD.format("GP", "G", "Float")
DP = FIELD.format("DP", 1, "Integer")
NAMES = {"PL": PL, "GL": GL, "GP": GP, "GT": GT, "DP": DP}
AUTO, ALWAYS = LikelihoodOptions(), LikelihoodOptions("always")


def written(tmp_path, rows, keys, samples=("a", "b"), suffix=".vcf"):
    """A file with the FORMAT fields that ``keys`` names."""
    path = tmp_path / "t.vcf"
    formats = "".join(NAMES[name] for name in keys.split(":"))
    path.write_text(vcf_text(rows, samples, formats=formats, keys=keys))
    return path if suffix == ".vcf" else convert(path, suffix)


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_likelihoods_without_genotypes_are_read_from_each_format(tmp_path, suffix):
    rows = [
        (10, "A", "G", "0,3,30:1", "0,0,0:0"),
        (20, "C", "T", "300,12,0:4", ".:."),
        (30, "C", "T", "20,0,20:9", "7,9,11:2"),
    ]
    target = read_target(written(tmp_path, rows, "PL:DP", suffix=suffix), likelihoods=AUTO)
    assert target.likelihoods.dtype == np.uint8
    assert target.likelihoods.tolist() == [
        [[0, 3, 30], [0, 0, 0]], [[255, 12, 0], [0, 0, 0]], [[20, 0, 20], [0, 2, 4]],
    ]  # fmt: skip
    assert (target.alleles == -1).all()
    assert target.phased.all()
    counts = target.likelihood_counts
    assert counts.fields == ("PL",)
    assert counts.depth.tolist() == [14, 2]
    assert counts.num_with_depth.tolist() == [3, 2]
    assert counts.mean_depth == 16 / 5


def test_a_region_is_read_by_its_index(tmp_path):
    rows = [(10 * i, "A", "G", f"0,{i},9", "0,0,0") for i in range(1, 9)]
    path = written(tmp_path, rows, "PL", suffix=".bcf")
    part = read_target(path, region=Region("20", 30, 51), samples=["a"], likelihoods=AUTO)
    assert part.likelihoods[:, :, 1].tolist() == [[3], [4], [5]]


def test_gl_is_a_logarithm_and_gp_a_probability(tmp_path):
    rows = [(10, "A", "G", "0,-1.2,-3", "-2,-0.5,-inf")]
    target = read_target(written(tmp_path, rows, "GL"), likelihoods=AUTO)
    assert target.likelihoods.tolist() == [[[0, 12, 30], [15, 0, 255]]]
    rows = [(10, "A", "G", "0.9,0.09,0.01", "0,1,0")]
    path = written(tmp_path, rows, "GP")
    assert read_target(path, likelihoods=ALWAYS).likelihoods.tolist() == [
        [[0, 10, 20], [255, 0, 255]]
    ]
    with pytest.raises(InputError, match="declares no FORMAT/GT"):
        read_target(path, likelihoods=AUTO)  # they may be those of an imputation


def test_a_record_of_several_alts_gives_each_those_of_ref_and_itself(tmp_path):
    #            00 01 11 02 12 22
    rows = [(10, "A", "G,T", "9,3,40,5,30,50", "0,.,.,8,.,70")]
    target = read_target(written(tmp_path, rows, "PL"), likelihoods=AUTO)
    assert target.sites.alt.tolist() == ["G", "T"]
    assert target.likelihoods.tolist() == [
        [[6, 0, 37], [0, 0, 0]],
        [[4, 0, 45], [0, 8, 70]],
    ]
    assert target.likelihood_counts.num_incomplete == 1


def test_an_alt_that_stands_for_any_other_is_dropped(tmp_path):
    rows = [(10, "A", "G,<*>", "9,3,40,5,30,50", "0,3,30,3,30,30")]
    target = read_target(written(tmp_path, rows, "PL"), likelihoods=AUTO)
    assert target.likelihoods.tolist() == [[[6, 0, 37], [0, 3, 30]]]


def test_haploid_likelihoods_have_one_number_for_each_allele(tmp_path):
    rows = [
        (10, "A", "G", "0,30", "0,3,30"),
        (20, "A", "G,T", "7,0,9", "0,3,30,3,30,30"),
        (30, "A", "G", ".", "."),
    ]
    target = read_target(written(tmp_path, rows, "PL"), likelihoods=AUTO)
    assert target.likelihoods[:, 0].tolist() == [
        [0, 255, 30], [7, 255, 0], [0, 255, 2], [0, 0, 0],
    ]  # fmt: skip
    assert target.alleles[:3, 0].tolist() == [[-1, -2]] * 3
    assert (target.alleles[:, 1] == -1).all()


def test_a_haploid_call_makes_heterozygous_likelihoods_impossible(tmp_path):
    rows = [(10, "A", "G", "1:30,3,0", "0/1:9,0,9"), (20, "A", "G", ".:.", "./.:.")]
    target = read_target(written(tmp_path, rows, "GT:PL"), likelihoods=ALWAYS)
    assert target.likelihoods[0].tolist() == [[30, 255, 0], [9, 0, 9]]
    assert target.alleles[0].tolist() == [[-1, -2], [-1, -1]]


def test_called_genotypes_without_likelihoods_stay_beside_reads(tmp_path):
    rows = [
        (10, "A", "G", "0|1:.:.", "0/0:0,0,0:0"),
        (20, "A", "G", "0/1:.:0", "0/1:3,0,9:2"),
        (30, "A", "G", "1|1:.:.", "0/0:.:."),
    ]
    target = read_target(written(tmp_path, rows, "GT:PL:DP"), likelihoods=ALWAYS)
    assert target.alleles.tolist() == [
        [[0, 1], [-1, -1]], [[-1, -1], [-1, -1]], [[1, 1], [0, 0]],
    ]  # fmt: skip
    assert target.likelihoods[1].tolist() == [[0, 0, 0], [3, 0, 9]]


def test_a_depth_of_zero_is_no_information_whatever_the_likelihoods(tmp_path):
    rows = [(10, "A", "G", "0,30,60:0", "0,30,60:1")]
    target = read_target(written(tmp_path, rows, "PL:DP"), likelihoods=AUTO)
    assert target.likelihoods.tolist() == [[[0, 0, 0], [0, 30, 60]]]


def test_of_a_record_without_alt_the_depth_says_how_sure_ref_is(tmp_path):
    rows = [(10, "A", ".", "0/0:0:2", "0/0:0:."), (20, "A", "G", "./.:0,3,30:1", "./.:0,3,30:1")]
    path = written(tmp_path, rows, "GT:PL:DP")
    target = read_target(path, likelihoods=ALWAYS, keep_monomorphic=True)
    assert target.likelihoods[0].tolist() == [[0, 6, 60], [0, 0, 0]]
    assert (target.alleles[0] == -1).all()


def test_indels_say_nothing_unless_asked_for(tmp_path):
    rows = [(10, "A", "AT", "0,30,60", "0,30,60"), (20, "AT", "GC", "0,30,60", "0,30,60")]
    path = written(tmp_path, rows, "PL")
    target = read_target(path, likelihoods=AUTO)
    assert target.likelihoods[:, 0].tolist() == [[0, 0, 0], [0, 30, 60]]
    assert target.likelihood_counts.num_indels == 1
    used = read_target(path, likelihoods=LikelihoodOptions("auto", True))
    assert used.likelihoods[:, 0].tolist() == [[0, 30, 60]] * 2


@pytest.mark.parametrize(
    ("calls", "used"),
    [
        (["0/0:0,3,30", "0/1:9,0,9"], True),
        (["0/0:0,60,200", "0/1:90,0,99"], False),
        (["0/0:0,3,30", "0|1:9,0,9"], False),
        (["0/0:.", "0/1:."], False),
        (["./.:0,0,0", "./.:0,0,0"], True),
    ],
)
@pytest.mark.parametrize("suffix", [".vcf", ".bcf"])
def test_auto_uses_likelihoods_where_genotypes_are_unsure(tmp_path, calls, used, suffix):
    path = written(tmp_path, [(10, "A", "G", *calls)], "GT:PL", suffix=suffix)
    for region in (None, Region("20"), Region("20", 500, 600)):
        target = read_target(path, region=region, likelihoods=AUTO, may_be_empty=True)
        assert (target.likelihoods is not None) == used
    assert read_target(path, likelihoods=LikelihoodOptions("never")).likelihoods is None


def test_parts_of_a_file_are_read_alike(tmp_path):
    """One sample's genotypes alone would be sure, and so would those of the region."""
    rows = [(i, "A", "G", "0/1:9,0,9", "0/0:0,60,90") for i in range(1, 9)]
    rows += [(100, "A", "G", "0/0:0,60,90", "0/0:0,60,90")]
    path = written(tmp_path, rows, "GT:PL", suffix=".bcf")
    part = read_target(path, region=Region("20", 50, 200), samples=["b"], likelihoods=AUTO)
    assert part.likelihoods is not None
    assert part.samples == ["b"]


def test_always_needs_likelihoods(tmp_path):
    path = written(tmp_path, [(10, "A", "G", "0/1", "0/1")], "GT")
    with pytest.raises(InputError, match="has no likelihoods") as caught:
        read_target(path, likelihoods=ALWAYS)
    assert "leave out --likelihoods" in caught.value.hint
    assert read_target(path, likelihoods=AUTO).likelihoods is None


@pytest.mark.parametrize(
    ("name", "cell", "expected", "found"),
    [
        ("PL", "0,3,30,9", "3 numbers", "4 numbers"),
        ("PL", "7", "3 numbers", "1 numbers"),
        ("PL", "0,-3,30", "at least 0", "0,-3,30"),
        ("GL", "0,nan,-3", "numbers", "NaN"),
        ("GL", "0,inf,-3", "less than infinity", "0,inf,-3"),
        ("GP", "0,3,30", "sum to 1", "0,3,30"),
        ("GP", "0.5,0.1,0.1", "sum to 1", "0.5,0.1,0.1"),
    ],
)
@pytest.mark.parametrize("suffix", [".vcf", ".bcf"])
def test_numbers_that_are_no_likelihoods_are_one_clear_line(
    tmp_path, name, cell, expected, found, suffix
):
    good = "0.5,0.5,0" if name == "GP" else "0,0,0"
    path = written(tmp_path, [(10, "A", "G", good, cell)], name, suffix=suffix)
    with pytest.raises(InputError) as caught:
        read_target(path, likelihoods=ALWAYS)
    message = caught.value.message
    assert f"20:10: {name} of sample b: expected" in message
    assert expected in message
    assert message.endswith(f"found {found}")
    assert "--likelihoods never" in caught.value.hint


def test_a_diploid_call_needs_the_likelihoods_of_three_genotypes(tmp_path):
    path = written(tmp_path, [(10, "A", "G", "0/1:9,0,9", "0/1:9,0")], "GT:PL")
    with pytest.raises(InputError, match="as GT has two alleles"):
        read_target(path, likelihoods=ALWAYS)


def test_likelihoods_that_are_declared_texts_are_refused(tmp_path):
    path = tmp_path / "t.vcf"
    formats = FIELD.format("PL", ".", "String")
    path.write_text(vcf_text([(10, "A", "G", "0,1,2", "0,1,2")], formats=formats, keys="PL"))
    with pytest.raises(InputError, match="20:10: PL is a text"):
        read_target(path, likelihoods=AUTO)


numbers = st.one_of(
    st.integers(-3, 300).map(str),
    st.sampled_from([".", "", "nan", "-inf", "inf", "1e9", "-0", "99999999999", "x", "2147483647"]),
    st.floats(-40, 1).map(lambda x: f"{x:.3g}"),
)
cells = st.lists(numbers, min_size=0, max_size=7).map(",".join)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["PL", "GL", "GP"]),
    alt=st.sampled_from(["G", "G,T", ".", "AT", "G,<*>"]),
    rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=3),
)
def test_any_text_of_likelihoods_is_read_or_refused_in_one_line(tmp_path, name, alt, rows):
    made = [(10 + i, "A", alt, *row) for i, row in enumerate(rows)]
    path = written(tmp_path, made, name)
    target, message = None, ""
    try:
        target = read_target(path, likelihoods=ALWAYS, keep_monomorphic=True)
    except InputError as error:
        message = error.message
    if target is None:
        assert str(path) in message
        assert "\n" not in message
        return
    values = target.likelihoods
    assert values.shape == (len(target.sites), 2, 3)
    assert (values.min(axis=2) == 0).all()


@given(st.lists(st.tuples(*[st.integers(0, 400)] * 3), min_size=1, max_size=4))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_pl_gl_and_gp_of_the_same_likelihoods_are_the_same(tmp_path, given_pl):
    def read(name, text):
        rows = [(10 + i, "A", "G", text(np.array(one)), ".") for i, one in enumerate(given_pl)]
        return read_target(written(tmp_path, rows, name), likelihoods=ALWAYS).likelihoods

    def as_gp(one):
        prob = 10.0 ** (-(one - one.min()) / 10)
        return ",".join(f"{x:.30g}" for x in prob / prob.sum())

    pl = read("PL", lambda one: ",".join(map(str, one)))
    np.testing.assert_array_equal(pl, read("GL", lambda one: ",".join(f"{-x / 10}" for x in one)))
    np.testing.assert_array_equal(pl, read("GP", as_gp))


def test_the_first_records_alone_decide(tmp_path, monkeypatch):
    rows = [(10, "A", "G", "0/0:0,90,99", "0/0:0,90,99")]
    rows += [(20 + i, "A", "G", "0/0:0,3,30", "0/0:0,3,30") for i in range(9)]
    path = written(tmp_path, rows, "GT:PL")
    assert read_target(path, likelihoods=AUTO).likelihoods is not None
    monkeypatch.setattr(likelihoods, "_FIRST_RECORDS", 1)
    assert read_target(path, likelihoods=AUTO).likelihoods is None


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["G", "GA", "N", "*"]),
            st.lists(
                st.tuples(
                    st.sampled_from(["0/1", "0|0", "1", ".", "./."]),
                    st.sampled_from(["0,3,30", "40,0,200", "7,7,9", "0,70000,3", ".", "0,.,3"]),
                    st.sampled_from(["0", "3", "."]),
                ),
                min_size=2, max_size=2,
            ),
        ),
        min_size=1, max_size=6,
    ),
    st.booleans(),
    st.sampled_from([".vcf", ".bcf"]),
)  # fmt: skip
def test_records_of_the_most_usual_kind_are_read_as_all_others(tmp_path, given_rows, calls, suffix):
    rows = [
        (10 * i, "A", alt, *(":".join(cell if calls else cell[1:]) for cell in cells))
        for i, (alt, cells) in enumerate(given_rows, 1)
    ]
    for old in tmp_path.iterdir():
        old.unlink()
    path = written(tmp_path, rows, "GT:PL:DP" if calls else "PL:DP", suffix=suffix)

    def read():
        try:
            found = read_target(path, likelihoods=ALWAYS)
        except InputError as error:
            return str(error)
        counts = found.likelihood_counts
        return [
            found.likelihoods.tolist(), found.alleles.tolist(), found.phased.tolist(),
            counts.depth.tolist(), counts.num_with_depth.tolist(), counts.num_incomplete,
        ]  # fmt: skip

    usual = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihoods.LikelihoodReader, "take_plain", lambda *_: False)
        assert read() == usual
