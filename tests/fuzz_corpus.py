"""Mutated inputs: good ones made from the packaged example, ways to spoil each, who reads it."""

from __future__ import annotations

import os
import random
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import fuzz_mutations as spoil
import h5py
import numpy as np
import yaml
from fuzz_mutations import Mutation
from m3vcf_fixtures import later_text, m3vcf_text
from vcf_fixtures import bcftools

from ragimpute import example

_COEFFICIENTS = (0.1, 0.0, 1.0, 0.0, 0.0, -0.3, 0.0, 0.0, 0.0, 0.0)
_CANNOT = (OSError, EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError,
           RuntimeError, zlib.error, struct.error, yaml.YAMLError)  # fmt: skip

REGION = "20:2000000-2040000"
INSIDE = "20:2010000-2030000"
NUM_PANEL_SAMPLES, NUM_TARGET_SAMPLES = 24, 4

Words = tuple[str, ...]

_RATE = ("--cm-per-mb", "1")


def _impute(target: str, panel: str = "panel.h5", *more: str) -> Words:
    return ("impute", target, "-p", panel, "-m", "plain", "-o", "out.vcf.gz", "-q", *more)


def _evaluate(truth: str, imputed: str, panel: str, *more: str) -> Words:
    files = ("--truth", truth, "--imputed", imputed, "-p", panel)
    return ("evaluate", *files, "--json", "figures.json", *more)


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes
    ----------
    files
        Those of which one is spoilt.
    mutations
        Ways to spoil it.
    commands
        Those that read it; ``FILE`` stands for the file.
    """

    files: tuple[str, ...]
    mutations: tuple[Mutation, ...]
    commands: tuple[Words, ...]


_TEXT = (spoil.raw, spoil.encoding, spoil.lines, spoil.cells, spoil.cells, spoil.cells)
_VCF = (*_TEXT, spoil.header, spoil.header)
_VCF_GZ = (
    spoil.raw, spoil.blocks, spoil.payload, *(spoil.within(change) for change in _VCF[1:]),
)  # fmt: skip
_BCF = (
    spoil.raw, spoil.blocks, spoil.payload, spoil.first_bytes, spoil.first_bytes, spoil.bcf_header,
)  # fmt: skip
_JSON = (spoil.raw, spoil.encoding, *[spoil.json_values] * 3)
_YAML = (spoil.raw, spoil.encoding, *[spoil.yaml_text] * 2, *[spoil.yaml_values] * 4)
_READ_TARGET = (
    _impute("FILE"),
    _impute(
        "FILE", "panel.h5", "--typed-only", "--sites", "sites.vcf", "--empirical", "typed.vcf.gz",
        "--excluded-sites", "excluded.tsv", "--format", "GT,DS,GP,HDS,AP", "--report", "r.json",
    ),
    ("impute", "FILE", "-p", "panel.h5", "--qc-only", "-q"),
    ("phase", "FILE", "-p", "panel.h5", "-o", "out.bcf", "-q"),
    ("index", "panel.h5", "-o", "new.index", "--sites", "FILE", "-q"),
    ("plan", "panel.h5", "FILE", "--samples-per-batch", "2", "--batch-dir", "batches"),
    _evaluate("truth.bcf", "imputed.vcf.gz", "panel.h5", "--typed", "FILE"),
    ("info", "FILE"),
)  # fmt: skip
_READ_PANEL_VCF = (
    ("prepare", "FILE", "--map", "map.txt", "-o", "new.h5", "-q"),
    ("prepare", "FILE", *_RATE, "-r", INSIDE, "-o", "new.h5", "-q"),
    _impute("target.vcf", "FILE", *_RATE),
    _evaluate("truth.bcf", "imputed.vcf.gz", "FILE"),
    ("info", "FILE"),
)
_READ_IMPUTED = (
    _evaluate("truth.bcf", "FILE", "panel.h5"),
    ("merge", "FILE", "second.vcf.gz", "-o", "out.vcf.gz", "-q"),
    ("merge", "second.vcf.gz", "FILE", "--min-r2", "0.3", "-o", "out.bcf", "-q"),
    ("info", "FILE"),
)
_READ_INDEX = (
    ("impute", "target.vcf", "-p", "panel.h5", "--index", "panel.index", "-m", "token",
     "-o", "out.vcf.gz", "-q"),
    ("info", "panel.index"),
)  # fmt: skip
_READ_MODEL = (
    ("impute", "target.vcf", "-p", "panel.h5", "-m", "net", "-o", "out.vcf.gz", "-q"),
    ("impute", "target.vcf", "-p", "panel.h5", "-m", "net", "-o", "out.vcf.gz", "-q"),
    ("info", "net"),
)

#: Run by a worker on good inputs when it starts, so that what commands need is loaded once.
WARM_UP: tuple[Words, ...] = (
    ("prepare", "panel.bcf", "--map", "map.txt", "-o", "new.h5", "-q"),
    ("index", "panel.h5", "-o", "new.index", "-q"),
    ("impute", "target.vcf.gz", "-p", "panel.h5", "-m", "net", "-o", "out.vcf.gz", "-q"),
    (*_READ_INDEX[0][:-2], "token.bcf", "-q"),
    ("phase", "target.vcf", "-p", "panel.h5", "-o", "out.bcf", "-q"),
    ("merge", "imputed.vcf.gz", "second.vcf.gz", "-o", "all.vcf.gz", "-q"),
    ("evaluate", "--truth", "truth.bcf", "--imputed", "imputed.vcf.gz", "-p", "panel.h5"),
    ("plan", "panel.h5", "target.vcf.gz"),
    ("info", "panel.h5", "panel.index", "net", "target.vcf.gz", "map.txt", "allel.h5"),
)

KINDS = {
    "target.vcf": Kind(("target.vcf",), _VCF, _READ_TARGET),
    "target.vcf.gz": Kind(("target.vcf.gz",), _VCF_GZ, _READ_TARGET),
    "target.bcf": Kind(("target.bcf",), _BCF, _READ_TARGET),
    "tabix and CSI": Kind(
        ("target.vcf.gz.tbi", "target.bcf.csi"), (spoil.raw, spoil.blocks, spoil.payload),
        (_impute("target.vcf.gz", "panel.h5", "-r", INSIDE),
         _impute("target.bcf", "panel.h5", "-r", INSIDE), ("info", "target.bcf", "target.vcf.gz"),
         ("phase", "target.vcf.gz", "-p", "panel.h5", "-r", INSIDE, "-o", "out.bcf", "-q")),
    ),
    "panel VCF": Kind(("panel.vcf",), _VCF, _READ_PANEL_VCF),
    "panel BCF": Kind(("panel.bcf",), _BCF, _READ_PANEL_VCF),
    "truth": Kind(
        ("truth.bcf",), _BCF, (_evaluate("FILE", "imputed.vcf.gz", "panel.h5"), ("info", "FILE")),
    ),
    "imputed VCF": Kind(("imputed.vcf.gz",), _VCF_GZ, _READ_IMPUTED),
    "imputed BCF": Kind(("imputed.bcf",), _BCF, _READ_IMPUTED),
    "panel.h5": Kind(
        ("panel.h5",), (spoil.raw, spoil.raw, *[spoil.hdf5_values] * 3),
        (_impute("target.vcf"), ("index", "FILE", "-o", "new.index", "-q"), ("plan", "FILE"),
         ("phase", "target.vcf", "-p", "FILE", "-o", "out.vcf", "-q"), ("info", "FILE"),
         _evaluate("truth.bcf", "imputed.vcf.gz", "FILE")),
    ),
    "scikit-allel HDF5": Kind(
        ("allel.h5",), (spoil.raw, *[spoil.hdf5_values] * 3),
        (("prepare", "FILE", *_RATE, "-o", "new.h5", "-q"), ("info", "FILE")),
    ),
    "panel of Minimac": Kind(
        ("panel.m3vcf", "panel.2.m3vcf", "panel.mvcf"), (*_TEXT, *[spoil.cells] * 2),
        (("prepare", "FILE", *_RATE, "-o", "new.h5", "-q"), _impute("target.vcf", "FILE", *_RATE),
         _evaluate("truth.bcf", "imputed.vcf.gz", "FILE"), ("info", "FILE")),
    ),
    "index, FAISS": Kind(
        ("panel.index/window_00000.faiss",), (spoil.raw,), _READ_INDEX
    ),
    "index, manifest": Kind(
        ("panel.index/manifest.json",), _JSON, _READ_INDEX
    ),
    "model, config": Kind(
        ("net/config.yaml",), _YAML,
        (*_READ_MODEL, ("train", "none.h5", "-c", "FILE", "-o", "new-model", "-q")),
    ),
    "model, weights": Kind(
        ("net/weights.safetensors",), (spoil.raw, spoil.tensors, spoil.tensors), _READ_MODEL
    ),
    "model, JSON": Kind(("net/provenance.json", "net/dr2.json"), _JSON, _READ_MODEL),
    "config": Kind(
        ("config.yaml",), _YAML, (("train", "none.h5", "-c", "FILE", "-o", "new-model", "-q"),)
    ),
    "genetic map": Kind(
        ("map.txt", "map.plink.txt"), _TEXT,
        (("prepare", "panel.bcf", "--map", "FILE", "-o", "new.h5", "-q"), ("info", "FILE"),
         _impute("target.vcf", "panel.bcf", "--map", "FILE")),
    ),
    "genetic map, gzip": Kind(
        ("map.txt.gz",), _VCF_GZ[:-2],
        (("prepare", "panel.bcf", "--map", "FILE", "-o", "new.h5", "-q"), ("info", "FILE")),
    ),
    "populations": Kind(
        ("populations.txt",), _TEXT,
        (("prepare", "panel.bcf", *_RATE, "--populations", "FILE", "-o", "new.h5", "-q"),),
    ),
    "list of samples": Kind(
        ("samples.txt",), _TEXT,
        (_impute("target.vcf", "panel.h5", "--samples-file", "FILE"),
         _impute("target.vcf", "panel.h5", "--exclude-samples", "FILE")),
    ),
}  # fmt: skip


def make_inputs(folder: Path) -> Path:
    """Write good inputs of every kind, small: 270 sites of 24 panel samples, 4 targets."""
    import torch

    from ragimpute.accuracy.dr2 import Dr2Calibration
    from ragimpute.config import load_config
    from ragimpute.imputation.impute import impute
    from ragimpute.model.bert_rag import build
    from ragimpute.model.checkpoint import save_model
    from ragimpute.preparation.prepare import prepare
    from ragimpute.target.inputs import TargetOptions
    from ragimpute.token_model.build_index import build_index

    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("panel.bcf", NUM_PANEL_SAMPLES), ("target.vcf.gz", NUM_TARGET_SAMPLES)):
        source = example.path(name)
        samples = bcftools("query", "-l", source).split()[:count]
        options = ("--no-version", "-r", REGION, "-s", ",".join(samples))
        stem = name.partition(".")[0]
        for suffix, letter in ((".vcf", "v"), (".vcf.gz", "z"), (".bcf", "b")):
            bcftools("view", *options, f"-O{letter}", "-o", folder / f"{stem}{suffix}", source)
    options = ("--no-version", "-r", REGION, "-s", ",".join(samples[:2]))
    bcftools("view", *options, "-Ob", "-o", folder / "truth.bcf", example.path("truth.bcf"))
    bcftools("index", "-t", folder / "target.vcf.gz")
    bcftools("index", "-c", folder / "target.bcf")
    _write_tables(folder, samples)
    _write_allel(folder)
    _write_m3vcf(folder)
    prepare(folder / "panel.bcf", folder / "panel.h5", genetic_map=folder / "map.txt")
    build_index(folder / "panel.h5", folder / "panel.index")
    (folder / "plain").mkdir()
    (folder / "plain" / "config.yaml").write_text("extends: default\nname: plain\n")
    for name, preset in (("net", "default"), ("token", "v10-small")):
        config = load_config(preset)
        torch.manual_seed(1)
        save_model(folder / name, build(config.model), config, {"seed": 1})
    (folder / "net" / "dr2.json").write_text(Dr2Calibration(_COEFFICIENTS).as_json())
    shutil.copy(folder / "net" / "config.yaml", folder / "config.yaml")
    for name, chosen in (("imputed", samples[:2]), ("second", samples[2:])):
        batch = folder / f"{name}.txt"
        batch.write_text("\n".join(chosen))
        impute(
            folder / "target.vcf", folder / "panel.h5", folder / f"{name}.vcf.gz",
            fields=("GT", "DS", "GP", "HDS"), model=str(folder / "plain"),
            target_options=TargetOptions(samples=batch),
        )  # fmt: skip
    bcftools("view", "--no-version", "-Ob", "-o", folder / "imputed.bcf", folder / "imputed.vcf.gz")
    return folder


def _write_tables(folder: Path, samples: list[str]) -> None:
    """Maps, populations and a list of samples."""
    first_bp = int(REGION.partition(":")[2].partition("-")[0])
    rows = [("20", first_bp + 1000 * i, 3 + 0.002 * i) for i in range(42)]
    text = "pos\tchr\tcM\n" + "".join(f"{bp}\t{contig}\t{cm:.4f}\n" for contig, bp, cm in rows)
    (folder / "map.txt").write_text(text)
    spoil.write_bgzf(folder / "map.txt.gz", text.encode())
    plink = "".join(f"{contig} . {cm:.4f} {bp}\n" for contig, bp, cm in rows)
    (folder / "map.plink.txt").write_text(plink)
    panel = bcftools("query", "-l", folder / "panel.bcf").split()
    (folder / "populations.txt").write_text(
        "".join(f"{name}\t{('A', 'B')[i % 2]}\n" for i, name in enumerate(panel))
    )
    (folder / "samples.txt").write_text("\n".join(samples[1:]) + "\n")


def _write_allel(folder: Path) -> None:
    """A scikit-allel HDF5 of the first sites of the panel."""
    rows = bcftools("query", "-f", "%POS\t%REF\t%ALT[\t%GT]\n", folder / "panel.bcf").splitlines()
    table = [row.split("\t") for row in rows[:60] if "," not in row]
    calls = [[[int(x) for x in cell.split("|")] for cell in row[3:]] for row in table]
    text = h5py.string_dtype()
    with h5py.File(folder / "allel.h5", "w") as file:
        file["variants/CHROM"] = np.array(["20"] * len(table), dtype=text)
        file["variants/POS"] = np.array([int(row[0]) for row in table], dtype="i4")
        file["variants/REF"] = np.array([row[1] for row in table], dtype=text)
        file["variants/ALT"] = np.array([[row[2], "", ""] for row in table], dtype=text)
        file["calldata/GT"] = np.array(calls, dtype="i1")
        names = bcftools("query", "-l", folder / "panel.bcf").split()
        file["samples"] = np.array(names, dtype=text)


def _write_m3vcf(folder: Path) -> None:
    """Panels of Minimac, in three forms, of the first sites of the panel, in blocks of ten."""
    rows = bcftools("query", "-f", "%POS\t%REF\t%ALT[\t%GT]\n", folder / "panel.bcf").splitlines()
    table = [row.split("\t") for row in rows[:60] if "," not in row]
    sites = [(int(row[0]), *row[1:3]) for row in table]
    haplotypes = np.array([[int(x) for x in "|".join(row[3:]).split("|")] for row in table], "i1")
    ploidy, last = [2] * NUM_PANEL_SAMPLES, len(sites) - 1
    shared = [min(10, last - first + 1) for first in range(0, last, 9)]
    apart = [min(10, len(sites) - first) for first in range(0, len(sites), 10)]
    (folder / "panel.m3vcf").write_text(m3vcf_text(sites, haplotypes, ploidy, shared))
    for name, form, sizes in (("2.m3vcf", "2 distances", shared), ("mvcf", "MVCF", apart)):
        text = later_text(sites, haplotypes, ploidy, sizes, form=form)
        (folder / f"panel.{name}").write_text(text)


@dataclass(frozen=True)
class Case:
    """One mutated input and the command that reads it; all of it follows from the seed.

    Attributes
    ----------
    seed
        Of its random choices.
    kind
        A key of ``KINDS``.
    file, mutations
        Which file was spoilt, and how.
    words
        The command.
    """

    seed: int
    kind: str
    file: str
    mutations: tuple[str, ...]
    words: Words

    def __str__(self) -> str:
        how = ", ".join(self.mutations)
        return f"seed {self.seed}: {self.file} ({how}): ragimpute {' '.join(self.words)}"


def make_case(seed: int, good: Path, folder: Path) -> Case:
    """Put good inputs and a mutated one into an empty folder."""
    draw = random.Random(seed)
    link_inputs(good, folder)
    # Kinds take turns, so that a short run meets each of them.
    name = list(KINDS)[seed % len(KINDS)]
    kind = KINDS[name]
    file = draw.choice(kind.files)
    path = folder / file
    path.unlink()  # a link: the good one stays as it is
    shutil.copy(good / file, path)
    done = []
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        change = draw.choice(kind.mutations)
        try:
            change(draw, path)
        except _CANNOT:  # after an earlier one, it is no such file any more
            if not done:
                raise
            break
        done.append(change.__name__)
    words = tuple(word.replace("FILE", file) for word in draw.choice(kind.commands))
    return Case(seed, name, file, tuple(done), words)


def link_inputs(good: Path, folder: Path) -> None:
    """Hard links to the good inputs."""
    shutil.copytree(good, folder, copy_function=os.link, dirs_exist_ok=True)
