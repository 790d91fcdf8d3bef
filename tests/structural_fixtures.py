"""Panels with structural variants and repeats, as large releases of these write them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from vcf_fixtures import call

HEADER = """##fileformat=VCFv4.2
##contig=<ID=20,length=64444167>
##ALT=<ID=DEL,Description="Deletion">
##ALT=<ID=CN0,Description="Copy number allele: 0 copies">
##ALT=<ID=CN2,Description="Copy number allele: 2 copies">
##ALT=<ID=INS:ME:ALU,Description="Insertion of ALU element">
##INFO=<ID=SVTYPE,Number=1,Type=String,Description="Type of structural variant">
##INFO=<ID=END,Number=1,Type=Integer,Description="End coordinate of this variant">
##INFO=<ID=SVLEN,Number=.,Type=Integer,Description="SV length, of insertions and deletions">
##INFO=<ID=CIPOS,Number=2,Type=Integer,Description="Confidence interval, \\"around\\" POS">
##INFO=<ID=MEINFO,Number=4,Type=String,Description="Mobile element info">
##INFO=<ID=IMPRECISE,Number=0,Type=Flag,Description="Imprecise structural variation">
##INFO=<ID=RU,Number=1,Type=String,Description="Repeat unit">
##INFO=<ID=PERIOD,Number=1,Type=Integer,Description="Length of the repeat unit">
##INFO=<ID=AC,Number=A,Type=Integer,Description="Allele count">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
"""


@dataclass(frozen=True)
class Record:
    """A record of a panel; ``alleles`` (N, 2) may be of several ALTs."""

    position: int
    name: str
    ref: str
    alt: str
    info: str
    alleles: np.ndarray

    def line(self, samples, sep="|"):
        """The record's line for some of the samples."""
        calls = [call(pair).replace("|", sep) for pair in self.alleles[samples].tolist()]
        fixed = ["20", str(self.position), self.name, self.ref, self.alt, ".", "PASS"]
        return "\t".join([*fixed, self.info or ".", "GT", *calls])


def write_records(path, records, samples, *, header=HEADER):
    """A VCF of records, with some of the samples (numbers)."""
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    columns += [f"s{i}" for i in samples]
    lines = [record.line(list(samples)) for record in records]
    path.write_text(header + "\t".join(columns) + "\n" + "\n".join(lines) + "\n")
    return path


def mosaics(rng, num_sites, num_samples, *, num_founders=8):
    """Alleles (m, N, 2) of mosaics of a few founders."""
    founders = rng.random((num_founders, num_sites)) < 0.35
    out = np.empty((num_sites, 2 * num_samples), np.int8)
    for h in range(2 * num_samples):
        switch = np.flatnonzero(rng.random(num_sites) < 0.04)
        of = rng.integers(num_founders, size=len(switch) + 1)
        out[:, h] = founders[np.repeat(of, np.diff([0, *switch, num_sites])), np.arange(num_sites)]
    return out.reshape(num_sites, num_samples, 2)


def structural_records(seed, num_sites, num_samples):
    """SNPs with structural variants among them, one of every kind."""
    rng = np.random.default_rng(seed)
    alleles = mosaics(rng, num_sites, num_samples)
    at = 1_000_000 + 2_000 * np.arange(num_sites)

    def several(i):
        return np.where(alleles[i] == 1, 1, np.where(alleles[i + 1] == 1, 2, 0)).astype(np.int8)

    repeats = "CAG" * 5
    special = {
        # 1000 Genomes, phase 3 and 30x
        5: [("del", "N", "<DEL>", "SVTYPE=DEL;END={500};SVLEN=-500;CIPOS=-5,5;IMPRECISE;AC=7", 0),
            ("del2", "N", "<DEL>", "SVTYPE=DEL;END={900};AC=3", 2)],
        9: [("cnv", "A", "<CN0>,<CN2>", "SVTYPE=CNV;END={5000};AC=1,2", None)],
        13: [("alu", "A", "<INS:ME:ALU>", "SVTYPE=ALU;SVLEN=280;MEINFO=AluYa5,1,280,+", 0)],
        17: [("bnd", "G", "G]chr7:1234]", "SVTYPE=BND", 0)],
        21: [("str12", "A", "<STR12>", "END={20}", 0)],
        25: [("inv", "T", "<INV>", "SVTYPE=INV;END={1200}", 0)],
        # HGSVC and PanGenie: sequences
        29: [("ins", "C", "C" + "ACGT" * 90, "SVTYPE=INS;SVLEN=360", 0)],
        33: [("mixed", "C", "G,<DEL>", "SVTYPE=DEL;END={100};SVLEN=.,-100", None)],
        # EnsembleTR
        37: [("str", repeats, f"{repeats}CAG,{repeats[3:]}", "END={14};PERIOD=3;RU=CAG", None)],
    }  # fmt: skip
    records = []
    for i, position in enumerate(at.tolist()):
        if i not in special:
            records.append(Record(position, f"rs{i}", "A", "G", "AC=9", alleles[i]))
            continue
        for name, ref, alt, info, shift in special[i]:
            for length in (500, 900, 5000, 20, 1200, 100, 14):
                info = info.replace(f"{{{length}}}", str(position + length))
            carried = several(i) if shift is None else alleles[i + shift]
            records.append(Record(position, name, ref, alt, info, carried))
    return records
