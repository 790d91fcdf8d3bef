"""A copying model's network as imputation uses it: it reads pairs in doubt and returns residuals.

The layers that treat each pair on its own run in numpy. Torch is imported only for a network that
also reads the states of a pair, or in which the sites in doubt of a haplotype see each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ragimpute.copying.window import Window
from ragimpute.copying_model.site_net_tuning import fine_tune
from ragimpute.evidence.features import COPYING
from ragimpute.model.folder import WEIGHTS, ModelFolder, read_tensors
from ragimpute.model.site_net import SiteNet
from ragimpute.model.trust import Trust

if TYPE_CHECKING:
    from torch import Tensor

    from ragimpute.config import RunConfig
    from ragimpute.model.checkpoint import LoadedModel
    from ragimpute.model.copying_net import CopyingResidual

_ROWS_AT_ONCE = 1 << 16
# The tokens of a pair are many numbers. Divide the rows read at once by this, to stay in the cache.
_ROWS_PER_TOKENS = 64
_DENSE = ("embed.0", "hidden.0", "last")


def needs_torch(config: RunConfig) -> bool:
    """Whether the network of a copying model is more than its per-site layers."""
    net = config.model.copying
    return bool(net.num_set_tokens or net.num_context_layers)


@dataclass(frozen=True)
class PairNetwork:
    """A network that is ready to be used.

    Attributes
    ----------
    config
        Configuration of the model; only its values are read, see :mod:`ragimpute.model.settings`.
    site
        The layers that are applied to each pair on its own.
    residual
        The whole network if it needs torch, else None.
    device, threads
        See :func:`ragimpute.model.devices.choose_device`. Batches are divided among the threads;
        the result does not depend on their number.
    trust
        What residuals are multiplied by on the panel at hand; None: they are taken as they are.
    """

    config: RunConfig
    site: SiteNet
    residual: CopyingResidual | None = None
    device: str = "cpu"
    threads: int = 1
    trust: Trust | None = None

    @staticmethod
    def of_model(loaded: LoadedModel, *, device: str = "cpu", threads: int = 1) -> PairNetwork:
        """The network of a model in memory; its weights are copied.

        Raises
        ------
        ValueError
            If the model is a token model.
        """
        residual = loaded.model.residual
        if residual is None:
            raise ValueError("a token model has no residual")
        with_torch = needs_torch(loaded.config)

        def numbers(tensor: Tensor) -> np.ndarray:
            # An earlier run may have left the model on its device.
            return tensor.detach().cpu().numpy().copy()

        site = SiteNet(
            numbers(residual.mean),
            numbers(residual.scale),
            tuple((numbers(weight), numbers(bias)) for weight, bias in residual.site_layers()),
        )
        return PairNetwork(loaded.config, site, residual if with_torch else None, device, threads)

    @staticmethod
    def of_folder(folder: ModelFolder, *, device: str = "cpu", threads: int = 1) -> PairNetwork:
        """The network of a copying model's folder, which must have weights.

        Raises
        ------
        ModelError
            If the weights cannot be used.
        """
        if needs_torch(folder.settings):
            from ragimpute.model.checkpoint import load_model

            return PairNetwork.of_model(load_model(folder), device=device, threads=threads)
        from ragimpute.evidence.features import NUM_FEATURES

        width = folder.settings.model.copying.width
        sizes = {"embed.0": (width, NUM_FEATURES), "hidden.0": (width, width), "last": (1, width)}
        shapes: dict[str, tuple[int, ...]] = {
            "residual.mean": (NUM_FEATURES,), "residual.scale": (NUM_FEATURES,),
        }  # fmt: skip
        for name, (rows, columns) in sizes.items():
            shapes[f"residual.{name}.weight"] = (rows, columns)
            shapes[f"residual.{name}.bias"] = (rows,)
        tensors = read_tensors(folder.path / WEIGHTS, folder.settings, shapes)
        layers = tuple(
            (tensors[f"residual.{name}.weight"], tensors[f"residual.{name}.bias"])
            for name in _DENSE
        )
        site = SiteNet(tensors["residual.mean"], tensors["residual.scale"], layers)
        return PairNetwork(folder.settings, site, None, device, threads)

    @property
    def num_tokens(self) -> int:
        """How many states of each pair the network reads as tokens; 0: none."""
        return self.config.model.copying.num_set_tokens

    @property
    def can_be_tuned(self) -> bool:
        """Whether :meth:`tuned` may be called: not if sites in doubt see each other."""
        return self.residual is None or self.residual.distance is None

    def tuned(
        self, evidence: np.ndarray, tokens: np.ndarray | None, y: np.ndarray, *, seed: int = 1
    ) -> PairNetwork:
        """The network after some training of its per-site layers.

        Parameters
        ----------
        evidence, tokens
            As for :meth:`change`; the evidence's first number is the logit that is corrected.
        y
            Shape (N,), float32: whether the haplotype has the minor allele.
        seed
            See :func:`ragimpute.copying_model.site_net_tuning.fine_tune`.
        """
        x = self._read(evidence, tokens)
        return replace(self, site=fine_tune(self.site, x, evidence[:, 0], y, seed=seed))

    def with_layers(self, layers: tuple[tuple[np.ndarray, np.ndarray], ...]) -> PairNetwork:
        """The network with other per-site layers, of the same shapes."""
        return replace(self, site=replace(self.site, layers=layers))

    def change(
        self, window: Window, pairs: np.ndarray, evidence: np.ndarray, tokens: np.ndarray | None
    ) -> np.ndarray:
        """Compute the residual: what to add to the logit of the minor allele of each pair.

        Parameters
        ----------
        window
            The panel's window; sites of pairs are counted from the start of its core.
        pairs
            Shape (N, 2), int64: haplotype and core site, sorted.
        evidence
            Shape (N, F), float32.
        tokens
            Shape (N, S, C), int16; None if the network reads no states.

        Returns
        -------
        Shape (N,), float32.
        """
        if not self.can_be_tuned:
            return self._in_context(window, pairs, evidence, tokens)
        out = self.residual_of(evidence, tokens)
        return out if self.trust is None else out * self.trust.of(evidence[:, COPYING.maf])

    def residual_of(self, evidence: np.ndarray, tokens: np.ndarray | None) -> np.ndarray:
        """The residuals of pairs on their own, before ``trust``: shape (N,), float32."""
        return self.site.residual(self._read(evidence, tokens), threads=self.threads)

    def _read(self, evidence: np.ndarray, tokens: np.ndarray | None) -> np.ndarray:
        """The input of the first per-site layer, shape (N, K): features, and pooled tokens."""
        x = self.site.standardise(evidence)
        if self.residual is None or self.residual.states is None:
            return x
        if tokens is None:
            raise ValueError("a network that reads states needs tokens")
        import torch

        from ragimpute.model.devices import choose_device, one_thread_each

        where = choose_device(self.device)
        pool_of = self.residual.states.to(where)
        out = np.empty((len(x), x.shape[1] + pool_of.out_features), np.float32)
        out[:, : x.shape[1]] = x
        step = max(1, _ROWS_AT_ONCE // _ROWS_PER_TOKENS)

        def rows_from(i: int) -> None:
            rows = slice(i, i + step)
            with torch.inference_mode():
                site = torch.from_numpy(x[rows]).to(where)
                pooled = pool_of(site, torch.from_numpy(tokens[rows]).to(where))
            out[rows, x.shape[1] :] = pooled.cpu().numpy()

        with one_thread_each(self.threads, where) as workers:
            list(workers.map(rows_from, range(0, len(x), step)))
        return out

    def _in_context(
        self, window: Window, pairs: np.ndarray, evidence: np.ndarray, tokens: np.ndarray | None
    ) -> np.ndarray:
        """Residuals of a network in which sites in doubt see each other: shape (N,)."""
        import torch

        from ragimpute.model.devices import choose_device, one_thread_each

        assert self.residual is not None
        where = choose_device(self.device)
        residual = self.residual.to(where)
        x = torch.from_numpy(evidence)
        states = None if tokens is None else torch.from_numpy(tokens)
        index = torch.from_numpy(
            split_sequences(pairs[:, 0], self.config.model.copying.max_context)
        )
        cm = torch.from_numpy(window.position_cm[window.core[0] + pairs[:, 1]].astype(np.float32))
        change = torch.zeros(len(x))
        rows = _ROWS_AT_ONCE // (4 if states is None else _ROWS_PER_TOKENS)
        step = max(1, rows // index.shape[1])

        def sequences_from(first: int) -> None:
            part = index[first : first + step]
            pad = part < 0
            at = part.clamp_min(0)
            these = None if states is None else states[at].to(where)  # (B, L, S, C)
            with torch.inference_mode():
                y = residual(x[at].to(where), cm[at].to(where), pad.to(where), these).cpu()
            change[at[~pad]] = y[~pad]

        with one_thread_each(self.threads, where) as workers:
            list(workers.map(sequences_from, range(0, len(index), step)))
        return change.numpy()


def split_sequences(haplotype: np.ndarray, max_length: int) -> np.ndarray:
    """Cut each haplotype's sites in doubt into sequences of equal length.

    Parameters
    ----------
    haplotype
        Shape (pairs,), int, ascending.
    max_length
        Longest sequence, >= 1.

    Returns
    -------
    Shape (sequences, <= max_length), int64: pairs in order, -1 where a sequence is shorter.
    """
    if len(haplotype) == 0:
        return np.zeros((0, 1), np.int64)
    _, first, count = np.unique(haplotype, return_index=True, return_counts=True)
    pieces = -(-count // max_length)
    start = np.repeat(first, pieces)
    rank = np.arange(len(start)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    of = np.repeat(np.arange(len(first)), pieces)
    low = start + rank * count[of] // pieces[of]
    high = start + (rank + 1) * count[of] // pieces[of]
    index = low[:, None] + np.arange((high - low).max())
    return np.where(index < high[:, None], index, -1)
