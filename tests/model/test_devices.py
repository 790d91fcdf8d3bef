"""Devices by name, and threads that share batches."""

from __future__ import annotations

import pytest
import torch

from ragimpute.errors import InputError
from ragimpute.model.devices import choose_device, one_thread_each


def test_devices(monkeypatch):
    assert choose_device("cpu") == choose_device("cpu:0") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match="sees 0 CUDA devices") as caught:
        choose_device("cuda")
    assert "--device cpu" in caught.value.hint
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(InputError, match="sees 1 CUDA devices"):
        choose_device("cuda:1")
    for name in ("gpu", "meta", "", "auto:0", "cuda:", "cuda:-1", "cpu0"):
        with pytest.raises(InputError, match="there is no device"):
            choose_device(name)


@pytest.mark.parametrize(("name", "workers"), [("cpu", 3), ("cuda", 1)])
def test_torch_gets_its_own_threads_back(name, workers):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread_each(3, torch.device(name)) as pool:
            assert torch.get_num_threads() == 1
            assert pool._max_workers == workers
        assert torch.get_num_threads() == 2
        with pytest.raises(RuntimeError, match="a batch"), one_thread_each(1, torch.device("cpu")):
            raise RuntimeError("a batch failed")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
