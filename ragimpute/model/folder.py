"""Find and check model folders without torch.

Importing torch takes 1.5 s. So a run reads its target and begins to copy before ``checkpoint``
loads the weights, and errors in a folder are found here, at the start of the run.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ragimpute import __version__
from ragimpute.accuracy.dr2 import Dr2Calibration
from ragimpute.errors import ModelError
from ragimpute.model.probability import Probabilities, gamma_at
from ragimpute.model.settings import read_settings
from ragimpute.presets import DROPPED, models_dir, preset_names

if TYPE_CHECKING:
    from ragimpute.config import RunConfig

FORMAT_VERSION = "1"
WEIGHTS, CONFIG, PROVENANCE = "weights.safetensors", "config.yaml", "provenance.json"
#: The key in the header of a token model's weights that holds the gamma of their loss.
GAMMA = "gamma"


@dataclass(frozen=True)
class ModelFolder:
    """A model as its folder describes it.

    Attributes
    ----------
    name
        The preset's name, or the folder, as asked for.
    path
        The folder.
    settings
        What the network is built from: the values of ``config``, without its methods.
    trained
        Whether weights are there; an untrained copying model is Li-Stephens itself.
    provenance
        How it was made: command, seed, data checksums, versions; empty if unknown.
    dr2
        How DR2 is calibrated; without dr2.json in the folder it is not.
    probabilities
        How P(ALT) follows from the logits of a token model; without probabilities.json in the
        folder it is not calibrated.
    """

    name: str
    path: Path
    settings: RunConfig
    trained: bool
    provenance: dict[str, Any] = field(default_factory=dict)
    dr2: Dr2Calibration = field(default_factory=Dr2Calibration)
    probabilities: Probabilities = field(default_factory=Probabilities)

    @property
    def is_copying(self) -> bool:
        return is_copying(self.settings)

    @cached_property
    def config(self) -> RunConfig:
        """What the network is built from, as ``config.yaml`` says it."""
        from ragimpute.config import load_config

        return load_config(self.path)


def is_copying(config: RunConfig) -> bool:
    """Whether a config is of a copying model; else it is of a token model."""
    return config.model.fusion.name == "copying"


def searches_index(config: RunConfig) -> bool:
    """Whether a model of a config searches the panel's index: tokens retrieved by window do."""
    return not is_copying(config) and config.data.retrieval == "window"


def input_fingerprint(config: RunConfig) -> str:
    """What a network reads, as a short text: the evidence's features, or the token vocabulary."""
    if not is_copying(config):
        return "tokens-2"
    from ragimpute.evidence.features import FEATURES, TOKEN_FEATURES

    names: tuple[str, ...] = FEATURES
    if config.model.copying.num_set_tokens:
        names += TOKEN_FEATURES
    digest = hashlib.sha256(",".join(names).encode()).hexdigest()[:12]
    return f"evidence-{len(names)}-{digest}"


def open_folder(name_or_path: str | Path) -> ModelFolder:
    """Find a shipped model by name, or a model folder, and check all but the weights' values.

    Raises
    ------
    ModelError
        If there is no such model, or its files cannot be used.
    ConfigError
        If its config.yaml cannot.
    """
    folder = _find(name_or_path)
    config = read_settings(folder, CONFIG)
    if config is None:
        from ragimpute.config import load_config

        config = load_config(folder)
    provenance: dict[str, Any] = {}
    if (folder / PROVENANCE).is_file():
        try:
            provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder / PROVENANCE} cannot be read: {error}") from error
    trained = (folder / WEIGHTS).is_file()
    probabilities = Probabilities()
    if trained:
        about = check_weights(folder / WEIGHTS, config)
        probabilities = read_probabilities(folder, config, about)
    elif not is_copying(config):
        raise ModelError(
            f"model {name_or_path} has no {WEIGHTS}, and without them a token model knows nothing",
            hint="train it first: ragimpute train PANEL.h5 --config "
            f"{shlex.quote(str(folder / CONFIG))} -o MODEL",
        )
    calibration = Dr2Calibration.read(folder)
    return ModelFolder(
        str(name_or_path), folder, config, trained, provenance, calibration, probabilities
    )


def read_probabilities(folder: Path, config: RunConfig, about: dict[str, str]) -> Probabilities:
    """How P(ALT) follows from the logits of a model's weights.

    Parameters
    ----------
    folder, config
        The model's.
    about
        The header of its weights. Headers of versions before 1.0 do not name the gamma of the
        loss. Then it is that of the config, at the end of its schedule.

    Raises
    ------
    ModelError
        If gamma, or the calibration in the folder, cannot be read.
    """
    if is_copying(config):  # their logit is that of copying, which is a posterior
        return Probabilities()
    try:
        gamma = float(about[GAMMA]) if GAMMA in about else last_gamma(config)
        if not 0 <= gamma < math.inf:
            raise ValueError(f"{gamma} is out of range")
    except ValueError as error:
        raise unreadable(folder / WEIGHTS, ValueError(f"gamma: {error}")) from error
    return Probabilities(gamma).with_files(folder)


def last_gamma(config: RunConfig) -> float:
    """Gamma of the loss in the last epoch of a run."""
    return gamma_at(config.loss, config.train.epochs - 1)


def check_weights(path: Path, config: RunConfig) -> dict[str, str]:
    """Refuse weights that are damaged, of another format, or made to read other evidence.

    Returns
    -------
    The header of the file.

    Raises
    ------
    ModelError
        It says what they were made for.
    """
    return _check_header(path, input_fingerprint(config))


def _check_header(path: Path, reads: str) -> dict[str, str]:
    """Refuse weights of another format, or made to read something else than ``reads``."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            about = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise unreadable(path, error) from error
    expected = {"format": FORMAT_VERSION, "input": reads}
    for key, want in expected.items():
        if about.get(key) != want:
            raise ModelError(
                f"weights {path} were made by ragimpute {about.get('ragimpute', '(unknown)')} for "
                f"{key} {about.get(key)}; this is {__version__}, which needs {want}",
                hint="train the model again with this version",
            )
    return about


def read_tensors(
    path: Path, config: RunConfig, shapes: dict[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Read weights, and check them.

    Parameters
    ----------
    path, config
        The file, and what it must have been made for.
    shapes
        Of the tensors that there must be, by name.

    Raises
    ------
    ModelError
        If the file is damaged, of another format version, made for other evidence, or does not
        fit the config.
    """
    tensors = read_numbers(path, input_fingerprint(config))
    wrong = sorted(
        set(shapes) ^ set(tensors)
        | {n for n in set(shapes) & set(tensors) if shapes[n] != tensors[n].shape}
    )
    if wrong:
        raise ModelError(
            f"weights {path} do not fit their config: {len(wrong)} tensors differ, e.g. {wrong[0]}",
            hint=f"{CONFIG} must be the one that the model was trained with",
        )
    return tensors


def read_numbers(path: Path, reads: str) -> dict[str, np.ndarray]:
    """Read all tensors of a file, by name.

    Parameters
    ----------
    path
        A file of weights.
    reads
        What the network must have been made to read: "input" in the file's header.

    Raises
    ------
    ModelError
        If the file is damaged, of another format version, was made for another input, or holds
        numbers that are not finite.
    """
    _check_header(path, reads)
    try:
        with safe_open(str(path), framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise unreadable(path, error) from error
    bad = [name for name, value in tensors.items() if not np.isfinite(value).all()]
    if bad:
        raise ModelError(f"weights {path} hold numbers that are not finite, in {bad[0]}")
    return tensors


def sort_header(path: Path) -> None:
    """Sort the header of a safetensors file by name, so that equal content makes equal bytes.

    The library writes the header in an order that changes from run to run.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        about = header.get("__metadata__", {})
        if about:
            header["__metadata__"] = dict(sorted(about.items()))
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        octets = text.encode().ljust(size)  # blanks fill the last of its 8 bytes, as before
        if len(octets) != size:
            raise ValueError(f"the header of {path} has {size} bytes, sorted {len(octets)}")
        file.seek(8)
        file.write(octets)


def unreadable(path: Path, error: Exception) -> ModelError:
    """The error for weights that are damaged or missing."""
    return ModelError(f"weights {path} cannot be read: {error}", hint="copy the model folder again")


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
    if str(name_or_path) in DROPPED:
        instead = DROPPED[str(name_or_path)]
        raise ModelError(
            f"there is no model {name_or_path} any more; {instead} is as accurate in half the time",
            hint=f"use --model {instead}, which ships",
        )
    names = _trained_names()
    raise ModelError(
        f"there is no model {name_or_path}",
        hint=f"choose {' or '.join(names)}, which {'ships' if len(names) == 1 else 'ship'}, or a "
        "folder that 'ragimpute train' wrote; 'ragimpute models' lists what ships",
    )


def _trained_names() -> list[str]:
    """Names of the shipped models that have weights."""
    return [name for name in preset_names() if (models_dir() / name / WEIGHTS).is_file()]
