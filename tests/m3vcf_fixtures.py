"""Panels of Minimac as text: what Minimac3, m3vcftools and ``sav export`` would write."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

_FIXED = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
SITES = [(10, "A", "C"), (20, "G", "T"), (30, "C", "G"), (40, "A", "G")]
HAPLOTYPES = np.array([[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]], np.int8)


def distances(alleles):
    """A site of M3VCF 2: the first haplotype with ALT, and the distance from each to the next."""
    carriers = np.flatnonzero(alleles)
    return ",".join(map(str, np.diff(carriers, prepend=0).tolist())) or "-"


def later_text(sites, haplotypes, ploidy, sizes, *, form, contig="20"):
    """As :func:`m3vcf_text`, in the form "2 text", "2 distances" or "MVCF"."""
    mvcf = form == "MVCF"
    lines = ["##fileformat=M3VCFv2.0"]
    if mvcf:
        lines = ["##subfileformat=MVCFv3.0", "##fileformat=VCFv4.2"]
    names = [f"s{i}" for i in range(len(ploidy))]
    lines.append("\t".join([*_FIXED, *names]))
    first = 0
    ends = np.cumsum([0, *ploidy]).tolist()
    for size in sizes:
        rows = list(range(first, first + size))
        distinct, template = np.unique(haplotypes[rows].T, axis=0, return_inverse=True)
        text = list(map(str, template.ravel().tolist()))
        cells = [("," if mvcf else "|").join(text[a:b]) for a, b in pairwise(ends)]
        info = f"VARIANTS={size};REPS={len(distinct)}"
        at = str(sites[rows[0]][0])
        if mvcf:
            head = [contig, at, "x", "A", "<BLOCK>", ".", ".", f"END={sites[rows[-1]][0]};{info}"]
            lines.append("\t".join([*head, "UHM", *cells]))
        else:
            lines.append("\t".join([contig, at, "<BLOCK>", ".", ".", ".", ".", info, ".", *cells]))
        for k, row in enumerate(rows):
            alleles = distinct[:, k]
            head = [contig, str(sites[row][0]), f"rs{row}", *sites[row][1:], ".", "."]
            listed = list(map(str, alleles.tolist()))
            if mvcf:
                lines.append("\t".join([*head, f"AC=1;UHA={','.join(listed)}"]))
            else:
                last = distances(alleles) if form == "2 distances" else "".join(listed)
                lines.append("\t".join([*head, ".", last]))
        first += size - (not mvcf)  # blocks of MVCF share no site
    return "\n".join(lines) + "\n"


def m3vcf_text(sites, haplotypes, ploidy, sizes, *, contig="20"):
    """Haplotypes (sites, H) in blocks of ``sizes`` sites, of which neighbours share one.

    ``ploidy`` has 1 or 2 for each sample; ``sites`` are (position, REF, ALT).
    """
    names = [f"s{i}_HAP_{k}" for i, n in enumerate(ploidy) for k in range(1, n + 1)]
    lines = [
        "##fileformat=M3VCF", "##version=1.2", "##compression=block", f"##n_blocks={len(sizes)}",
        f"##n_haps={len(names)}", f"##n_markers={len(sites)}",
        "\t".join([*_FIXED, *names]),
    ]  # fmt: skip
    first = 0
    for number, size in enumerate(sizes, start=1):
        rows = list(range(first, first + size))
        distinct, template = np.unique(haplotypes[rows].T, axis=0, return_inverse=True)
        span = f"{sites[rows[0]][0]}-{sites[rows[-1]][0]}"
        info = f"B{number};VARIANTS={size};REPS={len(distinct)}"
        cells = [contig, span, f"<BLOCK:{rows[0]}-{rows[-1]}>", ".", ".", ".", ".", info, "."]
        lines.append("\t".join([*cells, *map(str, template.ravel().tolist())]))
        for k, row in enumerate(rows, start=1):
            position, ref, alt = sites[row]
            text = "".join(map(str, distinct[:, k - 1].tolist()))
            info = f"B{number}.M{k};Err=0.001;Recom=0.002"
            lines.append(
                "\t".join([contig, str(position), f"rs{row}", ref, alt, ".", ".", info, text])
            )
        first += size - 1
    return "\n".join(lines) + "\n"
