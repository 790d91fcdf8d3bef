"""M3VCF: what Minimac3 would write of random haplotypes is read back; faults are one clear line."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from m3vcf_fixtures import HAPLOTYPES, SITES, later_text, m3vcf_text

from ragimpute.errors import InputError
from ragimpute.io.m3vcf import M3vcfStream, is_m3vcf
from ragimpute.panel.reader import Panel
from ragimpute.preparation.open_panel import open_panel
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region
from tests.preparation.test_prepare import write_vcf


@st.composite
def panels(draw):
    """Sites, haplotypes, ploidy of each sample, and sizes of blocks that share their ends."""
    sizes = draw(st.lists(st.integers(2, 7), min_size=1, max_size=4))
    num_sites = sum(sizes) - len(sizes) + 1
    ploidy = draw(st.lists(st.sampled_from([1, 2, 2]), min_size=1, max_size=5))
    position = sorted(draw(st.sets(st.integers(1, 999), min_size=num_sites, max_size=num_sites)))
    alleles = st.sampled_from([("A", "C"), ("G", "T"), ("C", "CAT"), ("GTT", "G")])
    sites = [(at, *draw(alleles)) for at in position]
    seed = draw(st.integers(0, 2**32 - 1))
    haplotypes = np.random.default_rng(seed).integers(0, 2, (num_sites, sum(ploidy)), np.int8)
    return sites, haplotypes, ploidy, sizes


@given(panels(), st.booleans(), st.integers(1, 999))
@settings(max_examples=40, deadline=None)
def test_random_panels_are_read_back(tmp_path_factory, made, compressed, start):
    sites, haplotypes, ploidy, sizes = made
    path = tmp_path_factory.mktemp("m3vcf") / "x.m3vcf.gz"
    text = m3vcf_text(sites, haplotypes, ploidy, sizes).encode()
    path.write_bytes(gzip.compress(text) if compressed else text)
    assert is_m3vcf(path)
    stream = M3vcfStream(path)
    assert (stream.contig, stream.samples) == ("20", [f"s{i}" for i in range(len(ploidy))])
    for _ in range(2):  # as often as it is asked
        batches = list(stream)
        assert [key for batch in batches for key in batch.sites.keys()] == sites
        alleles = np.concatenate([batch.alleles for batch in batches])
        np.testing.assert_array_equal(alleles[alleles != -2].reshape(haplotypes.shape), haplotypes)
        np.testing.assert_array_equal((alleles[0] != -2).sum(axis=1), ploidy)
    assert stream.notes == []
    part = M3vcfStream(path, region=Region("chr20", start, 1000))
    found = [key for batch in part for key in batch.sites.keys()]
    assert found == [site for site in sites if site[0] >= start]


@given(panels(), st.sampled_from(["2 text", "2 distances", "MVCF"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_later_versions_say_the_same(tmp_path_factory, made, form, compressed):
    sites, haplotypes, ploidy, sizes = made
    if form == "MVCF":
        sizes = [sizes[0], *(size - 1 for size in sizes[1:])]
    path = tmp_path_factory.mktemp("later") / "x.any"
    text = later_text(sites, haplotypes, ploidy, sizes, form=form)
    assume(form != "2 distances" or re.search(r"\t(-|\d+,\S+)$", text, flags=re.MULTILINE))
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    assert is_m3vcf(path)
    stream = M3vcfStream(path)
    assert stream.samples == [f"s{i}" for i in range(len(ploidy))]
    batches = list(stream)
    assert [key for batch in batches for key in batch.sites.keys()] == sites
    alleles = np.concatenate([batch.alleles for batch in batches])
    np.testing.assert_array_equal(alleles[alleles != -2].reshape(haplotypes.shape), haplotypes)
    np.testing.assert_array_equal((alleles[0] != -2).sum(axis=1), ploidy)


@pytest.mark.parametrize(
    ("form", "old", "new", "message"),
    [
        ("2 distances", "\t1,2\n", "\t1,3\n", "line 5: expected the alleles .* by their numbers"),
        ("2 distances", "\t1,2\n", "\t1,0\n", "line 5: expected the alleles of 4"),
        ("2 distances", "\t1,2\n", "\t1,-1\n", "line 5: expected the alleles of 4"),
        ("2 distances", "\t1,2\n", "\t1,x\n", "line 5: expected the alleles of 4"),
        ("MVCF", "UHA=", "AHU=", "line 5: expected the alleles of 4 .* as 0 and 1"),
        ("MVCF", "UHA=0,", "UHA=00,", "line 5: expected the alleles of 4"),
        ("MVCF", "UHA=0,", "UHA=2,", "line 5: expected the alleles of 4"),
        ("MVCF", "REPS=4", "REPS=3", "line 4: expected numbers of haplotypes below REPS=3"),
        ("MVCF", "<BLOCK>", "C", "line 4: expected the row of a block"),
    ],
)  # fmt: skip
def test_faults_of_later_versions(tmp_path, form, old, new, message):
    path = tmp_path / "x.any"
    text = later_text(SITES, HAPLOTYPES, [2, 2], [4], form=form)
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        list(M3vcfStream(path))


def test_a_sample_that_is_haploid_in_one_block_alone_is_told_of(tmp_path):
    path = tmp_path / "x.any"
    for form, mark in (("2 distances", "|"), ("MVCF", ",")):
        lines = later_text(SITES, HAPLOTYPES, [2, 2], [2, 2], form=form).splitlines()
        row = max(i for i, line in enumerate(lines) if "BLOCK" in line)
        first, *rest = lines[row].rsplit(mark, 1)
        lines[row] = first
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(InputError, match=f"line {row + 1}: expected 4 haplotypes, found 3"):
            list(M3vcfStream(path))
        assert rest


def test_haplotypes_and_samples_as_columns_are_told_of(tmp_path):
    path = tmp_path / "x.m3vcf"
    path.write_text(m3vcf_text(SITES, HAPLOTYPES, [2, 2], [4]).replace("s1_HAP_1\ts1_HAP_2", "s1"))
    with pytest.raises(InputError, match="some columns are haplotypes"):
        M3vcfStream(path)


def test_a_panel_of_it_is_that_of_the_vcf(tmp_path):
    rows = [
        ("20", *site, *(f"{a}|{b}" for a, b in row.reshape(2, 2).tolist()))
        for site, row in zip(SITES, HAPLOTYPES, strict=True)
    ]
    vcf = tmp_path / "v.vcf"
    write_vcf(vcf, rows, samples=("s0", "s1"))
    path = tmp_path / "m.m3vcf"
    path.write_text(m3vcf_text(SITES, HAPLOTYPES, [2, 2], [3, 2]))
    done = prepare(path, tmp_path / "m.h5", cm_per_mb=1.0)
    prepare(vcf, tmp_path / "v.h5", cm_per_mb=1.0)
    assert done.source_kind == "M3VCF"
    with Panel.open(tmp_path / "m.h5") as one, Panel.open(tmp_path / "v.h5") as other:
        assert one.sites.keys() == other.sites.keys()
        assert one.samples == other.samples
        found = [panel.haplotypes(0, 4).alleles() for panel in (one, other)]
        np.testing.assert_array_equal(*found)


def lacking(number):
    """An edit that drops a line; 0 is the first after the names."""
    return lambda lines: lines[: 7 + number] + lines[8 + number :]


def changed(number, old, new):
    """An edit of a line; 0 is the first after the names."""

    def edit(lines):
        assert old in lines[7 + number]
        return [*lines[: 7 + number], lines[7 + number].replace(old, new), *lines[8 + number :]]

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: lines[:-1], "ends within a block, 1 sites before its end"),
        (lambda lines: lines[:4], "ends within its header"),
        (lacking(0), "line 8: expected the row of a block"),
        (lacking(2), "line 11: expected the row of a site within a block"),
        (changed(0, "REPS=4", "REPS=3"), "line 8: expected numbers of haplotypes below REPS=3"),
        (changed(0, "\t.\t1", "\t.\tx"), "line 8: expected numbers of distinct haplotypes"),
        (changed(0, "\t.\t1\t", "\t.\t"), "line 8: expected 4 haplotypes, found 3"),
        (changed(1, "002\t0", "002\t2"), "line 9: expected the alleles of 4 distinct haplotypes"),
        (changed(1, "002\t0", "002\t"), "line 9: expected the alleles of 4 distinct haplotypes"),
        (changed(1, "\t10\t", "\t4000000000\t"), "line 9: expected a position below"),
        (lambda lines: [x.replace("_HAP_1", "_HAP_2") for x in lines], "not beside each other"),
        (lambda lines: [x.split("\ts0_")[0] for x in lines], "has no samples"),
        (lambda lines: lines[:7], "holds no records"),
    ],
)  # fmt: skip
def test_faults_are_told_of(edit, message, tmp_path):
    path = tmp_path / "x.m3vcf"
    text = m3vcf_text(SITES, HAPLOTYPES, [2, 2], [3, 2])
    path.write_text("\n".join(edit(text.splitlines())) + "\n")
    with pytest.raises(InputError) as caught:
        list(M3vcfStream(path))
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert not (tmp_path / "p.h5").exists()


def test_damaged_bytes_and_files_that_hold_less_than_they_declare(tmp_path):
    path = tmp_path / "x.m3vcf.gz"
    text = m3vcf_text(SITES, HAPLOTYPES, [2, 2], [3, 2])
    path.write_bytes(gzip.compress(text.encode())[:-20])
    with pytest.raises(InputError, match="truncated"):
        M3vcfStream(path)
    path.write_text(text.replace("n_markers=4", "n_markers=9"))
    done = prepare(path, tmp_path / "p.h5", cm_per_mb=1.0)
    assert any("declares 9 sites and holds 4" in line for line in done.warnings)
    assert not is_m3vcf(tmp_path / "none")


def test_impute_takes_it_as_a_panel(tmp_path):
    from contextlib import ExitStack

    path = tmp_path / "x.m3vcf.gz"
    path.write_bytes(gzip.compress(m3vcf_text(SITES, HAPLOTYPES, [2, 1, 1], [4]).encode()))
    lines: list[str] = []
    with ExitStack() as stack:
        panel, start, stop = open_panel(
            path, stack, lines.append, genetic_map=None, cm_per_mb=2.0, region=None, par=None,
            threads=1, progress=lambda *_: None,
        )  # fmt: skip
        assert (panel.num_haplotypes, start, stop) == (4, 0, 4)
    assert "--cm-per-mb 2.0 -o x.h5" in lines[-1]
