"""Commands that hints name are run on the input that caused the hint, and mend it."""

from __future__ import annotations

import ast
import bz2
import gzip
import io
import lzma
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import h5py
import pytest
from m3vcf_fixtures import HAPLOTYPES, SITES, m3vcf_text
from vcf_fixtures import bcftools, convert, vcf_text
from vcf_tools import run_bcftools, write_program

from ragimpute.accuracy.evaluate import evaluate
from ragimpute.errors import RagimputeError
from ragimpute.io.foreign import foreign_format
from ragimpute.io.site_list import read_site_list
from ragimpute.io.vcf.bgzf import compress_block
from ragimpute.io.vcf.header import BGZF_EOF
from ragimpute.io.vcf.read.genotypes import PanelStream, read_dosages, read_target
from ragimpute.panel.reader import Panel
from ragimpute.preparation.open_panel import open_panel
from ragimpute.preparation.prepare import prepare
from tests import test_impute_file_sets as file_sets
from tests.preparation.test_allel_hdf5 import GENOTYPES, write_call_set
from tests.test_contigs import test_the_command_that_renames_contigs_does_so as renaming

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


def run(hint, *, begins="(ragimpute|bcftools|plink2|zstd|xz|bzip2|unzip) "):
    """Run the command that a line of text ends with, and give the file that it is to write."""
    command = re.search(rf"(?:^|: |by |with )({begins}.*)$", hint)[1]
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    words = shlex.split(command)
    out = [after for word, after in pairwise(words) if word in ("-o", ">", "--out")]
    return out[-1:] and Path(out[-1]), done.stdout


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


@pytest.mark.needs_program("zstd")
def test_a_list_of_sites_is_decompressed_by_the_command(here):
    Path("my list").write_text("20 5 A C\n")
    subprocess.run(["zstd", "-q", "my list"], check=True)
    Path("my list").unlink()
    run(hint_of(read_site_list, "my list.zst"))
    assert read_site_list("my list").places[0].position_bp.tolist() == [5]


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
        ("x.msav", b"\x28\xb5\x2f\xfd", "Minimac4", "sav export x.msav -o x.mvcf"),
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


def imputed_text(samples):
    """What a tool imputed for the people of ROWS, under other names."""
    return vcf_text(ROWS, samples)


@pytest.mark.parametrize("kind", [".vcf", ".vcf.gz", ".bcf", "gzip"])
@pytest.mark.parametrize("renamed", [False, True])
def test_samples_that_were_not_imputed(here, kind, renamed):
    """They are left out of the truth, or, if none was imputed, all of them are renamed."""
    Path("the panel.vcf").write_text(vcf_text(ROWS))
    Path("my imputed.vcf").write_text(imputed_text(("x", "y") if renamed else ("b", "c")))
    Path("t u.vcf").write_text(vcf_text(ROWS))
    if kind == "gzip":
        Path("t u.vcf.gz").write_bytes(gzip.compress(Path("t u.vcf").read_bytes()))
        truth = Path("t u.vcf.gz")
    else:
        truth = Path("t u.vcf") if kind == ".vcf" else convert(here / "t u.vcf", kind)
    hint = hint_of(evaluate, truth, "my imputed.vcf", "the panel.vcf")
    if renamed:
        listed = re.search(r"new names into (.+?), one a line", hint)[1]
        Path(listed).write_text("x\ny\n")
    out, _ = run(hint)
    result = evaluate(out, "my imputed.vcf", "the panel.vcf")
    assert result.counts["samples"] == (2 if renamed else 1)


@pytest.mark.parametrize("name", ["x.vcf", "my x.vcf.gz"])
def test_unsorted_panels_and_remnants_of_sets(here, name):
    formats = "".join(
        f'##FORMAT=<ID={key},Number=1,Type={kind},Description="x">\n'
        for key, kind in (("GT", "String"), ("PS", "Integer"))
    )
    unsorted = vcf_text(ROWS[::-1])
    rows = [(5 + i, "A", "C", f"0|1:{i // 3}", "1|0:.") for i in range(6)]
    for text in (unsorted, vcf_text(rows, formats=formats, keys="GT:PS")):
        Path("t.vcf").write_text(text)
        made = Path("t.vcf") if name == "x.vcf" else convert(here / "t.vcf", ".vcf.gz", index=False)
        made.rename(name)
        out, _ = run(hint_of(prepare, name, "p.h5", cm_per_mb=1.0, force=True))
        assert prepare(out, "p.h5", cm_per_mb=1.0, force=True).panel.num_sites == len(
            ROWS if text is unsorted else rows
        )


def test_an_unsorted_hdf5_is_no_work_for_bcftools(here):
    with h5py.File("x.h5", "w") as file:
        write_call_set(file)
        file["variants/POS"][:] = file["variants/POS"][:][::-1]
    assert "bcftools" not in hint_of(prepare, "x.h5", "p.h5", cm_per_mb=1.0)


@pytest.mark.needs_program("bcftools")  # pysam has none of the plugins
def test_a_panel_whose_ploidy_changes_is_made_diploid(here, monkeypatch):
    monkeypatch.setattr("ragimpute.panel.ploidy._MAX_CHANGES", 10)
    rows = [("X", 10 * i, "A", "C", "0|1", "1|0" if i % 2 else "1") for i in range(1, 30)]
    Path("my x.vcf").write_text(vcf_text(rows, contigs=("X",)))
    out, _ = run(hint_of(prepare, "my x.vcf", "p.h5", cm_per_mb=1.0))
    assert prepare(out, "p.h5", cm_per_mb=1.0).panel.num_haplotypes == 4


def test_a_model_without_weights_is_trained_by_the_command(here):
    torch = pytest.importorskip("torch")
    from typer.testing import CliRunner

    from ragimpute import example
    from ragimpute.cli import main
    from ragimpute.config import dump_config, load_config
    from ragimpute.model.folder import open_folder

    torch.set_num_threads(1)
    words = ("data.max_sites=64", "data.windows_per_epoch=8", "data.max_validation_samples=2",
             "model.encoder.dim=16", "data.num_retrieved=2", "train.batch_size=4",
             "train.epochs=1", "schedule.warmup_steps=2")  # fmt: skip
    Path("my model").mkdir()
    Path("my model/config.yaml").write_text(dump_config(load_config("v2-small", overrides=words)))
    prepare(example.path("panel.bcf"), "PANEL.h5", cm_per_mb=1.0, region="20:2000000-2100000")
    command = hint_of(open_folder, "my model").partition(": ragimpute ")[2]
    done = CliRunner().invoke(main.app, [*shlex.split(command), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert open_folder("MODEL").trained


def squeezed(raw, kind):
    """What a program for compression makes of bytes."""
    if kind == "zip":
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("x.vcf", raw)
        return made.getvalue()
    return lzma.compress(raw) if kind == "xz" else bz2.compress(raw)


@pytest.mark.parametrize("kind", [
    pytest.param("xz", marks=pytest.mark.needs_program("xz")),
    pytest.param("bz2", marks=pytest.mark.needs_program("bzip2")),
    pytest.param("zip", marks=pytest.mark.needs_program("unzip")),
])  # fmt: skip
def test_compressed_files_are_decompressed_by_the_command(here, kind):
    path = Path(f"x y.{kind}")
    path.write_bytes(squeezed(vcf_text(ROWS).encode(), kind))
    for function in (read_target, Panel.open, opened):
        out, _ = run(hint_of(function, path))
        assert read_target(out).sites.position_bp.tolist() == [10, 20, 35]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz"])
def test_texts_of_editors_of_windows(here, encoding, suffix):
    raw = vcf_text(ROWS).encode(encoding)
    path = Path(f"x y{suffix}")
    path.write_bytes(gzip.compress(raw) if suffix == ".vcf.gz" else raw)
    for function in (read_target, PanelStream, opened):
        out, _ = run(hint_of(function, path), begins="gzip ")
        assert read_target(out).sites.position_bp.tolist() == [10, 20, 35]
        Path(out).unlink()


@pytest.mark.needs_program("zstd")
@pytest.mark.parametrize("suffix", [".vcf", ".bcf"])
def test_zstd_is_decompressed_by_the_command(here, suffix):
    Path("t.vcf").write_text(vcf_text(ROWS))
    path = Path("t.vcf") if suffix == ".vcf" else convert(here / "t.vcf", suffix, index=False)
    path.rename(f"x y{suffix}")
    subprocess.run(["zstd", "-q", f"x y{suffix}"], check=True)
    out, _ = run(hint_of(read_target, f"x y{suffix}.zst"))
    assert read_target(out).sites.position_bp.tolist() == [10, 20, 35]


@pytest.mark.needs_program("plink2")
def test_a_bed_becomes_a_target_by_the_command(here):
    Path("p.vcf").write_text(vcf_text(ROWS))
    words = ["plink2", "--vcf", "p.vcf", "--make-bed", "--out", "my q"]
    subprocess.run(words, check=True, capture_output=True)
    out, _ = run(hint_of(read_target, "my q.bed"))
    assert read_target(f"{out}.vcf.gz").sites.position_bp.tolist() == [10, 20, 35]


def test_indels_match_after_the_command(here):
    """What the panel has further left is found once REF.fa has normalised the target."""
    from ragimpute.target import qc

    Path("REF.fa").write_text(">20\n" + "C" * 9 + "A" * 6 + "C" * 85 + "\n")
    Path("TARGET").write_text(vcf_text([(14, "AA", "A", "0|1", "1|1")]))
    command = f"{qc.NORM} > normal.vcf"
    subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert read_target(Path("normal.vcf")).sites.keys() == [(9, "CA", "C")]


@pytest.mark.parametrize("damage", ["cell", "cut"])
def test_the_command_shows_the_fault_of_a_damaged_file(here, damage):
    path = Path("my x.vcf")
    text = vcf_text(ROWS)
    path.write_text(text.replace("1|0\t0|1\n", "1|0\t0|x\n") if damage == "cell" else text)
    if damage == "cut":
        path = convert(here / "my x.vcf", ".bcf", index=False)
        path.write_bytes(compress_block(gzip.decompress(path.read_bytes())[:-9]) + BGZF_EOF)
    hint = hint_of(read_target, path)
    command = re.match("(bcftools view .*) shows the fault", hint)[1]
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.strip()


@pytest.mark.parametrize("fault", ["none", "version", "checksum", "text"])
def test_an_index_is_made_by_the_command(here, fault):
    pytest.importorskip("faiss")
    from ragimpute.retrieval.index_manifest import read_manifest
    from ragimpute.token_model.build_index import build_index

    Path("p.vcf").write_text(vcf_text(ROWS))
    prepare("p.vcf", "PANEL.h5", cm_per_mb=1.0)
    if fault != "none":
        build_index("PANEL.h5", "-an index")
        path = Path("-an index/manifest.json")
        old, new = {"version": ('"format_version": 1', '"format_version": 7'),
                    "checksum": ('"kind": "flat"', '"kind": "ivf"'),
                    "text": ("{", "")}[fault]  # fmt: skip
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
    out, _ = run(hint_of(read_manifest, "-an index"))
    read_manifest(out)


def test_a_folder_that_is_no_index_is_not_to_be_replaced(here):
    from ragimpute.retrieval.index_manifest import read_manifest

    Path("folder").mkdir()
    assert hint_of(read_manifest, "folder").endswith("-o folder.index")


@pytest.mark.parametrize("fault", ["none", "damaged", "old", "text"])
def test_a_panel_is_made_by_the_command(here, fault):
    Path("SOURCE.vcf").write_text(vcf_text(ROWS))
    convert(here / "SOURCE.vcf", ".vcf.gz")
    Path("MAP").write_text("20 . 0.0 1\n20 . 3.0 20\n20 . 4.0 40\n")
    name = "the panel.h5"
    if fault == "text":
        Path(name).write_text("no panel")
    elif fault != "none":
        prepare("SOURCE.vcf.gz", name, cm_per_mb=1.0)
        with h5py.File(name, "r+") as file:
            if fault == "old":
                file.attrs["format_version"] = 0
            else:
                file.attrs["checksum"] = b"0" * 32
    out, _ = run(hint_of(Panel.open, name))
    with Panel.open(out) as panel:
        assert panel.position_cm[1] == 3.0  # the map was read


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_names_that_are_not_utf_8(here, suffix):
    Path("t.vcf").write_bytes(vcf_text(ROWS).encode().replace(b"\ta\tb\n", b"\ta\tJos\xe9\n"))
    path = Path("t.vcf") if suffix == ".vcf" else convert(here / "t.vcf", suffix, index=False)
    for reader in (read_target, PanelStream):
        with pytest.raises(RagimputeError, match="name of a sample that is not UTF-8") as caught:
            reader(path)
        assert "Jos\xe9" in caught.value.message
    out, _ = run(caught.value.hint)
    assert read_target(out).samples == ["a", "Jos\xe9"]


def test_a_contig_that_is_not_utf_8(here):
    Path("t.vcf").write_bytes(vcf_text(ROWS).encode().replace(b"20", b"2\xe9"))
    with pytest.raises(RagimputeError, match="name of a contig that is not UTF-8"):
        read_target(Path("t.vcf"))


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_descriptions_may_be_of_any_encoding(here, suffix):
    text = vcf_text(ROWS).encode().replace(b"Genotype", b"G\xe9notype\xc2\x85")
    Path("t.vcf").write_bytes(text)
    path = Path("t.vcf") if suffix == ".vcf" else convert(here / "t.vcf", suffix, index=False)
    assert read_target(path).sites.position_bp.tolist() == [10, 20, 35]


@pytest.fixture
def mpileup(here):
    """What bcftools mpileup writes of reads of one sample, half of which have another base."""
    rng = random.Random(1)
    ref = "".join(rng.choice("ACGT") for _ in range(400))
    other = ref[:200] + ("C" if ref[200] == "A" else "A") + ref[201:]
    Path("r.fa").write_text(f">20\n{ref}\n")
    lines = ["@HD\tVN:1.6\tSO:coordinate", "@SQ\tSN:20\tLN:400", "@RG\tID:a\tSM:s"]
    for i in range(0, 340, 5):
        bases = (other if i // 5 % 2 else ref)[i : i + 60]
        cells = [f"q{i}", "0", "20", str(i + 1), "60", "60M", "*", "0", "0", bases, "I" * 60]
        lines.append("\t".join([*cells, "RG:Z:a"]))
    Path("r.sam").write_text("\n".join(lines) + "\n")

    def make(name, *options):
        done = run_bcftools("mpileup", *options, "-f", "r.fa", "-o", name, "r.sam")
        assert done.returncode == 0, done.stderr
        return Path(name)

    return make


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("name", ["a b.vcf", "x.vcf.gz", "x.bcf"])
def test_genotypes_that_were_not_called(here, mpileup, name, blocks):
    kind = {"vcf": "-Ov", "gz": "-Oz", "bcf": "-Ob"}[name.split(".")[-1]]
    path = mpileup(name, kind, *(["-g", "1"] if blocks else []))
    hint = hint_of(PanelStream, path)
    with pytest.raises(RagimputeError, match="mpileup writes, whose genotypes were not") as caught:
        read_target(path)
    assert ("a gVCF of genotype likelihoods" in caught.value.message) == blocks
    with pytest.raises(RagimputeError, match="mpileup writes"):
        read_dosages(path)
    assert hint == caught.value.hint
    out, _ = run(hint)
    found = read_target(out)
    assert found.sites.position_bp.tolist() == [201]
    assert found.alleles.tolist() == [[[0, 1]]]
    assert (found.num_records < 20) == blocks
    changed = Path("other.vcf")
    made = bcftools("view", path)
    changed.write_text(made.replace("##INFO=<ID=QS,", "##INFO=<ID=QX,").replace(";QS=", ";QX="))
    assert "GLIMPSE2" in hint_of(read_target, changed)


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz"])
@pytest.mark.parametrize("field", ["PS", "DP"])
def test_a_text_where_the_header_declares_a_number(here, suffix, field):
    line = f'##FORMAT=<ID={field},Number=1,Type=Integer,Description="x">\n'
    text = vcf_text(ROWS, formats=line + '##FORMAT=<ID=GT,Number=1,Type=String,Description="x">\n')
    text = text.replace("\tGT\t", f"\tGT:{field}\t").replace("\t0|0\t", "\t0|0:set_1\t")
    path = Path(f"a b{suffix}")
    path.write_bytes(text.encode() if suffix == ".vcf" else gzip.compress(text.encode()))
    with pytest.raises(RagimputeError, match=f"20:20: FORMAT/{field} of sample a") as caught:
        read_target(path)
    assert "is 'set_1', but the header declares Integer" in caught.value.message
    out, _ = run(caught.value.hint, begins="(sed|gzip) ")
    assert read_target(out).sites.position_bp.tolist() == [10, 20, 35]


def commands_in(tree):
    """The texts of a module that name a command of another program, or one of ours."""
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
        text = ""
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            text = node.value
        elif isinstance(node, ast.List) and len(node.elts) > 1:
            first = [word.value for word in node.elts[:2] if isinstance(word, ast.Constant)]
            text = " ".join(word for word in first if isinstance(word, str))
        found = re.search(
            r"\b(bcftools |plink2 -|cat-bgen -|xcftools |zstd -d|xz -d|bzip2 -d|unzip -"
            r"|java -jar|sav export|minimac4 -|sed |iconv -|gzip -d"
            r"|ragimpute (prepare|index|train|impute|phase|merge|plan|evaluate))",
            text,
        )  # fmt: skip
        if found and text not in TITLES and "Example:" not in text:
            yield text[found.start() :]


TITLES = ("ragimpute index", "ragimpute train")  # what an extra package is needed for

# Each command that a text names, and the test that runs it on the input that causes the text.
RUN = {
    "bcftools annotate --rename-chrs": renaming,
    "bcftools annotate -x FORMAT": test_unsorted_panels_and_remnants_of_sets,
    "bcftools query -l": test_samples_that_were_not_imputed,
    "bcftools view --force-samples": test_samples_that_were_not_imputed,
    "bcftools view -Ob": test_samples_that_were_not_imputed,
    "bcftools reheader -s": test_samples_of_one_name,
    "bcftools view -H": test_a_large_vcf_is_counted_by_the_command,
    "bcftools view -i": test_records_without_gt,
    "bcftools mpileup": test_genotypes_that_were_not_called,
    "bcftools call -m": test_genotypes_that_were_not_called,
    "bcftools view ": test_the_command_shows_the_fault_of_a_damaged_file,
    "bcftools sort": test_unsorted_records,
    "bcftools norm -f": test_indels_match_after_the_command,
    "bcftools +fixref": test_fixref_as_the_hints_name_it,
    "bcftools +fixploidy": test_a_panel_whose_ploidy_changes_is_made_diploid,
    "plink2 --pfile": test_plink_files_become_panels_by_the_command,
    "plink2 --bgen": test_plink_files_become_panels_by_the_command,
    "plink2 --vcf": file_sets.test_merged_batches_become_a_set_by_plink2,
    "plink2 --pmerge-list": file_sets.test_regions_of_pgen_are_joined_by_the_command,
    "cat-bgen": file_sets.test_regions_of_bgen_are_joined_by_the_command,
    "plink2 --bfile": test_a_bed_becomes_a_target_by_the_command,
    "xz -d": test_compressed_files_are_decompressed_by_the_command,
    "bzip2 -d": test_compressed_files_are_decompressed_by_the_command,
    "unzip -p": test_compressed_files_are_decompressed_by_the_command,
    "iconv -f": test_names_that_are_not_utf_8,
    "sed ": test_a_text_where_the_header_declares_a_number,
    "gzip -dc": test_a_text_where_the_header_declares_a_number,
    "zstd -d": test_zstd_is_decompressed_by_the_command,
    "ragimpute prepare": test_keeping_a_panel_takes_all_options_along,
    "ragimpute index": test_an_index_is_made_by_the_command,
    "ragimpute train": test_a_model_without_weights_is_trained_by_the_command,
}
# Commands that tests elsewhere run: the file below tests/, and the test.
RUN_ELSEWHERE = {
    "bcftools convert --gvcf2vcf": (
        "target/test_lift.py", "test_a_gvcf_is_lifted_after_the_command"
    ),
    "bcftools norm -m -any": ("imputation/test_structural.py", "test_repeats_of_many_alts"),
}  # fmt: skip
# Commands that no test can run, and why.
NOT_RUN = {
    "java -jar unbref3.jar": "Debian's beagle has bref3 and no unbref3; read in Beagle 5.5's files",
    "sav export": "no package has savvy; its output was compared with the panel's VCF by hand",
    "xcftools view": "no package has it; options as in xcftools' viewer_parameters.cpp",
    "bcftools of samtools 0.1.19": "no longer packaged",
    "bcftools +liftover": "no package has the plugin, which needs both genomes",
}


def test_every_text_that_names_a_command_is_known():
    """A new command needs a test that runs it, or a reason why none can."""
    for path, test in RUN_ELSEWHERE.values():
        assert f"def {test}(" in (ROOT / "tests" / path).read_text()
    every, used = (*RUN, *RUN_ELSEWHERE, *NOT_RUN), set()
    for path in sorted((ROOT / "ragimpute").rglob("*.py")):
        for text in commands_in(ast.parse(path.read_text())):
            name = next((known for known in every if text.startswith(known)), None)
            assert name is not None, (path.name, text)
            used.add(name)
    assert used == set(every)
