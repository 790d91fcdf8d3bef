"""Genome builds that positions tell: well-known sites, and records that fit once moved."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from chain_fixtures import chain_text
from hypothesis import given, settings
from hypothesis import strategies as st
from plink_fixtures import write_bed
from raw_text_fixtures import pack, raw_text
from vcf_fixtures import vcf_text

from ragimpute.contigs import HUMAN_LENGTHS
from ragimpute.io.known_sites import BUILDS, KNOWN_SITES
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.io.vcf.read.records import site_table
from ragimpute.preparation.prepare import prepare
from ragimpute.target.builds import contradiction, find_shift, target_build

LENGTHS = {build: HUMAN_LENGTHS[build]["2"] for build in BUILDS}
SNPS = ["AC", "AG", "AT", "CG", "CT", "GT"]
LCT = {"rs4988235": "AG", "rs182549": "CT"}  # alleles of known sites of chromosome 2


def sites_of(rng, num, step, first=136_000_000):
    """Random SNPs: (position, ID, REF, ALT)."""
    position = first + np.cumsum(rng.integers(1, 2 * step, num))
    pairs = [SNPS[k] for k in rng.integers(0, 6, num)]
    return [(int(p), ".", *pair) for p, pair in zip(position, pairs, strict=True)]


def table(rows, contig="2"):
    position, ids, ref, alt = (list(column) for column in zip(*rows, strict=True))
    return site_table(contig, position, ref, alt, ids)


def as_panel(rows):
    return SimpleNamespace(sites=table(rows), contig="2", contig_length=None)


def as_target(rows):
    return SimpleNamespace(sites=table(rows))


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(-3_000_000, 3_000_000), st.sampled_from([5, 30, 300]),
    st.floats(0.35, 1), st.booleans(),
)  # fmt: skip
def test_a_shift_is_found_if_there_is_one(seed, shift, step, share, other_strand):
    """Beside panels with a SNP in 5 to 300 bp, arrays of which a third or all is in the panel."""
    rng = np.random.default_rng(seed)
    panel = sites_of(rng, 6_000, step)
    array = [panel[i] for i in np.sort(rng.choice(6_000, int(200 * share), replace=False))]
    array += sites_of(rng, 200 - len(array), 15 * step * 2)
    turned = str.maketrans("ACGT", "TGCA")
    moved = sorted(
        (p - shift, name, *(x.translate(turned) if other_strand else x for x in (alt, ref)))
        for p, name, ref, alt in array
    )
    moved = [row for i, row in enumerate(moved) if i == 0 or row[0] != moved[i - 1][0]]
    found = find_shift(as_target(moved), as_panel(panel))
    if shift == 0:
        assert found is None
    elif found is not None:
        assert found.shift_bp == shift
    else:  # a stretch with hardly more fitting records than chance makes
        assert share < 0.6 or step == 5


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 5, 30, 300]), st.integers(0, 150))
def test_no_shift_is_found_if_there_is_none(seed, step, num_shared):
    """Sites that the panel lacks, and sites that it has where they are."""
    rng = np.random.default_rng(seed)
    panel = sites_of(rng, 6_000, step)
    rows = {row[0]: row for row in sites_of(rng, 150, 20 * step)}
    rows |= {panel[i][0]: panel[i] for i in rng.choice(6_000, num_shared, replace=False)}
    assert find_shift(as_target([rows[p] for p in sorted(rows)]), as_panel(panel)) is None


def test_evenly_spaced_sites_tell_nothing():
    rows = [(1_000 + 10 * i, ".", "A", "G") for i in range(3_000)]
    assert find_shift(as_target([(p + 5, *row) for p, *row in rows]), as_panel(rows)) is None


def test_few_records_tell_nothing():
    panel = sites_of(np.random.default_rng(1), 2_000, 30)
    few = [(p + 99, *row) for p, *row in panel[:19]]
    assert find_shift(as_target(few), as_panel(panel)) is None
    assert find_shift(as_target(few[:1]), as_panel(panel)) is None


# --- runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """A panel of chromosome 2, GRCh37, around the known sites."""
    folder = tmp_path_factory.mktemp("lct")
    rng = np.random.default_rng(3)
    rows = {row[0]: row for row in sites_of(rng, 3_000, 100, first=136_400_000)}
    for name, pair in LCT.items():
        place = KNOWN_SITES[name][1][BUILDS.index("GRCh37")]
        rows[place] = (place, name, *pair)
    rows = [rows[p] for p in sorted(rows)]
    genotypes = rng.integers(0, 2, (len(rows), 4, 2))
    write(folder / "panel.vcf", rows, genotypes, length=LENGTHS["GRCh37"], sep="|")
    prepare(folder / "panel.vcf", folder / "panel.h5", cm_per_mb=1)
    return folder / "panel.h5", rows


def write(path, rows, genotypes, *, length=None, sep="/"):
    """A VCF of genotypes (m, N, 2)."""
    names = [f"{path.stem}{i}" for i in range(genotypes.shape[1])]
    called = [
        ("2", p, ref, alt, *(sep.join(map(str, pair)) for pair in genotypes[i].tolist()))
        for i, (p, _, ref, alt) in enumerate(rows)
    ]
    text = vcf_text(called, names, contigs=("2",))
    if length:
        text = text.replace("ID=2>", f"ID=2,length={length}>")
    head, *body = re.split(r"(?m)^(?=2\t)", text)
    cells = [line.split("\t") for line in body]
    for line, row in zip(cells, rows, strict=True):
        line[2] = row[1]
    path.write_text(head + "".join(map("\t".join, cells)))
    return path


def in_build(rows, build, *, ids=True):
    """Every third site of the panel, and the known ones, where another build has them."""
    place = KNOWN_SITES["rs4988235"][1]
    shift = place[BUILDS.index(build)] - place[BUILDS.index("GRCh37")]
    some = [row for i, row in enumerate(rows) if i % 3 == 0 or row[1] != "."]
    return [(p + shift, name if ids else ".", *pair) for p, name, *pair in some], shift


def people(rows, num=2):
    return np.sort(np.random.default_rng(4).integers(0, 2, (len(rows), num, 2)), axis=2)


def qc(command_line, target, panel, *words):
    code, out, err = command_line("impute", target, "-p", panel, "--qc-only", *words)
    return code, out + err


@pytest.mark.parametrize("build", ["NCBI36", "GRCh38"])
@pytest.mark.parametrize("named", [None, "GRCh37"])
@pytest.mark.parametrize("kind", ["vcf", "bed"])
def test_a_target_looks_like_another_build(panel, tmp_path, command_line, build, named, kind):
    """Its header says nothing or is wrong, and its records have no rsIDs."""
    path, rows = panel
    moved, shift = in_build(rows, build, ids=False)
    genotypes = people(moved)
    if kind == "vcf":
        length = None if named is None else LENGTHS[named]
        target = write(tmp_path / "t.vcf", moved, genotypes, length=length)
    else:
        variants = [("2", p, f"v{i}", *pair) for i, (p, _, *pair) in enumerate(moved)]
        target = write_bed(tmp_path / "t", variants, genotypes, ["a", "b"])
    code, said = qc(command_line, target, path)
    said = " ".join(said.split())
    assert code == 1
    assert f"fit the panel if moved by {-shift:+,} bp" in said
    assert f"the target looks like {build}, the panel is GRCh37" in said
    assert ("though both headers say GRCh37" in said) == (named is not None and kind == "vcf")
    assert f"--chain {'hg18' if build == 'NCBI36' else 'hg38'}ToHg19.over.chain.gz" in said


@pytest.mark.parametrize("named", [None, "GRCh37"])
def test_a_wrong_header_does_not_forbid_to_lift(panel, tmp_path, command_line, named):
    """The lifted records fit, whatever the header says; and --chain is refused where none fits."""
    path, rows = panel
    for ids in (False, True):
        moved, shift = in_build(rows, "GRCh38", ids=ids)
        length = None if named is None else LENGTHS[named]
        target = write(tmp_path / "t.vcf", moved, people(moved), length=length)
        (tmp_path / "x.chain").write_text(chain_text(
            [(135_000_000, 137_000_000, "2", 135_000_000 - shift, "+")], source="2",
            size=LENGTHS["GRCh38"], other_sizes={"2": LENGTHS["GRCh37"]},
        ))  # fmt: skip
        code, said = qc(command_line, target, path, "--chain", tmp_path / "x.chain")
        assert code == 0, said
        assert re.search(rf"records lifted\s+{len(moved):,}", said)
        assert ("of another build than its positions" in " ".join(said.split())) == bool(named)


@pytest.mark.parametrize("length", [None, LENGTHS["GRCh37"]])
def test_a_target_of_the_panels_build_is_not_lifted(panel, tmp_path, command_line, length):
    path, rows = panel
    some, _ = in_build(rows, "GRCh37", ids=False)
    target = write(tmp_path / "t.vcf", some, people(some), length=length)
    (tmp_path / "x.chain").write_text(chain_text(
        [(135_000_000, 137_000_000, "2", 134_242_430, "+")], source="2",
        size=LENGTHS["GRCh38"], other_sizes={"2": LENGTHS["GRCh37"]},
    ))  # fmt: skip
    code, said = qc(command_line, target, path, "--chain", tmp_path / "x.chain")
    assert code == 1
    assert "leave out --chain" in said
    by = "by its header" if length else "of the panel's build by its positions"
    assert by in " ".join(said.split())
    code, said = qc(command_line, target, path)  # what the hint says
    assert code == 0, said


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("comment", ["build 36", "build 37", "build 38", ""])
def test_a_raw_text_is_of_the_build_of_its_known_sites(
    panel, tmp_path, command_line, build, comment
):
    """Vendors' comments are wrong at times; well-known sites of any chromosome tell."""
    path, rows = panel
    moved, _ = in_build(rows, build)
    lines = [(name, "2", p, "".join(pair)) for p, name, *pair in moved]
    for name in ("rs429358", "rs7412"):
        lines.append((name, "19", KNOWN_SITES[name][1][BUILDS.index(build)], "CT"))
    text = raw_text("23andMe", lines)
    kept = [line for line in text.splitlines(keepends=True) if "build" not in line.lower()]
    target = pack(tmp_path / "me.txt", f"# reference human assembly {comment}\n" + "".join(kept))
    code, said = qc(command_line, target, path)
    said = " ".join(said.split())
    assert code == (0 if build == "GRCh37" else 1)
    wrong = comment and comment.split()[1] != build[-2:]
    assert ("in its comments, but is of" in said) == bool(wrong and code == 0)
    if code == 0:
        assert f"{build} by the positions of 4 of 4 well-known sites" in said
    else:
        by = "by the positions of 4 well-known sites"
        assert f"{by} the target is of {build} and the panel of GRCh37" in said


def test_the_positions_of_known_sites_count_more_than_a_vcf_header(panel, tmp_path, command_line):
    path, rows = panel
    some, _ = in_build(rows, "GRCh37")
    target = write(tmp_path / "t.vcf", some, people(some), length=LENGTHS["GRCh38"])
    code, said = qc(command_line, target, path)
    assert code == 0, said
    assert "says GRCh38, but 2 of 2 well-known sites" in " ".join(said.split())
    read = read_target(target)
    assert target_build(read) == "GRCh37"
    assert "taken for GRCh37" in contradiction(read)


@pytest.mark.parametrize("shift", [-1, 1])
def test_positions_that_count_from_0(panel, tmp_path, command_line, shift):
    path, rows = panel
    some = [(p + shift, ".", *pair) for p, _, *pair in rows[::3]]
    target = write(tmp_path / "t.vcf", some, people(some))
    _, said = qc(command_line, target, path)
    assert f"fit the panel if moved by {-shift:+} bp: the positions of one file count from 0" in (
        " ".join(said.split())
    )
