"""Which data set a config learns from, and how a panel's samples are shared out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragimpute.config import RunConfig
from ragimpute.errors import ModelError
from ragimpute.model.folder import searches_index
from ragimpute.panel.reader import Panel
from ragimpute.retrieval.index_manifest import read_manifest, read_manifest_of
from ragimpute.token_model.learned_panel import about_panel
from ragimpute.training.data.copying_batches import EvidenceBatches, PooledEvidenceBatches
from ragimpute.training.data.share import WHOLE, Share
from ragimpute.training.data.token_batches import TokenBatches, split_samples

log = logging.getLogger("ragimpute")


def make_batches(
    panels: Sequence[Panel],
    config: RunConfig,
    index: str | Path | None,
    threads: int,
    share: Share = WHOLE,
    *,
    device: str = "cpu",
    is_chosen: bool = False,
) -> Any:
    """Make the batches that a model of this config learns from.

    Parameters
    ----------
    panels, config, index, threads
        See :func:`ragimpute.training.trainer.train`. An index that the model does not search is
        only checked, and a warning says that it is not used.
    share
        This process's share of each batch, which is as large as those of all processes.
    device
        Where a token model's index is searched, see
        :func:`ragimpute.retrieval.faiss_device.choose_searcher`.
    is_chosen
        Whether the user chose the device, and so is warned if it cannot be used.
    """
    several = config.model_copy(
        update={
            "train": config.train.model_copy(
                update={"batch_size": config.train.batch_size * share.world}
            )
        }
    )
    seed = config.train.seed
    if index is not None and not searches_index(config):
        if len(panels) == 1:
            read_manifest_of(index, panels[0])
        else:
            read_manifest(index)
        if share.rank == 0:
            log.warning("index %s is not used: a model of config %s searches none", index,
                        config.name)  # fmt: skip
    if config.model.fusion.name == "copying":
        parts = []
        for panel in panels:
            train_samples, held_out = split_panel(panel, config)
            parts.append(
                EvidenceBatches(
                    panel, several, seed=seed, threads=threads,
                    train_samples=train_samples, validation_samples=held_out, share=share,
                )
            )  # fmt: skip
        return parts[0] if len(parts) == 1 else PooledEvidenceBatches(parts)
    if len(panels) != 1:
        raise ModelError(
            f"config {config.name} is a token model, which learns one panel; {len(panels)} given",
            hint="give one panel, or train a copying model such as default",
        )
    panel = panels[0]
    train_samples, held_out = split_panel(panel, config)
    found = None
    if searches_index(config):
        from ragimpute.retrieval.faiss_device import choose_searcher
        from ragimpute.retrieval.index import WindowIndex

        searcher = choose_searcher(device, missing="warn" if is_chosen else "ignore")
        if index is None:
            found = WindowIndex.build(panel, searcher=searcher)
        else:
            found = WindowIndex.open(index, panel, searcher=searcher)
    return TokenBatches(
        panel, found, several, seed=seed, train_samples=train_samples,
        validation_samples=held_out, share=share,
    )  # fmt: skip


def split_panel(panel: Panel, config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """Share out a panel's samples: those that are trained on, and those that validate."""
    data = config.data
    return split_samples(
        panel, data.validation_share, data.max_validation_samples, config.train.seed
    )


def describe_panel(panel: Panel, config: RunConfig, path: str | Path) -> dict[str, Any]:
    """What provenance.json keeps of a panel that was given as a path."""
    train_samples, held_out = split_panel(panel, config)
    return about_panel(panel, path) | {
        "num_haplotypes": panel.num_haplotypes,
        "num_sites": panel.num_sites,
        "num_train_samples": len(train_samples),
        "num_validation_samples": len(held_out),
    }
