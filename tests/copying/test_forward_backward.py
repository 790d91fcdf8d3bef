"""A kernel gives the same bytes in the process that compiles it as in those that find it cached."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os
from pathlib import Path
from ragimpute.kernels import store
store.SHIPPED = Path(os.environ["NUMBA_CACHE_DIR"], "none")  # compile, though they ship
import hashlib
import numpy as np
from slow_copying import mosaic_panel, window_of
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.copy import copy_haplotypes
from ragimpute.evidence.collect import collect_evidence
from ragimpute.evidence.doubt import pairs_in_doubt
from ragimpute.copying.shared_kernel import copy_shared
from ragimpute.evidence.features import SITE_FEATURES
from ragimpute.copying.sliding_kernel import copy_sliding
rng = np.random.default_rng(1)
alleles = mosaic_panel(rng, 600, 204, num_founders=30)
window = window_of(alleles, np.cumsum(rng.exponential(0.005, 600)), np.arange(0, 600, 6))
target = np.ascontiguousarray(alleles[window.typed_index][:, :20])
states = np.arange(20, 204, dtype=np.int32)[None]
parameters = CopyingParameters(5.0, 1e-3)
prob = copy_haplotypes(window, target, parameters, states=lambda i: states)
by_word = np.repeat(states, len(window.typed.words), axis=0)
own = copy_haplotypes(window, target, parameters, states=lambda i: by_word)
observed = np.zeros(prob.shape, bool)
observed[:, window.typed_index] = True
pairs = pairs_in_doubt(prob, observed)
assert len(pairs) > 500
quality = np.zeros((600, len(SITE_FEATURES)), np.float32)
evidence = collect_evidence(
    window, target, parameters, pairs, states=lambda i: states, quality=quality
)
for array in (prob, own, evidence):
    print(hashlib.sha256(array.tobytes()).hexdigest())
print(sum(len(kernel.loaded) for kernel in (copy_shared, copy_sliding)))
"""


@pytest.mark.slow  # it compiles
def test_compiled_and_cached_kernels_agree(tmp_path):
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    seen = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        seen.append(done.stdout.split())
    (*compiled, no_hits), (*cached, hits) = seen
    assert (no_hits, hits) == ("0", "2")
    assert compiled == cached
