"""Commands that hints name are run on the input that caused the hint, and mend it."""

from __future__ import annotations

import ast
import gzip
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import h5py
import pytest
from vcf_fixtures import bcftools, convert, vcf_text
from vcf_tools import write_program

from ragimpute.errors import RagimputeError
from ragimpute.io.foreign import foreign_format
from ragimpute.io.vcf.bgzf import compress_block
from ragimpute.io.vcf.header import BGZF_EOF
from ragimpute.io.vcf.read.genotypes import PanelStream, read_target
from ragimpute.panel.reader import Panel
from ragimpute.preparation.open_panel import open_panel
from ragimpute.preparation.prepare import prepare
from tests.io.test_m3vcf import HAPLOTYPES, SITES, m3vcf_text
from tests.preparation.test_allel_hdf5 import GENOTYPES, write_call_set

ROOT = Path(__file__).resolve().parent.parent
ROWS = [(10, "A", "C", "0|1", "1|0"), (20, "G", "T", "0|0", "1|1"), (35, "C", "G", "1|0", "0|1")]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder whose name has a blank, as the current one; it has bcftools and ragimpute."""
    folder, programs = tmp_path / "a folder", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    if not shutil.which("bcftools"):
        write_program(programs)
    program = programs / "ragimpute"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ragimpute "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(folder)
    return folder


def hint_of(function, *words, **options):
    """The hint of the error that a call ends with."""
    with pytest.raises(RagimputeError) as caught:
        function(*words, **options)
    assert caught.value.hint is not None
    return caught.value.hint


def run(hint, *, begins="(ragimpute|bcftools|plink2|zstd) "):
    """Run the command that a line of text ends with, and give the file that it is to write."""
    command = re.search(rf"(?:^|: |by |with )({begins}.*)$", hint)[1]
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    out = re.search(r"(?:-o|> ?|--out) ?'?([^' ]+(?: [^']+(?='))?)'?$", command)
    return out and Path(out[1]), done.stdout


def text_without_gt():
    """A file whose second record has no GT."""
    formats = (
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="x">\n'
        '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="x">\n'
    )
    text = vcf_text(ROWS, formats=formats)
    return text.replace("GT\t0|0\t1|1", "DP\t3\t4").replace("1|0\t0|1\n", "./.\t.\n")


@pytest.mark.parametrize("name", ["x.vcf", "x y.vcf.gz", "-x.bcf"])
def test_records_without_gt(here, name):
    Path("t.vcf").write_text(text_without_gt())
    made = convert(here / "t.vcf", name[name.index(".") :]) if name != "x.vcf" else Path("t.vcf")
    made.rename(name)
    out, _ = run(hint_of(read_target, Path(name)))
    assert read_target(out).sites.position_bp.tolist() == [10, 35]  # the missing one is kept


@pytest.mark.parametrize("name", ["x.vcf", "my x.vcf"])
def test_unsorted_records(here, name):
    Path(name).write_text(vcf_text(ROWS[::-1]))
    out, _ = run(hint_of(read_target, Path(name)))
    assert read_target(out).sites.position_bp.tolist() == [10, 20, 35]


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_samples_of_one_name(here, suffix):
    Path("t.vcf").write_text(vcf_text(ROWS))
    path = Path("t.vcf") if suffix == ".vcf" else convert(here / "t.vcf", suffix, index=False)
    with path.open("rb") if suffix == ".vcf" else gzip.open(path) as file:
        raw = file.read().replace(b"\ta\tb\n", b"\ta\ta\n")
    path.write_bytes(raw if suffix == ".vcf" else compress_block(raw) + BGZF_EOF)
    hint = hint_of(read_target, path)
    if suffix == ".bcf":
        assert "bcftools" not in hint  # it cannot read such a BCF
        return
    listed = re.search(r"new names into (\S+),", hint)[1]
    Path(listed).write_text("a\nc\n")
    out, _ = run(hint)
    assert read_target(out).samples == ["a", "c"]


def test_a_large_vcf_is_counted_by_the_command(here, monkeypatch):
    from ragimpute.cli import describe

    monkeypatch.setattr(describe, "_MAX_COUNTED_BYTES", 0)
    Path("x y.vcf").write_text(vcf_text(ROWS))
    assert run(dict(describe.describe("x y.vcf"))["records"])[1].strip() == "3"


def opened(path, **options):
    """What a run says of a panel that it prepares for itself, and its figures."""
    lines = []
    given = {"genetic_map": None, "cm_per_mb": None, "region": None, "par": None} | options
    with ExitStack() as stack:
        panel, *_ = open_panel(
            path, stack, lines.append, **given, threads=1, progress=lambda *_: None
        )
        return lines[-1], figures(panel)


def figures(panel):
    """All that a panel says of its sites."""
    alleles = panel.haplotypes(0, panel.num_sites).alleles()
    return panel.contig, panel.sites.keys(), panel.position_cm.tolist(), alleles.tolist()


def males():
    """A panel of X: b is haploid outside the first 15 bp."""
    return [("X", *ROWS[0]), *(("X", *row[:3], "0|1", "1") for row in ROWS[1:])]


def test_keeping_a_panel_takes_all_options_along(here):
    from ragimpute.sites import Region

    Path("p.vcf").write_text(vcf_text(ROWS))
    Path("the map.txt").write_text("20 . 0.0 1\n20 . 3.0 20\n20 . 4.0 40\n")
    both = [("20", *row) for row in ROWS] + [("21", *row) for row in ROWS[:2]]
    Path("my panel.vcf").write_text(vcf_text(both, contigs=("20", "21")))
    Path("-x.vcf").write_text(vcf_text(males(), contigs=("X",)))
    Path("m.m3vcf").write_text(m3vcf_text(SITES, HAPLOTYPES, [2, 2], [4]))
    with h5py.File("allel.h5", "w") as file:
        write_call_set(file)
    Path("p.h5").write_bytes(b"taken")
    cases = [
        ("p.vcf", {"cm_per_mb": 3.0}),
        ("p.vcf", {"genetic_map": Path("the map.txt")}),
        ("p.vcf", {}),
        ("my panel.vcf", {"region": Region("20", 15, 40), "cm_per_mb": 0.123456789}),
        ("-x.vcf", {"par": "X:1-15", "cm_per_mb": 1.5}),
        ("m.m3vcf", {"cm_per_mb": 2.0}),
        ("allel.h5", {"cm_per_mb": 2.0}),
    ]
    for name, options in cases:
        line, expected = opened(Path(name), **options)
        out, _ = run(line)
        with Panel.open(out) as panel:
            assert figures(panel) == expected, line
    assert Path("p.h5").read_bytes() == b"taken"


def test_what_is_no_panel_becomes_one_by_the_command(here):
    Path("v.h5").write_text(vcf_text(ROWS))  # its name says otherwise
    Path("m.m3vcf.gz").write_bytes(
        gzip.compress(m3vcf_text(SITES, HAPLOTYPES, [2, 2], [4]).encode())
    )
    with h5py.File("allel.h5", "w") as file:
        write_call_set(file)
    for path, function in (("v.h5", Panel.open), ("allel.h5", Panel.open),
                           ("m.m3vcf.gz", PanelStream), ("m.m3vcf.gz", read_target)):  # fmt: skip
        out, _ = run(hint_of(function, Path(path)))
        with Panel.open(out) as panel:
            assert panel.num_haplotypes in (4, 2 * GENOTYPES.shape[1])


@pytest.mark.needs_program("plink2")
@pytest.mark.parametrize(
    ("kind", "suffix"), [("--make-pgen", ".pgen"), ("--export bgen-1.2 ref-first", ".bgen")]
)
def test_plink_files_become_panels_by_the_command(here, kind, suffix):
    Path("p.vcf").write_text(vcf_text(ROWS))
    words = ["plink2", "--vcf", "p.vcf", *kind.split(), "--out", "my q"]
    subprocess.run(words, check=True, capture_output=True)
    hint = hint_of(prepare, f"my q{suffix}", "x.h5", cm_per_mb=1.0)
    out, _ = run(hint)
    prepare(f"{out}.vcf.gz", "x.h5", cm_per_mb=1.0)
    with Panel.open("x.h5") as panel:
        assert panel.sites.keys() == [row[:3] for row in ROWS]


def test_an_index_is_made_again_by_the_command(here):
    pytest.importorskip("faiss")
    from ragimpute.retrieval.index_manifest import read_manifest_of
    from ragimpute.token_model.build_index import build_index

    Path("p.vcf").write_text(vcf_text(ROWS))
    prepare("p.vcf", "a b.h5", cm_per_mb=1.0)
    build_index("a b.h5", "the index")
    prepare("p.vcf", "c d.h5", cm_per_mb=2.0)
    with Panel.open("c d.h5") as panel:
        run(hint_of(read_manifest_of, "the index", panel))
        read_manifest_of("the index", panel)


@pytest.mark.needs_program("bcftools")  # pysam has none of the plugins
def test_fixref_as_the_hints_name_it(here):
    from ragimpute.target import match

    Path("REF.fa").write_text(">20\n" + "A" * 100 + "\n")
    Path("t.vcf").write_text(vcf_text([(10, "C", "A", "0|1", "1|1"), (20, "T", "G", "0|0", "1|1")]))
    command = match._FIXREF.replace("TARGET", "t.vcf")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t")[3:5] for line in done.stdout.splitlines() if line[0] != "#"]
    assert rows == [["A", "C"], ["A", "C"]]


def test_duplicates_are_dropped_by_the_command_of_the_table(here):
    Path("TARGET").write_text(vcf_text([ROWS[0], ROWS[0], ROWS[1]]))
    done = subprocess.run(
        ["bash", "-c", "bcftools norm -d exact TARGET"], capture_output=True, text=True, check=False
    )
    assert sum(line[0] != "#" for line in done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "start", "what", "command"),
    [
        ("x y.bref3", b"\x7a\x88\x74\xf4", "Beagle", "unbref3.jar 'x y.bref3' > 'x y.vcf'"),
        ("x.msav", b"\x28\xb5\x2f\xfd", "Minimac4", "sav export"),
        ("x.bcf.zst", b"\x28\xb5\x2f\xfd", "zstd", "zstd -d x.bcf.zst -o x.vcf"),
        ("x.imp5", b"IMP5", "IMPUTE5", "imp5Converter"),
        ("x.bed", b"\x6c\x1b\x01", "PLINK", "plink2 --bfile x --export vcf bgz --out x"),
        ("x.pgen", b"\x6c\x1b\x10", "plink2", "plink2 --pfile x --export vcf bgz --out x"),
        ("x.bgen", bytes(16) + b"bgen", "BGEN", "plink2 --bgen x.bgen ref-first"),
    ],
)  # fmt: skip
def test_files_of_other_tools_are_named(here, name, start, what, command):
    error = foreign_format(name, start)
    assert what in error.message
    assert name in error.message
    assert command in error.hint
    Path(name).write_bytes(start + bytes(40))
    for function in (read_target, Panel.open, opened):
        with pytest.raises(RagimputeError) as caught:
            function(Path(name))
        assert caught.value.message == error.message
    assert "holds one already" not in hint_of(opened, Path(name), cm_per_mb=1.0)


def test_an_xcf_is_named(here):
    head = '##INFO=<ID=SEEK,Number=4,Type=Integer,Description="x">\n'
    Path("x.vcf").write_text(vcf_text([(10, "A", "C")], (), infos=head))
    bcftools("view", "-Ob", "-o", "x.bcf", "x.vcf")
    assert "xcftools view -i x.bcf -O bcf -o x.vcf.bcf" in hint_of(read_target, Path("x.bcf"))


# The modules whose texts name commands of these programs: a test of a new one belongs above.
NAMED = {
    "contigs.py",
    "accuracy/evaluate.py", "cli/describe.py", "io/foreign.py", "io/vcf/header.py",
    "io/vcf/read/records.py", "model/folder.py", "panel/format.py", "panel/ploidy.py",
    "preparation/checks.py", "preparation/panel_writer.py", "retrieval/index_manifest.py",
    "target/match.py", "target/qc.py",
}  # fmt: skip


def test_every_text_that_names_a_command_is_known():
    found = set()
    titles = ("ragimpute index", "ragimpute train")
    for path in sorted((ROOT / "ragimpute").rglob("*.py")):
        tree = ast.parse(path.read_text())
        docs = {
            id(node.body[0].value) for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body and isinstance(node.body[0], ast.Expr)
        }  # fmt: skip
        # What --help says of options, and the examples of commands, are no hints.
        docs |= {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.Call)
            for value in [*(k.value for k in node.keywords if k.arg == "help"),
                          *(node.args if getattr(node.func, "id", "") == "command" else ())]
            for part in ast.walk(value)
        }  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names = re.search(
                    r"\b(bcftools |plink2 -|xcftools |zstd -d|unbref3|sav export"
                    r"|ragimpute (prepare|index|train))", node.value
                )  # fmt: skip
                is_hint = id(node) not in docs and node.value not in titles
                if names and is_hint and "Example:" not in node.value:
                    found.add(str(path.relative_to(ROOT / "ragimpute")))
    assert found == NAMED
