from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.io.vcf.header import FLAGS, FORMATS, INFOS, Field
from ragimpute.io.vcf.site_info import (
    SITE_FIELDS,
    SiteInfoReader,
    declared_fields,
    joined_info,
    kept_lines,
    used_lines,
)


class Variant:
    """What the reader asks of a record."""

    def __init__(self, alts, info, position=100):
        self.ALT, self.INFO, self.POS = alts, info, position


def header(*fields):
    return "##fileformat=VCFv4.2\n" + "".join(f"{field.line('INFO')}\n" for field in fields)


def test_no_kept_field_is_one_of_the_output():
    ours = {*INFOS, *FORMATS, *(flag.name for flag in FLAGS)}
    assert ours.isdisjoint(SITE_FIELDS)


def test_lines_of_a_header_are_kept_without_the_numbers_of_bcf():
    text = (
        '##ALT=<ID=DEL,Description="Deletion">\n'
        '##INFO=<ID=AC,Number=A,Type=Integer,Description="x",IDX=1>\n'
        '##INFO=<ID=END,Number=1,Type=Integer,Description="a, b \\"c\\"",IDX=2>\r\n'
        '##FORMAT=<ID=CN,Number=1,Type=Integer,Description="x">\n'
    )
    lines = kept_lines(text)
    assert lines == [
        '##ALT=<ID=DEL,Description="Deletion">',
        '##INFO=<ID=END,Number=1,Type=Integer,Description="a, b \\"c\\"">',
    ]
    assert [*declared_fields(lines)] == ["END"]
    used = used_lines(lines, ["END=7;SVTYPE=DEL", ""], {"<DEL>"})
    assert used == [*lines, SITE_FIELDS["SVTYPE"].line("INFO")]
    assert used_lines(lines, [""], {"<DUP>"}) == []


def test_values_of_each_alt():
    fields = [SITE_FIELDS["SVTYPE"], SITE_FIELDS["SVLEN"], SITE_FIELDS["BPDIFFS"],
              SITE_FIELDS["IMPRECISE"], SITE_FIELDS["CIPOS"]]  # fmt: skip
    reader = SiteInfoReader(header(*fields))
    info = {"SVTYPE": "CNV", "SVLEN": (-5, None), "BPDIFFS": (3, 6), "IMPRECISE": True,
            "CIPOS": (-1, 1), "END": "77"}  # fmt: skip
    # END is not declared, and read all the same.
    assert reader.of(Variant(["<CN0>", "<CN2>"], info), [0, 1]) == [
        "SVTYPE=CNV;SVLEN=-5;BPDIFFS=3;IMPRECISE;CIPOS=-1,1;END=77",
        "SVTYPE=CNV;BPDIFFS=6;IMPRECISE;CIPOS=-1,1;END=77",
    ]
    assert reader.of(Variant(["G"], {"END": "77"}), [0]) == [""]
    only = SiteInfoReader(header(*fields), ["SVTYPE"], only_declared=True)
    assert only.of(Variant(["<CN0>"], info), [0]) == ["SVTYPE=CNV"]


def test_an_end_that_is_left_to_the_length():
    """As VCF 4.4 has it; records with several ALTs stay as they are, so that they can be joined."""
    reader = SiteInfoReader(header(SITE_FIELDS["SVLEN"]))
    info = {"SVLEN": -30}
    assert reader.of(Variant(["<DEL>"], info), [0]) == ["SVLEN=-30;END=130"]
    assert reader.of(Variant(["<INS>"], info), [0]) == ["SVLEN=-30"]
    assert reader.of(Variant(["G"], info), [0]) == ["SVLEN=-30"]
    assert reader.of(Variant(["G"], info | {"END": 7}), [0]) == ["SVLEN=-30;END=7"]
    assert reader.of(Variant(["<DUP>", "<INV>"], {"SVLEN": (5, 6)}), [0, 1]) == [
        "SVLEN=5",
        "SVLEN=6",
    ]
    only = SiteInfoReader(header(SITE_FIELDS["SVLEN"]), only_declared=True)
    assert only.of(Variant(["<DEL>"], info | {"END": 7}), [0]) == ["SVLEN=-30"]


@pytest.mark.parametrize(
    ("infos", "joined"),
    [
        (["", ""], ""),
        (["END=7;SVLEN=-5", "END=7;SVLEN=-6"], "END=7;SVLEN=-5,-6"),
        (["END=7;SVLEN=-5", "END=7"], "END=7;SVLEN=-5,."),
        (["END=7", "END=8"], None),
        (["END=7", ""], None),
        (["IMPRECISE;BPDIFFS=3", "IMPRECISE;BPDIFFS=3"], "IMPRECISE;BPDIFFS=3,3"),
    ],
)
def test_info_of_several_alts(infos, joined):
    assert joined_info(infos, {}) == joined


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_split_is_joined_again(data):
    """Of a record with several ALTs, INFO comes back as it was, whatever its fields are."""
    names = data.draw(st.lists(st.sampled_from(sorted(SITE_FIELDS)), min_size=1, unique=True))
    num_alts = data.draw(st.integers(2, 4))
    fields = [SITE_FIELDS[name] for name in names if SITE_FIELDS[name].number != "."]
    fields.append(Field("SVLEN", data.draw(st.sampled_from(["A", "."])), "Integer", "x"))
    fields = list({field.name: field for field in fields}.values())
    info = {}
    for field in fields:
        num = {"A": num_alts, ".": num_alts, "0": 0}.get(field.number) if field.number in "A.0" \
            else int(field.number)  # fmt: skip
        values = {
            "Integer": st.integers(-(2**31) + 9, 2**31 - 1), "Float": st.integers(0, 9),
            "String": st.text("abcxyz+-_:", min_size=1), "Flag": st.just(True),
        }[field.type]  # fmt: skip
        drawn = tuple(data.draw(values) for _ in range(num))
        if field.type == "Flag":
            info[field.name] = True
        elif field.type == "String":
            info[field.name] = ",".join(drawn)
        else:
            info[field.name] = drawn if num > 1 else drawn[0]
    variant = Variant([f"<A{i}>" for i in range(num_alts)], info)
    reader = SiteInfoReader(header(*fields))
    split = reader.of(variant, range(num_alts))
    told = joined_info(split, {field.name: field for field in fields})
    expected = []
    for field in fields:
        value = info[field.name]
        if field.type == "Flag":
            expected.append(field.name)
        else:
            texts = value if isinstance(value, str) else (
                ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            )  # fmt: skip
            expected.append(f"{field.name}={texts}")
    assert told is not None
    assert sorted(told.split(";")) == sorted(expected)
