"""The levels of processors."""

from __future__ import annotations

import subprocess
import sys

import llvmlite.binding as llvm
import pytest

from ragimpute.kernels import processor
from ragimpute.kernels.processor import Processor, processor_of, shipped_levels, this_processor

V2 = ["cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"]
V3 = [*V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"]
V4 = [*V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]


@pytest.fixture
def host(monkeypatch):
    """Makes this machine one with the given features."""
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX"):
        monkeypatch.delenv(name, raising=False)

    def be(features, machine="x86_64"):
        monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: dict.fromkeys(features, True))
        monkeypatch.setattr(processor.platform, "machine", lambda: machine)

    return be


@pytest.mark.parametrize(
    ("features", "level"),
    [([], "generic"), (V2, "x86-64-v2"), (V3, "x86-64-v3"), (V4, "x86-64-v4")],
)
def test_the_highest_level_whose_features_are_all_there(host, features, level):
    host(features)
    assert this_processor().level == level


@pytest.mark.parametrize("features", [V2, V3, V4])
def test_each_feature_of_a_level_is_needed(host, features):
    host(features)
    whole = this_processor().level
    for gone in features:
        host([name for name in features if name != gone])
        assert this_processor().level < whole  # the names sort as the levels do


def test_other_machines_have_one_level(host):
    host([], machine="arm64")
    assert this_processor() == Processor("aarch64", "generic", "")
    assert shipped_levels() == ("aarch64",)
    host([], machine="riscv64")
    assert this_processor().level == "generic"
    assert shipped_levels() == ()


def test_the_environment_chooses_a_level(host, monkeypatch):
    host(V4)
    monkeypatch.setenv("NUMBA_ENABLE_AVX", "0")
    assert this_processor().level == "x86-64-v2"
    monkeypatch.setenv("NUMBA_CPU_NAME", "x86-64-v3")
    assert this_processor() == processor_of("x86-64-v3")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+avx2,-fma/../..")
    chosen = this_processor()
    assert chosen[1:] == ("x86-64-v3", "+avx2,-fma/../..")
    assert chosen.level.startswith("x86-64-v3-")
    assert "/" not in chosen.level
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+fma")
    assert this_processor().level != chosen.level


@pytest.mark.parametrize(("cpu_name", "known"), [("x86-64-v3", True), ("x86-64-v4", True),
                                                 ("x86-64-v9", False)])  # fmt: skip
def test_llvm_knows_every_level(cpu_name, known):
    code = (
        "import llvmlite.binding as llvm\n"
        "llvm.initialize_all_targets()\n"
        "llvm.initialize_all_asmprinters()\n"
        "target = llvm.Target.from_triple('x86_64-unknown-linux-gnu')\n"
        f"target.create_target_machine(cpu={cpu_name!r}, features='')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("not a recognized processor" not in done.stderr) == known
