"""Keep in a file what was fitted to a panel and an array, for later runs with the same array.

The copying parameters, the quality of the panel's sites and the fine-tuned network depend on the
panel and on which of its sites are typed, but not on the target's genotypes. Imputing a single
sample spends most of its time on fitting them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ragimpute import __version__
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.errors import InputError
from ragimpute.evidence.features import SITE_FEATURES
from ragimpute.evidence.site_quality import SiteQuality
from ragimpute.model.folder import WEIGHTS, ModelFolder, sort_header
from ragimpute.model.trust import EDGES, Trust
from ragimpute.runtime.outputs import replacing

FORMAT_VERSION = "5"
# The words in which error messages name the entries of :func:`made_for`.
_NAMES = {
    "format": "format", "ragimpute": "version", "panel": "panel", "typed": "set of typed sites",
    "model": "model",
}  # fmt: skip


class TunedNetwork(NamedTuple):
    """What fitting has made of a network.

    Attributes
    ----------
    layers
        Weights (D, K) and biases (D,) of the layers that read each pair on its own.
    trust
        What residuals are multiplied by; None: they are taken as they are.
    """

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    trust: Trust | None


def made_for(
    panel_checksum: str,
    typed_index: np.ndarray,
    model: ModelFolder,
    options: Mapping[str, object],
) -> dict[str, str]:
    """Describe what a fit depends on; a later run may use it only if all of this is the same.

    Parameters
    ----------
    panel_checksum
        Checksum of the panel's content.
    typed_index
        Shape (T,), int: all panel sites that are typed in the run.
    model
        The model, identified by its weights.
    options
        The options of the run that change what is fitted, by name, see
        ``ragimpute.imputation.options``.
    """
    weights = (model.path / WEIGHTS).read_bytes() if model.trained else b""
    typed = np.ascontiguousarray(typed_index, np.int64).tobytes()
    return {
        "format": FORMAT_VERSION,
        "ragimpute": __version__,
        "panel": panel_checksum,
        "typed": hashlib.sha256(typed).hexdigest(),
        "model": hashlib.sha256(weights).hexdigest(),
        **{name: str(value) for name, value in options.items()},
    }


def _name_of(key: str) -> str:
    """What a user calls a part of what a file was made for: options by their flags."""
    return _NAMES.get(key) or f"--{key.replace('_', '-')}"


@dataclass
class ArrayFit:
    """The content of a file of fits, or the part of it for one stretch of constant ploidy.

    Attributes
    ----------
    path
        The file.
    about
        See :func:`made_for`.
    tensors
        All arrays of the file by name; parts share this dictionary.
    prefix
        What the names of this part's arrays begin with.
    """

    path: Path
    about: Mapping[str, str]
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    prefix: str = ""
    _num_saved: int = 0

    @classmethod
    def open(cls, path: str | Path, about: Mapping[str, str]) -> ArrayFit:
        """Read the file, or begin a new one if it does not exist.

        Raises
        ------
        InputError
            If the file is damaged, or was made for another panel, array, model or setting.
        """
        path = Path(path)
        if not path.exists():
            return cls(path, about)
        try:
            with safe_open(str(path), framework="numpy") as file:
                found = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"array fit {path} cannot be read: {error}",
                hint="remove the file, and it is made anew",
            ) from error
        differ = [_name_of(key) for key in about if found.get(key) != about[key]]
        if differ:
            raise InputError(
                f"array fit {path} was made for another {' and another '.join(differ)}",
                hint="name another file for each panel, region, array and model; or remove it",
            )
        return cls(path, about, tensors, _num_saved=len(tensors))

    def part(self, number: int) -> ArrayFit:
        """The part for one stretch of constant ploidy; what it keeps is saved with the whole."""
        return ArrayFit(self.path, self.about, self.tensors, f"{number}.")

    def parameters(self, key: tuple[int, ...]) -> CopyingParameters | None:
        """The copying parameters of a stretch of typed sites, or None if they are not known."""
        found = self._get(key, "parameters", (2,))
        return None if found is None else CopyingParameters(float(found[0]), float(found[1]))

    def network(self, key: tuple[int, ...], shapes: list[tuple[int, ...]]) -> TunedNetwork | None:
        """The fine-tuned network of a stretch, or None if it is not known.

        ``shapes``: the shape (D, K) of each layer's weights.
        """
        out = []
        for i, shape in enumerate(shapes):
            weight = self._get(key, f"weight{i}", shape)
            bias = self._get(key, f"bias{i}", shape[:1])
            if weight is None or bias is None:
                return None
            out.append((weight, bias))
        share = self._get(key, "trust", (len(EDGES) + 1,))
        return TunedNetwork(tuple(out), None if share is None else Trust(share))

    def quality(self, sites: tuple[int, int], num_typed: int) -> SiteQuality | None:
        """The quality of a window's sites, or None; ``num_typed``: how many of these are typed."""
        shape = (sites[1] - sites[0], len(SITE_FEATURES))
        mismatch = self._get(sites, "mismatch_prob", (num_typed,))
        features = self._get(sites, "features", shape)
        excess = self._get(sites, "rare_excess", (1,))
        if mismatch is None or features is None or excess is None:
            return None
        return SiteQuality(mismatch, features, float(excess[0]))

    def keep_fit(
        self, key: tuple[int, ...], parameters: CopyingParameters, tuned: TunedNetwork | None
    ) -> None:
        """Store what :meth:`parameters` and :meth:`network` return."""
        numbers = np.array([parameters.switch_rate, parameters.mismatch_prob])
        self.tensors[self._name(key, "parameters")] = numbers
        if tuned is None:
            return
        for i, (weight, bias) in enumerate(tuned.layers):
            self.tensors[self._name(key, f"weight{i}")] = np.ascontiguousarray(weight)
            self.tensors[self._name(key, f"bias{i}")] = np.ascontiguousarray(bias)
        if tuned.trust is not None:
            self.tensors[self._name(key, "trust")] = tuned.trust.share

    def keep_quality(self, sites: tuple[int, int], quality: SiteQuality) -> None:
        """Store what :meth:`quality` returns."""
        self.tensors[self._name(sites, "mismatch_prob")] = quality.mismatch_prob
        self.tensors[self._name(sites, "features")] = np.asarray(quality.features)
        self.tensors[self._name(sites, "rare_excess")] = np.array([quality.rare_excess])

    def save(self) -> None:
        """Write the file if there is anything new, under a temporary name that is then renamed.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        if len(self.tensors) == self._num_saved:
            return
        try:
            with replacing(self.path) as temporary:
                save_file(self.tensors, str(temporary), metadata=dict(self.about))
                sort_header(temporary)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"cannot write array fit {self.path}: {error}",
                hint="check that its folder may be written to and has space left",
            ) from error
        self._num_saved = len(self.tensors)

    def _name(self, key: tuple[int, ...], what: str) -> str:
        return f"{self.prefix}{'-'.join(str(k) for k in key)}.{what}"

    def _get(self, key: tuple[int, ...], what: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """An array, checked for shape and finite numbers; None if it is not known."""
        name = self._name(key, what)
        found = self.tensors.get(name)
        if found is None:
            return None
        if found.shape != shape or not np.isfinite(found).all():
            raise InputError(
                f"array fit {self.path} is damaged: {name} has shape {found.shape} or numbers that "
                f"are not finite, where {shape} were expected",
                hint="remove the file, and it is made anew",
            )
        return found
