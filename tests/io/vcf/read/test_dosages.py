"""Dosages from DS, or else counted."""

from __future__ import annotations

import numpy as np
import pytest
from vcf_fixtures import FORMATS, vcf_text

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
    with pytest.raises(InputError, match="neither FORMAT/DS nor FORMAT/GT"):
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
    with pytest.raises(InputError, match="20:20: the record has neither DS nor GT"):
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
