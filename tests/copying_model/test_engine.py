"""What retrieves and copies: kernels unless a GPU is asked for, and torch gives the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vcf_fixtures import read_imputed

from ragimpute import example
from ragimpute.copying import states as panel_states
from ragimpute.copying_model.engine import KernelEngine, TorchEngine, copies_by_torch, engine_of
from ragimpute.errors import InputError
from ragimpute.imputation.impute import impute
from ragimpute.sites import Region
from tests.torch_devices import DEVICES, device_of

TARGET = example.path("target.vcf.gz")
REGION = "20:2000000-2250000"


def test_auto_stays_with_the_kernels(monkeypatch):
    """Where there is a GPU, too: none was measured."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("auto", "cpu", "cpu:0"):
        assert isinstance(engine_of(name), KernelEngine)
        assert not copies_by_torch(name)
    for name, device in (("cuda", "cuda"), ("cuda:0", "cuda:0"), ("torch-cpu", "cpu")):
        found = engine_of(name)
        assert isinstance(found, TorchEngine)
        assert found.device == device
        assert copies_by_torch(name)
    with pytest.raises(InputError, match="sees 1 CUDA devices"):
        engine_of("cuda:1")
    with pytest.raises(InputError, match="there is no device"):
        engine_of("abacus")


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_imputed_is_that_of_the_kernels(name, whole, panel_h5, tmp_path, monkeypatch):
    """Dosages, and how sure they are, of a panel that is copied whole, or retrieved from."""
    device_of(name)
    if not whole:
        monkeypatch.setattr(panel_states, "COPY_ALL_UP_TO", 300)
    found = {}
    for device in ("cpu", {"cpu": "torch-cpu"}.get(name, name)):
        out = tmp_path / f"{device}.vcf"
        done = impute(
            TARGET, panel_h5, out, device=device, region=Region.parse(REGION), ne=1e5,
            fine_tune=False, fields=("GT", "DS", "HDS"),
        )  # fmt: skip
        assert done.settings["states"].startswith("all" if whole else "retrieved")
        assert done.settings.get("copying", "kernels").startswith(
            "kernels" if device == "cpu" else f"torch on {name}"
        )
        found[device] = read_imputed(out)
    one, other = found.values()
    assert one.keys == other.keys
    assert len(one.keys) > 500
    apart = np.abs(one.dosage - other.dosage)
    assert apart.max() < 0.1  # where rounding decides between equally probable states
    assert (apart > 0.0021).mean() < 1e-4  # dosages have three decimals
    assert (one.genotypes != other.genotypes).mean() < 1e-4
    np.testing.assert_allclose(one.info["DR2"], other.info["DR2"], atol=0.01)
