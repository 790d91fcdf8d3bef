"""Some samples of a BCF or VCF.gz."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vcf_tools import bcftools


def write_samples(
    source: Path, names: Sequence[str], out: Path, *, varying: bool = False, tabix: bool = False
) -> None:
    """Write some samples of a file, in this order, and an index.

    Parameters
    ----------
    source, out
        BCF or VCF.gz; the suffix of ``out`` says which is written.
    names
        The samples.
    varying
        Leave out the sites that do not vary among them.
    tabix
        Whether the index is a .tbi, for tools that read no .csi.
    """
    listed = out.with_suffix(".txt")
    listed.write_text("".join(f"{name}\n" for name in names))
    kind, extra = "b" if out.suffix == ".bcf" else "z", ["-c", "1:minor"] if varying else []
    bcftools("view", *extra, "-S", listed, f"-O{kind}", "-o", out, source)
    listed.unlink()
    bcftools("index", "-f", *(["-t"] if tabix else []), out)
