"""VCFs made for tests, converted by bcftools, and imputed ones read back by cyvcf2."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cyvcf2
import numpy as np

# pytest sets this path; run_fuzz.py and fuzz_worker.py run as programs of their own.
sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

from vcf_tools import bcftools, run_bcftools

FORMATS = (
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    '##FORMAT=<ID=DS,Number=A,Type=Float,Description="Dosage">\n'
)


def vcf_text(rows, samples=("a", "b"), *, contigs=("20",), formats=FORMATS, infos="", keys="GT"):
    """A VCF of ``rows``: (position, ref, alt, calls...), or with the contig before these."""
    text = "##fileformat=VCFv4.2\n" + infos + formats
    text += "".join(f"##contig=<ID={contig}>\n" for contig in contigs)
    fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
    text += "\t".join([*fixed, *(["FORMAT", *samples] if samples else [])]) + "\n"
    for row in rows:
        contig, position, ref, alt, *calls = row if isinstance(row[0], str) else ("20", *row)
        cells = [contig, str(position), ".", ref, alt, ".", ".", "."]
        text += "\t".join([*cells, *([keys, *calls] if samples else [])]) + "\n"
    return text


def call(pair):
    """A phased genotype of two alleles as text; -1 missing, -2 haploid fill."""
    return "|".join("." if allele == -1 else str(allele) for allele in pair if allele != -2)


def write_genotypes(path, sites, alleles, samples, *, contig="20"):
    """A VCF of sites (position, ref, alt) and alleles (m, N, 2)."""
    rows = [
        (contig, *site, *(call(pair) for pair in row))
        for site, row in zip(sites, np.asarray(alleles).tolist(), strict=True)
    ]
    path.write_text(vcf_text(rows, samples, contigs=(contig,)))
    return path


def convert(path, suffix, *, index=True):
    """The same as .vcf.gz or .bcf, by bcftools."""
    out = path.with_name(path.name.removesuffix(".vcf") + suffix)
    kind = {".vcf.gz": "z", ".bcf": "b", ".u.bcf": "u"}[suffix]
    bcftools("view", "--no-version", f"-O{kind}", "-o", out, path)
    if index:
        bcftools("index", "-t" if suffix == ".vcf.gz" else "-c", out)
    return out


def join(out, parts):
    """Concatenate files block by block, which bcftools refuses if their headers differ."""
    done = run_bcftools("concat", "--naive", "-o", out, *parts)  # it names each file in a message
    assert done.returncode == 0, done.stderr


def view(path, *options):
    """The text of a file, without bcftools' own header lines."""
    return bcftools("view", "--no-version", *options, path)


def rows_of(text):
    """The records' columns."""
    return [line.split("\t") for line in text.splitlines() if not line.startswith("#")]


@dataclass
class Imputed:
    """An imputed file, site-major.

    Attributes
    ----------
    samples, keys
        Names; (position, ref, alt) of each site.
    contig, ids, typed
        Of the sites.
    genotypes
        Shape (M, N, 2), as :mod:`ragimpute.io.vcf.read.genotypes` codes alleles.
    values
        FORMAT numbers by name, (M, N, k), NaN where missing.
    info
        INFO numbers by name, (M,), NaN where missing.
    """

    samples: list[str]
    contig: list[str]
    keys: list[tuple[int, str, str]]
    ids: list[str]
    typed: np.ndarray
    genotypes: np.ndarray
    values: dict[str, np.ndarray]
    info: dict[str, np.ndarray]

    @property
    def dosage(self):
        """Shape (M, N)."""
        return self.values["DS"][:, :, 0]


def read_imputed(path):
    """Read what ``impute`` wrote."""
    file = cyvcf2.VCF(str(path))
    records = list(file)
    known = ("DS", "GP", "HDS", "AP1", "AP2")
    fields = [name for name in known if name in records[0].FORMAT]
    genotypes = [record.genotype.array()[:, :-1] for record in records]
    wide = np.full((len(records), len(file.samples), 2), -2, dtype=np.int8)
    for i, found in enumerate(genotypes):
        wide[i, :, : found.shape[1]] = found
    return Imputed(
        samples=list(file.samples),
        contig=[record.CHROM for record in records],
        keys=[(record.POS, record.REF, *record.ALT) for record in records],
        ids=[record.ID for record in records],
        typed=np.array([record.INFO.get("TYPED") is not None for record in records]),
        genotypes=wide,
        values={name: np.stack([record.format(name) for record in records]) for name in fields},
        info={
            name: np.array([record.INFO.get(name, np.nan) for record in records], dtype=float)
            for name in ("AF", "MAF", "DR2")
        },
    )
