"""``ragimpute models``: what ships, and what of it has trained weights."""

from __future__ import annotations

from ragimpute.cli.app import command
from ragimpute.cli.complete import trained_models
from ragimpute.cli.terminal import print_rows
from ragimpute.presets import models_dir, preset_names


@command("ragimpute models")
def models() -> None:
    """List the shipped models, and the presets that have no weights yet.

    A model is ready for 'ragimpute impute --model'. A preset is only a configuration for
    'ragimpute train --config'; nothing can be imputed with it until it is trained.
    """
    from ragimpute.config import load_config

    trained = trained_models()
    about = {name: load_config(models_dir() / name).description for name in preset_names()}
    print_rows(
        [(name, about[name]) for name in trained],
        title="Models with trained weights, for impute --model",
    )
    print_rows(
        [(name, text) for name, text in about.items() if name not in trained],
        title="\nPresets without weights, for train --config",
    )
