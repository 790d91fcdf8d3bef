"""What the decorators of kernels promise."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numba.core.errors import NumbaError

from ragimpute.kernels import inlined, inlined_reordered, kernel


@inlined
def _twice(x, i):
    return x[i] + x[i]


@inlined_reordered
def _sum(x):
    total = np.float32(0.0)
    for i in range(x.shape[0]):
        total += x[i]
    return total


@kernel
def _fill(x, out):
    for i in range(x.shape[0]):
        out[i] = _twice(x[i:], 0)
    return _sum(x)


def test_kernels_call_what_is_inlined():
    x = np.arange(100, dtype=np.float32)
    out = np.empty_like(x)
    assert _fill(x, out) == pytest.approx(4950)
    np.testing.assert_array_equal(out, 2 * x)
    assert "NRT_incref" not in next(iter(_fill.inspect_llvm().values()))


def test_kernels_may_not_allocate():
    @kernel
    def allocate(x):
        x[1:] = x[:-1]  # through a copy, as the two overlap

    with pytest.raises(NumbaError) as caught:
        allocate(np.zeros(3))
    assert "NRT required but not enabled" in str(caught.value)


def test_a_kernel_on_disk_is_found_without_what_compiling_needs(tmp_path):
    (tmp_path / "counted.py").write_text(
        "from ragimpute.kernels import kernel\n"
        "@kernel\n"
        "def count(x):\n"
        "    return x.shape[0]\n"
        "@kernel\n"
        "def last(x):\n"
        "    return x[x.shape[0] - 1]\n"
    )
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from counted import count, last\n"
        "print(count(np.zeros(3)), 'numba.np.linalg' in sys.modules)\n"
        "if len(sys.argv) > 1:\n"
        "    print(last(np.ones(2)))\n"
    )

    def run(*arguments):
        command = [sys.executable, "-c", code, *arguments]
        path = [str(tmp_path), *sys.path]
        environment = {"PYTHONPATH": ":".join(path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
        return done.stdout.split()

    assert run() == ["3", "True"]
    assert run("too") == ["3", "False", "1.0"]  # and others are compiled after it
    assert run("too") == ["3", "False", "1.0"]
