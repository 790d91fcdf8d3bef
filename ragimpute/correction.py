"""Apply a copying model's residual network to pairs in doubt."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from ragimpute.checkpoint import LoadedModel
from ragimpute.copying import Window
from ragimpute.errors import InputError

_ROWS_AT_ONCE = 1 << 16
# A row of tokens is many numbers: so many fewer rows at once, which then stay in the cache.
_ROWS_PER_TOKENS = 64


def choose_device(name: str) -> torch.device:
    """The device that "auto", "cpu" or "cuda" (or "cuda:1") stands for.

    Raises
    ------
    InputError
        If the name is another one, or torch sees no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"there is no device {name!r}", hint="choose auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name} was asked for, but torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices",
            hint="use --device cpu, or a torch that is built for this machine's GPU",
        )
    return device


@contextmanager
def one_thread_each(threads: int, device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """Workers that share the batches: with torch's own threads sums depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads if device.type == "cpu" else 1) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


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


def correct(
    loaded: LoadedModel,
    window: Window,
    pairs: np.ndarray,
    evidence: np.ndarray,
    prob: np.ndarray,
    *,
    tokens: np.ndarray | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> None:
    """Add the network's residual to the logits of pairs in doubt, in place.

    Parameters
    ----------
    loaded
        A copying model.
    window
        The panel's window; its core's sites are those of ``prob``.
    pairs
        Shape (pairs, 2), int64: haplotype and core site, sorted.
    evidence
        Shape (pairs, F), float32.
    prob
        Shape (n, core sites), float32, P(ALT); where the residual is 0 it stays as it is.
    tokens
        Shape (pairs, S, C), int16, where the network reads states.
    device
        See :func:`choose_device`.
    threads
        Batches are shared out over so many threads; the result does not depend on it.
    """
    if len(pairs) == 0:
        return
    residual = loaded.model.residual
    if residual is None:
        raise ValueError("a token model has no residual")
    where = choose_device(device)
    residual.to(where)
    x = torch.from_numpy(evidence)
    states = torch.from_numpy(tokens) if tokens is not None else None
    with one_thread_each(threads, where) as pool:
        if residual.distance is None:
            step = _ROWS_AT_ONCE
            if states is not None:
                step = max(1, step // _ROWS_PER_TOKENS)

            def rows_from(i: int) -> torch.Tensor:
                these = None if states is None else states[i : i + step].to(where)
                with torch.inference_mode():
                    return residual(x[i : i + step].to(where), tokens=these).cpu()

            parts = pool.map(rows_from, range(0, len(x), step))
            change = torch.cat(list(parts)).numpy()
        else:
            change = _in_context(loaded, residual, window, pairs, x, states, where, pool)
    h, u = pairs[:, 0], pairs[:, 1]
    minor = window.haplotypes.alt_is_minor[window.core[0] : window.core[1]][u]
    change = np.where(minor, change, -change).astype(np.float64)
    p = prob[h, u].astype(np.float64)
    moved = p / (p + (1 - p) * np.exp(-change))
    prob[h, u] = np.where(change == 0, prob[h, u], moved.astype(np.float32))


def _in_context(
    loaded: LoadedModel,
    residual: torch.nn.Module,
    window: Window,
    pairs: np.ndarray,
    x: torch.Tensor,
    states: torch.Tensor | None,
    where: torch.device,
    pool: ThreadPoolExecutor,
) -> np.ndarray:
    """Residuals of a network whose sites in doubt see each other: shape (pairs,)."""
    index = split_sequences(pairs[:, 0], loaded.config.model.copying.max_context)
    cm = torch.from_numpy(window.position_cm[window.core[0] + pairs[:, 1]].astype(np.float32))
    change = torch.zeros(len(x))
    rows = _ROWS_AT_ONCE // (4 if states is None else _ROWS_PER_TOKENS)
    step = max(1, rows // index.shape[1])

    def sequences_from(first: int) -> None:
        part = torch.from_numpy(index[first : first + step])
        pad = part < 0
        at = part.clamp_min(0)
        these = None if states is None else states[at].to(where)  # (B, L, S, C)
        with torch.inference_mode():
            y = residual(x[at].to(where), cm[at].to(where), pad.to(where), these).cpu()
        change[at[~pad]] = y[~pad]

    list(pool.map(sequences_from, range(0, len(index), step)))
    return change.numpy()
