"""Where networks run: the device by name, and threads that share batches."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from ragimpute.arguments import parse_device
from ragimpute.errors import InputError


def choose_device(name: str) -> torch.device:
    """The device that "auto", "cpu" or "cuda" (or "cuda:1") stands for.

    Raises
    ------
    InputError
        If the name is another one, or torch sees no such device.
    """
    kind, number = parse_device(name)
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(kind) if number is None else torch.device(kind, number)
    if kind == "cuda" and (number or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name} was asked for, but torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices",
            hint="use --device cpu, or a torch that is built for this machine's GPU",
        )
    return device


@contextmanager
def one_thread_each(threads: int, device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """Threads that share batches. Torch uses one each, so that sums do not depend on threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads if device.type == "cpu" else 1) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
