#!/usr/bin/env python3
"""Make the example that the package carries from the data of Debian's shapeit4-example.

Get the data (no installation needed)::

    apt-get download shapeit4-example
    dpkg-deb -x shapeit4-example_*.deb shapeit4-example
    python packaging/make_example.py shapeit4-example/usr/share/doc/shapeit4/examples/test

The folder holds 1000 Genomes phase 3 haplotypes of 20:1.0-4.0 Mb (b37): ``reference.vcf.gz``, 300
samples, and ``unphased.vcf.gz``, 203 others, phased in spite of its name except NA12878, which is
left out here. ``scaffold.vcf.gz`` holds the same 203 at the sites of the Illumina Omni 2.5 array:
these are the typed sites. Needs bcftools.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
from pathlib import Path

REGION = ("20", 2_000_000, 2_900_000)
MAP_MARGIN_BP = 250_000
NUM_TARGETS = 50
NUM_PANEL = 250
CONTIG_LENGTH = 63_025_520  # b37
EXAMPLE = Path(__file__).resolve().parent.parent / "ragimpute" / "example"


def bcftools(*args: str) -> str:
    """Run bcftools and return what it prints."""
    command = ["bcftools", *args]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def spread(names: list[str], count: int) -> list[str]:
    """``count`` of ``names``, evenly spaced, so that every population gives its share."""
    return [names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)]


def site_keys(path: Path, *args: str) -> set[str]:
    """``pos, ref, alt`` of each record of ``path``, as tab-separated text."""
    return set(bcftools("query", *args, "-f", "%POS\t%REF\t%ALT\n", str(path)).splitlines())


def write_records(path: Path, samples: list[str], records: list[str]) -> None:
    """Write ``records`` (CHROM ... FORMAT, GT ...) to ``path`` and index it."""
    header = [
        "##fileformat=VCFv4.3",
        '##FILTER=<ID=PASS,Description="All filters passed">',
        f"##contig=<ID={REGION[0]},length={CONTIG_LENGTH},assembly=b37>",
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Phased genotype">',
        "\t".join(
            ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *samples]
        ),
    ]
    kind = "-Ob9" if path.suffix == ".bcf" else "-Oz9"
    command = ["bcftools", "view", "--no-version", kind, "-o", str(path)]
    subprocess.run(command, check=True, text=True, input="\n".join(header + records) + "\n")
    bcftools("index", "-f", "--csi" if path.suffix == ".bcf" else "--tbi", str(path))


def read_merged(source: Path) -> tuple[list[str], list[list[str]]]:
    """Names and records (site fields, then genotypes) of all phased samples in the region."""
    region = f"{REGION[0]}:{REGION[1]}-{REGION[2]}"
    tables = []
    names: list[str] = []
    for file, skip in (("reference.vcf.gz", ()), ("unphased.vcf.gz", ("NA12878",))):
        path = str(source / file)
        keep = [name for name in bcftools("query", "-l", path).split() if name not in skip]
        names += keep
        form = "%CHROM\t%POS\t%ID\t%REF\t%ALT[\t%GT]\n"
        text = bcftools("query", "-r", region, "-s", ",".join(keep), "-f", form, path)
        tables.append([line.split("\t") for line in text.splitlines()])
    records = []
    for left, right in zip(*tables, strict=True):
        if (left[1], left[3:5]) != (right[1], right[3:5]):
            raise SystemExit(f"the two files differ at {left[:5]} and {right[:5]}")
        records.append(left + right[5:])
    return names, records


def main() -> None:
    """Write panel.bcf, target.vcf.gz, truth.bcf and the map into ragimpute/example/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the package's unpacked examples/test folder")
    source = parser.parse_args().source
    names, records = read_merged(source)
    targets = spread(names, NUM_TARGETS)
    panel = spread([name for name in names if name not in set(targets)], NUM_PANEL)
    column = {name: 5 + i for i, name in enumerate(names)}
    typed = site_keys(source / "scaffold.vcf.gz")

    rows: dict[str, list[str]] = {"panel": [], "truth": [], "target": []}
    for record in records:
        genotypes = {name: record[column[name]] for name in panel + targets}
        if any(gt not in ("0|0", "0|1", "1|0", "1|1") for gt in genotypes.values()):
            raise SystemExit(f"{record[:5]}: a genotype is unphased or missing")
        if not any("1" in genotypes[name] for name in panel):
            continue  # as in a real panel, every site has a carrier
        fixed = [*record[:5], ".", ".", ".", "GT"]
        rows["panel"].append("\t".join(fixed + [genotypes[name] for name in panel]))
        truth = "\t".join(fixed + [genotypes[name] for name in targets])
        rows["truth"].append(truth)
        if "\t".join([record[1], *record[3:5]]) in typed:
            rows["target"].append(truth)

    write_records(EXAMPLE / "panel.bcf", panel, rows["panel"])
    write_records(EXAMPLE / "truth.bcf", targets, rows["truth"])
    write_records(EXAMPLE / "target.vcf.gz", targets, rows["target"])

    first, last = REGION[1] - MAP_MARGIN_BP, REGION[2] + MAP_MARGIN_BP
    with gzip.open(source / "chr20.b37.gmap.gz", "rt") as lines:
        kept = [next(lines)] + [x for x in lines if first <= int(x.split("\t")[0]) <= last]
    packed = gzip.compress("".join(kept).encode(), mtime=0)
    (EXAMPLE / "chr20.b37.gmap.gz").write_bytes(packed)
    print({name: len(lines) for name, lines in rows.items()}, f"map: {len(kept) - 1}")


if __name__ == "__main__":
    main()
