"""Model folders: config.yaml, weights.safetensors and provenance.json, written and read whole.

Nothing is pickled. The header of the weights says which inputs they were trained on, so that a
network is never given features of another meaning.
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ragimpute import __version__
from ragimpute.config import RunConfig, dump_config
from ragimpute.model.bert_rag import BERTWithRAG, build
from ragimpute.model.folder import (
    CONFIG,
    FORMAT_VERSION,
    GAMMA,
    PROVENANCE,
    WEIGHTS,
    ModelFolder,
    input_fingerprint,
    is_copying,
    last_gamma,
    open_folder,
    read_tensors,
    sort_header,
)
from ragimpute.model.probability import Probabilities
from ragimpute.model.settings import FILE as SETTINGS
from ragimpute.model.settings import write_settings
from ragimpute.runtime.outputs import replacing


@dataclass
class LoadedModel:
    """A model ready to be used.

    Attributes
    ----------
    name
        The preset's name, or the folder.
    config
        What it was built from.
    model
        In evaluation mode, on the CPU.
    trained
        Whether weights were found; an untrained copying model is Li-Stephens itself.
    provenance
        How it was made: command, seed, data checksums, versions; empty if unknown.
    probabilities
        How P(ALT) follows from the logits; None: as the last epoch of the config makes it.
    """

    name: str
    config: RunConfig
    model: BERTWithRAG
    trained: bool
    provenance: dict[str, Any] = field(default_factory=dict)
    probabilities: Probabilities | None = None

    def __post_init__(self) -> None:
        if self.probabilities is None:
            gamma = 0.0 if is_copying(self.config) else last_gamma(self.config)
            self.probabilities = Probabilities(gamma)

    @property
    def settings(self) -> RunConfig:
        """The same as ``config``, by the name that a :class:`ModelFolder` has for its values."""
        return self.config


def versions() -> dict[str, str]:
    """Versions of the packages on which a result depends."""
    import numpy

    return {
        "ragimpute": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": str(numpy.__version__),
    }


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    """Write a safetensors file as a whole; ``about`` becomes its header."""
    with replacing(path) as temporary:
        save_file(tensors, str(temporary), metadata=about)
        sort_header(temporary)


def save_weights(
    path: Path, model: BERTWithRAG, config: RunConfig, *, gamma: float | None = None
) -> None:
    """Write a model's parameters and buffers.

    Parameters
    ----------
    path
        To write.
    model, config
        The model, and what it was built from.
    gamma
        Of the loss that a token model's weights come from; None: that of the config's last epoch.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in _named(model).items()}
    about = {"format": FORMAT_VERSION, "ragimpute": __version__, "input": input_fingerprint(config)}
    if not is_copying(config):
        about[GAMMA] = repr(float(last_gamma(config) if gamma is None else gamma))
    write_tensors(path, tensors, about)


def save_model(
    folder: Path,
    model: BERTWithRAG,
    config: RunConfig,
    provenance: dict[str, Any],
    *,
    gamma: float | None = None,
) -> None:
    """Write a model folder; an existing one is replaced file by file.

    Parameters
    ----------
    folder
        Made if it does not exist.
    model, config, provenance
        What :func:`load_model` reads back.
    gamma
        See :func:`save_weights`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / WEIGHTS, model, config, gamma=gamma)
    save_config(folder, config)
    write_text(folder / PROVENANCE, json.dumps(provenance, indent=2, sort_keys=True) + "\n")


def save_config(folder: Path, config: RunConfig) -> None:
    """Write a model's settings, for people and for runs."""
    write_text(folder / CONFIG, dump_config(config))
    with replacing(folder / SETTINGS) as temporary:
        write_settings(temporary, config, (folder / CONFIG).read_bytes())


def load_weights(path: Path, model: BERTWithRAG, config: RunConfig) -> None:
    """Read parameters into a model built from ``config``.

    Raises
    ------
    ModelError
        If the file is damaged, of another format version, made for other evidence, or does not
        fit the config.
    """
    have = _named(model)
    tensors = read_tensors(path, config, {name: tuple(value.shape) for name, value in have.items()})
    with torch.no_grad():
        for name, value in tensors.items():
            have[name].copy_(torch.from_numpy(value))


def load_model(model: str | Path | ModelFolder) -> LoadedModel:
    """Read a shipped model by name, a model folder, or one that was opened already.

    Raises
    ------
    ModelError
        If there is no such model, or its files cannot be used.
    ConfigError
        If its config.yaml cannot.
    """
    folder = model if isinstance(model, ModelFolder) else open_folder(model)
    network = build(folder.config.model)
    if folder.trained:
        load_weights(folder.path / WEIGHTS, network, folder.config)
    network.eval()
    return LoadedModel(
        folder.name, folder.config, network, folder.trained, folder.provenance,
        folder.probabilities,
    )  # fmt: skip


def _named(model: BERTWithRAG) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name; a tensor shared by two parts counts once."""
    seen: set[int] = set()
    named = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            named[name] = value
    return named
