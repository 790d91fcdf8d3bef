"""The pass along a pair of haplotypes against likelihoods of whole haplotypes."""

from __future__ import annotations

import numpy as np
import pytest
from slow_copying import mosaic_panel

from ragimpute.copying.parameters import switch_probs
from ragimpute.copying.states import all_states
from ragimpute.copying.window import TypedSites
from ragimpute.phasing.kernel import (
    DRAWN,
    FLIP,
    MISSING,
    SWAP_AFTER,
    SWAP_WITH,
    Found,
    Pass,
    Sample,
    Scratch,
    scan_sample,
)

WORD = 32
ALL = FLIP | SWAP_WITH | SWAP_AFTER


def likelihood(panel, haplotype, rho, err):
    """P(alleles) of a haplotype by the textbook's forward algorithm."""
    num_states = panel.shape[1]
    f = np.full(num_states, 1 / num_states)
    for t, allele in enumerate(haplotype):
        f = (1 - rho[t]) * f + rho[t] * f.sum() / num_states
        if allele >= 0:
            f = f * np.where(panel[t] == allele, 1 - err, err)
    return f.sum()


def moved(pair, t, move):
    """The pair after a move at site t: 0 keep, 1 flip, 2 swap with, 3 swap after."""
    out = pair.copy()
    first = {1: slice(t, t + 1), 2: slice(t, None), 3: slice(t + 1, None)}.get(move)
    if first is not None:
        out[:, first] = out[::-1, first]
    return out


def scan(panel, pair, moves, rho, err, *, backwards=False, blind=False, uniform=None):
    """Run the kernel on sites of whole words; returns the pair, ``same`` and ``alt``."""
    typed = TypedSites.pack(panel, np.arange(len(panel), dtype=float))
    length = WORD * len(typed.words)
    num_states = panel.shape[1]
    padded = np.full((2, length), -1, np.int8)
    padded[:, : pair.shape[1]] = pair
    wanted = np.zeros(length, np.uint8)
    wanted[: len(moves)] = np.where(moves > 0, DRAWN, 0)
    wanted[: len(moves)][(pair < 0).any(axis=0)] = MISSING
    bits = np.zeros(length, np.uint8)
    bits[: len(moves)] = moves
    chance = np.zeros(length + 1, np.float32)
    chance[: len(rho)] = rho
    if backwards:
        swapped = bits & FLIP
        swapped |= np.where(bits & SWAP_WITH, SWAP_AFTER, 0).astype(np.uint8)
        swapped |= np.where(bits & SWAP_AFTER, SWAP_WITH, 0).astype(np.uint8)
        padded, wanted, bits = padded[:, ::-1].copy(), wanted[::-1].copy(), swapped[::-1].copy()
        chance[1:length] = chance[1:length][::-1].copy()
    same, alt = np.zeros((2, length), np.float32), np.zeros((2, length), np.float32)
    drawn = uniform is not None
    scan_sample(
        Pass(typed.words, backwards, chance, np.float32(err), blind, drawn),
        Sample(
            all_states(num_states), padded, wanted, bits, uniform if drawn else np.zeros(length)
        ),
        Found(same, alt),
        Scratch.empty(len(typed.words), num_states),
    )
    way = slice(None, None, -1) if backwards else slice(None)
    num = pair.shape[1]
    return padded[:, way][:, :num], same[:, way][:, :num], alt[:, way][:, :num]


def case(seed, num_sites=70, num_haplotypes=7):
    rng = np.random.default_rng(seed)
    panel = mosaic_panel(rng, num_sites, num_haplotypes + 2, switches=0.1)
    pair = np.ascontiguousarray(panel[:, num_haplotypes:].T)
    turned = rng.random(num_sites) < 0.5
    pair[:, turned] = pair[::-1, turned]
    position_cm = np.cumsum(rng.exponential(0.05, num_sites))
    rho = switch_probs(position_cm, switch_rate=3.0)
    return rng, panel[:, :num_haplotypes], pair, rho


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_choice_is_by_the_likelihood_of_whole_haplotypes(seed, backwards):
    rng, panel, pair, rho = case(seed)
    err = 0.01
    uniform = rng.random(96)
    het = np.nonzero(pair[0] != pair[1])[0]
    assert len(het) > 5
    moves = np.where(pair[0] != pair[1], ALL, 0).astype(np.uint8)
    found, same, _ = scan(panel, pair, moves, rho, err, backwards=backwards, uniform=uniform)

    now = pair.copy()
    expected = np.zeros(pair.shape[1])
    order = het[::-1] if backwards else het
    for i, t in enumerate(order):
        # On the way back what follows a site lies before it; to exchange what lies behind it
        # instead is the same pair with its haplotypes renamed.
        options = [moved(now, t, move) for move in ((0, 1, 3, 2) if backwards else range(4))]
        weight = np.array(
            [likelihood(panel, h[0], rho, err) * likelihood(panel, h[1], rho, err) for h in options]
        )
        weight /= weight.sum()
        if i:
            before = order[i - 1]
            together = [h[0, t] == h[0, before] for h in options]
            expected[max(t, before)] = weight[together].sum()
        place = 95 - t if backwards else t
        now = options[int(np.searchsorted(np.cumsum(weight), uniform[place], side="right"))]
    np.testing.assert_allclose(same[0], expected, atol=2e-4)
    assert (same[1] == (expected > 0)).all()
    assert (found == now).all() or (found == now[::-1]).all()


def test_a_move_that_is_not_allowed_is_never_made():
    rng, panel, pair, rho = case(4)
    moves = np.zeros(pair.shape[1], np.uint8)
    het = np.nonzero(pair[0] != pair[1])[0]
    lone = het[len(het) // 2]
    moves[lone] = FLIP
    found, same, _ = scan(panel, pair, moves, rho, 0.01, uniform=rng.random(96))
    changed = np.nonzero((found != pair).any(axis=0))[0]
    assert set(changed.tolist()) <= {int(lone)}
    assert same[1].sum() == 1


def test_choices_are_drawn_with_their_probability():
    _, panel, pair, rho = case(5, num_sites=20)
    moves = np.zeros(20, np.uint8)
    het = np.nonzero(pair[0] != pair[1])[0]
    t = het[len(het) // 2]
    moves[t] = FLIP
    weight = np.array(
        [
            likelihood(panel, h[0], rho, 0.2) * likelihood(panel, h[1], rho, 0.2)
            for h in (pair, moved(pair, t, 1))
        ]
    )
    keep = weight[0] / weight.sum()
    assert 0.02 < keep < 0.98
    for draw, kept in ((keep - 1e-3, True), (keep + 1e-3, False)):
        found, _, _ = scan(panel, pair, moves, rho, 0.2, uniform=np.full(32, draw))
        assert (found[0, t] == pair[0, t]) == kept


def test_missing_alleles_get_their_posterior():
    _, panel, pair, rho = case(6)
    moves = np.zeros(pair.shape[1], np.uint8)
    t = 40
    pair[:, t] = -1
    _, _, alt = scan(panel, pair, moves, rho, 0.01)
    for x in range(2):
        weight = []
        for allele in (0, 1):
            whole = pair[x].copy()
            whole[t] = allele
            # The state's allele, not an observation with an error, is what is asked for.
            hidden = panel.copy()
            keep = hidden[t] == allele
            f = likelihood_at(hidden, whole, rho, 0.01, t, keep)
            weight.append(f)
        assert alt[x, t] == pytest.approx(weight[1] / sum(weight), abs=1e-4)


def likelihood_at(panel, haplotype, rho, err, site, keep):
    """P(alleles) of paths whose state at ``site`` is among those of ``keep``."""
    num_states = panel.shape[1]
    f = np.full(num_states, 1 / num_states)
    for t, allele in enumerate(haplotype):
        f = (1 - rho[t]) * f + rho[t] * f.sum() / num_states
        f = f * keep if t == site else f * np.where(panel[t] == allele, 1 - err, err)
    return f.sum()
