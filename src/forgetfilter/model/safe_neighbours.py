"""The safe rows that a row is about: those whose prompts a model represents most alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from forgetfilter.arrays import FloatArray, IntArray
from forgetfilter.data.records import EncodedRow
from forgetfilter.finite import check_finite
from forgetfilter.model.likeness import mean_states
from forgetfilter.progress import Bar, Progress


def nearest_safe_rows(
    model: Any,
    rows: Sequence[EncodedRow],
    safe: Sequence[EncodedRow],
    count: int,
    max_batch_tokens: int,
    progress: Progress,
    label: str,
) -> IntArray:
    """The safe rows whose prompts are most like each row's, nearest first, shape (N, count).

    By the cosine between mean hidden states of the last layer over the prompt, each dimension
    standardised by the safe rows, so that what all prompts share (a template's marks) counts
    nothing. Answers say less: an unsafe one is like no safe one. docs/read_the_report.md has what
    was measured. Entries are positions in ``safe``; where there are fewer than ``count``, the
    nearest stands in for those that are missing.
    """
    with progress.bar(label, len(rows) + len(safe), "rows") as bar:
        known = np.zeros((len(safe), 0))
        for at, values in _prompt_states(model, safe, max_batch_tokens, bar):
            if not known.shape[1]:
                known = np.zeros((len(safe), len(values)))
            known[at] = values
        check_finite(known.sum(axis=1), "hidden state", label)
        mean, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
        known = _unit((known - mean) / spread)
        found = np.zeros((len(rows), count), dtype=np.int64)
        for at, values in _prompt_states(model, rows, max_batch_tokens, bar):
            check_finite(values.sum()[np.newaxis], "hidden state", label)
            order = np.argsort(-(known @ _unit((values - mean) / spread)), kind="stable")[:count]
            found[at] = order[0]
            found[at, : len(order)] = order
    return found


def _prompt_states(
    model: Any, rows: Sequence[EncodedRow], max_batch_tokens: int, bar: Bar
) -> Iterator[tuple[int, FloatArray]]:
    """Position of each row, and its mean last hidden state over the prompt, shape (H,)."""
    for at, values in mean_states(model, rows, "prompt", max_batch_tokens, bar):
        yield at, values[len(values) // 2 :]  # the last layer's stand behind


def _unit(vectors: FloatArray) -> FloatArray:
    """Vectors of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)
