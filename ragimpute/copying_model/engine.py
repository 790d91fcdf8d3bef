"""What retrieves states and copies them: kernels on the CPU, or torch on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ragimpute.arguments import TORCH_ON_CPU, parse_device
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import BlockStates, block_states
from ragimpute.copying.window import Window
from ragimpute.evidence.while_copying import Described, Wanted, copy_with_evidence
from ragimpute.runtime.memory import STATE_BYTES, state_bytes

if TYPE_CHECKING:
    from ragimpute.retrieval.retriever import Retriever


class Engine(Protocol):
    """Retrieves states of targets and copies them.

    Attributes
    ----------
    device
        Where it does so, as a report calls it.
    uses_torch
        Whether torch will be imported.
    """

    device: str
    uses_torch: bool

    def states(
        self, retriever: Retriever | None, num_haplotypes: int, alleles: np.ndarray
    ) -> BlockStates:
        """See :func:`ragimpute.copying.states.block_states`."""
        ...

    def copy(
        self, window: Window, alleles: np.ndarray, parameters: CopyingParameters, *,
        states: BlockStates, wanted: Wanted, take: Callable[[Iterator[Described]], None],
        threads: int = 1, max_pairs: int = 1 << 24, all_sites: bool = False,
    ) -> None:  # fmt: skip
        """See :func:`ragimpute.evidence.while_copying.copy_with_evidence`."""
        ...


class KernelEngine:
    """Compiled kernels, on the CPU.

    Parameters
    ----------
    max_state_bytes
        See :func:`ragimpute.evidence.while_copying.copy_with_evidence`.
    """

    device = "cpu"
    uses_torch = False
    states = staticmethod(block_states)

    def __init__(self, max_state_bytes: int = STATE_BYTES) -> None:
        self.copy = partial(copy_with_evidence, max_state_bytes=max_state_bytes)


class TorchEngine:
    """Torch, on a device. What it finds differs from what kernels find by rounding alone.

    Parameters
    ----------
    device
        The device as torch calls it; it must exist.
    threads
        Threads that will use it at the same time, and share its memory.
    """

    uses_torch = True

    def __init__(self, device: str, threads: int = 1) -> None:
        self.device, self._threads = device, threads

    def states(
        self, retriever: Retriever | None, num_haplotypes: int, alleles: np.ndarray
    ) -> BlockStates:
        """See :class:`Engine`."""
        if retriever is None:
            return block_states(None, num_haplotypes, alleles)
        from ragimpute.retrieval.torch_nearest import TorchNearest

        search = TorchNearest(retriever.nearest, self.device, searches=self._threads)
        return block_states(retriever, num_haplotypes, alleles, search)

    def copy(
        self, window: Window, alleles: np.ndarray, parameters: CopyingParameters, *,
        states: BlockStates, wanted: Wanted, take: Callable[[Iterator[Described]], None],
        threads: int = 1, max_pairs: int = 1 << 24, all_sites: bool = False,
    ) -> None:  # fmt: skip
        """See :class:`Engine`."""
        from ragimpute.evidence.on_device import copy_on_device
        from ragimpute.model.devices import choose_device, one_thread_each

        with one_thread_each(threads, choose_device(self.device)):
            copy_on_device(
                window, alleles, parameters, states=states, wanted=wanted, take=take,
                device=self.device, threads=threads, max_pairs=max_pairs, all_sites=all_sites,
            )  # fmt: skip


def copies_by_torch(device: str) -> bool:
    """Whether copying models copy by torch if ``--device`` names this device."""
    return device == TORCH_ON_CPU or parse_device(device)[0] == "cuda"


def engine_of(device: str, threads: int = 1, max_memory: int | None = None) -> Engine:
    """The engine for what ``--device`` names: torch for a GPU that was asked for, else kernels.

    "auto" stands for the kernels, whether or not there is a GPU. No GPU was measured to be faster.
    "torch-cpu" is torch on the CPU, which is slower than the kernels: tests compare the two by it.

    Raises
    ------
    InputError
        If torch sees no such device.
    """
    if not copies_by_torch(device):
        return KernelEngine(state_bytes(threads, max_memory))
    from ragimpute.model.devices import choose_device

    return TorchEngine(str(choose_device(device)), threads)
