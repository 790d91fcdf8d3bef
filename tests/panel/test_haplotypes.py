"""Some haplotypes of a block; signatures depend on alleles alone, and so does what they draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import blocks_of, compact, mosaic_panel

from ragimpute.panel.haplotypes import drawing_order, keep_haplotypes, signatures_of


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 70))
def test_signatures_follow_their_haplotypes(seed, num_haplotypes):
    rng = np.random.default_rng(seed)
    alleles = mosaic_panel(rng, 40, num_haplotypes)
    signature = signatures_of(compact(alleles))
    order = rng.permutation(num_haplotypes)
    np.testing.assert_array_equal(signatures_of(compact(alleles[:, order])), signature[order])
    _, which = np.unique(alleles, axis=1, return_inverse=True)
    same = which.reshape(-1)[:, None] == which.reshape(-1)[None]
    np.testing.assert_array_equal(signature[:, None] == signature[None], same)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 63), st.integers(1, 150), st.integers(0, 150))
def test_patterns_of_rows_give_the_same_signatures(first_row, num_haplotypes, num_sites):
    rng = np.random.default_rng(num_sites)
    alleles = mosaic_panel(rng, num_sites + 1, num_haplotypes)[:num_sites]
    rows = compact(alleles, rng.random(num_sites) < 0.7)
    known = replace(rows, blocks=blocks_of(rows.bits, num_haplotypes, first_row))
    np.testing.assert_array_equal(signatures_of(known), signatures_of(rows))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50, unique=True),
       st.integers(0, 1000))  # fmt: skip
def test_the_draw_depends_on_signatures_and_seed_alone(values, seed):
    signature = np.array(values, np.uint64)
    order = drawing_order(signature, seed)
    assert sorted(order.tolist()) == list(range(len(values)))
    turned = np.random.default_rng(1).permutation(len(values))
    again = drawing_order(signature[turned], seed)
    np.testing.assert_array_equal(signature[turned][again], signature[order])


def test_another_seed_draws_others():
    signature = np.random.default_rng(0).integers(0, 2**63, 1000, dtype=np.uint64)
    one, two = (set(drawing_order(signature, seed)[:100].tolist()) for seed in (1, 2))
    assert len(one & two) < 40


@settings(max_examples=60, deadline=None)
@given(
    num=st.integers(2, 300),
    share=st.sampled_from([0.02, 0.5, 0.98, 1.0]),
    seed=st.integers(0, 99),
)
def test_any_of_any_number_of_haplotypes(num, share, seed):
    rng = np.random.default_rng(seed)
    alleles = (rng.random((6, num)) < 0.4).astype(np.int8)
    kept = rng.random(num) < share
    kept[rng.integers(num)] = True
    block = keep_haplotypes(compact(alleles, np.arange(6) < 4), kept)
    np.testing.assert_array_equal(block.alleles(), alleles[:, kept])
    unused = 64 * block.bits.shape[1] - int(kept.sum())
    assert unused == 0 or (block.bits[:, -1] >> np.uint64(64 - unused) == 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 150), st.data())
def test_a_part_has_the_alleles_of_its_sites(seed, num, data):
    rng = np.random.default_rng(seed)
    alleles = (rng.random((20, num)) < 0.3).astype(np.int8)
    block = compact(alleles, rng.random(20) < 0.5)
    start = data.draw(st.integers(0, 20))
    stop = data.draw(st.integers(start, 20))
    part = block.part(start, stop)
    assert len(part) == stop - start
    np.testing.assert_array_equal(part.alleles(), alleles[start:stop])
    # A part of a part counts from the part's first site.
    inner = part.part((stop - start) // 2, stop - start)
    np.testing.assert_array_equal(inner.alleles(), alleles[start + (stop - start) // 2 : stop])
