"""Which rows share a pass: every row once, within the budget, longest first, few bytes a row."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetfilter.model.passes.batch_plan import batches_by_length


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_every_row_is_in_one_batch_within_the_budget(lengths: list[int], most: int):
    batches = batches_by_length(lengths, most)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    longest = [lengths[batch[0]] for batch in batches]
    assert longest == sorted(longest, reverse=True)
    for batch, own in zip(batches, longest, strict=True):
        assert all(lengths[row] <= own for row in batch)
        assert len(batch) == 1 or len(batch) * own <= most
    # None could have had one row more.
    for batch, after in zip(batches, list(batches)[1:], strict=False):
        assert (len(batch) + 1) * lengths[batch[0]] > most
        assert after


def test_equal_rows_stay_in_their_order_and_batches_are_dealt_whole():
    batches = batches_by_length([3, 5, 3, 5, 3], 10)
    assert list(batches) == [[1, 3], [0, 2, 4]]
    assert list(batches[1::2]) == [[0, 2, 4]]
    assert batches[-1] == [0, 2, 4]
    assert len(batches_by_length([], 10)) == 0


def test_a_plan_takes_few_bytes_a_row():
    lengths = np.random.default_rng(0).integers(5, 200, 200_000).astype(np.int32)
    tracemalloc.start()
    try:
        batches = batches_by_length(lengths, 1024)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(batches) > 1000
    assert held < 8 * len(lengths)
    assert peak < 40 * len(lengths)
