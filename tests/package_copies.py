"""Copies of the package that tests may change."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def copy_package(folder: Path, *, compiled: bool = False) -> Path:
    """Copy the package and its models, as a checkout is laid out.

    Parameters
    ----------
    folder
        Where to.
    compiled
        With the kernels that ``make`` has compiled.

    Returns
    -------
    The copy's root, from which Python imports the package when it is run there.
    """
    root = folder / "copy"
    left_out = ["__pycache__", *([] if compiled else ["compiled"])]
    shutil.copytree(
        ROOT / "ragimpute", root / "ragimpute", ignore=shutil.ignore_patterns(*left_out)
    )
    shutil.copytree(ROOT / "models", root / "models")
    shutil.copy(ROOT / "pyproject.toml", root)
    return root
