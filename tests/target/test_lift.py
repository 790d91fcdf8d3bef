"""Targets of another genome build: lifted, turned, counted, and told of."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cyvcf2
import numpy as np
import pytest
from chain_fixtures import chain_text, inverse
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import make_batch
from plink_fixtures import write_bed, write_pgen
from raw_text_fixtures import pack, raw_text
from vcf_fixtures import vcf_text

from ragimpute import example
from ragimpute.contigs import HUMAN_LENGTHS
from ragimpute.errors import InputError
from ragimpute.io.chain import ChainFile
from ragimpute.io.source import SourceFacts
from ragimpute.io.vcf.read.genotypes import Target, read_target
from ragimpute.io.vcf.read.records import VcfFile
from ragimpute.target.builds import lift_hint, moved_ids, target_build
from ragimpute.target.inputs import require_records
from ragimpute.target.lift import REASONS, lift

ONE_SITE = make_batch(np.zeros((1, 1, 2), np.int8)).sites
PANEL = SimpleNamespace(
    contig="20", contig_length=None, num_sites=1, sites=ONE_SITE, site_type=np.zeros(1, np.int8)
)
REGION = "20:2200000-2260000"
B37, B38 = (HUMAN_LENGTHS[build]["20"] for build in ("GRCh37", "GRCh38"))


def target_of(sites, alleles=None, contig="20", **more):
    """A target of sites (position, REF, ALT), of one sample unless alleles (m, N, 2) are given."""
    alleles = np.zeros((len(sites), 1, 2), np.int8) if alleles is None else alleles
    position, ref, alt = zip(*sites, strict=True)
    batch = make_batch(alleles, position, contig=contig, ref=ref, alt=alt)
    num = alleles.shape[1]
    return Target(
        [f"s{i}" for i in range(num)], batch.sites, batch.alleles, batch.phased,
        np.full(len(sites), -1, np.int32), {}, **more,
    )  # fmt: skip


def lifted(target, pieces, tmp_path, panel=PANEL, **options):
    path = Path(tmp_path, "x.chain")
    path.write_text(chain_text(pieces, **options))
    return lift(target, panel, ChainFile(path))


def test_records_come_to_their_places_strands_and_reasons(tmp_path):
    pieces = [
        (0, 100, "chr20", 500, "+"), (100, 200, "chr20", 50, "-"), (300, 400, "chr7", 0, "+"),
        (350, 400, "chr20", 900, "+"), (400, 420, "chr20", 700, "+"), (420, 440, "chr20", 750, "+"),
    ]  # fmt: skip
    sites = [
        (10, "A", "G"), (20, "AT", "A"), (101, "A", "G"), (110, "AC", "GT"), (120, "AC", "A"),
        (130, "C", "."), (250, "A", "G"), (310, "A", "G"), (360, "A", "G"), (419, "ACG", "A"),
        (425, "ACG", "A"),
    ]  # fmt: skip
    got = lifted(target_of(sites), pieces, tmp_path)
    assert got.sites.keys() == [
        (121, "G", "."), (140, "GT", "AC"), (150, "T", "C"), (510, "A", "G"), (520, "AT", "A"),
        (755, "ACG", "A"),
    ]  # fmt: skip
    assert [(one.position_bp, one.reason) for one in got.left_out] == [
        (120, "lift_inverted_indel"), (250, "lift_unmapped"), (310, "lift_other_contig"),
        (360, "lift_several"), (419, "lift_broken"),
    ]  # fmt: skip
    assert {one.reason for one in got.left_out} == set(REASONS) - {""}
    assert got.facts.counts == {"records lifted": 6, "records lifted to the other strand": 3}
    assert len(got.sites) + len(got.left_out) == len(sites)


def test_symbolic_alleles_are_left_out(tmp_path):
    """Nobody lifts their END: they are counted, at the position that POS has in the new build."""
    target = target_of([(10, "A", "G"), (20, "A", "<DEL>"), (30, "A", "A[7:9[")])
    got = lifted(target, [(0, 100, "chr20", 500, "+")], tmp_path)
    assert got.sites.keys() == [(510, "A", "G")]
    assert [(one.position_bp, one.alt, one.reason) for one in got.left_out] == [
        (520, "<DEL>", "symbolic"), (530, "A[7:9[", "symbolic"),
    ]  # fmt: skip


@st.composite
def people(draw):
    """SNPs and alleles, phased or not, at distinct places below 300."""
    places = sorted(draw(st.sets(st.integers(1, 300), min_size=1, max_size=12)))
    sites = [(place, *draw(st.permutations("ACGT"))[:2]) for place in places]
    pairs = draw(st.lists(st.integers(-1, 1), min_size=4 * len(sites), max_size=4 * len(sites)))
    return sites, np.array(pairs, np.int8).reshape(-1, 2, 2)


@settings(max_examples=50, deadline=None)
@given(people(), st.lists(st.sampled_from("+-"), min_size=3, max_size=3), st.permutations(range(3)))
def test_there_and_back_is_where_it_was(tmp_path_factory, given_people, strands, order):
    sites, alleles = given_people
    folder = tmp_path_factory.mktemp("chain")
    pieces = [
        (100 * i, 100 * i + 100, "chr20", 150 * order[i] + 7, strand)
        for i, strand in enumerate(strands)
    ]
    target = target_of(sites, alleles)
    there = lifted(target, pieces, folder)
    assert (np.diff(there.sites.position_bp) > 0).all()
    back = lifted(there, inverse(pieces), folder)
    assert back.sites.keys() == target.sites.keys()
    np.testing.assert_array_equal(back.alleles, alleles)


def test_mt_is_the_same_in_two_builds(tmp_path):
    panel = SimpleNamespace(contig="MT", contig_length=16569, sites=PANEL.sites)
    facts = SourceFacts("raw text", build="GRCh37")
    target = target_of([(10, "A", "G")], contig="MT", facts=facts)
    got = lifted(target, [(0, 100, "chr20", 50, "+")], tmp_path, panel)
    assert got.sites is target.sites
    assert "--chain was not applied" in got.facts.warnings[0]


@pytest.mark.parametrize(
    ("source", "other", "name"),
    [
        ("GRCh37", "GRCh38", "hg19ToHg38.over"),
        ("NCBI36", "GRCh37", "hg18ToHg19.over"),
        ("GRCh38", "T2T-CHM13", "hg38ToHs1.over"),
        ("GRCh37", None, "--chain FILE"),
        (None, None, "--chain FILE"),
    ],
)
def test_the_hint_names_the_chain_file_of_ucsc(source, other, name):
    assert name in lift_hint(source, other)


@pytest.mark.parametrize(
    ("head", "build"),
    [
        (f"##contig=<ID=20,length={B37}>\n", "GRCh37"),
        ("##reference=file:///data/GRCh38.fa\n", "GRCh38"),
        ("##reference=hg19\n", "GRCh37"),
        ("##contig=<ID=20,assembly=hg38>\n", "GRCh38"),
        ("##reference=REF.fa\n", None),
        ("", None),
    ],
)
def test_builds_that_headers_tell(tmp_path, head, build):
    text = vcf_text([(10, "A", "C", "0|1", "1|1")], contigs=() if "contig" in head else ("20",))
    (tmp_path / "x.vcf").write_text(text.replace("\n", "\n" + head, 1))
    assert target_build(read_target(tmp_path / "x.vcf")) == build


# --- runs ----------------------------------------------------------------------------------------

SHIFT = 12_345


@pytest.fixture(scope="module")
def people_of_example():
    """Unphased people of the example: sites, alleles (m, N, 2), names."""
    target = read_target(example.path("target.vcf.gz"), region="20:2000000-2460000")
    return target.sites, np.sort(target.alleles[:, :2], axis=2), target.samples[:2]


def pieces_of(sites):
    """Two pieces from another build, the second inverted there, and back."""
    half = 2_230_000
    return [
        (1_900_000 + SHIFT, half + SHIFT, "20", 1_900_000, "+"),
        (half + SHIFT, 2_500_000 + SHIFT, "20", half, "-"),
    ]


def elsewhere(sites):
    """The sites as the other build has them: (position, REF, ALT)."""
    turn = str.maketrans("ACGT", "TGCA")
    found = []
    for position, ref, alt in sites.keys():
        if position <= 2_230_000:
            found.append((position + SHIFT, ref, alt))
        else:
            place = 2_500_000 - (position - 2_230_000 - 1)
            found.append((place + SHIFT, ref.translate(turn), alt.translate(turn)))
    return found


def write(kind, folder, keys, alleles, names, head=""):
    order = np.argsort([key[0] for key in keys], kind="stable").tolist()
    keys, alleles = [keys[i] for i in order], alleles[order]
    variants = [("20", p, f"v{i}", ref, alt) for i, (p, ref, alt) in enumerate(keys)]
    if kind == "vcf":
        rows = [
            (*key, *("/".join(map(str, pair)) for pair in row))
            for key, row in zip(keys, alleles.tolist(), strict=True)
        ]
        contigs = () if "contig" in head else ("20",)
        text = vcf_text(rows, names, contigs=contigs)
        (folder / "t.vcf").write_text(text.replace("\n", "\n" + head, 1))
        return folder / "t.vcf"
    if kind == "raw text":
        rows = [
            (f"v{i}", "20", key[0], "".join(key[1 + code] for code in row[0]))
            for i, (key, row) in enumerate(zip(keys, alleles.tolist(), strict=True))
        ]
        return pack(folder / f"{names[0]}.txt", raw_text("FTDNA", rows))
    return (write_bed if kind == "bed" else write_pgen)(folder / "t", variants, alleles, names)


def body(path):
    return [line for line in Path(path).read_text().splitlines() if not line.startswith("##")]


@pytest.mark.parametrize("command", ["impute", "phase"])
@pytest.mark.parametrize("kind", ["vcf", "bed", "pgen", "raw text"])
def test_the_output_is_that_of_a_target_of_the_panels_build(
    kind, command, people_of_example, panel_h5, tmp_path, command_line
):
    sites, alleles, names = people_of_example
    if kind == "raw text":
        alleles, names = alleles[:, :1], names[:1]
    usual, other = tmp_path / "usual", tmp_path / "other"
    usual.mkdir()
    other.mkdir()
    given_usual = write("vcf", usual, sites.keys(), alleles, names)
    given_other = write(kind, other, elsewhere(sites), alleles, names)
    chain = tmp_path / "x.chain.gz"
    chain.write_text(
        chain_text(pieces_of(sites), source="20", size=90_000_000, other_sizes={"20": B37})
    )
    a, b = tmp_path / "a.vcf", tmp_path / "b.vcf"
    code, _, err = command_line(command, given_usual, "-p", panel_h5, "-r", REGION, "-o", a)
    assert code == 0, err
    words = ["-p", panel_h5, "-r", REGION, "--chain", chain]
    code, _, err = command_line(command, given_other, *words, "-o", b)
    assert code == 0, err
    assert body(a) == body(b)
    assert len(list(cyvcf2.VCF(str(b)))) > 10
    code, out, err = command_line("impute", given_other, *words, "--qc-only")
    assert code == 0, err
    assert re.search(r"records lifted\s+\d", out)
    # Without the chain file the target is refused or warned of, and the option is named.
    code, _, err = command_line("impute", given_other, "-p", panel_h5, "--qc-only")
    assert "--chain" in err


def test_excluded_sites_name_what_was_not_lifted(
    people_of_example, panel_h5, tmp_path, command_line
):
    sites, alleles, names = people_of_example
    target = write("vcf", tmp_path, elsewhere(sites), alleles, names)
    (tmp_path / "x.chain").write_text(
        chain_text(pieces_of(sites)[:1], source="20", size=90_000_000, other_sizes={"20": B37})
    )
    table = tmp_path / "x.tsv"
    code, out, err = command_line(
        "impute", target, "-p", panel_h5, "--qc-only", "--chain", tmp_path / "x.chain",
        "--excluded-sites", table,
    )  # fmt: skip
    assert code == 0, err
    lost = int((sites.position_bp > 2_230_000).sum())
    assert re.search(rf"not in the panel's build\s+{lost}\b", out)
    rows = [line.split("\t") for line in table.read_text().splitlines()[1:]]
    assert sum(row[5] == "lift_unmapped" for row in rows) == lost
    assert {row[6] for row in rows if row[5] == "lift_unmapped"} == {"."}


@pytest.mark.parametrize(
    ("size", "other_size", "contig", "head", "message"),
    [
        (90_000_000, 80_000_000, "20", "", "does not lift to the build of the panel"),
        (90_000_000, B37, "20", f"##contig=<ID=20,length={B38}>\n", "does not lift from the build"),
        (B37, B37, "20", f"##contig=<ID=20,length={B37}>\n", "is of GRCh37 by its header, as the"),
        (90_000_000, B37, "7", "", "has no chain from contig 20"),
    ],
)
def test_a_chain_file_of_other_builds_is_refused(
    people_of_example, panel_h5, tmp_path, command_line, size, other_size, contig, head, message
):
    sites, alleles, names = people_of_example
    target = write("vcf", tmp_path, sites.keys(), alleles, names, head)
    (tmp_path / "x.chain").write_text(
        chain_text(pieces_of(sites), source=contig, size=size, other_sizes={"20": other_size})
    )
    code, _, err = command_line(
        "impute", target, "-p", panel_h5, "-o", tmp_path / "o.vcf", "--chain", tmp_path / "x.chain"
    )
    assert code == 1
    assert message in err
    assert "hint" in err
    assert not (tmp_path / "o.vcf").exists()


def test_a_gvcf_is_not_lifted(panel_h5, tmp_path, command_line):
    infos = '##INFO=<ID=END,Number=1,Type=Integer,Description="x">\n'
    rows = [(2_200_000, "A", "<NON_REF>", "0/0"), (2_200_500, "A", "C,<NON_REF>", "0/1")]
    text = vcf_text(rows, ["a"], infos=infos)
    (tmp_path / "x.vcf").write_text(text.replace("\t.\tGT\t0/0", "\tEND=2200400\tGT\t0/0"))
    (tmp_path / "x.chain").write_text(chain_text([(0, 10, "20", 0, "+")], source="20"))
    code, _, err = command_line(
        "impute", tmp_path / "x.vcf", "-p", panel_h5, "--qc-only", "--chain", tmp_path / "x.chain"
    )
    assert code == 1
    assert "cannot be lifted by --chain" in err


@pytest.mark.needs_program("bcftools")
def test_a_gvcf_is_lifted_after_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("REF.fa").write_text(">20\n" + "ACGTACGTAC" * 3 + "\n")
    infos = '##INFO=<ID=END,Number=1,Type=Integer,Description="x">\n'
    rows = [(1, "A", "<NON_REF>", "0/0"), (9, "A", "C,<NON_REF>", "0/1")]
    text = vcf_text(rows, ["a"], infos=infos).replace("\t.\tGT\t0/0", "\tEND=8\tGT\t0/0")
    Path("my x.vcf").write_text(text)
    Path("x.chain").write_text(chain_text([(0, 30, "20", 50, "+")], source="20"))
    chain = ChainFile("x.chain")
    with pytest.raises(InputError) as caught:
        require_records(VcfFile("my x.vcf"), read_target("my x.vcf", keep_monomorphic=True))
    command = caught.value.hint.split(": ", 1)[1]
    subprocess.run(["bash", "-c", command], check=True, capture_output=True)
    out = command.split("-o ")[1].strip("'")
    target = read_target(out, keep_monomorphic=True)
    require_records(VcfFile(out), target)
    assert lift(target, PANEL, chain).sites.position_bp.tolist() == list(range(51, 60))


def test_rsids_at_other_positions_tell_another_build(
    people_of_example, panel_h5, tmp_path, command_line
):
    target = read_target(example.path("target.vcf.gz"))
    panel = SimpleNamespace(sites=target.sites)
    assert moved_ids(target, panel)[1] == 0
    ids = target.sites.id.tolist()
    shared = sum(name.startswith("rs") for name in ids)
    assert shared > 50
    shifted = make_batch(target.alleles, target.sites.position_bp + SHIFT).sites
    shifted.id[:] = ids
    assert moved_ids(target, SimpleNamespace(sites=shifted)) == (shared, shared)
    keys = [(p + SHIFT, r, a) for p, r, a in target.sites.keys()]
    rows = [
        (*key, "/".join(map(str, row[0])))
        for key, row in zip(keys, target.alleles.tolist(), strict=True)
    ]
    lines = vcf_text(rows, ["a"]).splitlines()
    head = [line for line in lines if line.startswith("#")]
    records = [line.split("\t") for line in lines if not line.startswith("#")]
    for record, name in zip(records, ids, strict=True):
        record[2] = name
    (tmp_path / "x.vcf").write_text("\n".join([*head, *map("\t".join, records)]) + "\n")
    _, _, err = command_line("impute", tmp_path / "x.vcf", "-p", panel_h5, "--qc-only")
    assert re.search(r"of [\d,]+ rsIDs that both files have are at other positions", err)
    assert "--chain FILE" in err
