"""The safe rows that a row is about: those whose prompts a model represents most alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from forgetfilter.arrays import FloatArray, IntArray
from forgetfilter.data.many_rows.views import chosen
from forgetfilter.data.records import EncodedRow
from forgetfilter.finite import check_finite
from forgetfilter.model.measuring.likeness import mean_states, state_table
from forgetfilter.model.measuring.many_rows import in_order
from forgetfilter.model.passes.shards import Shards
from forgetfilter.model.processes.dealing import added_up
from forgetfilter.progress import Bar, Progress

_STANDARD_ROWS = 1000
"""By so many rows the spread of each dimension is measured."""


def nearest_safe_rows(
    model: Any,
    rows: Sequence[EncodedRow],
    safe: Sequence[EncodedRow],
    count: int,
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
) -> IntArray:
    """The safe rows whose prompts are most like each row's, nearest first, shape (N, count).

    By the cosine between mean hidden states of the prompts (see `mean_states`), standardised by
    up to 1,000 of ``rows``, so that what all prompts share (a template's marks) counts nothing.
    Where the safe rows name categories, all are of one: that whose mean is most like the row's
    prompt. Answers say less: an unsafe one is like no safe one. docs/read_the_report.md has what
    was measured. Entries are positions in ``safe``; where there are fewer than ``count``, the
    nearest stands in for those that are missing.
    """
    by_row = in_order(rows)
    drawn = np.random.default_rng(0).permutation(len(rows))[:_STANDARD_ROWS]
    sample = by_row[np.sort(drawn)]
    rest = np.setdiff1d(by_row, sample)
    found = np.zeros((len(rows), count), dtype=np.int64)
    shards = shards or Shards()
    is_done = shards.begin(len(rows), {"nearest": found})[rest]  # the sample is read each time
    with progress.bar(label, len(rows) + len(safe), "rows", int(is_done.sum())) as bar:
        first = _table(model, [rows[int(at)] for at in sample], max_batch_tokens, bar, label)
        mean, spread = first.mean(axis=0), first.std(axis=0) + 1e-6
        known = _unit((_table(model, safe, max_batch_tokens, bar, label) - mean) / spread)
        near = _Nearest(known, [row.category for row in safe], count)
        for at, values in zip(sample, first, strict=True):
            found[at] = near.to(_unit((values - mean) / spread))
        others = chosen(rows, rest)
        nearest = found[rest]
        for at, values in mean_states(model, others, "prompt", max_batch_tokens, bar, is_done):
            check_finite(values.sum(), "hidden state", label)
            found[rest[at]] = nearest[at] = near.to(_unit((values - mean) / spread))
            shards.add([rest[at]])
        found[rest] = added_up(nearest)
    return found


class _Nearest:
    """Finds the most alike of some vectors, all of the category that is most alike as a whole."""

    def __init__(self, vectors: FloatArray, categories: Sequence[str], count: int) -> None:
        self._vectors, self._count = vectors, count
        names = sorted(set(categories))
        self._members = [
            np.flatnonzero([category == name for category in categories]) for name in names
        ]
        self._means = _unit(np.stack([vectors[own].mean(axis=0) for own in self._members]))

    def to(self, vector: FloatArray) -> IntArray:
        """Positions of those that are most like ``vector``, nearest first, shape (count,)."""
        own = self._members[int(np.argmax(self._means @ vector))]
        order = own[np.argsort(-(self._vectors[own] @ vector), kind="stable")][: self._count]
        return np.append(order, np.full(self._count - len(order), order[0]))


def _table(
    model: Any, rows: Sequence[EncodedRow], max_batch_tokens: int, bar: Bar, label: str
) -> FloatArray:
    """`mean_states` of the prompts of rows that fit in memory, shape (N, 2H)."""
    table = state_table(model, rows, "prompt", max_batch_tokens, bar)
    check_finite(table.sum(axis=1), "hidden state", label)
    return table


def _unit(vectors: FloatArray) -> FloatArray:
    """Vectors of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)
