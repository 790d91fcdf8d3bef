"""Plots of a model's calibration: what its probabilities and DR2 promise, and what is true."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ragimpute.accuracy.evaluate import Evaluation
from ragimpute.reports.plots import reliability, save_png


def draw_calibration(results: Mapping[str, Evaluation], name: str, folder: Path) -> list[Path]:
    """Write NAME-probability.png and NAME-dr2.png.

    Parameters
    ----------
    results
        Imputations of targets that the model was not trained on, by name.
    name
        The model's.
    folder
        Where the plots go; made if it does not exist.

    Returns
    -------
    The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probability = reliability(
        {key: result.calibration for key, result in results.items()},
        x="imputed probability of the minor allele (dosage / 2)",
        y="observed frequency",
        count="genotypes",
    )
    quality = reliability(
        {key: result.quality for key, result in results.items()},
        x="DR2",
        y="mean true r² of sites",
        count="sites",
    )
    return [
        save_png(probability, folder / f"{name}-probability.png"),
        save_png(quality, folder / f"{name}-dr2.png"),
    ]
