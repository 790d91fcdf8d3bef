"""Where the bytes of imputed files go, and what fewer decimals change of r2 against the truth.

Run: python benchmarks/output_size.py PANEL TARGET TRUTH [--map MAP] [--peer NAME=FILE ...]
     python benchmarks/output_size.py PANEL TARGET TRUTH --map MAP --markdown PAGE

The target is imputed once. What came of it is written again in each format, and for each number of
decimals, level of compression and set of fields, and timed; beside them stand the package bgen and
plink2, which makes the same of the VCF. The change of r2 is that of the rounded against the
unrounded dosages, in each bin of MAF. A peer is another tool's file of the same targets, of which
the size is shown. With --markdown only formats are measured, for a page. Without arguments, the
packaged example is used.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cyvcf2
import numpy as np

from ragimpute import __version__, example, impute, prepare
from ragimpute.accuracy.metrics import MAF_BINS, maf_bin
from ragimpute.io.bgen.writer import BgenOptions, BgenWriter
from ragimpute.io.imputed import ImputedBlock, ImputedWriter
from ragimpute.io.pgen.writer import PgenOptions, PgenWriter
from ragimpute.io.vcf.header import Heading
from ragimpute.io.vcf.write.writer import VcfWriter

REPEATS = 3
INFOS = {"all INFO": None, "AF, DR2": {"AF", "DR2"}}
_PAGE = """# Formats: sizes and speed

ragimpute {version}. This page was made by

```bash not-run
{command}
```

{num_samples} samples at {num_sites:,} sites were imputed once, and what came of it was written in
each format by one thread. Sizes are those of all files of a set in MB; CPU seconds, for formatting
and compression alone, are the least of {repeats} runs. Rows with plink2 or the package bgen are
what a conversion takes beside writing the VCF.
[Which tool takes which](downstream.md#which-format), and
[what each holds](input-and-output.md#bgen-and-pgen), other pages say.

| written | MB | beside the main file | times the vcf.gz | CPU seconds | thousand sites a second |
|---|---:|---:|---:|---:|---:|
{rows}

A BCF is larger than the VCF.gz: it keeps the numbers of a field together, so that a genotype in
doubt is three things to compress in BCF, and one in VCF. A phased PGEN has the dosage of each
haplotype, as the VCF with HDS has. Fewer decimals make VCF and PGEN smaller:
[size of the output](input-and-output.md#size-of-the-output).
"""


def impute_blocks(panel: Path, target: Path, folder: Path) -> tuple[list[ImputedBlock], Heading]:
    """Impute, and keep what is handed to the writer of the output."""
    blocks: list[ImputedBlock] = []
    headings: list[Heading] = []
    write, begin = VcfWriter.write, VcfWriter.__init__

    def keep(self: VcfWriter, block: ImputedBlock) -> None:
        blocks.append(block)
        write(self, block)

    def keep_heading(self: VcfWriter, path: Path, heading: Heading, **options: object) -> None:
        headings.append(heading)
        begin(self, path, heading, **options)  # type: ignore[arg-type]

    VcfWriter.write, VcfWriter.__init__ = keep, keep_heading  # type: ignore[method-assign]
    try:
        started = time.perf_counter()
        impute(target, panel, folder / "whole.vcf.gz")
        print(f"the whole run takes {time.perf_counter() - started:.1f} s")
    finally:
        VcfWriter.write, VcfWriter.__init__ = write, begin  # type: ignore[method-assign]
    return blocks, headings[0]


def alleles_of(path: Path) -> dict[tuple[int, str, str], np.ndarray]:
    """ALT counts of all samples by site."""
    counts = {}
    for record in cyvcf2.VCF(str(path)):
        genotypes = record.genotype.array()[:, :-1]
        for number, alt in enumerate(record.ALT, 1):
            counts[record.POS, record.REF, alt] = (genotypes == number).sum(axis=1)
    return counts


def r2_changes(blocks: Sequence[ImputedBlock], truth: Path, panel_vcf: Path) -> None:
    """Print how aggregate r2 changes in each MAF bin, and over all sites, times 1e5."""
    known, panel = alleles_of(truth), alleles_of(panel_vcf)
    dosage, true, af = [], [], []
    for block in blocks:
        untyped = np.flatnonzero((block.called < 0).all(axis=(1, 2)))
        keys = list(block.sites.take(untyped).keys())
        for i, key in zip(untyped.tolist(), keys, strict=True):
            if key in known and key in panel:
                dosage.append(np.nansum(block.allele_prob[i].astype(float), axis=1))
                true.append(known[key])
                af.append(panel[key].mean() / 2)
    exact, truth_of, af_of = np.array(dosage), np.array(true, float), np.array(af)
    flip = (af_of > 0.5)[:, None]
    group = maf_bin(np.round(np.minimum(af_of, 1 - af_of), 6))
    turned = np.where(flip, 2 - truth_of, truth_of)

    def r2(values: np.ndarray, rows: np.ndarray) -> float:
        minor = np.where(flip, 2 - values, values)
        return float(np.corrcoef(minor[rows].ravel(), turned[rows].ravel())[0, 1] ** 2)

    bins = [group == i for i in range(len(MAF_BINS) - 1)] + [group >= 0]
    head = [f"≤ {high:g}" for high in MAF_BINS[1:]]
    print("\n| r2 x 1e5 | " + " | ".join([*head, "all"]) + " |")
    print("|---|" + "---|" * len(bins))
    print("| unrounded | " + " | ".join(f"{1e5 * r2(exact, rows):.0f}" for rows in bins) + " |")
    for digits in (2, 3, 4):
        scale = 10**digits
        rounded = np.floor(exact * scale + 0.5) / scale
        changes = [1e5 * (r2(rounded, rows) - r2(exact, rows)) for rows in bins]
        print(f"| change by {digits} decimals | " + " | ".join(f"{x:+.1f}" for x in changes) + " |")


def sizes(blocks: Sequence[ImputedBlock], heading: Heading, folder: Path) -> None:
    """Print size and time for each format, level, number of decimals and set of fields."""
    print("\n| format | fields | INFO | level | 2 decimals | 3 decimals | 4 decimals |")
    print("|---|---|---|---|---|---|---|")
    for kind in ("vcf.gz", "bcf"):
        for fields in (("GT", "DS", "GP"), ("GT", "DS"), ("GT", "HDS")):
            for told, infos in INFOS.items():
                for level in (1, 4, 6, 9):
                    if infos is not None and (fields[-1] != "GP" or level != 6):
                        continue
                    cells = []
                    for digits in (2, 3, 4):
                        path = folder / f"out.{kind}"
                        started = time.perf_counter()
                        with VcfWriter(
                            path, heading, fields=fields, digits=digits, level=level
                        ) as writer:
                            for block in blocks:
                                writer.write(_with_infos(block, infos))
                        seconds = time.perf_counter() - started
                        cells.append(f"{path.stat().st_size / 1e6:.2f} MB, {seconds:.2f} s")
                    print(
                        f"| {kind} | {':'.join(fields)} | {told} | {level} | "
                        + " | ".join(cells)
                        + " |"
                    )


class Written(NamedTuple):
    """A format: all files in MB, those beside the main one, and CPU seconds of writing."""

    title: str
    megabytes: float
    beside: float
    seconds: float


def formats(blocks: Sequence[ImputedBlock], heading: Heading, folder: Path) -> list[Written]:
    """Print size and time of each format, the least of some runs, with all files of a set."""
    rows: list[Written] = []
    made: dict[str, Callable[[Path], ImputedWriter]] = {
        "a.vcf.gz": lambda path: VcfWriter(path, heading),
        "b.vcf.gz": lambda path: VcfWriter(path, heading, fields=("GT", "DS")),
        "c.bcf": lambda path: VcfWriter(path, heading),
        "d.bgen": lambda path: BgenWriter(path, heading, BgenOptions()),
        "e.bgen": lambda path: BgenWriter(path, heading, BgenOptions(level=6)),
        "f.bgen": lambda path: BgenWriter(path, heading, BgenOptions(compression="zstd")),
        "g.bgen": lambda path: BgenWriter(path, heading, BgenOptions(bits=16)),
        "h.bgen": lambda path: BgenWriter(path, heading, BgenOptions(phased=True)),
        "i.pgen": lambda path: PgenWriter(path, heading, PgenOptions()),
        "j.pgen": lambda path: PgenWriter(path, heading, PgenOptions("plain")),
        "k.pgen": lambda path: PgenWriter(path, heading, PgenOptions(phased=True)),
        "l.vcf.gz": lambda path: VcfWriter(path, heading, fields=("GT", "HDS")),
    }
    told = (
        "vcf.gz, GT:DS:GP", "vcf.gz, GT:DS", "bcf, GT:DS:GP", "bgen, 8 bits, zlib",
        "bgen, 8 bits, zlib at level 6", "bgen, 8 bits, zstd", "bgen, 16 bits, zlib",
        "bgen, 8 bits, zlib, phased", "pgen, .pvar.zst", "pgen, .pvar",
        "pgen, .pvar.zst, phased", "vcf.gz, GT:HDS",
    )  # fmt: skip
    print("\n| written | MB | of these beside the main file | CPU seconds |")
    print("|---|---|---|---|")
    for (name, make), title in zip(made.items(), told, strict=True):
        place = folder / name.replace(".", "-")
        place.mkdir()

        def ours(path: Path = place / name, make: Callable[[Path], ImputedWriter] = make) -> None:
            with make(path) as writer:
                for block in blocks:
                    writer.write(block)

        rows.append(_row(title, ours, place, name))
    place = folder / "package"
    place.mkdir()
    rows.append(_row("bgen, 8 bits, zlib, by the package bgen",
                     lambda: _by_package(blocks, heading, place), place, "x.bgen"))  # fmt: skip
    if shutil.which("plink2") is None:
        return rows
    for title, words, name in (
        ("vcf.gz to pgen by plink2", ["--make-pgen", "vzs"], "x.pgen"),
        ("vcf.gz to pgen by plink2, phased", ["--make-pgen", "vzs"], "x.pgen"),
        ("vcf.gz to bgen by plink2", ["--export", "bgen-1.2", "bits=8", "ref-first"], "x.bgen"),
    ):
        place = folder / f"plink2-{len(rows)}"
        place.mkdir()
        source = folder / ("l-vcf-gz/l.vcf.gz" if "phased" in title else "a-vcf-gz/a.vcf.gz")
        command = ["plink2", "--threads", "1", "--vcf", source,
                   f"dosage={'HDS' if 'phased' in title else 'DS'}", *words, "--out",
                   place / "x"]  # fmt: skip
        run = partial(subprocess.run, command, check=True, capture_output=True)
        rows.append(_row(title, run, place, name))
    return rows


def page(rows: Sequence[Written], num_sites: int, num_samples: int, command: str) -> str:
    """The page of sizes and times."""
    usual = rows[0]
    lines = [
        f"| {row.title} | {row.megabytes:.2f} | {row.beside:.2f} "
        f"| {row.megabytes / usual.megabytes:.2f} | {row.seconds:.2f} "
        f"| {num_sites / row.seconds / 1000:,.0f} |"
        for row in rows
    ]  # fmt: skip
    return _PAGE.format(
        version=__version__, command=command, repeats=REPEATS, num_sites=num_sites,
        num_samples=num_samples, rows="\n".join(lines),
    )  # fmt: skip


def _row(title: str, make: Callable[[], object], place: Path, name: str) -> Written:
    """Print a row of the table of formats; ``make`` writes the files of ``place``."""
    seconds = []
    for _ in range(REPEATS):
        before = os.times()
        make()
        after = os.times()
        seconds.append(sum(after[:4]) - sum(before[:4]))
    main = (place / name).stat().st_size
    beside = sum(p.stat().st_size for p in place.iterdir() if p.suffix != ".log") - main
    row = Written(title, (main + beside) / 1e6, beside / 1e6, max(min(seconds), 0.01))
    print(f"| {title} | {row.megabytes:.2f} | {row.beside:.2f} | {row.seconds:.2f} |")
    return row


def _by_package(blocks: Sequence[ImputedBlock], heading: Heading, folder: Path) -> None:
    """Write a BGEN by the package bgen, a variant at a time."""
    from bgen import BgenWriter as Package

    samples = list(heading.samples)
    writer = Package(folder / "x.bgen", len(samples), samples, compression="zlib")
    for block in blocks:
        one, two = np.moveaxis(block.allele_prob.astype(np.float64), 2, 0)
        both, none = one * two, (1 - one) * (1 - two)
        prob = np.stack([none, 1 - none - both, both], axis=2)
        sites = block.sites
        for i, (position, ref, alt) in enumerate(sites.keys()):
            writer.add_variant(
                f"{sites.contig}:{position}:{ref}:{alt}", sites.id[i], sites.contig, position,
                [ref, alt], prob[i],
            )  # fmt: skip
    writer.close()


def _with_infos(block: ImputedBlock, names: set[str] | None) -> ImputedBlock:
    """A block with some of its INFO fields, or all."""
    if names is None:
        return block
    kept = {name: column for name, column in block.info.items() if name in names}
    return ImputedBlock(**{**vars(block), "info": kept})


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("panel", type=Path, nargs="?", default=example.path("panel.bcf"))
    parser.add_argument("target", type=Path, nargs="?", default=example.path("target.vcf.gz"))
    parser.add_argument("truth", type=Path, nargs="?", default=example.path("truth.bcf"))
    parser.add_argument("--map", type=Path, default=example.path("chr20.b37.gmap.gz"))
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--markdown", type=Path, help="write the page of formats, and stop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(options.panel, folder / "panel.h5", genetic_map=options.map)
        blocks, heading = impute_blocks(folder / "panel.h5", options.target, folder)
        if options.markdown is not None:
            command = shlex.join(["python", "benchmarks/output_size.py", *sys.argv[1:]])
            rows = formats(blocks, heading, folder)
            num_sites = sum(len(block.sites) for block in blocks)
            options.markdown.write_text(page(rows, num_sites, len(heading.samples), command))
            return
        for peer in options.peer:
            told, _, path = peer.rpartition("=")
            print(f"{told}: {Path(path).stat().st_size / 1e6:.2f} MB")
        r2_changes(blocks, options.truth, options.panel)
        formats(blocks, heading, folder)
        sizes(blocks, heading, folder)


if __name__ == "__main__":
    main()
