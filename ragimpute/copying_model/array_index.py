"""What an index folder holds of an array: all that depends on the panel and on the typed sites.

The copying parameters, the fine-tuned network, the quality of the panel's sites, the tables of the
retriever and the panel in the form that copying reads depend on the panel and on which of its sites
are typed, but not on the target's genotypes. Imputing a single sample spends most of its time on
them.

Each array has a folder of its own in ``arrays/`` of the index folder, which is named after a digest
of all that its content depends on. ``array.safetensors`` in it has the typed sites, and there is a
file for each stretch that parameters were fitted to and one for each window. Every file is written
whole and then renamed, and equal names mean equal content: so jobs may add to an index, and read
it, at the same time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ragimpute import __version__
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import is_copied_whole
from ragimpute.copying.window import Window
from ragimpute.copying_model.wide_panel import WideWindow
from ragimpute.errors import InputError, PanelError
from ragimpute.evidence.features import QUALITY_FEATURES, SITE_FEATURES
from ragimpute.evidence.site_quality import SiteQuality
from ragimpute.model.folder import WEIGHTS, ModelFolder
from ragimpute.model.trust import EDGES, Trust
from ragimpute.panel.inbred import second_haplotypes
from ragimpute.panel.loci import Loci
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelPart
from ragimpute.retrieval.index_manifest import ARRAYS, damaged, damaged_folder, make_folder
from ragimpute.retrieval.mapped_arrays import Later, MappedArrays, write_arrays
from ragimpute.retrieval.retriever import Retriever

FORMAT_VERSION = "2"
_SITES = "array.safetensors"
# So many target haplotypes copy few of a million: of 815 MB of a window, two need 100 MB, and 2,000
# need 540 MB, in 25 s page by page, and in 15 s if the system reads on (from disk, busy machine).
_FEW_TARGETS = 64
# The words in which messages name the entries of :func:`made_for`.
_NAMES = {
    "format": "format", "ragimpute": "version of ragimpute", "typed": "set of typed sites",
    "model": "model",
}  # fmt: skip
# A stretch of the typed sites to which parameters were fitted, see ``StretchFits``.
Stretch = tuple[int, int, int]
# A window's panel sites: buffer start, start, stop, buffer stop.
Bounds = tuple[int, int, int, int]


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
    typed_index: np.ndarray, model: ModelFolder, options: Mapping[str, object]
) -> dict[str, str]:
    """Describe what an array's content depends on beside the panel.

    Parameters
    ----------
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
        "typed": hashlib.sha256(typed).hexdigest(),
        "model": hashlib.sha256(weights).hexdigest(),
        **{name: str(value) for name, value in options.items()},
    }


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """What differs between two results of :func:`made_for`, as a user calls it."""
    return [
        _NAMES.get(key) or f"--{key.replace('_', '-')}" for key in one if one[key] != other.get(key)
    ]


def array_folder(index: Path, about: Mapping[str, str]) -> Path:
    """The folder within an index of what was made for ``about``."""
    text = json.dumps(dict(sorted(about.items())))
    return index / ARRAYS / hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ArrayIndex:
    """What an index holds of one array, and of one panel.

    Attributes
    ----------
    folder
        Its folder; it may not exist yet.
    panel
        The panel that the index is of.
    about
        See :func:`made_for`.
    source, model_name
        The file of its sites and the model, as a user named them.
    typed_index
        Shape (T,), int64, ascending: the panel sites that it types.
    fits_only
        Whether only parameters and networks are used, of the nearest stretch there is, as other
        sites are typed in the run.
    grows
        Whether what a run makes anew is added.
    """

    folder: Path
    panel: Panel
    about: Mapping[str, str]
    source: str
    typed_index: np.ndarray
    model_name: str = ""
    fits_only: bool = False
    grows: bool = False

    @classmethod
    def open(cls, folder: Path, panel: Panel) -> ArrayIndex:
        """Read which sites an array types.

        Raises
        ------
        PanelError
            If its file is missing or damaged.
        """
        index = folder.parent.parent
        # The file that has the name of the array's source may be the one that is damaged.
        refuse = partial(damaged, index, panel, typed="TARGET.vcf.gz")
        file = MappedArrays(folder / _SITES, refuse)
        typed = file.get("typed_index", np.int64, (None,), checked=True)
        inside = len(typed) == 0 or (typed[0] >= 0 and typed[-1] < panel.num_sites)
        if not inside or (np.diff(typed) <= 0).any():
            raise refuse(f"{file.path.name} has sites that the panel lacks")
        about = {key: value for key, value in file.about.items() if key not in _OF_FILE}
        return cls(folder, panel, about, file.about.get(_SOURCE, ""), typed.copy())

    @property
    def name(self) -> str:
        """What messages call it."""
        return Path(self.source).name

    def as_fits(self) -> ArrayIndex:
        """The same of which only parameters and networks are used."""
        return replace(self, fits_only=True)

    def repeated(self, panel: Panel, start: int, stop: int) -> np.ndarray:
        """Which haplotypes only repeat another one: see ``ragimpute.panel.inbred``, shape (H,).

        Parameters
        ----------
        panel
            The panel, or a part of it.
        start, stop
            The sites [start, stop) that will be read.
        """
        first = panel.start if isinstance(panel, PanelPart) else 0
        path = self.folder / f"repeated_{first}_{start}_{stop}.safetensors"
        about = {**self.about, "file": path.name}
        if path.is_file():
            index = self.folder.parent.parent
            refuse = partial(damaged, index, self.panel, typed=self.source or "TARGET.vcf.gz")
            file = _opened(path, about, refuse)
            return file.get("repeated", bool, (panel.num_haplotypes,), checked=True)
        found = second_haplotypes(panel, start, stop)
        if self.grows:
            self.create()
            with _writing(self.folder.parent.parent):
                write_arrays(path, {"repeated": found}, about)
        return found

    def part(self, panel: Panel) -> ArrayPart:
        """What it holds of a part of the panel, see :func:`ragimpute.panel.views.parts_of`."""
        return ArrayPart(self, panel)

    def create(self) -> None:
        """Make its folder with the file of its sites, if it is not there.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        if (self.folder / _SITES).is_file():
            return
        index = self.folder.parent.parent
        about = {**self.about, _SOURCE: self.source, _MODEL: self.model_name}
        with _writing(index):
            make_folder(index, self.panel)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_arrays(self.folder / _SITES, {"typed_index": self.typed_index}, about)


# Entries of the header of a file that are not of what its content depends on.
_SOURCE, _MODEL = "source", "model_name"
_OF_FILE = (_SOURCE, _MODEL, "sums", "sha256")


@contextmanager
def _writing(index: Path) -> Iterator[None]:
    """Turn errors of the system into an InputError that says what could not be written."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write index {index}: {error.strerror or error}",
            hint="check that its folder may be written to and has space left",
        ) from error


class KeptWindow(NamedTuple):
    """What an index holds of a window of the panel.

    Attributes
    ----------
    window
        The panel, or the draw of a very large one that is fitted to.
    retriever
        Finds states in the window; None if the panel is copied whole.
    quality
        That of the sites; None if it was not measured.
    wide
        All of a very large panel; None: it is not so large.
    """

    window: Window
    retriever: Retriever | None
    quality: SiteQuality | None
    wide: WideWindow | None = None


class ArrayPart:
    """What an index holds of an array in a part of the panel with the same haplotypes throughout.

    Parameters
    ----------
    whole
        The array.
    panel
        The part of the panel that is copied from.
    """

    def __init__(self, whole: ArrayIndex, panel: Panel) -> None:
        self._whole, self._panel = whole, panel
        self._index = whole.folder.parent.parent
        first = 0
        #: The typed sites in this part.
        self.typed_index = whole.typed_index
        if isinstance(panel, PanelPart):
            typed, first = whole.typed_index, panel.start
            self.typed_index = typed[(typed >= panel.start) & (typed < panel.stop)]
        # Which haplotypes are copied is part of the name: inbred samples may count as one.
        kept = np.ascontiguousarray(panel.haplotype_sample, np.int64).tobytes()
        self._prefix = f"{first}-{hashlib.sha256(kept).hexdigest()[:8]}"

    @property
    def fits_only(self) -> bool:
        """Whether only parameters and networks are used."""
        return self._whole.fits_only

    def has_window(self, bounds: Bounds) -> bool:
        """Whether there is a file of a window."""
        return not self.fits_only and self._file("window", bounds).is_file()

    def fit(self, key: Stretch, cm: float) -> tuple[CopyingParameters, TunedNetwork | None] | None:
        """The copying parameters and the fine-tuned network of a stretch, or None if not known.

        Parameters
        ----------
        key
            The stretch.
        cm
            Its middle. Where the array's own stretches differ from those of the run
            (``fits_only``), that of the array is taken whose middle is nearest.

        Raises
        ------
        PanelError
            If its file is damaged.
        """
        file = self._file("fit", key)
        if self.fits_only:
            others = [self._open(path) for path in sorted(self._whole.folder.glob(
                f"fit_{self._prefix}_*.safetensors"
            ))]  # fmt: skip
            if not others:
                return None
            found = min(others, key=lambda one: abs(_middle_of(one) - cm))
        elif not file.is_file():
            return None
        else:
            found = self._open(file)
        rate, mismatch = found.get("parameters", np.float64, (2,), checked=True).tolist()
        if not (0 < rate < np.inf and 0 < mismatch < 0.5):
            raise self._damaged(f"parameters of {found.path.name} are out of range")
        parameters = CopyingParameters(rate, mismatch)
        if "bias0" not in found.names:
            return parameters, None
        layers: list[tuple[np.ndarray, np.ndarray]] = []
        while f"weight{len(layers)}" in found.names:
            weight = self._numbers(found, f"weight{len(layers)}", (None, None))
            layers.append((weight, self._numbers(found, f"bias{len(layers)}", weight.shape[:1])))
        trust = None
        if "trust" in found.names:
            trust = Trust(self._numbers(found, "trust", (len(EDGES) + 1,)))
        return parameters, TunedNetwork(tuple(layers), trust)

    def checked(self, tuned: TunedNetwork, shapes: list[tuple[int, ...]]) -> TunedNetwork:
        """A network that :meth:`fit` returned, if its layers' weights have these shapes (D, K).

        Raises
        ------
        PanelError
            If they do not.
        """
        found = [weight.shape for weight, _ in tuned.layers]
        if found != shapes:
            raise self._damaged(f"its network has layers {found}, not {shapes}")
        return tuned

    def keep_fit(
        self, key: Stretch, cm: float, parameters: CopyingParameters, tuned: TunedNetwork | None
    ) -> None:
        """Add what :meth:`fit` returns, if the index grows."""
        if not self._whole.grows or self.fits_only:
            return
        numbers = np.array([parameters.switch_rate, parameters.mismatch_prob])
        arrays: dict[str, np.ndarray | Later] = {
            "parameters": numbers, "middle_cm": np.array([cm]),
        }  # fmt: skip
        if tuned is not None:
            for i, (weight, bias) in enumerate(tuned.layers):
                arrays[f"weight{i}"], arrays[f"bias{i}"] = weight, bias
            if tuned.trust is not None:
                arrays["trust"] = tuned.trust.share
        self._write(self._file("fit", key), arrays)

    def window(
        self,
        bounds: Bounds,
        typed_index: np.ndarray,
        *,
        num_drawn: int | None = None,
        num_targets: int = 0,
    ) -> KeptWindow | None:
        """What is held of a window; None if it is not known.

        ``num_drawn``: of a very large panel, how many haplotypes are fitted to. ``num_targets``: of
        the haplotypes that are imputed.

        Raises
        ------
        PanelError
            If its file is damaged.
        """
        if not self.has_window(bounds):
            return None
        left, start, stop, right = bounds
        few = num_targets <= _FEW_TARGETS
        panel, file = self._panel, self._open(self._file("window", bounds), by_page=few)
        is_wide = num_drawn is not None
        num = panel.num_haplotypes if num_drawn is None else num_drawn
        finds = not is_copied_whole(num)
        window = Window.of_arrays(
            file.get, panel.alt_is_minor[left:right], panel.position_cm[left:right],
            typed_index - left, (start - left, stop - left),
            num_haplotypes=num, by_haplotype=finds and not is_wide,
        )  # fmt: skip
        site = file.get("loci_site", np.int64, (None,), checked=True)
        offsets = file.get("loci_offsets", np.int64, (None,), checked=True)
        panel.know_loci(start, stop, Loci(site, offsets))
        retriever = None
        if finds:
            retriever = Retriever.of_arrays(file.get, len(window.typed.words), num)
        wide = None
        if is_wide:
            wide = WideWindow.of_arrays(
                file.get, window, panel.alt_is_minor[start:stop], ((left, right), typed_index),
                num_haplotypes=panel.num_haplotypes, refuse=self._damaged,
            )  # fmt: skip
        quality = self._quality(file, len(typed_index), right - left)
        return KeptWindow(window, retriever, quality, wide)

    def _quality(self, file: MappedArrays, num_typed: int, num_sites: int) -> SiteQuality | None:
        """The quality of a window's sites, if it was measured."""
        if "mismatch_prob" not in file.names:
            return None
        untyped = None
        if "as_untyped" in file.names:
            untyped = self._numbers(file, "as_untyped", (num_typed, len(QUALITY_FEATURES)))
        return SiteQuality(
            self._numbers(file, "mismatch_prob", (num_typed,)),
            self._numbers(file, "features", (num_sites, len(SITE_FEATURES))),
            float(self._numbers(file, "rare_excess", (1,), np.float64)[0]),
            as_untyped=None if untyped is None else lambda: untyped,
        )

    def keep_window(self, bounds: Bounds, kept: KeptWindow) -> None:
        """Add what :meth:`window` returns, if the index grows."""
        if not self._whole.grows or self.fits_only:
            return
        window, retriever, quality, wide = kept
        arrays: dict[str, np.ndarray | Later] = {**window.arrays(by_haplotype=wide is None)}
        arrays |= {} if retriever is None else retriever.arrays()
        arrays |= {} if wide is None else wide.arrays()
        loci = self._panel.loci_between(bounds[1], bounds[2])
        arrays |= {"loci_site": loci.site, "loci_offsets": loci.offsets}
        if quality is not None:
            arrays["mismatch_prob"] = quality.mismatch_prob
            arrays["features"] = np.asarray(quality.features)
            arrays["rare_excess"] = np.array([quality.rare_excess])
            if quality.as_untyped is not None:
                arrays["as_untyped"] = quality.as_untyped()
        self._write(self._file("window", bounds), arrays)

    def _file(self, kind: str, key: tuple[int, ...]) -> Path:
        """The file of a stretch or window."""
        numbers = "_".join(map(str, key))
        return self._whole.folder / f"{kind}_{self._prefix}_{numbers}.safetensors"

    def _open(self, path: Path, *, by_page: bool = False) -> MappedArrays:
        """Open a file of this array, and check that it is."""
        about = {**self._whole.about, "file": path.name}
        return _opened(path, about, self._damaged, by_page=by_page)

    def _write(self, path: Path, arrays: Mapping[str, np.ndarray | Later]) -> None:
        """Write a file of this array, which then is complete."""
        self._whole.create()
        with _writing(self._index):
            write_arrays(path, arrays, {**self._whole.about, "file": path.name})

    def _numbers(
        self, file: MappedArrays, name: str, shape: tuple[int | None, ...],
        dtype: type = np.float32,
    ) -> np.ndarray:  # fmt: skip
        """An array of finite numbers."""
        found = file.get(name, dtype, shape, checked=True)
        if not np.isfinite(found).all():
            raise self._damaged(f"{name} of {file.path.name} has numbers that are not finite")
        return found

    def _damaged(self, what: str) -> PanelError:
        whole = self._whole
        return damaged(self._index, whole.panel, what, typed=whole.source or "TARGET.vcf.gz")


def _opened(
    path: Path,
    about: Mapping[str, str],
    refuse: Callable[[str], PanelError],
    *,
    by_page: bool = False,
) -> MappedArrays:
    """Open a file that was made for ``about``; ``by_page``: see :class:`MappedArrays`.

    Raises
    ------
    PanelError
        If it is damaged, or was made for something else: as ``refuse`` makes it.
    """
    file = MappedArrays(path, refuse, by_page=by_page)
    if {key: value for key, value in file.about.items() if key not in _OF_FILE} != about:
        raise refuse(f"{path.name} is of something else")
    return file


def _middle_of(file: MappedArrays) -> float:
    """Where the stretch of a fit is, cM."""
    return float(file.get("middle_cm", np.float64, (1,), checked=True)[0])


def arrays_of(index: Path, panel: Panel) -> Iterator[ArrayIndex]:
    """The arrays that an index folder holds, in the order of their names.

    Raises
    ------
    PanelError
        If one of them is damaged.
    """
    for folder in sorted(folder for folder in (index / ARRAYS).glob("*") if folder.is_dir()):
        if (folder / _SITES).is_file():
            yield ArrayIndex.open(folder, panel)


class HeldArray(NamedTuple):
    """An array of an index, as it is described without its panel.

    Attributes
    ----------
    source, model_name
        The file of its sites and the model, as a user named them.
    about
        See :func:`made_for`.
    num_typed, num_windows, num_bytes
        Typed sites, windows that were made, and the size of all files.
    files
        Its files.
    """

    source: str
    model_name: str
    about: dict[str, str]
    num_typed: int
    num_windows: int
    num_bytes: int
    files: list[MappedArrays]


def held_arrays(index: Path) -> Iterator[HeldArray]:
    """The arrays that an index folder holds; only headers are read.

    Raises
    ------
    PanelError
        If a file is damaged.
    """
    refuse = partial(damaged_folder, index, typed="TARGET.vcf.gz")
    for folder in sorted(file.parent for file in (index / ARRAYS).glob(f"*/{_SITES}")):
        files = [MappedArrays(path, refuse) for path in sorted(folder.glob("*.safetensors"))]
        sites = next(file for file in files if file.path.name == _SITES)
        yield HeldArray(
            sites.about.get(_SOURCE, ""), sites.about.get(_MODEL, ""),
            {key: value for key, value in sites.about.items() if key not in _OF_FILE},
            len(sites.get("typed_index", np.int64, (None,))),
            sum(file.path.name.startswith("window_") for file in files),
            sum(file.num_bytes for file in files), files,
        )  # fmt: skip
