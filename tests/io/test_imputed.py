"""Formats of outputs, by their names."""

from __future__ import annotations

import pytest

from ragimpute.errors import InputError
from ragimpute.io.imputed import output_kind, vcf_kind


@pytest.mark.parametrize(
    ("path", "output_type", "kind"),
    [
        ("-", None, "vcf"), ("-", "b", "bcf"), ("a.vcf.bgz", None, "vcf.gz"), ("a", "z", "vcf.gz"),
        ("x/a.bgen", None, "bgen"), ("a.bgen", "bgen", "bgen"), ("a.b.pgen", None, "pgen"),
    ],
)  # fmt: skip
def test_the_suffix_or_the_option_says_the_format(path, output_type, kind):
    assert output_kind(path, output_type) == kind


@pytest.mark.parametrize(
    ("path", "output_type", "told"),
    [
        ("a.txt", None, "no suffix that is known"),
        (".bgen", None, "no suffix that is known"),
        ("a.bgen", "z", "--output-type z is vcf.gz, but the output a.bgen has the suffix of bgen"),
        ("a.vcf", "pgen", "--output-type pgen is pgen"),
        ("-", "bgen", "BGEN cannot be written to standard output"),
        ("a", "pgen", "PGEN cannot be written to a"),
        ("a.vcf", "q", "output type 'q' is not known"),
    ],
)
def test_names_that_say_no_format(path, output_type, told):
    with pytest.raises(InputError, match=told) as found:
        output_kind(path, output_type)
    assert found.value.hint


def test_some_outputs_are_vcf_alone():
    assert vcf_kind("a.bcf", written="sites") == "bcf"
    with pytest.raises(InputError, match=r"sites are written as VCF or BCF, .* suffix of bgen"):
        vcf_kind("a.bgen", written="sites")
    with pytest.raises(InputError) as found:
        vcf_kind("x/my a.pgen", written="batches", imported="dosage=DS")
    assert found.value.hint == (
        "write 'x/my a.vcf.gz', and make the other of it: plink2 --vcf 'x/my a.vcf.gz' dosage=DS "
        "--make-pgen vzs --out 'x/my a'"
    )
