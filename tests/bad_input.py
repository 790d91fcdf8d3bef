"""Inputs that no command can use, how to make them, and what the command line must answer."""

from __future__ import annotations

import gzip
import os
import shutil

from vcf_fixtures import bcftools

OUT = "out.vcf.gz"


def as_it_is(folder):
    """Spoil nothing: the command itself is at fault."""


def cut(path, share=0.5):
    """Leave the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def flip(path, place=0.5):
    """Change some bytes of a file."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * place)
    data[at : at + 8] = bytes(b ^ 0x5A for b in data[at : at + 8])
    path.write_bytes(data)


def edit(path, change, out=None):
    """Change a text file line by line."""
    lines = [change(line) for line in path.read_text().splitlines()]
    (out or path).write_text("\n".join(lines) + "\n")


def columns(change):
    """For :func:`edit`: change the columns of a VCF's records."""

    def one(line):
        if line.startswith("#"):
            return line
        cells = line.split("\t")
        change(cells)
        return "\t".join(cells)

    return one


def shift(cells):
    cells[1] = str(int(cells[1]) + 60_431)


def turn_round(cells):
    cells[1] = str(9_999_999 - int(cells[1]))


def other_alleles(cells):
    cells[3:5] = "GATTACA", "G"


def unphase(cells):
    cells[9:] = [cell.replace("|", "/") for cell in cells[9:]]


def lose(cells):
    cells[12] = ".|."


def rename(path, old, new):
    """Give the contig another name."""

    def one(line):
        if line.startswith(f"{old}\t"):
            return new + line.removeprefix(old)
        return line.replace(f"##contig=<ID={old},", f"##contig=<ID={new},")

    edit(path, one)


IMPUTE = ("impute", "target.vcf.gz", "-p", "panel.h5", "-o", OUT)
FROM_VCF = ("impute", "target.vcf.gz", "-p", "panel.vcf", "-o", OUT)
PLAIN = ("impute", "target.vcf", "-p", "panel.h5", "-o", OUT)
PREPARE = ("prepare", "panel.vcf", "-o", "new.h5")
EVALUATE = ("evaluate", "--truth", "truth.bcf", "--imputed", "target.vcf.gz", "-p", "panel.h5")

# name: what to do to the inputs, the command, words of the message, a word of the hint
BAD = {
    "no target": (
        lambda d: (d / "target.vcf.gz").unlink(), IMPUTE, "target.vcf.gz does not exist", "path",
    ),
    "target truncated": (
        lambda d: cut(d / "target.vcf.gz"), IMPUTE, "target.vcf.gz is truncated", "copy",
    ),
    "target damaged": (
        lambda d: flip(d / "target.vcf.gz"), IMPUTE, "target.vcf.gz is damaged", "copy",
    ),
    "target empty": (lambda d: (d / "target.vcf.gz").write_bytes(b""), IMPUTE, "is empty", "copy"),
    "gzip of nothing": (
        lambda d: (d / "target.vcf.gz").write_bytes(gzip.compress(b"")), IMPUTE, "not a VCF", "VCF",
    ),
    "target is text": (
        lambda d: (d / "target.vcf").write_text("a b c\n"), PLAIN, "not a VCF or BCF", "VCF",
    ),
    "target is HDF5": (
        as_it_is, ("impute", "panel.h5", "-p", "panel.h5", "-o", OUT), "not a VCF or BCF", "VCF",
    ),
    "target is a folder": (
        as_it_is, ("impute", "model", "-p", "panel.h5", "-o", OUT), "model is a folder", "VCF",
    ),
    "header only": (
        lambda d: bcftools("view", "-h", "-Ov", "-o", d / "target.vcf", d / "target.vcf.gz"),
        PLAIN, "no records on the panel's contig 20; it holds none", "same chromosome",
    ),
    "cut in a row": (
        lambda d: cut(d / "target.vcf", 0.7), PLAIN, "malformed after 20:", "bcftools view",
    ),
    "unsorted": (
        lambda d: edit(d / "target.vcf", columns(turn_round)),
        PLAIN, "is not sorted: 20:", "bcftools sort",
    ),
    "other contig": (
        lambda d: rename(d / "target.vcf", "20", "chr19"), PLAIN,
        "no records on the panel's contig 20; it holds chr19", "same chromosome",
    ),
    "other build": (
        lambda d: edit(d / "target.vcf", columns(shift)), PLAIN,
        r"no more target records \(\d\) are panel sites than chance would make", "build",
    ),
    "list of samples of others": (
        lambda d: (d / "s.txt").write_text("nobody\n"), (*IMPUTE, "--samples-file", "s.txt"),
        "target.vcf.gz lacks 1 samples of the list s.txt: nobody", "named like",
    ),
    "list of samples is no text": (
        lambda d: (d / "s.txt").write_bytes(b"\xff\xfe\n"), (*IMPUTE, "--exclude-samples", "s.txt"),
        "list of samples s.txt is not text", "",
    ),
    "sites over the target": (
        as_it_is, (*IMPUTE, "--sites", "target.vcf.gz"), "also the target input", "another",
    ),
    "excluded sites over the output": (
        as_it_is, (*IMPUTE, "--excluded-sites", OUT), "also the imputed output", "another",
    ),
    "empirical without a suffix": (
        as_it_is, (*IMPUTE, "--empirical", "e.txt"), "e.txt has no suffix", "vcf.gz",
    ),
    "PAR of another contig": (
        as_it_is, (*PREPARE, "--par", "X:1-5"), "--par X:1-5 names no region of contig 20", "b37",
    ),
    "merge of one file": (
        as_it_is, ("merge", "target.vcf.gz", "-o", OUT), "two files or more", "batches",
    ),
    "merge of a sample with itself": (
        as_it_is, ("merge", "target.vcf.gz", "target.vcf.gz", "-o", OUT), "sample HG.* is in",
        "one batch",
    ),
    "other alleles": (
        lambda d: edit(d / "target.vcf", columns(other_alleles)), PLAIN, "100% of records agree",
        "REF/ALT",
    ),
    "unphased target": (
        lambda d: edit(d / "target.vcf", columns(unphase)), (*PLAIN, "--phased-only"),
        r"not phased: .* first at 20:\d+ in sample", "phase",
    ),
    "region elsewhere": (
        as_it_is, (*IMPUTE, "-r", "20:1-1000"), "no site in region 20:1-1000", "spans 20:2000021",
    ),
    "region of another contig": (
        as_it_is, (*IMPUTE, "-r", "21:1-1000"), "holds contig 20", "region of 20",
    ),
    "no region": (as_it_is, (*IMPUTE, "-r", "20:9-1"), "ends before it starts", "START"),
    "no field": (as_it_is, (*IMPUTE, "--format", "GT,PL"), "no output field 'PL'", "GT, DS"),
    "no device": (as_it_is, (*IMPUTE, "--device", "tpu9"), "no device 'tpu9'", "cpu"),
    "wrong suffix": (as_it_is, (*IMPUTE[:-1], "out.txt"), "out.txt has no suffix", "vcf.gz"),
    "output is the target": (
        as_it_is, (*IMPUTE[:-1], "target.vcf.gz"), "also the target input", "another",
    ),
    "output is the panel": (
        as_it_is, (*FROM_VCF[:-1], "panel.vcf"), "also the panel input", "another",
    ),
    "output by symlink": (
        lambda d: (d / OUT).symlink_to("target.vcf.gz"), IMPUTE, "also the target input", "another",
    ),
    "output by hard link": (
        lambda d: os.link(d / "target.vcf.gz", d / OUT), IMPUTE, "also the target input", "another",
    ),
    "output in no folder": (
        as_it_is, (*IMPUTE[:-1], "none/x.vcf"), "folder none does not exist", "mkdir -p none",
    ),
    "output in a file": (
        as_it_is, (*IMPUTE[:-1], "panel.h5/x.vcf"), "folder panel.h5 is not a folder", "mkdir",
    ),
    "output is a folder": (lambda d: (d / OUT).mkdir(), IMPUTE, f"{OUT} is a folder", "file"),
    "name too long": (
        as_it_is, (*IMPUTE[:-1], "x" * 250 + ".vcf.gz"), "File name too long", "path|folder",
    ),
    "report over the target": (
        as_it_is, (*IMPUTE, "--report", "target.vcf.gz"), "also the target input", "another",
    ),
    "report over the output": (
        as_it_is, (*IMPUTE, "--report", OUT), "also the imputed output", "another",
    ),
    "report in no folder": (
        as_it_is, (*IMPUTE, "--report", "none/r.html"), "folder none does not exist", "mkdir",
    ),
    "no panel": (
        lambda d: (d / "panel.h5").unlink(), IMPUTE, "panel panel.h5 does not exist", "prepare",
    ),
    "panel truncated": (
        lambda d: cut(d / "panel.h5"), IMPUTE, "panel panel.h5 is damaged: it is truncated",
        "prepare",
    ),
    "panel damaged": (
        lambda d: flip(d / "panel.h5", 0.3), IMPUTE, "panel panel.h5 is damaged", "prepare",
    ),
    "panel empty": (
        lambda d: (d / "panel.h5").write_bytes(b""), IMPUTE, "panel.h5 is not a panel", "prepare",
    ),
    "panel is a VCF": (
        lambda d: shutil.copy(d / "panel.bcf", d / "panel.h5"), IMPUTE, "looks like a VCF/BCF",
        "prepare",
    ),
    "panel is a folder": (
        as_it_is, ("impute", "target.vcf", "-p", "model", "-o", OUT), "panel model is a folder",
        "prepare",
    ),
    "no panel VCF": (
        lambda d: (d / "panel.vcf").unlink(), FROM_VCF, "panel panel.vcf does not exist", "path",
    ),
    "panel VCF truncated": (
        lambda d: cut(d / "panel.bcf"), ("impute", "target.vcf", "-p", "panel.bcf", "-o", OUT),
        "panel.bcf is truncated", "copy",
    ),
    "panel VCF unphased": (
        lambda d: edit(d / "panel.vcf", columns(unphase)), FROM_VCF,
        r"unphased heterozygotes.*20:\d+ in HG", "phase",
    ),
    "panel VCF incomplete": (
        lambda d: edit(d / "panel.vcf", columns(lose)), FROM_VCF,
        r"missing genotypes.*20:\d+ in HG", "complete",
    ),
    "map besides a map": (
        as_it_is, (*IMPUTE, "--map", "chr20.b37.gmap.gz"), "holds one already", "leave out",
    ),
    "two maps": (
        as_it_is, (*PREPARE, "--map", "chr20.b37.gmap.gz", "--cm-per-mb", "1"),
        "both a genetic map", "one",
    ),
    "no map": (
        as_it_is, (*FROM_VCF, "--map", "none.gz"), "genetic map none.gz does not exist", "--map",
    ),
    "map in UTF-16": (
        lambda d: (d / "m.txt").write_text("pos chr cM\n1 20 0\n9 20 1\n", encoding="utf-16"),
        (*PREPARE, "--map", "m.txt"), "map m.txt is not text", "columns",
    ),
    "map truncated": (
        lambda d: cut(d / "chr20.b37.gmap.gz"), (*PREPARE, "--map", "chr20.b37.gmap.gz"),
        "gmap.gz cannot be read", "",
    ),
    "map empty": (
        lambda d: (d / "m.txt").write_text(""), (*PREPARE, "--map", "m.txt"), "map m.txt is empty",
        "columns",
    ),
    "map of words": (
        lambda d: (d / "m.txt").write_text("pos cM\n1 0\n9 one\n"), (*PREPARE, "--map", "m.txt"),
        "line 3: .*'one'", "columns",
    ),
    "map is a folder": (
        as_it_is, (*PREPARE, "--map", "model"), "genetic map model is a folder", "--map",
    ),
    "no populations": (
        as_it_is, (*PREPARE, "--populations", "p.txt"), "table p.txt cannot be read: No such file",
        "",
    ),
    "populations in UTF-16": (
        lambda d: (d / "p.txt").write_text("HG00096 GBR\n", encoding="utf-16"),
        (*PREPARE, "--populations", "p.txt"), "table p.txt is not text", "",
    ),
    "populations in Latin-1": (
        lambda d: (d / "p.txt").write_bytes(b"HG00096 c\xf4te\n"),
        (*PREPARE, "--populations", "p.txt"), "table p.txt is not text", "",
    ),
    "populations of others": (
        lambda d: (d / "p.txt").write_text("x GBR\n"), (*PREPARE, "--populations", "p.txt"),
        "lacks 250 of 250 panel samples", "like x",
    ),
    "prepared over its source": (
        as_it_is, (*PREPARE[:-1], "panel.vcf", "--force"), "also the panel input", "another",
    ),
    "prepared already": (as_it_is, (*PREPARE[:-1], "panel.h5"), "panel.h5 exists", "--force"),
    "no model": (as_it_is, (*IMPUTE, "-m", "nothing"), "no model nothing", "default"),
    "model is a file": (
        as_it_is, (*IMPUTE, "-m", "panel.h5"), "model panel.h5 is a file", "folder",
    ),
    "model is no model": (
        as_it_is, (*IMPUTE, "-m", "panel.index"), "holds no config.yaml", "train",
    ),
    "weights truncated": (
        lambda d: cut(d / "model" / "weights.safetensors"), (*IMPUTE, "-m", "model"),
        "weights model/weights.safetensors cannot be read", "copy",
    ),
    "weights of another model": (
        lambda d: (d / "model" / "config.yaml").write_text(
            "extends: default\nname: x\nmodel: {copying: {width: 8}}\n"
        ),
        (*IMPUTE, "-m", "model"), "do not fit their config", "config.yaml",
    ),
    "config of a model damaged": (
        lambda d: (d / "model" / "config.yaml").write_text("name: [\n"), (*IMPUTE, "-m", "model"),
        "not valid YAML at line", "colons",
    ),
    "token model without weights": (
        lambda d: ((d / "model" / "config.yaml").write_text("extends: v10-small\nname: x\n"),
                   (d / "model" / "weights.safetensors").unlink()),
        (*IMPUTE, "-m", "model"), "model has no weights", "ragimpute train",
    ),
    "no index": (
        as_it_is, (*IMPUTE, "--index", "none"), "index none does not exist", "ragimpute index",
    ),
    "index is a file": (
        as_it_is, (*IMPUTE, "--index", "panel.h5"), "holds no manifest.json", "ragimpute index",
    ),
    "manifest truncated": (
        lambda d: cut(d / "panel.index" / "manifest.json"), (*IMPUTE, "--index", "panel.index"),
        "manifest.json cannot be read", "again",
    ),
    "index of another panel": (
        as_it_is, ("impute", "target.vcf", "-p", "panel.vcf", "-o", OUT, "--index", "panel.index"),
        "made from another panel", "ragimpute index",
    ),
    "index over a folder": (
        as_it_is, ("index", "panel.h5", "-o", "model", "--force"), "model exists already",
        "only an index",
    ),
    "index without sites": (
        lambda d: edit(d / "target.vcf", columns(shift)),
        ("index", "panel.h5", "-o", "i", "--sites", "target.vcf"),
        r"no more target records \(\d\) are panel sites than chance would make", "build",
    ),
    "unknown setting": (
        lambda d: (d / "c.yaml").write_text("extends: v10-small\ntrain: {epoch: 3}\n"),
        ("train", "panel.h5", "-c", "c.yaml", "-o", "m"),
        r"train.epoch is not a setting \(did you mean epochs\?\)", "presets|preset",
    ),
    "bad --set": (
        as_it_is, ("train", "panel.h5", "--set", "epochs", "-o", "m"), "'epochs' is not key=value",
        "train.epochs=3",
    ),
    "unknown --set": (
        as_it_is, ("train", "panel.h5", "--set", "train.epocs=3", "-o", "m"),
        r"train.epocs is not a setting \(did you mean epochs", "preset",
    ),
    "--set out of range": (
        as_it_is, ("train", "panel.h5", "--set", "train.epochs=-1", "-o", "m"),
        "train.epochs: .*found -1", "preset",
    ),
    "no config": (
        as_it_is, ("train", "panel.h5", "-c", "v10-smal", "-o", "m"), "neither a file nor a preset",
        "did you mean v10-small",
    ),
    "no truth": (
        lambda d: (d / "truth.bcf").unlink(), EVALUATE, "truth.bcf does not exist", "path",
    ),
    "figures over the truth": (
        as_it_is, (*EVALUATE, "--json", "truth.bcf"), "also the truth input", "another",
    ),
    "page over what was imputed": (
        as_it_is, (*EVALUATE, "--html", "target.vcf.gz"), "also the imputed input", "another",
    ),
    "page in no folder": (
        as_it_is, (*EVALUATE, "--html", "none/x.html"), "folder none does not exist", "mkdir",
    ),
    "nothing to describe": (as_it_is, ("info", "none"), "none does not exist", "known are"),
    "unknown kind": (
        lambda d: (d / "x").write_bytes(b"\x00\xff\n"), ("info", "x"),
        "x is of no kind that is known", "known are",
    ),
    "demo over files": (as_it_is, ("demo", "-o", "model"), "folder model is not empty", "--force"),
}  # fmt: skip
