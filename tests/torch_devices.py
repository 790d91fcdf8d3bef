"""The devices that tests of torch's part run on: always the CPU, and a GPU by ``make gpu-test``."""

from __future__ import annotations

import pytest
import torch

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def device_of(name: str) -> torch.device:
    """The device of a name; the test is skipped if it is a GPU and torch sees none."""
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return torch.device(name)
