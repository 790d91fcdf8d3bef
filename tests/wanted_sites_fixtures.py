"""Lists of sites for tests: scoring files as the PGS Catalog writes them."""

from __future__ import annotations

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
