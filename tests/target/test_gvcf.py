"""A gVCF through phase and --qc-only: its blocks type sites, and every record is accounted for."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vcf_fixtures import bcftools, convert, vcf_text, view

from ragimpute.errors import InputError
from ragimpute.imputation.compare import compare
from ragimpute.phasing.phase import phase
from ragimpute.preparation.prepare import prepare
from ragimpute.target.inputs import InputFiles, TargetOptions

NUM_SITES, STEP = 60, 100
FIXED = {"ne": 1e5, "err": 1e-3}
FORMATS = "".join(
    f'##FORMAT=<ID={name},Number=1,Type={kind},Description="x">\n'
    for name, kind in (("GT", "String"), ("GQ", "Integer"))
)
INFOS = '##INFO=<ID=END,Number=1,Type=Integer,Description="x">\n##ALT=<ID=NON_REF,Description="">\n'


def base(position):
    """The base of the reference at a position."""
    return "ACGT"[position // STEP % 4]


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """A panel of 60 sites, 100 bp apart, and 20 samples."""
    folder = tmp_path_factory.mktemp("gvcf")
    alleles = np.random.default_rng(1).integers(0, 2, (NUM_SITES, 20, 2))
    rows = [
        (STEP * i, base(STEP * i), "CGTA"[i % 4], *("|".join(map(str, pair)) for pair in row))
        for i, row in enumerate(alleles.tolist(), start=1)
    ]
    (folder / "p.vcf").write_text(vcf_text(rows, [f"p{i}" for i in range(20)]))
    prepare(folder / "p.vcf", folder / "p.h5", cm_per_mb=1.0)
    return folder / "p.h5"


def gvcf(*, shift=0, quality=60):
    """A gVCF of one sample: each tenth site is a variant, and blocks fill what is between."""
    rows = []
    for first in range(STEP, STEP * NUM_SITES, 10 * STEP):
        other = "CGTA"["ACGT".index(base(first))]
        rows.append((first, f"{base(first)}", f"{other},<NON_REF>", "0/1:60", "."))
        for at in range(first + 1, first + 10 * STEP, STEP):
            end = at + STEP - 2
            rows.append((at, "N", "<NON_REF>", f"0/0:{quality}", f"END={end}"))
            if end + 1 < first + 10 * STEP:
                letter = "ACGT"[("ACGT".index(base(end + 1)) + shift) % 4]
                rows.append((end + 1, letter, "<NON_REF>", f"0/0:{quality}", f"END={end + 1}"))
    text = vcf_text([row[:4] for row in rows], ["s"], formats=FORMATS, infos=INFOS, keys="GT:GQ")
    head = text[: text.index("\n20\t") + 1]
    lines = text[len(head) :].splitlines()
    for i, row in enumerate(rows):
        cells = lines[i].split("\t")
        cells[7] = row[4]
        lines[i] = "\t".join(cells)
    return head + "\n".join(lines) + "\n", len(rows)


def added_up(rows):
    """Records with their further ALTs, and the sum of what is said of them in a summary's line."""
    whole, told = dict(rows)["target records"].split(": ")
    numbers = [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", whole)]
    return sum(numbers), sum(int(x.split()[0].replace(",", "")) for x in told.split(", "))


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_blocks_type_the_panel_and_all_records_are_told_of(suffix, panel, tmp_path):
    text, num_records = gvcf()
    path = tmp_path / "t.vcf"
    path.write_text(text)
    if suffix != ".vcf":
        path = convert(path, suffix)
    done = phase(path, panel, tmp_path / "o.vcf", **FIXED)
    assert done.num_sites == NUM_SITES
    assert added_up(done.rows()) == (num_records, num_records)
    assert dict(done.rows())["gVCF"] == "its blocks type 54 panel sites as REF"
    calls = [line.split("\t")[9] for line in view(tmp_path / "o.vcf", "-H").splitlines()]
    assert [set(call) == {"0", "|"} for call in calls] == [i % 10 != 0 for i in range(NUM_SITES)]
    found = compare(InputFiles(path, panel))
    assert found.num_records == num_records
    assert found.num_records + found.num_further_alts == found.num_alts + found.blocks.num_blocks
    assert dict(found.rows())["gVCF: panel sites typed as REF by them"] == "54"


def test_a_part_of_a_gvcf(panel, tmp_path):
    text, _ = gvcf()
    (tmp_path / "t.vcf").write_text(text)
    path = convert(tmp_path / "t.vcf", ".vcf.gz")
    done = phase(path, panel, tmp_path / "o.vcf", region="20:2000-2999", buffer_cm=0.0, **FIXED)
    assert done.num_sites == 10


def test_the_threshold_is_an_option(command_line, panel, tmp_path):
    (tmp_path / "t.vcf").write_text(gvcf(quality=15)[0])
    words = ("impute", str(tmp_path / "t.vcf"), "-p", str(panel), "--qc-only")
    code, out, err = command_line(*words)
    assert code == 0, err
    assert re.search(r"panel sites of too low quality in them +54 ", out)
    code, out, err = command_line(*words, "--gvcf-min-gq", "15")
    assert code == 0, err
    assert re.search(r"typed as REF by them +54 ", out)


def test_a_gvcf_of_another_reference_is_refused(panel, tmp_path):
    (tmp_path / "t.vcf").write_text(gvcf(shift=1)[0])
    with pytest.raises(InputError, match="gVCF of another reference") as error:
        compare(InputFiles(tmp_path / "t.vcf", panel))
    assert "54 of the 54" in str(error.value)


def test_phase_tells_of_records_that_the_panel_lacks(panel, tmp_path):
    rows = [(STEP * i, base(STEP * i), "CGTA"[i % 4], "0/1") for i in range(1, 41)]
    rows += [(STEP * i + 7, "A", "C", "0/1") for i in range(1, 5)]
    rows += [(STEP * 50, "A", "<DEL>", "0/1"), (STEP * 51, base(STEP * 51), "*,A,C", "0/2")]
    (tmp_path / "t.vcf").write_text(vcf_text(sorted(rows), ["s"]))
    listed = tmp_path / "x.tsv"
    done = phase(
        tmp_path / "t.vcf", panel, tmp_path / "o.vcf", target_options=TargetOptions(
            excluded_sites=listed
        ), **FIXED,
    )  # fmt: skip
    told = dict(done.rows())["target records"]
    assert told.startswith("46 with 2 further ALTs: 41 matched, 4 not in panel")
    assert "1 symbolic" in told
    assert added_up(done.rows()) == (48, 48)
    assert len(listed.read_text().splitlines()) == 1 + 48 - 41
    assert len(bcftools("view", "-H", tmp_path / "o.vcf").splitlines()) == done.num_sites


ALLELES = st.sampled_from(
    ["C", "G", "T", "<DEL>", "*", ".", "C,G", "<NON_REF>", "C,<NON_REF>", "C,*,<*>", "I", "G,<DEL>"]
)


@given(st.lists(st.tuples(st.integers(1, 30), ALLELES), min_size=1, max_size=25))
@settings(max_examples=25, deadline=None)
def test_the_counts_add_up_to_the_records(panel, tmp_path_factory, rows):
    sites = [(STEP * i, base(STEP * i), "CGTA"[i % 4], "0|1") for i in range(31, 61)]
    rows = sorted((STEP * at + at % 2, base(STEP * at), alt, "0|0") for at, alt in rows)
    rows = [(0, "A", "C", "0|1"), *rows]
    path = tmp_path_factory.mktemp("sum") / "t.vcf"
    path.write_text(vcf_text(rows + sites, ["s"]))
    found = compare(InputFiles(path, panel))
    num_lines = sum(not line.startswith("#") for line in path.read_text().splitlines())
    assert found.num_records == num_lines
    assert num_lines + found.num_further_alts == found.num_alts + found.blocks.num_blocks
    left_out = path.with_suffix(".tsv")
    files = InputFiles(path, panel, options=TargetOptions(excluded_sites=left_out))
    rows = dict(compare(files).rows())
    assert int(rows["filtered: at position 0"]) == 1
    assert f"{num_lines:,}" == rows["records"]
