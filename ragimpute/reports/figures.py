"""What the reports say, for programs: plain trees for JSON, and content for MultiQC."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragimpute.accuracy.metrics import MAF_BINS, maf_bin

if TYPE_CHECKING:
    from ragimpute.accuracy.scores import Evaluation
    from ragimpute.imputation.summary import ImputeSummary

History = Sequence[Mapping[str, float]]

#: Version of the trees of this module. Raise it if a key is removed or changes its meaning.
FORMAT_VERSION = 1
#: Version of the tree of a run: 2 has what ``ragimpute report`` needs (``run``, ``num_dr2``).
IMPUTE_FORMAT, IMPUTE_VERSION = "ragimpute-impute-report", 2

DR2_BINS = 20
DR2_LEAST = (0.3, 0.8)  # what a site's DR2 is often asked to reach
DR2_CLASSES = ((0.0, 0.3), (0.3, 0.8), (0.8, 0.95), (0.95, 1.0))


def dr2_classes(maf: np.ndarray, dr2: np.ndarray) -> np.ndarray:
    """How many sites of each MAF bin have DR2 in each of ``DR2_CLASSES``: (bins, classes), int64.

    Each class is ``[low, high)``, the last one closed.
    """
    edges = [low for low, _ in DR2_CLASSES[1:]]
    of_class = np.searchsorted(edges, np.round(dr2.astype(float), 6), side="right")
    group = maf_bin(maf)
    counts = np.zeros((len(MAF_BINS) - 1, len(DR2_CLASSES)), dtype=np.int64)
    np.add.at(counts, (group[group >= 0], of_class[group >= 0]), 1)
    return counts


def impute_figures(summary: ImputeSummary) -> dict[str, Any]:
    """A run: counts, DR2 by value, MAF and position, samples, time, memory, settings, versions.

    Figures of DR2 are of untyped sites; None where undefined.
    """
    typed = np.asarray(summary.typed, bool)
    # Rounded to six digits, as a MAF in float32 may lie just above the edge of its bin.
    maf, dr2 = np.round(np.asarray(summary.maf, float), 6), np.asarray(summary.dr2, float)
    counts, edges = np.histogram(dr2[~typed], bins=DR2_BINS, range=(0, 1))
    tree: dict[str, Any] = {
        "format": IMPUTE_FORMAT,
        "format_version": IMPUTE_VERSION,
        "run": _run(summary),
        "files": {key: str(getattr(summary, key)) for key in ("target", "panel", "out")},
        "model": summary.model,
        "num_samples": summary.num_samples,
        "num_haplotypes": summary.num_haplotypes,
        "num_sites": summary.num_sites,
        "num_typed": summary.num_typed,
        "num_untyped": summary.num_sites - summary.num_typed,
        "mean_dr2": _mean(dr2[~typed]),
        "share_dr2_0.8": _mean(dr2[~typed] >= 0.8),
        "num_dr2": {f"{least:g}": int((dr2[~typed] >= least).sum()) for least in DR2_LEAST},
        "counts": dict(summary.counts),
        "qc": None if summary.qc is None else asdict(summary.qc),
        "dr2_histogram": {"edges": edges.round(6).tolist(), "sites": counts.tolist()},
        "dr2_by_maf": _dr2_by_maf(maf[~typed], dr2[~typed]),
        "dr2_along": _dr2_along(np.asarray(summary.position_bp), dr2, typed),
        "samples": [] if summary.qc is None else [
            {"name": name, "call_rate": rate} for name, rate in summary.qc.call_rate.items()
        ],
        "untyped_samples": list(summary.untyped_samples),
        "seconds": dict(summary.seconds),
        "wall_seconds": summary.wall_seconds,
        "peak_mib": dict(summary.peak_mb),
        "peak_rss_mib": summary.peak_rss_mb,
        "settings": dict(summary.settings),
        "versions": dict(summary.versions),
        "warnings": list(summary.warnings),
    }  # fmt: skip
    out: dict[str, Any] = plain(tree)
    return out


def _run(summary: ImputeSummary) -> dict[str, Any]:
    """When and how a run was started, and which part of which contig it is about."""
    position = np.asarray(summary.position_bp)
    return {
        "started": summary.started,
        "command": summary.command,
        "contig": summary.contig,
        "region": str(summary.settings.get("region", "all")),
        "first_bp": int(position[0]) if len(position) else None,
        "last_bp": int(position[-1]) if len(position) else None,
        "genetic_map": summary.genetic_map,
        "span_cm": summary.span_cm,
        "panel_checksum": summary.panel_checksum,
    }


def train_figures(
    history: History, config_text: str, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """A training run: an entry for each epoch, the settings as YAML, and how it was made."""
    tree = {
        "format": "ragimpute-train-report",
        "format_version": FORMAT_VERSION,
        "epochs": [dict(row) for row in history],
        "config": config_text,
        "provenance": dict(provenance),
    }
    out: dict[str, Any] = plain(tree)
    return out


def multiqc_impute(summary: ImputeSummary) -> dict[str, Any]:
    """A row of MultiQC's table of imputation runs; file name and region tell the runs apart."""
    figures = impute_figures(summary)
    share = {"min": 0, "max": 100, "suffix": "%", "format": "{:,.1f}"}
    qc, region = summary.qc, str(summary.settings.get("region", "all"))
    name = _run_name(summary.out) + ("" if region == "all" else f" {region}")
    row = {
        "samples": summary.num_samples,
        "sites": summary.num_sites,
        "typed": summary.num_typed,
        "overlap": None if qc is None or math.isnan(qc.overlap) else 100 * qc.overlap,
        "mean_dr2": figures["mean_dr2"],
        "good": None if figures["share_dr2_0.8"] is None else 100 * figures["share_dr2_0.8"],
        "warnings": len(summary.warnings),
        "minutes": summary.wall_seconds / 60,
        "peak": summary.peak_rss_mb,
    }
    return {
        "id": "ragimpute_impute",
        "section_name": "ragimpute: imputation",
        "description": "DR2 is the estimated squared correlation of dosage and genotype, here over "
        "the sites that were not typed.",
        "plot_type": "table",
        "pconfig": {"id": "ragimpute_impute_table", "title": "ragimpute: imputation runs"},
        "headers": {
            "samples": {"title": "Samples", "format": "{:,d}"},
            "sites": {"title": "Sites", "description": "Sites written", "format": "{:,d}"},
            "typed": {"title": "Typed", "description": "of them typed", "format": "{:,d}"},
            "overlap": {"title": "Overlap", "description": "Records in the panel"} | share,
            "mean_dr2": {"title": "Mean DR2", "min": 0, "max": 1, "format": "{:,.4f}"},
            "good": {"title": "DR2 ≥ 0.8", "description": "Share of untyped sites"} | share,
            "warnings": {"title": "Warnings", "format": "{:,d}", "scale": "Oranges"},
            "minutes": {"title": "Minutes", "format": "{:,.1f}", "scale": "Blues"},
            "peak": {"title": "Peak MiB", "format": "{:,.0f}", "scale": "Blues"},
        },
        "data": {name: {k: v for k, v in row.items() if v is not None}},
    }


def multiqc_evaluate(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """MultiQC's plot of accuracy by MAF, a line for each imputed file."""
    return {
        "id": "ragimpute_accuracy",
        "section_name": "ragimpute: accuracy",
        "description": "Aggregate r² of dosage and true genotype at sites that were not typed, by "
        "upper edge of the bin of minor allele frequency.",
        "plot_type": "linegraph",
        "pconfig": {
            "id": "ragimpute_accuracy_plot",
            "title": "ragimpute: accuracy by allele frequency",
            "xlab": "minor allele frequency",
            "ylab": "aggregate r²",
            "xlog": True,
            "ymin": 0,
            "ymax": 1,
        },
        "data": {
            _run_name(name): {f"{b.maf_high:g}": b.r2 for b in e.bins if not math.isnan(b.r2)}
            for name, e in evaluations.items()
        },
    }


def _run_name(path: str) -> str:
    """A file's name without folders and suffix, which MultiQC shows as the name of a sample."""
    name = Path(path).name
    for suffix in (".vcf.gz", ".vcf", ".bcf"):
        name = name.removesuffix(suffix)
    return name


def _mean(values: np.ndarray) -> float:
    """The mean; NaN if there are no values."""
    return float(values.mean()) if len(values) else math.nan


def _dr2_by_maf(maf: np.ndarray, dr2: np.ndarray) -> list[dict[str, Any]]:
    """For each MAF bin: sites, mean DR2, and sites in each class of DR2."""
    group, classes = maf_bin(maf), dr2_classes(maf, dr2).tolist()
    names = [f"{low:g}-{high:g}" for low, high in DR2_CLASSES]
    return [
        {
            "maf_low": low,
            "maf_high": high,
            "num_sites": int((group == i).sum()),
            "mean_dr2": _mean(dr2[group == i]),
            "num_sites_by_dr2": dict(zip(names, classes[i], strict=True)),
        }
        for i, (low, high) in enumerate(pairwise(MAF_BINS))
    ]


def _dr2_along(position_bp: np.ndarray, dr2: np.ndarray, typed: np.ndarray) -> list[dict[str, Any]]:
    """For each Mb that holds a site: sites, typed sites, mean DR2."""
    mb = position_bp // 1_000_000
    return [
        {
            "mb": int(at),
            "num_sites": int((mb == at).sum()),
            "num_typed": int((typed & (mb == at)).sum()),
            "mean_dr2": _mean(dr2[~typed & (mb == at)]),
        }
        for at in np.unique(mb)
    ]


def plain(value: Any) -> Any:
    """Convert a tree to what JSON can hold; an undefined number becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str | None) else str(value)
