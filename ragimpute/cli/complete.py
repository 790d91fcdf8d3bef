"""What the shell offers when a value is completed by the tab key."""

from __future__ import annotations

from ragimpute.presets import models_dir, preset_names

#: FORMAT fields that an output may have.
FORMATS = ("GT", "DS", "GP", "HDS", "AP")
_WEIGHTS = "weights.safetensors"  # model.folder.WEIGHTS, whose module takes long to import


def trained_models() -> list[str]:
    """Names of the shipped models, which have weights."""
    return [name for name in preset_names() if (models_dir() / name / _WEIGHTS).is_file()]


def models(incomplete: str) -> list[str]:
    """Shipped models that begin so."""
    return [name for name in trained_models() if name.startswith(incomplete)]


def configs(incomplete: str) -> list[str]:
    """Presets that begin so."""
    return [name for name in preset_names() if name.startswith(incomplete)]


def devices(incomplete: str) -> list[str]:
    """Devices that begin so."""
    return [name for name in ("auto", "cpu", "cuda") if name.startswith(incomplete)]


def par_regions(incomplete: str) -> list[str]:
    """Genome builds whose pseudo-autosomal regions are known, that begin so."""
    names = ("b37", "b38", "chm13", "none")
    return [name for name in names if name.startswith(incomplete)]


def fields(incomplete: str) -> list[str]:
    """Lists of FORMAT fields: what is typed so far, with each further field."""
    before, _, last = incomplete.rpartition(",")
    given = before.split(",") if before else []
    left = [name for name in FORMATS if name not in given and name.startswith(last.upper())]
    return [",".join([*given, name]) for name in left]
