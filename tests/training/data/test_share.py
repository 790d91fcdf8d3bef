"""The rows of a batch and the validation batches that each of several processes builds."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from ragimpute.training.data.share import WHOLE, Share


@given(st.integers(1, 40), st.integers(1, 6))
def test_each_row_counts_in_one_process(num_rows, world):
    counted = []
    for rank in range(world):
        share = Share(rank, world)
        rows = share.rows(num_rows)
        assert len(rows) >= 1  # every process needs a row
        batch = {"label_h1": torch.as_tensor(rows), "label_h2": torch.as_tensor(rows)}
        given_back = share.counted(dict(batch), num_rows)
        if rank < num_rows:
            assert given_back == batch
            counted += rows.tolist()
        else:  # this one does not count
            assert rows.tolist() == [num_rows - 1]
            assert (given_back["label_h1"] == -1).all()
            assert (given_back["label_h2"] == -1).all()
            assert (batch["label_h1"] >= 0).all()
    assert sorted(counted) == list(range(num_rows))


@given(st.integers(1, 40), st.integers(1, 6))
def test_each_validation_batch_is_one_processes(num, world):
    owner = [[r for r in range(world) if Share(r, world).owns(i, num)] for i in range(num)]
    assert all(len(ranks) == 1 for ranks in owner)
    ranks = [r for (r,) in owner]
    assert ranks == sorted(ranks)  # they follow on each other
    sizes = [ranks.count(r) for r in range(world)]
    assert max(sizes) - min(sizes) <= 1


def test_alone_a_process_has_all():
    assert WHOLE.rows(7).tolist() == list(range(7))
    assert all(WHOLE.owns(i, 7) for i in range(7))
