"""Where the shipped presets and weights are, and what they are called."""

from __future__ import annotations

from pathlib import Path

#: Presets that are gone, and which to use instead.
DROPPED = {"context": "default"}


def models_dir() -> Path:
    """The folder of shipped presets and weights, in a checkout or an installed wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "models"
    return checkout if (package.parent / "pyproject.toml").is_file() else package / "models"


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.parent.name for path in models_dir().glob("*/config.yaml"))
