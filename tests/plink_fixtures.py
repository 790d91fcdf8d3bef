"""PLINK file sets made for tests, by the formats' descriptions; pgen by pgenlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_CODE = {(1, 1): 0b00, (-1, -1): 0b01, (0, 1): 0b10, (1, 0): 0b10, (0, 0): 0b11}


def bed_bytes(alleles):
    """A bed of alleles (m, N, 2): 0 A2, 1 A1, -1 missing."""
    rows = [b"\x6c\x1b\x01"]
    for row in np.asarray(alleles).tolist():
        codes = [_CODE[tuple(pair)] for pair in row]
        codes += [0] * (-len(codes) % 4)
        rows.append(
            bytes(
                codes[i] | codes[i + 1] << 2 | codes[i + 2] << 4 | codes[i + 3] << 6
                for i in range(0, len(codes), 4)
            )
        )
    return b"".join(rows)


def write_bed(prefix, variants, alleles, samples, *, sex=None, families=None):
    """Write bed, bim and fam; ``variants``: (contig, position, id, REF, ALT). Gives the bed."""
    prefix = Path(prefix)
    bim = "".join(f"{c}\t{i}\t0\t{p}\t{alt}\t{ref}\n" for c, p, i, ref, alt in variants)
    _beside(prefix, ".bim").write_text(bim)
    sex = [0] * len(samples) if sex is None else sex
    families = samples if families is None else families
    fam = "".join(f"{f} {s} 0 0 {x} -9\n" for f, s, x in zip(families, samples, sex, strict=True))
    _beside(prefix, ".fam").write_text(fam)
    path = _beside(prefix, ".bed")
    path.write_bytes(bed_bytes(alleles))
    return path


def write_pgen(prefix, variants, alleles, samples, *, phased=None, sex=None, dosages=None):
    """Write pgen, pvar and psam; ``alleles`` (m, N, 2) may be above 1 where ALT has commas."""
    import pgenlib

    prefix = Path(prefix)
    alleles = np.asarray(alleles, np.int32)
    sizes = [2 + alt.count(",") for *_, alt in variants]
    pvar = "##source=test\n#CHROM\tPOS\tID\tREF\tALT\n"
    pvar += "".join(f"{c}\t{p}\t{i}\t{ref}\t{alt}\n" for c, p, i, ref, alt in variants)
    _beside(prefix, ".pvar").write_text(pvar)
    sex = [0] * len(samples) if sex is None else sex
    psam = "#IID\tSEX\n" + "".join(f"{s}\t{x}\n" for s, x in zip(samples, sex, strict=True))
    _beside(prefix, ".psam").write_text(psam)
    path = _beside(prefix, ".pgen")
    with pgenlib.PgenWriter(
        bytes(path), len(samples), variant_ct=len(variants), nonref_flags=False,
        allele_ct_limit=max(sizes), hardcall_phase_present=phased is not None,
        dosage_present=dosages is not None,
    ) as writer:  # fmt: skip
        for i, row in enumerate(alleles):
            called = np.ascontiguousarray(np.where(row < 0, -9, row).reshape(-1))
            if dosages is not None:
                writer.append_dosages(np.asarray(dosages[i], np.float32))
            elif phased is None:
                writer.append_alleles(called, all_phased=False, allele_ct=sizes[i])
            else:
                present = np.asarray(phased[i], np.uint8)
                writer.append_partially_phased(called, present, allele_ct=sizes[i])
    return path


def _beside(prefix, suffix):
    """A file of the set; a prefix may hold dots."""
    return prefix.with_name(prefix.name + suffix)
