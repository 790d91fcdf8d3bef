"""Memory sizes are read, shared out, and kept to: a ceiling holds for a run as a whole."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel
from vcf_fixtures import write_genotypes

from ragimpute.errors import InputError
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.runtime import memory
from ragimpute.runtime.memory import (
    STATE_BYTES,
    free_bytes,
    is_of_gpu,
    is_out_of_memory,
    memory_explained,
    parse_size,
    plan_memory,
    resident_bytes,
    state_bytes,
)

MIB = 2**20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 * 2**30),
        ("800M", 800 * MIB),
        ("800m", 800 * MIB),
        ("1.5GiB", 3 * 2**29),
        ("2 GB", 2 * 2**30),
        ("64k", 2**16),
        ("1T", 2**40),
        ("2000000000", 2_000_000_000),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "4X", "-1G", "0", "0.0G", "4G4", "1e9", "lots"])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="cannot be read"):
        parse_size(text)


def test_shares_are_within_the_whole(monkeypatch):
    monkeypatch.setattr(memory, "resident_bytes", lambda: 100 * MIB)
    plan = plan_memory(600 * MIB, uses_torch=False)
    shares = plan.window_bytes + plan.batch_bytes + plan.spool_bytes + plan.tile_bytes
    assert plan.max_bytes == 600 * MIB
    assert 250 * MIB < shares < 500 * MIB
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**15)
    assert plan_memory(None, uses_torch=False).max_bytes == 2**30
    monkeypatch.setattr(memory, "free_bytes", lambda: 200 * MIB)
    assert plan_memory(None, uses_torch=False).max_bytes == 300 * MIB
    monkeypatch.setattr(memory, "free_bytes", lambda: 0)
    assert plan_memory(None, uses_torch=False).window_bytes == 24 * MIB  # goes on with the least


def test_too_little_memory_is_said_at_once(monkeypatch):
    monkeypatch.setattr(memory, "resident_bytes", lambda: 100 * MIB)
    with pytest.raises(InputError, match=r"--max-memory 140M .* alone need 100M") as caught:
        plan_memory(140 * MIB, uses_torch=False)
    assert caught.value.hint == "give it 148M or more"
    assert plan_memory(148 * MIB, uses_torch=False).window_bytes == 24 * MIB


def test_what_the_system_says():
    before = resident_bytes()
    held = np.ones(64 * MIB, np.uint8)
    assert 60 * MIB < resident_bytes() - before < 100 * MIB
    assert free_bytes() > len(held)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A made-up panel of 32,000 sites, and targets of 50 and 500 samples at every 32nd."""
    folder = tmp_path_factory.mktemp("wide")
    rng = np.random.default_rng(3)
    alleles = np.repeat(mosaic_panel(rng, 1_000, 200), 32, axis=0)
    alleles ^= (rng.random(alleles.shape) < 0.01).astype(alleles.dtype)
    position = 1_000 + 100 * np.arange(len(alleles))
    batch = make_batch(alleles.reshape(-1, 100, 2), position)
    write_panel(folder / "panel.h5", [batch], samples=names(100), genetic_map=FlatMap())
    sites = batch.sites.take(np.arange(0, len(alleles), 32))
    for num in (50, 500):
        chosen = rng.integers(0, 200, 2 * num)
        write_genotypes(
            folder / f"{num}.vcf", sites.keys(), alleles[::32][:, chosen].reshape(1_000, num, 2),
            [f"t{i}" for i in range(num)],
        )  # fmt: skip
    return folder


def peak_mib(folder, num, *options):
    """Peak resident memory of a run in a process of its own, MiB."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)\n"
    )
    words = ["impute", folder / f"{num}.vcf", "-p", folder / "panel.h5", "--ne", "1e5", "--err",
             "1e-3", "-o", folder / f"{num}.bcf", "--device", "cpu", "-q", *options]  # fmt: skip
    command = [sys.executable, "-c", code, sys.executable, "-m", "ragimpute", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_peers_9_13_42_46_the_ceiling_holds_and_targets_cost_no_memory(wide):
    few, many = peak_mib(wide, 50), peak_mib(wide, 500)
    assert many < 1_024
    limit = round(few) + 90
    for threads in "21":
        bounded = peak_mib(wide, 500, "--max-memory", f"{limit}M", "--threads", threads)
        assert bounded <= limit
    # Their probabilities alone, of 500 samples at 32,000 sites, are 122 MiB.
    print(few, many, bounded)
    assert bounded < few + 60


@pytest.mark.parametrize("bounded", [True, False])
def test_freed_memory_goes_back_to_the_system_where_memory_is_bounded(bounded):
    code = (
        "import numpy as np\n"
        "from ragimpute.runtime.memory import hold_freed, resident_bytes\n"
        f"hold_freed(bounded={bounded})\n"
        "np.ones(2**21)\n"  # after this the C library would keep what is no larger
        "kept = [np.ones(2**20) for _ in range(7)]\n"
        "before = resident_bytes()\n"
        "kept.clear()\n"
        "print((before - resident_bytes()) / 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    given_back = float(done.stdout)
    assert given_back > 46 if bounded else given_back < 10


@given(st.integers(1, 200), st.integers(2**26, 2**40))
def test_states_take_a_share_of_a_bound_whatever_the_threads(threads, bound):
    assert state_bytes(threads, bound) <= bound // 8
    assert state_bytes(threads, bound) <= state_bytes(threads) <= 2 * STATE_BYTES
    assert state_bytes(1) <= state_bytes(threads)


#: What libraries say, and whether a GPU's memory is meant.
SAID = [
    ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...", True),
    ("CUDA error: out of memory", True),
    ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
    ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
    ("Error in void* faiss::gpu::StandardGpuResourcesImpl::allocMemory(...): Error: 'err == "
     "cudaSuccess' failed: StandardGpuResources: alloc fail type FlatData dev 0", True),
    ("[enforce fail at alloc_cpu.cpp:116] err == 0. DefaultCPUAllocator: can't allocate memory: "
     "you tried to allocate 288230376151711744 bytes. Error code 12", False),
    ("DefaultCPUAllocator: not enough memory: you tried to allocate 40 bytes.", False),
    ("std::bad_alloc", False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "on_gpu"), SAID)
def test_what_libraries_say_when_memory_runs_out(text, on_gpu):
    error = RuntimeError(text)
    assert is_out_of_memory(error)
    assert is_of_gpu(error) == on_gpu
    with (
        pytest.raises(InputError, match=f"^{on_gpu}$") as caught,
        memory_explained(lambda gpu: InputError(str(gpu))),
    ):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("allocate", ["torch", "numpy"])
def test_libraries_say_so_indeed(allocate):
    if allocate == "torch":
        torch = pytest.importorskip("torch")
        with pytest.raises(RuntimeError) as caught:
            torch.empty(2**58, dtype=torch.uint8)
    else:
        with pytest.raises(MemoryError) as caught:
            np.empty(2**58, np.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_of_gpu(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes differ"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("mat1 and mat2 must be allocated on the same device"),
        ValueError("out of memory"),
        InputError("file out of memory"),
    ],
)
def test_other_errors_are_let_through(error):
    with pytest.raises(type(error)) as caught, memory_explained(lambda gpu: InputError("no")):
        raise error
    assert caught.value is error


def test_a_very_large_panel_may_use_more(monkeypatch):
    monkeypatch.setattr(memory, "resident_bytes", lambda: 100 * MIB)
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**15)
    usual, wide = (plan_memory(None, uses_torch=False, wide=wide) for wide in (False, True))
    assert usual.max_bytes < wide.max_bytes < 2**31
    assert usual.window_bytes < wide.window_bytes
    assert plan_memory(600 * MIB, uses_torch=False, wide=True).max_bytes == 600 * MIB


def test_typed_sites_of_a_very_large_panel_come_first():
    def sites(window_bytes, buffer_sites=72_000, num_sites=360_000, num_typed=16_000):
        return memory.wide_window_sites(
            window_bytes, num_haplotypes=1_000_000, num_typed=num_typed, num_sites=num_sites,
            site_bytes=5_000, buffer_sites=buffer_sites,
        )  # fmt: skip

    assert sites(10**11) == 360_000  # all
    found = [sites(size) for size in (2 * 10**9, 3 * 10**9, 5 * 10**9)]
    assert 0 < found[0] < found[1] < found[2] < 360_000
    assert sites(8 * 10**8) < 1  # the buffers' typed sites take more
    # Where the buffers reach the ends of the panel, its typed sites are all there is.
    assert sites(10**9, num_sites=36_000, num_typed=1_600) == 36_000
    assert 0 < sites(500 * 2**20, num_sites=36_000, num_typed=1_600) < 36_000


def test_jobs_with_a_very_large_panel_ask_for_more():
    size = memory.window_site_bytes(5_000, num_haplotypes=1_000_000, typed_share=0.05, wide=True)
    assert 15_000 < size < 25_000  # 9 bytes for 32 typed sites of a haplotype, and the site itself
    assert memory.job_memory_mb(size * 36_000, wide=True) > memory.job_memory_mb(size * 36_000)
    assert memory.job_memory_mb(10**12, wide=True) == 2_304


def test_what_torch_holds_leaves_room_for_windows(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", sys)
    monkeypatch.setattr(memory, "free_bytes", lambda: 8192 * MIB)
    for held, total in ((400, 1024), (512, 1024), (1500, 2012)):
        monkeypatch.setattr(memory, "resident_bytes", lambda held=held: held * MIB)
        plan = plan_memory(None, uses_torch=True)
        assert plan.max_bytes == total * MIB
        assert plan.window_bytes == (total - held) * MIB // 2


@pytest.mark.parametrize("bound", [None, 600 * MIB])
def test_what_happens_to_be_held_moves_no_window(monkeypatch, bound):
    monkeypatch.setattr(memory, "free_bytes", lambda: 8192 * MIB)
    held = memory.program_bytes(100_000)
    plans = []
    for found in (120, 162, 227):
        monkeypatch.setattr(memory, "resident_bytes", lambda found=found: found * MIB)
        plans.append(plan_memory(bound, uses_torch=False, held=held))
    assert plans[0] == plans[1] == plans[2]
    assert plans[0].window_bytes == ((bound or 1024 * MIB) - held) // 2
    # In a process that holds more, or within a tight bound, what is held counts.
    monkeypatch.setattr(memory, "resident_bytes", lambda: 500 * MIB)
    assert plan_memory(1000 * MIB, uses_torch=False, held=held).window_bytes == 250 * MIB
    monkeypatch.setattr(memory, "resident_bytes", lambda: 100 * MIB)
    tight = plan_memory(300 * MIB, uses_torch=False, held=held)
    assert tight == plan_memory(300 * MIB, uses_torch=False)
