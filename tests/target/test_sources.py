"""A target is imputed, phased and counted alike, whatever kind of file it comes in."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import cyvcf2
import numpy as np
import pytest
from plink_fixtures import write_bed, write_pgen
from raw_text_fixtures import HEADS, pack, raw_text
from vcf_fixtures import bcftools, vcf_text

from ragimpute import example
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.jobs.split import make_plan
from ragimpute.target.qc import imputed_before

REGION = "20:2200000-2260000"


@pytest.fixture(scope="module")
def people():
    """Some typed sites and samples of the example, unphased: (sites, alleles (m, N, 2), names)."""
    target = read_target(example.path("target.vcf.gz"), region="20:2000000-2460000")
    alleles = np.sort(target.alleles[:, :3], axis=2)
    return target.sites, alleles, target.samples[:3]


def write(kind, folder, people, *, turned=()):
    """The people as a file of a kind; sites ``turned`` have REF and ALT exchanged."""
    sites, alleles, names = people
    keys, alleles = sites.keys(), alleles.copy()
    for i in turned:
        keys[i] = (keys[i][0], keys[i][2], keys[i][1])
        alleles[i] = np.sort(1 - alleles[i], axis=1)
    variants = [("20", p, f"v{i}", ref, alt) for i, (p, ref, alt) in enumerate(keys)]
    if kind == "vcf":
        rows = [
            (*key, *("/".join(map(str, pair)) for pair in row))
            for key, row in zip(keys, alleles.tolist(), strict=True)
        ]
        (folder / "t.vcf").write_text(vcf_text(rows, names))
        return folder / "t.vcf"
    if kind in HEADS:  # of one person
        rows = [
            (f"v{i}", "20", key[0], "".join(key[1 + code] for code in row[0]))
            for i, (key, row) in enumerate(zip(keys, alleles.tolist(), strict=True))
        ]
        return pack(folder / f"{names[0]}.txt", raw_text(kind, rows), "zip")
    make = write_bed if kind == "bed" else write_pgen
    return make(folder / kind, variants, alleles, names)


def body(path):
    """The records of a VCF, without its header."""
    return [line for line in Path(path).read_text().splitlines() if not line.startswith("##")]


@pytest.fixture(scope="module")
def as_vcf(people, tmp_path_factory):
    return write("vcf", tmp_path_factory.mktemp("vcf"), people)


@pytest.mark.parametrize("kind", ["bed", "pgen"])
@pytest.mark.parametrize("command", ["impute", "phase"])
def test_the_output_is_that_of_a_vcf(
    kind, command, people, as_vcf, panel_h5, tmp_path, command_line
):
    """Whichever of two alleles is A1."""
    turned = range(0, len(people[0]), 2) if kind == "bed" else ()
    target = write(kind, tmp_path, people, turned=turned)
    outs = []
    for name, given in (("a.vcf", as_vcf), ("b.vcf", target.with_suffix(""))):
        outs.append(tmp_path / name)
        code, _, err = command_line(command, given, "-p", panel_h5, "-r", REGION, "-o", outs[-1])
        assert code == 0, err
        assert "swapped" not in err
    assert body(outs[0]) == body(outs[1])
    assert len(list(cyvcf2.VCF(str(outs[1])))) > 10


@pytest.mark.parametrize("vendor", list(HEADS))
def test_the_output_of_a_raw_text_is_that_of_a_vcf(
    vendor, people, panel_h5, tmp_path, command_line
):
    one = (people[0], people[1][:, :1], people[2][:1])
    outs = []
    for kind in ("vcf", vendor):
        outs.append(tmp_path / f"{kind}.out.vcf")
        target = write(kind, tmp_path, one)
        code, _, err = command_line("impute", target, "-p", panel_h5, "-r", REGION, "-o", outs[-1])
        assert code == 0, err
        assert "swapped" not in err
        assert "strand" not in err
    assert body(outs[0]) == body(outs[1])
    code, out, err = command_line("impute", target, "-p", panel_h5, "--qc-only")
    assert f"raw text of {vendor}" in out
    assert "uncertain: 0 diploid genotypes on X" in out
    code, _, err = command_line(
        "impute", target, "-p", panel_h5, "--all-typed-sites", "-o", tmp_path / "o.vcf"
    )
    assert code == 1
    assert "does not say which of two alleles is REF" in err
    assert not (tmp_path / "o.vcf").exists()


@pytest.mark.parametrize("kind", ["bed", "pgen"])
def test_the_counts_say_what_was_read(kind, people, panel_h5, tmp_path, command_line):
    target = write(kind, tmp_path, people)
    code, out, err = command_line("impute", target, "-p", panel_h5, "--qc-only")
    assert code == 0, err
    assert {"bed": "PLINK 1 (bed, bim, fam)", "pgen": "PLINK 2 (pgen, pvar, psam)"}[kind] in out
    assert f"{len(people[0]):,}" in out


def test_lists_of_samples_and_plans(people, panel_h5, tmp_path, command_line):
    target = write("bed", tmp_path, people)
    assert make_plan(panel_h5, target, samples_per_batch=2).batches == [
        people[2][:2],
        people[2][2:],
    ]
    (tmp_path / "some.txt").write_text(f"{people[2][1]}\n")
    words = ["-p", panel_h5, "-r", REGION, "--samples-file", tmp_path / "some.txt"]
    code, _, err = command_line("impute", target, *words, "-o", tmp_path / "o.vcf")
    assert code == 0, err
    assert cyvcf2.VCF(str(tmp_path / "o.vcf")).samples == [people[2][1]]


def test_a_part_of_the_set_is_not_replaced(people, panel_h5, tmp_path, command_line):
    target = write("bed", tmp_path, people)
    before = target.with_suffix(".bim").read_bytes()
    code, _, err = command_line(
        "impute", target, "-p", panel_h5, "--qc-only",
        "--excluded-sites", target.with_suffix(".bim"),
    )  # fmt: skip
    assert code == 1
    assert "is also the target's variants" in err
    assert target.with_suffix(".bim").read_bytes() == before


def test_another_contig_only(people, panel_h5, tmp_path, command_line):
    target = write_bed(tmp_path / "x", [("7", 10, ".", "A", "C")], [[[0, 1]]], ["a"])
    code, _, err = command_line("impute", target, "-p", panel_h5, "--qc-only")
    assert code == 1
    assert "has no records on the panel's contig 20; it holds 7" in err
    assert "bcftools" not in err


@pytest.mark.needs_program("bcftools")
@pytest.mark.parametrize("kind", ["vcf.gz", "bcf"])
def test_a_target_that_is_imputed_already_is_told(
    kind, imputed_example, panel_h5, tmp_path, monkeypatch, command_line
):
    """The command of the warning gives the sites that were typed, of which nothing is said."""
    monkeypatch.chdir(tmp_path)
    whole = Path(f"my whole.{kind}")
    bcftools("view", "-Ob" if kind == "bcf" else "-Oz", "-o", whole, imputed_example[0])
    code, out, err = command_line("impute", whole, "-p", panel_h5, "--qc-only")
    said = " ".join((out + err).split())
    assert code == 0
    assert "seems to be imputed already (FORMAT/DS)" in said
    command = re.search(r"impute what was typed: (bcftools .* -o '.*\.typed\.vcf\.gz')", said)[1]
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    typed = read_target(shlex.split(command)[-1])
    assert typed.sites.keys() == read_target(example.path("target.vcf.gz")).sites.keys()


@pytest.mark.parametrize(
    ("formats", "infos", "told"),
    [
        ("DS", ("DR2", "IMP"), "bcftools view -e INFO/IMP=1"),  # Beagle
        ("HDS", ("R2", "TYPED", "IMPUTED"), "bcftools view -i INFO/TYPED=1"),  # Minimac4
        ("DS", ("RAF", "INFO"), "impute what was typed"),  # GLIMPSE2
        ("DS", ("AF",), None), ("GQ", ("R2",), None), (None, ("TYPED",), None),
    ],
)  # fmt: skip
def test_files_of_other_imputation_tools(tmp_path, formats, infos, told):
    header = '##FORMAT=<ID=GT,Number=1,Type=String,Description="x">\n'
    if formats:
        header += f'##FORMAT=<ID={formats},Number=1,Type=Float,Description="x">\n'
    text = "".join(f'##INFO=<ID={x},Number=1,Type=Float,Description="x">\n' for x in infos)
    path = tmp_path / "x.vcf"
    path.write_text(vcf_text([(10, "A", "C", "0|1", "1|1")], formats=header, infos=text))
    said = imputed_before(read_target(path))
    assert (said is None) == (told is None)
    assert told is None or told in said
