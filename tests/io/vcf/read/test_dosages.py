"""Dosages from DS, or else counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vcf_fixtures import FORMATS, convert, vcf_text

from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import read_dosages

INFOS = (
    '##INFO=<ID=DR2,Number=A,Type=Float,Description="r2">\n'
    '##INFO=<ID=IMP,Number=0,Type=Flag,Description="Imputed">\n'
)


def test_dosages(make_vcf):
    rows = [
        (10, "A", "G", "0|1:0.9", "1:0.75"),
        (20, "A", "G,C", "0|2:0.25,1.5", "2:0.5,0.5"),
        (30, "A", "G", "0|1:.", "0:."),
        (40, "A", "G", "./.:.", "1:0.5"),
    ]
    path = make_vcf(rows, keys="GT:DS", infos=INFOS)
    body = path.read_text().replace("\t.\t.\t.\tGT", "\t.\t.\tDR2=0.5;IMP\tGT", 1)
    path.write_text(body.replace("\t.\t.\t.\tGT", "\t.\t.\tDR2=0.1,0.2\tGT", 1))
    found = read_dosages(path)
    expected = [[0.9, 0.75], [0.25, 0.5], [1.5, 0.5], [1, 0], [np.nan, 0.5]]
    np.testing.assert_allclose(found.dosage, expected, rtol=1e-6)
    assert found.dosage.dtype == np.float32
    assert found.ploidy.tolist() == [[2, 1]] * 5
    np.testing.assert_allclose(found.dr2, [0.5, 0.1, 0.2, np.nan, np.nan], rtol=1e-6)
    assert found.typed.tolist() == [False, True, True, True, True]


def test_dosages_without_genotypes(make_vcf):
    formats = '##FORMAT=<ID=DS,Number=1,Type=Float,Description="d">\n'
    found = read_dosages(make_vcf([(10, "A", "G", "0.9", "2")], keys="DS", formats=formats))
    np.testing.assert_allclose(found.dosage, [[0.9, 2]], rtol=1e-6)
    assert np.isnan(found.dr2).all()
    two = make_vcf([(10, "A", "G,C", "0.9", "2")], keys="DS", formats=formats)
    with pytest.raises(InputError, match="20:10: DS is not one number for each ALT"):
        read_dosages(two)
    with pytest.raises(InputError, match="declares none of FORMAT/DS, HDS, AP1 and AP2, GP"):
        read_dosages(make_vcf([(10, "A", "G", "1", "2")], keys="XX", formats=""))


def test_one_dosage_for_several_alts_gives_way_to_genotypes(make_vcf):
    formats = FORMATS.replace("Number=A", "Number=1")
    rows = [(10, "A", "G,C", "0|2:0.9", "1|2:1.5")]
    found = read_dosages(make_vcf(rows, keys="GT:DS", formats=formats))
    np.testing.assert_array_equal(found.dosage, [[0, 1], [1, 1]])


def test_typed_and_quality_by_other_names(make_vcf):
    infos = (
        '##INFO=<ID=R2,Number=A,Type=Float,Description="r2">\n'
        '##INFO=<ID=TYPED,Number=0,Type=Flag,Description="Typed">\n'
        '##INFO=<ID=IMP,Number=0,Type=Flag,Description="Imputed">\n'
    )
    path = make_vcf([(10, "A", "G", "0|1", "0|0"), (20, "A", "G", "0|1", "0|0")], infos=infos)
    path.write_text(path.read_text().replace("\t.\t.\t.\tGT", "\t.\t.\tR2=0.25;TYPED\tGT", 1))
    found = read_dosages(path)
    assert found.typed.tolist() == [True, False]
    np.testing.assert_array_equal(found.dr2, [0.25, np.nan])


def test_records_without_either(make_vcf):
    formats = FORMATS[FORMATS.index("##FORMAT=<ID=DS") :]
    formats += '##FORMAT=<ID=XX,Number=1,Type=Integer,Description="x">\n'
    path = make_vcf(
        [(10, "A", "G", "1", "0"), (20, "A", "G", "7", "8")], keys="DS", formats=formats
    )
    path.write_text(path.read_text().replace("DS\t7\t8", "XX\t7\t8"))
    with pytest.raises(InputError, match="20:20: the record has none of DS"):
        read_dosages(path)


def test_files_of_no_use(make_vcf):
    with pytest.raises(InputError, match="not sorted"):
        read_dosages(make_vcf([(10, "A", "G", "0|1", "0|0"), (9, "A", "G", "0|1", "0|0")]))
    with pytest.raises(InputError, match="holds no usable records"):
        read_dosages(make_vcf([(10, "A", "<DEL>", "0|1", "0|0")]))
    with pytest.raises(InputError, match="sample b has allele 3"):
        read_dosages(make_vcf([(10, "A", "G", "0|1", "0|3")]))


@pytest.mark.parametrize("keys", ["GT:DS", "GT", "DS"])
def test_alts_that_a_record_repeats_and_alts_that_are_no_bases(tmp_path, keys):
    calls = {"GT": ["0/2", "1/3", "3/4"], "DS": ["0,1,0,0", "1,0,1,0", "0,0,1,1"]}
    cells = [":".join(calls[key][i] for key in keys.split(":")) for i in range(3)]
    path = tmp_path / "x.vcf"
    path.write_text(vcf_text([(10, "A", "G,g,C,N", *cells)], "abc", keys=keys))
    found = read_dosages(path)
    assert found.sites.alt.tolist() == ["G", "C", "N"]
    expected = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]], np.float32)
    if keys == "GT":  # who carries N may carry any other ALT
        expected[:2, 2] = np.nan
    np.testing.assert_array_equal(found.dosage, expected)


ALL_FORMATS = "".join(
    f'##FORMAT=<ID={name},Number={number},Type={kind},Description="x">\n'
    for name, number, kind in (
        ("GT", "1", "String"), ("DS", "A", "Float"), ("GP", "G", "Float"), ("HDS", ".", "Float"),
        ("AP1", "A", "Float"), ("AP2", "A", "Float"),
    )
)  # fmt: skip


def cell(fields, haplotypes):
    """A sample's text: P(ALT) in 1/8 of one or two haplotypes, or nothing known."""
    p = [eighth / 8 for eighth in haplotypes]
    if len(p) == 1:
        said = {"GP": f"{1 - p[0]},{p[0]}", "HDS": f"{p[0]}", "AP1": p[0], "AP2": "."}
    elif p:
        q = [1 - x for x in p]
        said = {
            "GP": f"{q[0] * q[1]},{p[0] * q[1] + q[0] * p[1]},{p[0] * p[1]}",
            "HDS": f"{p[0]},{p[1]}", "AP1": p[0], "AP2": p[1],
        }  # fmt: skip
    else:
        said = {}
    said["DS"] = sum(p) if p else "."
    said["GT"] = "|".join(str(int(x > 0.5)) for x in p) or "."
    return ":".join(str(said.get(name, ".")) for name in fields)


haplotypes = st.lists(st.integers(0, 8), min_size=0, max_size=2)
chosen = st.sampled_from(["DS", "HDS", "AP1:AP2", "GP"])


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(chosen, st.lists(haplotypes, min_size=2, max_size=2)), min_size=1),
    genotypes=st.booleans(),
    suffix=st.sampled_from(["", ".vcf.gz", ".bcf"]),
    index=st.booleans(),
)
def test_a_dosage_is_the_same_from_whichever_field_has_it(tmp_path, rows, genotypes, suffix, index):
    text = vcf_text([], formats=ALL_FORMATS)
    for i, (name, cells) in enumerate(rows):
        fields = ["GT"] * genotypes + name.split(":")
        texts = [cell(fields, cells[0]), cell(fields, cells[1])]
        site = ["20", str(i + 1), ".", "A", "G", ".", ".", ".", ":".join(fields)]
        text += "\t".join([*site, *texts]) + "\n"
    path = tmp_path / "x.vcf"
    path.write_text(text)
    for old in tmp_path.glob("x.*.*i"):
        old.unlink()
    found = read_dosages(convert(path, suffix, index=index) if suffix else path)
    expected = [[sum(c) / 8 if c else np.nan for c in cells] for _, cells in rows]
    np.testing.assert_allclose(found.dosage, expected, atol=1e-6)
    assert (found.num_hard_calls == 0).all()
    for row, (name, cells) in zip(found.ploidy, rows, strict=True):
        for ploidy, c in zip(row, cells, strict=True):
            if c and (genotypes or name != "DS"):
                assert ploidy == len(c)


def test_the_order_of_preference(make_vcf):
    said = [("DS", "0.5"), ("HDS", "0.25,0"), ("AP1:AP2", "0.125:0"), ("GP", "0.9,0.1,0")]
    for i, expected in enumerate((0.5, 0.25, 0.125, 0.1, 2)):
        keys, cells = (":".join(column) for column in zip(("GT", "1|1"), *said[i:], strict=True))
        path = make_vcf([(10, "A", "G", cells)], ["a"], keys=keys, formats=ALL_FORMATS)
        found = read_dosages(path)
        np.testing.assert_allclose(found.dosage, [[expected]], atol=1e-6)
        assert found.num_hard_calls.tolist() == [expected == 2]
    truth = read_dosages(
        make_vcf([(10, "A", "G", "1|1:0.5")], ["a"], keys="GT:DS", formats=ALL_FORMATS),
        genotypes=True,
    )
    assert truth.dosage.tolist() == [[2]]


def test_several_alts(make_vcf):
    gp = "0.1,0.2,0.05,0.3,0.25,0.1"  # 0/0 0/1 1/1 0/2 1/2 2/2
    rows = [(10, "A", "G,C", gp, "0.5,0.2,0.3")]
    found = read_dosages(make_vcf(rows, keys="GP", formats=ALL_FORMATS))
    np.testing.assert_allclose(found.dosage, [[0.55, 0.2], [0.75, 0.3]], atol=1e-6)
    assert found.ploidy.tolist() == [[2, 1]] * 2
    rows = [(10, "A", "G,C", "0.5,0.1:0.5,0.2", "0.5,0.1:.")]
    found = read_dosages(make_vcf(rows, keys="AP1:AP2", formats=ALL_FORMATS))
    np.testing.assert_allclose(found.dosage, [[1, 0.5], [0.3, 0.1]], atol=1e-6)


def test_what_is_no_probability_is_not_taken_for_one(make_vcf):
    """VCF 4.2 let programs write GP on the phred scale."""
    phred = [(10, "A", "G", "0|1:20,0.1,30", "0|0:0,20,40")]
    found = read_dosages(make_vcf(phred, keys="GT:GP", formats=ALL_FORMATS))
    assert found.dosage.tolist() == [[1, 0]]
    assert found.num_hard_calls.tolist() == [2]
    for keys, alt, cells, match in (
        ("GP", "G", ("20,0.1,30", "1,0,0"), "20:10: GP is not probabilities: they do not sum to 1"),
        ("HDS", "G,C", ("1,0,0,1", "1,0"), "20:10: HDS is not one number for each haplotype"),
    ):
        path = make_vcf([(10, "A", alt, *cells)], keys=keys, formats=ALL_FORMATS)
        with pytest.raises(InputError, match=match):
            read_dosages(path)
