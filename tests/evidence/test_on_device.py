"""Pairs in doubt whose masses torch computed are described as the kernels' own walk does it."""

from __future__ import annotations

import numpy as np
import pytest

from ragimpute.evidence import on_device
from ragimpute.evidence import while_copying as evidence_copying
from ragimpute.evidence.on_device import copy_on_device
from ragimpute.evidence.while_copying import Wanted, copy_with_evidence
from tests.evidence.test_collect import quality_of
from tests.evidence.test_while_copying import DOUBT, HOMOLOG, PARAMETERS, some_case
from tests.torch_devices import DEVICES, device_of


def gathered(copy, window, target, states, *, doubt=DOUBT, num_tokens=0, **options):
    """P(ALT), pairs, evidence and tokens of all parts, put together."""
    prob = np.full((target.shape[1], window.core[1] - window.core[0]), np.nan, np.float32)
    found = []

    def take(parts):
        for part in parts:
            m = part.prob.shape[1]
            here = prob[part.target : part.target + len(part.prob), part.site : part.site + m]
            assert np.isnan(here).all()
            here[:] = part.prob
            found.append(
                (part.pairs + np.array([part.target, part.site]), part.evidence, part.tokens)
            )
            part.prob[:] = 0.5  # as who is given them may do

    copy(
        window, target, PARAMETERS, states=states, take=take, **options,
        wanted=Wanted(quality_of(window.num_sites), doubt, HOMOLOG, num_tokens),
    )  # fmt: skip
    pairs = np.concatenate([p for p, _, _ in found])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    tokens = np.concatenate([t for _, _, t in found])[order] if num_tokens else None
    return prob, pairs[order], np.concatenate([e for _, e, _ in found])[order], tokens


def compare(name, case, kind, *, num_tokens=0, **options):
    """What torch and the kernels say of a case, and what may differ."""
    window, target, states = case
    device = str(device_of(name))
    expected = gathered(copy_with_evidence, window, target, states[kind], num_tokens=num_tokens)

    def copy(*arguments, **others):
        copy_on_device(*arguments, device=device, **others)

    found = gathered(copy, window, target, states[kind], num_tokens=num_tokens, **options)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_array_equal(found[1], expected[1])
    assert len(found[1]) > 500
    # Where states are equally probable, rounding decides which of them are looked at.
    near = np.isclose(found[2], expected[2], rtol=1e-3, atol=1e-3)
    assert near.all(axis=1).mean() > 0.999
    if num_tokens:
        assert (np.abs(found[3].astype(np.int32) - expected[3]) <= 1).mean() > 0.999


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("kind", ["all", "own"])
@pytest.mark.parametrize("num_tokens", [0, 8])
def test_the_evidence_is_that_of_the_kernels(name, kind, num_tokens):
    compare(name, some_case(), kind, num_tokens=num_tokens)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("kind", ["all", "own"])
@pytest.mark.parametrize("options", [
    {"threads": 3}, {"max_pairs": 600}, {"all_sites": True}, {"max_pairs": 9, "threads": 2},
])  # fmt: skip
def test_blocks_and_parts_change_nothing(name, kind, options):
    compare(name, some_case((51, 390)), kind, **options)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("kind", ["all", "own"])
def test_where_there_is_no_room_pairs_are_described_afterwards(name, kind, monkeypatch):
    for module in (evidence_copying, on_device):
        monkeypatch.setattr(module, "PAIRS_AT_ONCE", 300)
    compare(name, some_case(), kind, num_tokens=8, all_sites=True)


def test_a_block_has_both_haplotypes_of_a_sample(monkeypatch):
    """Even where the memory has room for one only."""
    monkeypatch.setattr(on_device, "_STATE_BYTES", 1)
    compare("cpu", some_case(), "own")


@pytest.mark.parametrize("kind", ["all", "own"])
def test_without_a_network_nothing_is_described(kind):
    window, target, states = some_case()

    def copy(*arguments, **others):
        copy_on_device(*arguments, device="cpu", **others)

    prob, pairs, evidence, _ = gathered(copy, window, target, states[kind], doubt=0.5)
    expected = gathered(copy_with_evidence, window, target, states[kind], doubt=0.5)
    np.testing.assert_allclose(prob, expected[0], atol=1e-5)
    assert len(pairs) == len(evidence) == 0


def test_no_typed_site_is_refused():
    window, target, states = some_case()
    none = type(window).build(
        window.haplotypes, window.position_cm, np.empty(0, np.int64), window.core
    )
    with pytest.raises(ValueError, match="without typed sites"):
        copy_on_device(
            none, target[:0], PARAMETERS, states=states["all"], take=list, device="cpu",
            wanted=Wanted(quality_of(window.num_sites), DOUBT),
        )  # fmt: skip
