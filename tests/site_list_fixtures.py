"""Lists of sites for tests, in all forms; scoring files as the PGS Catalog writes them."""

from __future__ import annotations

from vcf_fixtures import vcf_text

COLUMNS = (
    "rsID", "chr_name", "chr_position", "effect_allele", "other_allele", "effect_weight",
    "hm_source", "hm_rsID", "hm_chr", "hm_pos", "hm_inferOtherAllele",
)  # fmt: skip


def score_text(rows, *, build="GRCh38", hm_build="GRCh37"):
    """A harmonised score; ``rows``: dictionaries by the names of ``COLUMNS``."""
    lines = [
        "###PGS CATALOG SCORING FILE - see https://www.pgscatalog.org/downloads for information",
        "#format_version=2.0", "#pgs_id=PGS000000", f"#genome_build={build}",
        "##HARMONIZATION DETAILS", f"#HmPOS_build={hm_build}", "\t".join(COLUMNS),
        *("\t".join(str(row.get(name, "")) for name in COLUMNS) for row in rows),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def score_row(contig, position, effect, other, weight=0.1, **more):
    """A row of a score, with harmonised positions; the original ones are of another build."""
    return {
        "chr_name": contig, "chr_position": position + 5_000, "effect_allele": effect,
        "other_allele": other, "effect_weight": weight, "hm_chr": contig, "hm_pos": position,
        **more,
    }  # fmt: skip


def forms(sites):
    """The text of each form that tells the alleles, by name; sites are (contig, POS, REF, ALT)."""
    return {
        "plain": "".join(f"{c} {p} {r} {a}\n" for c, p, r, a in sites),
        "tabs, names": "#CHROM\tPOS\tREF\tALT\n"
        + "".join(f"{c}\t{p}\t{r}\t{a}\n" for c, p, r, a in sites),
        "csv": "chrom,pos,ref,alt\r\n" + "".join(f"{c},{p},{r},{a}\r\n" for c, p, r, a in sites),
        "names of sites": "".join(f"{c}:{p}:{r}:{a}\n" for c, p, r, a in sites),
        "as bcftools call -T": "".join(f"{c}\t{p}\t{r},{a}\n" for c, p, r, a in sites),
        "no names, commas": "".join(f"{c},{p},{r},{a}\n" for c, p, r, a in sites),
        "as a VCF without header": "".join(f"{c}\t{p}\trs{p}\t{r}\t{a}\n" for c, p, r, a in sites),
        "underscores": "".join(f"{c}_{p}_{r}_{a}\n" for c, p, r, a in sites),
        "A1 and A0": "#Chr\tPosition\tA1\tA0\n"
        + "".join(f"{c}\t{p}\t{a}\t{r}\n" for c, p, r, a in sites),
        "manifest": "Illumina, Inc.\n[Heading]\nLoci Count ,80\n[Assay]\nChr,MapInfo,Ref,Alt\n"
        + "".join(f"{c},{p},{r},{a}\n" for c, p, r, a in sites)
        + "[Controls]\n1,2,3\n",
        "bim": "".join(f"{c}\trs{p}\t0.1\t{p}\t{a}\t{r}\n" for c, p, r, a in sites),
        "PRS-CS": "".join(f"{c}\trs{p}\t{p}\t{a}\t{r}\t1e-5\n" for c, p, r, a in sites),
        "vcf": vcf_text([(*site, "0|0", "0|1") for site in sites]),
        "sites of a vcf": vcf_text(sites, ()),
        "pvar": "##x\n#CHROM\tPOS\tID\tREF\tALT\n"
        + "".join(f"{c}\t{p}\trs1\t{r}\t{a}\n" for c, p, r, a in sites),
        "harmonised score": score_text([score_row(c, p, a, r) for c, p, r, a in sites]),
        "score": "#genome_build=GRCh37\nchr_name\tchr_position\teffect_allele\tother_allele\n"
        + "".join(f"{c}\t{p}\t{a}\t{r}\n" for c, p, r, a in sites),
        "old score": "# PGS ID = x\nchr_name\tchr_position\teffect_allele\treference_allele\n"
        + "".join(f"{c}\t{p}\t{a}\t{r}\n" for c, p, r, a in sites),
    }


def positions(sites):
    """The text of each form that tells contig and position alone, by name."""
    return {
        "CHROM POS": "".join(f"{c} {p}\n" for c, p, _, _ in sites),
        "CHROM:POS": "".join(f"{c}:{p}\n" for c, p, _, _ in sites),
        "CHROM POS ID": "".join(f"{c}\t{p}\trs{p}\n" for c, p, _, _ in sites),
        "bed": "track name=x\n" + "".join(f"{c}\t{p - 1}\t{p}\trs{p}\n" for c, p, _, _ in sites),
        "names": "Chr,MapInfo\n" + "".join(f"{c},{p}\n" for c, p, _, _ in sites),
    }
