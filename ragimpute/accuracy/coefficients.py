"""Coefficients that calibrate a model, in a JSON file of its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ragimpute.errors import ModelError


class Coefficients(NamedTuple):
    """One number for each term of a calibration, and what they were fitted on."""

    values: tuple[float, ...]
    provenance: Mapping[str, Any]

    def as_json(self, version: str, terms: Sequence[str]) -> str:
        """What :func:`read_coefficients` reads."""
        about = {
            "version": version,
            "coefficients": dict(zip(terms, self.values, strict=True)),
            "provenance": dict(self.provenance),
        }
        return json.dumps(about, indent=2) + "\n"


def read_coefficients(
    path: Path,
    version: str,
    terms: Sequence[str],
    is_valid: Callable[[tuple[float, ...]], bool],
) -> Coefficients | None:
    """Read a file of coefficients; None if there is none.

    Parameters
    ----------
    path
        The file.
    version
        Of its format.
    terms
        The terms that it must name, and no others.
    is_valid
        Whether coefficients, finite and in the order of ``terms``, can be those of a calibration.

    Raises
    ------
    ModelError
        If the file is damaged, of another version, or not valid.
    """
    if not path.is_file():
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["version"] != version:
            raise ValueError(f"it is of version {about['version']}, not {version}")
        if set(about["coefficients"]) != set(terms):
            raise ValueError("its coefficients are of other terms")
        values = tuple(float(about["coefficients"][name]) for name in terms)
        if not np.isfinite(values).all() or not is_valid(values):
            raise ValueError("its coefficients are amiss")
        return Coefficients(values, about.get("provenance", {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}", hint="copy the model folder again"
        ) from error
