"""What imputes a window: the interface of both families of models, and the choice of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from ragimpute.copying_model.array_fit import ArrayFit
from ragimpute.copying_model.imputer import CopyingImputer, require_packages
from ragimpute.model.folder import ModelFolder, open_folder
from ragimpute.panel.reader import Panel
from ragimpute.retrieval.index_manifest import read_manifest_of
from ragimpute.runtime.device_names import parse_device


class Imputer(Protocol):
    """What :func:`ragimpute.imputation.impute.impute` asks of a model.

    Attributes
    ----------
    settings
        What was used, for the report.
    seconds
        Wall time by stage, within "impute".
    uses_torch
        Whether torch will be imported.
    leaves_out
        Whether typed sites can be imputed as if they were not typed (:meth:`mismatch_probs`).
    """

    settings: dict[str, object]
    seconds: dict[str, float]
    uses_torch: bool
    leaves_out: bool

    def mismatch_probs(self, num_typed: int) -> np.ndarray | None:
        """Mismatch probability at the typed sites of the window imputed last: (num_typed,).

        None where P(ALT) at typed sites is not a posterior from which what was observed there can
        be divided out (see :func:`ragimpute.accuracy.leave_one_out.leave_one_out`): not
        ``leaves_out``.
        """
        ...

    def impute(
        self,
        left: int,
        right: int,
        core: tuple[int, int],
        typed_index: np.ndarray,
        alleles: np.ndarray,
        sample: np.ndarray,
        *,
        batch: int,
        put: Callable[[int, int, np.ndarray], None],
    ) -> None:
        """Impute the sites [core) from typed sites in [left, right), some haplotypes at a time.

        Parameters
        ----------
        left, right, core
            Panel sites, half-open.
        typed_index
            Shape (T,), int: panel sites that are typed, ascending, within [left, right).
        alleles
            Shape (T, n), int8: 0, 1, or -1 where missing.
        sample
            Shape (n,), int: the target sample of each column, ascending.
        batch
            About so many haplotypes at a time, >= 1; what they are given does not depend on it.
        put
            Given the first column and the first of the core's sites of a block, and its P(ALT),
            shape (b, m), float32; perhaps from several threads at once. Each pair comes once.
        """
        ...


def make_imputer(
    model: str | Path | ModelFolder,
    panel: Panel,
    typed_index: np.ndarray,
    *,
    index: str | Path | None,
    ne: float | None,
    err: float | None,
    seed: int,
    device: str,
    threads: int,
    fine_tune: bool = True,
    array_fit: ArrayFit | None = None,
) -> Imputer:
    """Load a model, check that it and the index fit the panel, and make its imputer.

    Torch and faiss are imported only where the model needs them: a copying model whose network is
    numpy's asks for neither, and its index, which only token models search, is checked alone.

    Raises
    ------
    InputError, ModelError, ConfigError, PanelError
        If there is no such device, or the model or the index cannot be used with this panel.
    MissingPackageError
        If the model needs a package that is not installed.
    """
    folder = model if isinstance(model, ModelFolder) else open_folder(model)
    kind, _ = parse_device(device)
    if require_packages(folder) and kind == "cuda":
        from ragimpute.model.devices import choose_device

        choose_device(device)
    if folder.is_copying:
        if index is not None:
            read_manifest_of(index, panel)
        return CopyingImputer(
            panel, typed_index, folder, ne=ne, err=err, seed=seed, threads=threads, device=device,
            fine_tune=fine_tune, array_fit=array_fit,
        )  # fmt: skip
    from ragimpute.model.checkpoint import load_model
    from ragimpute.retrieval.faiss_device import choose_searcher
    from ragimpute.retrieval.index import WindowIndex
    from ragimpute.token_model.imputer import TokenImputer

    searcher = choose_searcher(device)
    if index is None:
        found = WindowIndex.build(panel, searcher=searcher)
    else:
        found = WindowIndex.open(index, panel, searcher=searcher)
    return TokenImputer(panel, load_model(folder), found, device=device, threads=threads)
