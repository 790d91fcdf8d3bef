"""Configurations of models that do not ship, but that a user can train."""

from __future__ import annotations

from ragimpute.config import RunConfig, load_config

#: What makes the default model read the states of a pair one by one.
READS_STATES = (
    "model.copying.num_set_tokens=16",
    "model.copying.set_dim=24",
    "model.copying.set_heads=4",
)


def config_of(name: str, overrides: tuple[str, ...] | list[str] = ()) -> RunConfig:
    """A preset's configuration; "states" is that of the default model if it reads states."""
    if name == "states":
        return load_config("default", overrides=[*READS_STATES, *overrides])
    return load_config(name, overrides=overrides)
