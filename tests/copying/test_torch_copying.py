"""Copying in torch gives what the kernels give: both kinds of states, all kinds of windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import window_of

from ragimpute.copying import torch_copying
from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import all_states
from ragimpute.copying.torch_copying import TorchCopying, targets_at_once, word_edges
from ragimpute.copying.window import pack_words
from tests.copying.test_copy import case, sliding_states
from tests.torch_devices import DEVICES, device_of


def copied(window, target, parameters, states, device):
    """P(ALT) at the core sites, (n, m), by torch; ``states`` (n, W, K), or None for all."""
    device = str(device_of(device))
    copying = TorchCopying(window, window.steps(parameters), states, *pack_words(target), device)
    copying.forward()
    words = [copying.back(w) for w in range(len(window.typed.words) - 1, -1, -1)]
    assert [word.first_site for word in words[::-1]] == word_edges(window)[:-1].tolist()
    return np.concatenate([word.prob.cpu().numpy() for word in words[::-1]], axis=1), words


@pytest.mark.parametrize("name", DEVICES)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_haplotypes=st.integers(1, 140),
    num_sites=st.integers(1, 160),
    num_targets=st.sampled_from([1, 2, 19]),
    share=st.floats(0, 1),
    rate=st.floats(0.3, 30),
    err=st.floats(1e-6, 0.4),
    missing=st.sampled_from([0.0, 0.2, 1.0]),
    slides=st.booleans(),
    core=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_it_copies_as_the_kernels_do(
    name, seed, num_haplotypes, num_sites, num_targets, share, rate, err, missing, slides, core
):
    num_typed = max(1, round(share * num_sites))
    alleles, cm, typed_index, target = case(
        seed, num_sites, num_haplotypes, num_typed, num_targets=num_targets, missing=missing
    )
    rng = np.random.default_rng(seed)
    target[:, rng.random(num_targets) < 0.2] = -1  # some have nothing observed
    first, last = sorted(round(x * num_sites) for x in core)
    window = window_of(alleles, cm, typed_index, (first, last), as_row=rng.random(num_sites) < 0.5)
    parameters = CopyingParameters(rate, err)
    states, find = None, lambda i: everyone
    everyone = all_states(num_haplotypes)
    if slides:
        k = int(rng.integers(1, max(2, 2 * num_haplotypes // 3)))
        states = np.stack([
            sliding_states(rng, len(window.typed.words), num_haplotypes, k)
            for _ in range(num_targets)
        ])  # fmt: skip
        find = lambda i: states[i]  # noqa: E731
    found, _ = copied(window, target, parameters, states, name)
    expected = copy_haplotypes(window, target, parameters, states=find)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("slides", [False, True])
def test_how_sums_are_cut_changes_nothing(name, slides, monkeypatch):
    alleles, cm, typed_index, target = case(3, 500, 90, 70, num_targets=7)
    rng = np.random.default_rng(3)
    window = window_of(alleles, cm, typed_index, as_row=rng.random(500) < 0.5)
    states = np.stack([sliding_states(rng, 3, 90, 40) for _ in range(7)]) if slides else None
    found = []
    for share in (0.25, 1e-12):
        monkeypatch.setattr(torch_copying, "_SUMS_SHARE", share)
        found.append(copied(window, target, CopyingParameters(5, 1e-3), states, name)[0])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("slides", [False, True])
def test_what_is_in_doubt_comes_with_its_masses(name, slides):
    alleles, cm, typed_index, target = case(5, 300, 70, 90, num_targets=6)
    rng = np.random.default_rng(5)
    window = window_of(alleles, cm, typed_index, (20, 290), as_row=rng.random(300) < 0.5)
    states = np.stack([sliding_states(rng, 3, 70, 30) for _ in range(6)]) if slides else None
    prob, words = copied(window, target, CopyingParameters(5, 1e-3), states, name)
    known = np.zeros(prob.shape, bool)
    inside = (typed_index >= 20) & (typed_index < 290)
    known[:, typed_index[inside] - 20] = (target[inside] >= 0).T
    rows, seen = 0, np.zeros(prob.shape, bool)
    for word in words:
        found = word.doubtful(0.05, 0.95)
        if found is None:
            continue
        rows += len(found.left)
        site = found.pairs[:, 1] + word.first_site
        seen[found.pairs[:, 0], site - 20] = True
        np.testing.assert_array_equal(
            found.interval, np.searchsorted(typed_index, site, side="right") - 1
        )
        np.testing.assert_allclose(found.left.sum(1) / found.left_total, 1, atol=1e-5)
        assert (found.right.sum(1) / found.right_total).max() < 1 + 1e-5
        assert len(np.unique(found.row)) == len(found.left)
        sums = word.sums_by_target()
        assert len(sums) == (0 if slides else 6)
        if not slides:
            at = found.pairs
            carries = alleles[site] == window.haplotypes.alt_is_minor[site, None]
            f = found.left[found.row]
            np.testing.assert_allclose(
                sums[at[:, 0], at[:, 1], 1, 0], (f * carries).sum(1), atol=1e-5
            )
            np.testing.assert_array_equal(sums[at[:, 0], at[:, 1], 3, 0], carries.sum(1))
    np.testing.assert_array_equal(seen, (prob > 0.05) & (prob < 0.95) & ~known)
    assert rows > 50


@pytest.mark.parametrize("name", DEVICES)
def test_targets_at_once_are_those_that_fit(name, monkeypatch):
    device = str(device_of(name))
    some = {}
    for num_bytes in (1, 2**26, 2**30):
        monkeypatch.setattr(torch_copying, "work_bytes", lambda device, n=num_bytes: n)
        some[num_bytes] = targets_at_once(500, 256, device, own_states=True)
    assert some[1] == 1
    assert 1 < some[2**26] < some[2**30]
    alone = targets_at_once(500, 256, device, own_states=True)
    assert targets_at_once(500, 256, device, own_states=True, walks=4) == pytest.approx(
        alone / 4, abs=1
    )
