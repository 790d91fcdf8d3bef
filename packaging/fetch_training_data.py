#!/usr/bin/env python3
"""Make the real panels that the shipped weights are trained on, from public files.

``python packaging/fetch_training_data.py OUT`` writes a folder for each row of training_data.tsv,
OUT/NAME, with panel.bcf and NAME.map: what ``make weights DATA="OUT/*"`` takes. The rows say where
the files lie, at which commit and under which licence; files whose git blob (SHA-1) is another are
refused. All panels are 1000 Genomes data, there as test data of other projects; the genetic maps
are SHAPEIT's, one file a contig in SHAPEIT5's repository beside the archives that SHAPEIT4's has.

Of each file, the sites of the row's region stay at which every sample has two phased alleles, one
record for each ALT, and both alleles occur. The number of sites and samples must be the row's.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import http.client
import os
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cyvcf2 import Writer

from ragimpute.preparation.genetic_map import GeneticMap

TABLE = Path(__file__).with_name("training_data.tsv")
DOWNLOADS = ".downloads"  # in OUT: files as they came, by git blob
TIMEOUT_S = 60
CODE_0 = ord("0")


@dataclass(frozen=True)
class Source:
    """A row of training_data.tsv: one panel, where its files lie and what comes of them.

    Attributes
    ----------
    name, build
        Of the folder; b37 or b38.
    region
        ``contig:first-last``, 1-based and closed, that sites are kept of.
    samples, sites
        How many the panel has.
    repository, commit, path, git_blob, url
        The file with the haplotypes; ``git_blob`` is git's SHA-1 of its content.
    data_licence, repository_licence
        Of the haplotypes, and of the repository that carries them.
    map_url, map_git_blob
        The genetic map of the whole contig.
    note
        What is peculiar to it.
    """

    name: str
    build: str
    region: str
    samples: int
    sites: int
    repository: str
    commit: str
    path: str
    git_blob: str
    url: str
    data_licence: str
    repository_licence: str
    map_url: str
    map_git_blob: str
    note: str


class Record(NamedTuple):
    """A site as the source has it; ``haplotypes`` has shape (N, 2), bool: ALT or not.

    It is None where a sample's alleles are missing, not phased or not two.
    """

    contig: str
    position_bp: int
    id: str
    ref: str
    alt: str
    haplotypes: np.ndarray | None


def read_table(path: Path = TABLE) -> list[Source]:
    """All rows of training_data.tsv."""
    with open(path, encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        row |= {name: int(row[name]) for name in ("samples", "sites")}
    return [Source(**row) for row in rows]


def git_blob(data: bytes) -> str:
    """Git's name of a file's content: the SHA-1 of "blob", its length and the content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def get(url: str, blob: str, downloads: Path, mirror: Path | None = None) -> Path:
    """The file of a URL: from the mirror, from an earlier run, or from the network.

    Parameters
    ----------
    blob
        What :func:`git_blob` of its content must be.
    downloads
        Folder where files of earlier runs lie, and where a download is put.
    mirror
        Folder that holds the file under the name ``blob`` or the last part of the URL; the
        network is not used then.

    Raises
    ------
    SystemExit
        If the mirror lacks the file, the download fails, or the content is not that of ``blob``.
    """
    path = downloads / blob
    if mirror is not None:
        candidates = [mirror / blob, mirror / url.rsplit("/", 1)[-1]]
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is None:
            raise SystemExit(f"Error: none of {', '.join(map(str, candidates))} is there: {url}")
        path = found
    elif not path.is_file():
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise SystemExit(
                f"Error: {url} does not come: {error}\n"
                "hint: run again, or give a folder that holds the files: --mirror DIR"
            ) from error
        check_blob(data, blob, url)
        downloads.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(data)
        os.replace(part, path)
    check_blob(path.read_bytes(), blob, str(path))
    return path


def check_blob(data: bytes, blob: str, place: str) -> None:
    """Refuse content that is not that of ``blob``."""
    found = git_blob(data)
    if found != blob:
        raise SystemExit(
            f"Error: {place} is not the file that the table names: "
            f"expected git blob {blob}, found {found} ({len(data)} bytes)"
        )


def read_vcf(lines: Iterator[str]) -> tuple[list[str], Iterator[Record]]:
    """Sample names and records of a VCF with nothing but GT, one record for each ALT.

    The header is not read: those of test data leave contigs out or name them twice.
    """
    samples = _header(lines)[9:]

    def records() -> Iterator[Record]:
        for cells in map(_cells, lines):
            alleles = _alleles(cells[9:], "|")
            for number, alt in enumerate(cells[4].split(","), start=1):
                haplotypes = None if alleles is None else alleles == number
                yield Record(cells[0], int(cells[1]), cells[2], cells[3], alt, haplotypes)

    return samples, records()


def read_table_of_genotypes(lines: Iterator[str]) -> tuple[list[str], Iterator[Record]]:
    """Sample names and records of a table: CHROM, POS, REF, ALT and genotypes as ``0/1``.

    The order of the two alleles is taken as phase: see the row's note.
    """
    samples = _header(lines)[4:]

    def records() -> Iterator[Record]:
        for contig, position, ref, alt, *genotypes in map(_cells, lines):
            alleles = _alleles(genotypes, "/")
            haplotypes = None if alleles is None else alleles == 1
            yield Record(contig, int(position), ".", ref, alt, haplotypes)

    return samples, records()


def read_m3vcf(lines: Iterator[str]) -> tuple[list[str], Iterator[Record]]:
    """Sample names and records of an M3VCF file, Minimac's format of reference panels.

    Blocks of sites hold their distinct haplotypes only. A block's line says which of these each
    haplotype has; each site's line, the alleles of the distinct ones. A block begins with the site
    that the one before ends with, which is given once.

    References
    ----------
    Das et al. 2016, "Next-generation genotype imputation service and methods".
    """
    samples = [name.removesuffix("_HAP_1") for name in _header(lines)[9::2]]

    def records() -> Iterator[Record]:
        which = np.empty(0, np.intp)  # shape (2N,): each haplotype's number in the block
        previous: tuple[str, ...] = ()
        for cells in map(_cells, lines):
            site = (cells[1], cells[3], cells[4])
            if cells[2].startswith("<BLOCK"):
                which = np.array(cells[9:], dtype=np.intp)
            elif site != previous:
                previous = site
                distinct = np.frombuffer(cells[8].encode(), np.uint8) != CODE_0
                haplotypes = distinct[which].reshape(-1, 2)  # (N, 2)
                contig, position, name, ref, alt = cells[:5]
                yield Record(contig, int(position), name, ref, alt, haplotypes)

    return samples, records()


def _header(lines: Iterator[str]) -> list[str]:
    """Cells of the line that names the columns; reads up to it."""
    return _cells(next(line for line in lines if not line.startswith("##")))


def _cells(line: str) -> list[str]:
    return line.rstrip("\n").split("\t")


def _alleles(genotypes: list[str], separator: str) -> np.ndarray | None:
    """Allele numbers, shape (N, 2), uint8; None where one is missing or the separator differs."""
    text = np.frombuffer("".join(genotypes).encode(), np.uint8)
    if len(text) != 3 * len(genotypes):
        return None
    text = text.reshape(-1, 3)
    alleles = text[:, [0, 2]] - CODE_0  # below "0": wraps to above 9
    if (text[:, 1] != ord(separator)).any() or (alleles > 9).any():
        return None
    return alleles


READERS: dict[str, Callable[[Iterator[str]], tuple[list[str], Iterator[Record]]]] = {
    ".m3vcf.gz": read_m3vcf,
    ".vcf.gz": read_vcf,
    ".tsv.gz": read_table_of_genotypes,
}


def kept_records(
    records: Iterable[Record], region: str, dropped: Counter[str]
) -> Iterator[tuple[Record, np.ndarray]]:
    """Records to keep, with their haplotypes; counts the others by reason in ``dropped``."""
    contig, _, span = region.partition(":")
    first, last = map(int, span.split("-"))
    seen: set[tuple[int, str, str]] = set()
    for record in records:
        site = (record.position_bp, record.ref, record.alt)
        haplotypes = record.haplotypes
        if record.contig != contig or not first <= record.position_bp <= last:
            dropped["outside the region"] += 1
        elif record.alt.startswith(("<", "*", ".")):
            dropped["no sequence as ALT"] += 1
        elif site in seen:
            dropped["a second record"] += 1
        elif haplotypes is None:
            dropped["missing or not phased"] += 1
        elif haplotypes.all() or not haplotypes.any():
            dropped["one allele only"] += 1
        else:
            yield record, haplotypes
        seen.add(site)


def write_panel(path: Path, samples: list[str], records: list[tuple[Record, np.ndarray]]) -> None:
    """Write records as BCF, in order of position, REF and ALT."""
    header = [
        "##fileformat=VCFv4.3",
        '##FILTER=<ID=PASS,Description="All filters passed">',
        f"##contig=<ID={records[0][0].contig}>",
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Phased genotype">',
        "\t".join(
            ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *samples]
        ),
    ]
    text = np.tile(np.frombuffer(b"0|0\t", np.uint8), (len(samples), 1))  # (N, 4)
    writer = Writer.from_string(str(path), "\n".join(header) + "\n", mode="wb")
    for record, haplotypes in sorted(records, key=lambda item: (item[0][1], *item[0][3:5])):
        text[:, [0, 2]] = haplotypes + np.uint8(CODE_0)
        line = [record.contig, str(record.position_bp), *record[2:5], ".", "PASS", ".", "GT"]
        line.append(text.tobytes()[:-1].decode())
        writer.write_record(writer.variant_from_string("\t".join(line)))
    writer.close()


def write_map(source: Path, path: Path, contig: str, first: int, last: int) -> None:
    """Cut a map to the positions ``first`` to ``last`` and one beyond each; PLINK's columns."""
    whole = GeneticMap.read(source, contig=contig)
    start = max(int(np.searchsorted(whole.position_bp, first)) - 1, 0)
    stop = int(np.searchsorted(whole.position_bp, last)) + 1
    rows = zip(whole.map_cm[start:stop], whole.position_bp[start:stop], strict=True)
    text = "".join(f"{contig} . {cm:.6f} {position:.0f}\n" for cm, position in rows)
    path.write_text(text, encoding="utf-8")


def make_folder(source: Source, out: Path, mirror: Path | None) -> None:
    """Write panel.bcf and the map of one row into ``out``/NAME.

    Raises
    ------
    SystemExit
        As :func:`get`, or if the panel has other numbers of sites or samples than the row.
    """
    file = get(source.url, source.git_blob, out / DOWNLOADS, mirror)
    whole_map = get(source.map_url, source.map_git_blob, out / DOWNLOADS, mirror)
    reader = next(reader for ending, reader in READERS.items() if source.path.endswith(ending))
    dropped: Counter[str] = Counter()
    with gzip.open(file, "rt") as lines:
        samples, read = reader(lines)
        records = list(kept_records(read, source.region, dropped))
    found = (len(records), len(samples))
    if found != (source.sites, source.samples):
        raise SystemExit(
            f"Error: {source.name} has {found[0]} sites of {found[1]} samples; "
            f"the table says {source.sites} of {source.samples}"
        )
    folder = out / source.name
    folder.mkdir(parents=True, exist_ok=True)
    positions = [record.position_bp for record, _ in records]
    contig = records[0][0].contig
    write_map(whole_map, folder / f"{source.name}.map", contig, min(positions), max(positions))
    part = folder / "panel.part"
    write_panel(part, samples, records)
    os.replace(part, folder / "panel.bcf")
    left_out = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"
    print(f"{source.name}: {found[0]} sites, {found[1]} samples; left out: {left_out}", flush=True)


def main() -> None:
    """Make the folders of all rows, or of one."""
    sources = {source.name: source for source in read_table()}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path, help="where the folders go")
    parser.add_argument("--only", choices=sources, metavar="NAME", help="this panel alone")
    parser.add_argument(
        "--mirror", type=Path, metavar="DIR",
        help="take the files from here, named by git blob or as in the URL, not from the network",
    )  # fmt: skip
    args = parser.parse_args()
    for source in [sources[args.only]] if args.only else sources.values():
        make_folder(source, args.out, args.mirror)


if __name__ == "__main__":
    main()
