"""Input as users have it, through the command line: complaints about other tools, by number.

``peers-12`` and the like are lines of the list of complaints that this project started from; each
names what went wrong elsewhere. Other tests carry such a number in their own names, and rows of the
table of inputs as ``design7-3``. Lines that no test can hold are about documents, downloads and
releases (10, 43, 45, 55), the time for one sample (29: benchmarks/) and training (56).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

import cyvcf2
import numpy as np
import pytest
from bad_input import columns, cut, edit, rename, shift
from vcf_fixtures import bcftools, read_imputed

from ragimpute import example
from ragimpute.preparation.prepare import prepare

AREA = "20:2000000-2060000"
MODEL = ("-m", "plain")  # Li-Stephens copying: it is the input that is tested
FIXED = (*MODEL, "--ne", "1e5", "--err", "1e-3")
PREPARE = ("prepare", "p.vcf", "--cm-per-mb", "1", "-o", "new.h5", "-q")
IMPUTE = ("impute", "t.vcf", "-p", "p.h5", "-o", "o.vcf", *FIXED)


@pytest.fixture(scope="session")
def good(tmp_path_factory, plain_copying):
    """A small panel and target as text, and the prepared panel."""
    folder = tmp_path_factory.mktemp("good")
    for name, source in (("p", "panel.bcf"), ("t", "target.vcf.gz")):
        bcftools("view", "-r", AREA, "-Ov", "-o", folder / f"{name}.vcf", example.path(source))
    prepare(folder / "p.vcf", folder / "p.h5", cm_per_mb=1)
    shutil.copytree(plain_copying, folder / "plain")
    return folder


@pytest.fixture
def here(good, tmp_path, monkeypatch):
    """A copy of these, to be changed."""
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass
class Case:
    """What is done to the files, the command, and what must come of it.

    Attributes
    ----------
    change
        Called with the folder.
    words
        The command.
    code, err
        Exit code, and texts that the standard error must hold.
    check
        Called with the folder and what was printed, where the command succeeds.
    """

    change: object
    words: tuple = IMPUTE
    code: int = 0
    err: tuple = ()
    check: object = field(default=lambda folder, out: None)


def records(path):
    """Lines of a VCF that are no header."""
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def keep(path, wanted):
    """Keep the records of a VCF whose numbers are wanted."""
    lines = path.read_text().splitlines()
    head = [line for line in lines if line.startswith("#")]
    rest = [line for i, line in enumerate(lines[len(head) :]) if i in wanted]
    path.write_text("\n".join(head + rest) + "\n")


def add(path, *rows):
    """Add records (position, ref, alt, call of all samples) to a VCF, in order."""
    lines = path.read_text().splitlines()
    head = [line for line in lines if line.startswith("#")]
    rest = lines[len(head) :]
    width = rest[0].count("\t") - 8
    for position, ref, alt, call in rows:
        made = ["20", str(position), "new", ref, alt, ".", ".", ".", "GT", *[call] * width]
        rest.append("\t".join(made))
    rest.sort(key=lambda line: int(line.split("\t")[1]))
    path.write_text("\n".join(head + rest) + "\n")


def as_it_is(folder):
    """Change nothing."""


def drop_header(path, name):
    """Drop header lines that begin with a text."""
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith(name)) + "\n")


def no_info(cells):
    cells[7] = "."


def repeat_allele(cells):
    if cells[1] == "2000452":
        cells[4] = cells[3]


def set_cell(number, value, *, position=None):
    def change(cells):
        if position is None or cells[1] == position:
            cells[number] = value

    return change


def all_sites(folder, out):
    """Every panel site is written, in order, with complete phased genotypes."""
    found = read_imputed(folder / "o.vcf")
    expected = [tuple(line.split("\t")[1:2] + line.split("\t")[3:5]) for line in
                records(folder / "p.vcf")]  # fmt: skip
    assert [(str(p), r, a) for p, r, a in found.keys] == expected
    assert (found.genotypes[:, :, 0] >= 0).all()
    assert all("/" not in line.split("\t", 9)[9] for line in records(folder / "o.vcf"))
    assert "./." not in (folder / "o.vcf").read_text()


def same_contig_as_the_target(folder, out):
    contigs = {line.split("\t")[0] for line in records(folder / "o.vcf")}
    assert contigs == {records(folder / "t.vcf")[0].split("\t")[0]}


def ids_of_the_panel(folder, out):
    ids = [line.split("\t")[2] for line in records(folder / "o.vcf")]
    assert ids == [line.split("\t")[2] for line in records(folder / "p.vcf")]
    assert sum(name.startswith("rs") for name in ids) > 100


def phase_agrees(folder, out):
    found = read_imputed(folder / "o.vcf")
    hds = found.values["HDS"]
    sure = ~found.typed[:, None, None] & (np.abs(hds - 0.5) > 2e-3)
    assert sure.sum() > 1000
    np.testing.assert_array_equal(found.genotypes[sure], (hds > 0.5)[sure])


def described(folder, out):
    header = bcftools("view", "-h", folder / "o.vcf")
    assert "ALT dosage: the sum of P(ALT) over the haplotypes" in header
    assert "as observed at typed sites, else the likelier allele of each haplotype" in header
    declared = {line.split("ID=")[1].split(",")[0] for line in header.splitlines() if "ID=" in line}
    for record in cyvcf2.VCF(str(folder / "o.vcf")):
        assert {name for name, _ in record.INFO} | set(record.FORMAT) <= declared


def all_alts(folder, out):
    lines = bcftools("view", "-H", folder / "o.vcf").splitlines()
    alts = [line.split("\t")[4] for line in lines if line.split("\t")[1] == "2000500"]
    assert alts == ["AT", "ATT", "ATTT"]


def excluded(*reasons):
    def check(folder, out):
        rows = [line.split("\t") for line in (folder / "x.tsv").read_text().splitlines()]
        assert [row[5] for row in rows[1:]] == list(reasons)
        assert all(row[7] for row in rows)

    return check


QC = ("impute", "t.vcf", "-p", "p.h5", "--qc-only", "--excluded-sites", "x.tsv")


def far_away(cells):
    """A position that no panel site is near, and no rsID that would tell where it was."""
    return [str(6 * int(cells[1])), "."]


CASES = {
    "peers-1 another build": Case(
        lambda d: edit(d / "t.vcf", columns(shift)), IMPUTE, 1,
        ("target 20:20", "panel 20:20", "agree by position alone", "hint: "),
    ),
    "peers-4 a table of sites": Case(
        as_it_is, (*IMPUTE, "--sites", "s.vcf"),
        check=lambda d, _: len(records(d / "s.vcf")) == len(records(d / "p.vcf")) or 1 / 0,
    ),
    "peers-8 a panel with a missing genotype": Case(
        lambda d: edit(d / "p.vcf", columns(set_cell(12, ".|.", position="2000452"))), PREPARE, 1,
        ("1 missing genotypes (20:2000452 in HG", "hint: a panel is complete"),
    ),
    "peers-11 any contig": Case(
        lambda d: [rename(d / f"{x}.vcf", "20", "NC_006088.5") for x in "pt"],
        ("impute", "t.vcf", "-p", "p.vcf", "--cm-per-mb", "1", "-o", "o.vcf", *FIXED),
        check=lambda d, o: (all_sites(d, o), same_contig_as_the_target(d, o)),
    ),
    "peers-12 chr20 and 20": Case(
        lambda d: rename(d / "t.vcf", "20", "chr20"), IMPUTE, 0,
        ("contig 20 of the panel is chr20 in the target",), same_contig_as_the_target,
    ),
    "peers-14 a region alone": Case(
        as_it_is, (*IMPUTE, "-r", "20:2010000-2020000"),
        check=lambda d, _: {2_010_000 <= int(line.split("\t")[1]) <= 2_020_000
                            for line in records(d / "o.vcf")} == {True} or 1 / 0,
    ),
    "peers-17 a panel of one sample": Case(
        lambda d: (bcftools("view", "-s", "HG00096", "-Ov", "-o", d / "q.vcf", d / "p.vcf"),
                   bcftools("view", "-S", "^" + str(one_sample(d)), "-Ov", "-o", d / "u.vcf",
                            d / "t.vcf")),
        ("impute", "u.vcf", "-p", "q.vcf", "--cm-per-mb", "1", "-o", "o.vcf", *FIXED),
        check=all_sites,
    ),
    "peers-18 a region by the other name": Case(
        as_it_is, (*IMPUTE, "-r", "chr20:2010000-2020000"),
    ),
    "peers-18 a panel of sites alone": Case(
        lambda d: bcftools("view", "-G", "-Ov", "-o", d / "g.vcf", d / "p.vcf"),
        ("prepare", "g.vcf", "-o", "new.h5"), 1, ("no samples: it holds sites only",),
    ),
    "peers-18 an empty region": Case(
        as_it_is, (*IMPUTE, "-r", "20:5-9"), 1, ("no site in region 20:5-9", "the panel spans 20:"),
    ),
    "peers-21 two markers": Case(
        lambda d: keep(d / "t.vcf", {10, 11}), IMPUTE, check=all_sites,
    ),
    "peers-38 one marker": Case(lambda d: keep(d / "t.vcf", {10}), IMPUTE, check=all_sites),
    "peers-38 one marker, parameters chosen": Case(
        lambda d: keep(d / "t.vcf", {10}), IMPUTE[:-4], check=all_sites,
    ),
    "peers-23 what lacks coverage": Case(
        lambda d: edit(d / "t.vcf", columns(lambda c: c.__setitem__(slice(1, 3), far_away(c)))),
        IMPUTE, 1, ("target 20:12", "panel 20:20", "the ranges do not meet"),
    ),
    "peers-36 REF is ALT in the panel": Case(
        lambda d: edit(d / "p.vcf", columns(repeat_allele)), PREPARE, 0,
        ("1 sites left out that have REF = ALT (20:2000452:",),
    ),
    "peers-39 a position twice in the map": Case(
        lambda d: (d / "m.txt").write_text("pos cM\n2000000 1\n2030000 2\n2030000 2\n2060000 3\n"),
        ("prepare", "p.vcf", "--map", "m.txt", "-o", "new.h5", "-q"),
    ),
    "peers-41 file, contig and position": Case(
        lambda d: cut(d / "t.vcf", 0.7), IMPUTE, 1, ("t.vcf is damaged", "after 20:20"),
    ),
    "peers-48 phase agrees with dosages": Case(
        as_it_is, (*IMPUTE, "--format", "GT,DS,HDS"), check=phase_agrees,
    ),
    "peers-52 every ALT of a repeat": Case(
        lambda d: add(d / "p.vcf", (2_000_500, "A", "AT,ATT,ATTT", "1|3")),
        ("impute", "t.vcf", "-p", "p.vcf", "--cm-per-mb", "1", "-o", "o.vcf", *FIXED),
        check=all_alts,
    ),
    "peers-53 identifiers": Case(as_it_is, IMPUTE, check=ids_of_the_panel),
    "peers-54 every field is described": Case(as_it_is, IMPUTE, check=described),
    "peers-58 a name that means nothing": Case(
        lambda d: shutil.move(d / "t.vcf", d / "chr7.vcf"), ("impute", "chr7.vcf", *IMPUTE[2:]),
        check=all_sites,
    ),
    "peers-59 symbolic ALTs": Case(
        lambda d: add(
            d / "t.vcf", (2_000_001, "A", "<NON_REF>", "0|0"), (2_000_003, "A", "<DEL>", "0|1")
        ),
        QC, check=excluded("symbolic"),
    ),
    "peers-60 no AC, no AN": Case(
        lambda d: [edit(d / f"{x}.vcf", columns(no_info)) for x in "pt"], IMPUTE, check=all_sites,
    ),
    "peers-64 alleles of array software, and duplicates": Case(
        lambda d: add(
            d / "t.vcf", (2_000_001, "N", "A", "0|1"), (2_000_002, "I", "D", "0|1"),
            (2_000_003, "A", ".", "0|0"), (2_000_004, "A", "*", "0|0"),
            *[(int(c[1]), c[3], c[4], "0|1") for c in [records(d / "t.vcf")[5].split("\t")]],
        ),
        QC, check=excluded("invalid", "invalid", "not_in_panel", "star", "duplicate"),
    ),
    "peers-66 sites are counted": Case(
        as_it_is, IMPUTE,
        check=lambda d, out: f"{len(records(d / 'p.vcf'))}, of which" in out or 1 / 0,
    ),
    "peers-67 all genotypes are phased and complete": Case(
        lambda d: edit(d / "t.vcf", columns(set_cell(11, ".|."))), IMPUTE, check=all_sites,
    ),
    "peers-71 DS is there unless it is not wanted": Case(
        as_it_is, IMPUTE,
        check=lambda d, _: {line.split("\t")[8] for line in records(d / "o.vcf")}
        == {"GT:DS:GP"} or 1 / 0,
    ),
    "peers-75 variants in each bin": Case(
        lambda d: bcftools("view", "-r", AREA, "-Ov", "-o", d / "r.vcf", example.path("truth.bcf")),
        ("evaluate", "--truth", "r.vcf", "--imputed", "r.vcf", "-p", "p.h5"),
        check=lambda _, out: "sites" in out or 1 / 0,
    ),
    "design7-9 a sample twice": Case(
        lambda d: edit(d / "t.vcf", lambda line: line.replace("\tFORMAT\t", "\tFORMAT\tHG00096\t")
                       if line.startswith("#CHROM") else line), IMPUTE, 1, (),
    ),
    "design7-9 samples of the panel": Case(
        lambda d: shutil.copy(d / "p.vcf", d / "t.vcf"), IMPUTE, 0,
        ("250 target samples are in the panel too (HG00096", "will copy themselves"),
    ),
    "design7-6 records that the panel lacks": Case(
        lambda d: add(d / "t.vcf", (2_000_001, "A", "G", "0|1")), (*IMPUTE, "--typed-only"),
        check=lambda d, _: "TYPED_ONLY" in records(d / "o.vcf")[0] or 1 / 0,
    ),
    "design7-7 no typed site in a region": Case(
        as_it_is, (*IMPUTE, "-r", "20:2000021-2000100", "--buffer-cm", "0"), 0,
        ("no record in the region", "DR2 is 0"),
    ),
}  # fmt: skip


def one_sample(folder):
    """A file that names a sample of the target."""
    name = next(line for line in (folder / "t.vcf").read_text().splitlines()
                if line.startswith("#CHROM")).split("\t")[9]  # fmt: skip
    path = folder / "one.txt"
    path.write_text(name + "\n")
    return path


@pytest.mark.parametrize("name", CASES)
def test_input_as_it_comes(command_line, here, name):
    case = CASES[name]
    case.change(here)
    code, out, err = command_line(*case.words)
    assert code == case.code, err
    assert "Traceback" not in err
    for text in case.err:
        assert text in err
    if case.code:
        assert err.count("Error: ") == 1
        assert not list(here.glob("o.vcf*")) + list(here.glob("new.h5"))
    else:
        case.check(here, out)
