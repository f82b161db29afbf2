"""Which rows share a pass: rows of similar length, as many tokens as fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from forgetfilter.arrays import Int32Array


class Batches(Sequence[list[int]]):
    """Batches of rows, of which four bytes a row and eight a batch are held.

    Args:
        order: the rows, batch after batch.
        starts: where each batch begins in ``order``.
        stops: where each ends.
    """

    def __init__(self, order: Int32Array, starts: Int32Array, stops: Int32Array) -> None:
        self._order, self._starts, self._stops = order, starts, stops

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> Batches: ...
    def __getitem__(self, index: int | slice) -> list[int] | Batches:
        if isinstance(index, slice):
            return Batches(self._order, self._starts[index], self._stops[index])
        found: list[int] = self._order[self._starts[index] : self._stops[index]].tolist()
        return found

    def __iter__(self) -> Iterator[list[int]]:
        return (self[at] for at in range(len(self)))


def batches_by_length(lengths: Sequence[int] | Int32Array, max_tokens: int) -> Batches:
    """Indices grouped so that (rows x longest) stays within ``max_tokens``, longest first.

    Longest first means that a batch that doesn't fit memory fails at the start, not at the end.
    A row that is longer is a batch of its own. Equal rows stay in their order.
    """
    sizes = np.asarray(lengths, dtype=np.int32)
    order = np.argsort(-sizes, kind="stable").astype(np.int32)
    starts: list[int] = []
    start = 0
    while start < len(order):
        starts.append(start)
        start += max(1, max_tokens // max(1, int(sizes[order[start]])))
    places = np.array([*starts, len(order)], dtype=np.int32)
    return Batches(order, places[:-1], places[1:])


def cheapest_passes(
    lengths: Sequence[int] | Int32Array, max_tokens: int, pass_cost: int
) -> list[list[int]]:
    """Indices of the rows of one optimizer step, cut into the passes that cost the least.

    A pass costs its padded tokens and ``pass_cost`` tokens more. Rows are sorted by length, longest
    first, so that each pass holds similar ones; equal rows stay in their order. No pass exceeds
    ``max_tokens``, but for one of a single row. The time grows with the square of the rows.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-sizes, kind="stable")
    longest, rows = sizes[order], len(order)
    least = np.zeros(rows + 1)
    begins = np.zeros(rows + 1, dtype=np.int64)
    for stop in range(1, rows + 1):
        tokens = longest[:stop] * np.arange(stop, 0, -1)
        costs = least[:stop] + tokens + pass_cost
        costs[:-1][tokens[:-1] > max_tokens] = np.inf
        begins[stop] = costs.argmin()
        least[stop] = costs[begins[stop]]
    passes: list[list[int]] = []
    stop = rows
    while stop:
        passes.append(order[begins[stop] : stop].tolist())
        stop = int(begins[stop])
    return passes[::-1]
