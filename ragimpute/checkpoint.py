"""Model folders: config.yaml, weights.safetensors and provenance.json, written and read whole.

No pickles anywhere. The weights carry in their header what they were trained to read, so that a
network is never fed evidence of another meaning.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ragimpute import __version__
from ragimpute.config import RunConfig, dump_config, load_config, models_dir, preset_names
from ragimpute.errors import ModelError
from ragimpute.model.bert_rag import BERTWithRAG, build

FORMAT_VERSION = "1"
WEIGHTS, CONFIG, PROVENANCE = "weights.safetensors", "config.yaml", "provenance.json"


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
    """

    name: str
    config: RunConfig
    model: BERTWithRAG
    trained: bool
    provenance: dict[str, Any] = field(default_factory=dict)


def input_fingerprint(config: RunConfig) -> str:
    """What a network reads, as a short text: the evidence's features, or the token vocabulary."""
    if config.model.fusion.name != "copying":
        return "tokens-1"
    from ragimpute.evidence import FEATURES

    digest = hashlib.sha256(",".join(FEATURES).encode()).hexdigest()[:12]
    return f"evidence-{len(FEATURES)}-{digest}"


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    import numpy

    return {
        "ragimpute": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": str(numpy.__version__),
    }


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    """Write a safetensors file, with what its header says, under a temporary name; rename it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, name, metadata=about)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def save_weights(path: Path, model: BERTWithRAG, config: RunConfig) -> None:
    """Write a model's parameters and buffers under a temporary name, then rename the file."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in _named(model).items()}
    about = {"format": FORMAT_VERSION, "ragimpute": __version__, "input": input_fingerprint(config)}
    write_tensors(path, tensors, about)


def save_model(
    folder: Path, model: BERTWithRAG, config: RunConfig, provenance: dict[str, Any]
) -> None:
    """Write a model folder; an existing one is replaced file by file.

    Parameters
    ----------
    folder
        Made if it does not exist.
    model, config, provenance
        What :func:`load_model` reads back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / WEIGHTS, model, config)
    write_text(folder / CONFIG, dump_config(config))
    write_text(folder / PROVENANCE, json.dumps(provenance, indent=2, sort_keys=True) + "\n")


def load_weights(path: Path, model: BERTWithRAG, config: RunConfig) -> None:
    """Read parameters into a model built from ``config``.

    Raises
    ------
    ModelError
        If the file is damaged, of another format version, made for other evidence, or does not
        fit the config.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"weights {path} cannot be read: {error}", hint="copy the model folder again"
        ) from error
    expected = {"format": FORMAT_VERSION, "input": input_fingerprint(config)}
    for key, want in expected.items():
        if about.get(key) != want:
            raise ModelError(
                f"weights {path} were made by ragimpute {about.get('ragimpute', '(unknown)')} for "
                f"{key} {about.get(key)}; this is {__version__}, which needs {want}",
                hint="train the model again with this version",
            )
    have = _named(model)
    wrong = sorted(
        set(have) ^ set(tensors)
        | {n for n in set(have) & set(tensors) if have[n].shape != tensors[n].shape}
    )
    if wrong:
        raise ModelError(
            f"weights {path} do not fit their config: {len(wrong)} tensors differ, e.g. {wrong[0]}",
            hint=f"{CONFIG} must be the one that the model was trained with",
        )
    bad = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise ModelError(f"weights {path} hold numbers that are not finite, in {bad[0]}")
    with torch.no_grad():
        for name, value in tensors.items():
            have[name].copy_(value)


def load_model(name_or_path: str | Path) -> LoadedModel:
    """Read a shipped model by name, or a model folder.

    Raises
    ------
    ModelError
        If there is no such model, or its files cannot be used.
    ConfigError
        If its config.yaml cannot.
    """
    folder = _find(name_or_path)
    config = load_config(folder)
    model = build(config.model)
    weights = folder / WEIGHTS
    provenance: dict[str, Any] = {}
    if (folder / PROVENANCE).is_file():
        try:
            provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder / PROVENANCE} cannot be read: {error}") from error
    trained = weights.is_file()
    if trained:
        load_weights(weights, model, config)
    elif not model.is_copying:
        raise ModelError(
            f"model {name_or_path} has no {WEIGHTS}, and without them a token model knows nothing",
            hint=f"train it first: ragimpute train PANEL.h5 --config {config.name} -o MODEL",
        )
    model.eval()
    return LoadedModel(str(name_or_path), config, model, trained, provenance)


def _find(name_or_path: str | Path) -> Path:
    """The folder that a model's name or path stands for."""
    path = Path(name_or_path)
    if path.is_dir():
        if (path / CONFIG).is_file():
            return path
        raise ModelError(
            f"folder {path} holds no {CONFIG}, so it is not a model",
            hint="give the folder that 'ragimpute train' wrote",
        )
    if path.exists():
        raise ModelError(f"model {path} is a file", hint="give the folder that holds it")
    preset = models_dir() / str(name_or_path)
    if "/" not in str(name_or_path) and (preset / CONFIG).is_file():
        return preset
    raise ModelError(
        f"there is no model {name_or_path}",
        hint="give a folder that 'ragimpute train' wrote, or one of " + ", ".join(preset_names()),
    )


def _named(model: BERTWithRAG) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name; a tensor shared by two parts counts once."""
    seen: set[int] = set()
    named = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            named[name] = value
    return named
