"""The safe rows that a row is about: those whose prompts a model represents most alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from forgetfilter.arrays import FloatArray, Int32Array, IntArray
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.measuring.comparing import Comparison, compare_rows
from forgetfilter.model.passes.shards import Shards
from forgetfilter.progress import Progress


def nearest_safe_rows(
    model: Any,
    rows: Sequence[EncodedRow],
    safe: Sequence[EncodedRow],
    count: int,
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
) -> Int32Array:
    """The safe rows whose prompts are most like each row's, nearest first, shape (N, count).

    By the cosine between the prompts' vectors (see `compare_rows`). Where the safe rows name
    categories, all are of one: that whose mean is most like the row's prompt. Answers say less: an
    unsafe one is like no safe one. docs/read_the_report.md has what was measured. Entries are
    positions in ``safe``; where there are fewer than ``count``, the nearest stands in for those
    that are missing.
    """
    categories = [row.category for row in safe]
    found = np.zeros((len(rows), count), dtype=np.int32)
    limits = (max_batch_tokens, progress, label, shards)

    def nearest(vectors: FloatArray) -> Comparison:
        return _Nearest(vectors, categories, count).to

    compare_rows(model, rows, safe, "prompt", found, nearest, *limits)
    return found


class _Nearest:
    """Finds the most alike of some vectors, all of the category that is most alike as a whole."""

    def __init__(self, vectors: FloatArray, categories: Sequence[str], count: int) -> None:
        self._vectors, self._count = vectors, count
        names = sorted(set(categories))
        self._members = [
            np.flatnonzero([category == name for category in categories]) for name in names
        ]
        means = np.stack([vectors[own].mean(axis=0) for own in self._members])
        self._means = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)

    def to(self, vector: FloatArray) -> IntArray:
        """Positions of those that are most like ``vector``, nearest first, shape (count,)."""
        own = self._members[int(np.argmax(self._means @ vector))]
        order = own[np.argsort(-(self._vectors[own] @ vector), kind="stable")][: self._count]
        return np.append(order, np.full(self._count - len(order), order[0]))
