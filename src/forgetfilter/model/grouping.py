"""Rows that a model represents alike: groups of them, and the nearest to each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from forgetfilter.arrays import FloatArray, IntArray
from forgetfilter.data.records import EncodedRow
from forgetfilter.finite import check_finite
from forgetfilter.model.forward import pass_inputs, row_batches
from forgetfilter.progress import Bar, Progress

_DIMENSIONS = 64
"""To which hidden states are projected, so that those of all rows fit in memory."""
_STANDARD_ROWS = 1000
"""Over so many rows the spread of each dimension is measured."""
_MAX_SIMILARITIES = 2**26
"""Similarities that are held at once, in numbers (256 MB)."""


def row_features(
    model: Any, rows: Sequence[EncodedRow], max_batch_tokens: int, progress: Progress, label: str
) -> FloatArray:
    """Mean hidden state over each row's completion, middle and last layer, shape (N, 2H).

    Standardised over the rows: every column has mean 0 and standard deviation 1.
    """
    features: list[FloatArray] = [np.zeros(0)] * len(rows)
    with progress.bar(label, len(rows), "rows") as bar:
        for index, values in _mean_states(model, rows, max_batch_tokens, bar):
            features[index] = values
    table = np.stack(features)
    check_finite(table.sum(axis=1), "hidden state", label)
    return (table - table.mean(axis=0)) / (table.std(axis=0) + 1e-6)


def nearest_rows(
    model: Any,
    rows: Sequence[EncodedRow],
    count: int,
    max_batch_tokens: int,
    progress: Progress,
    label: str,
) -> IntArray:
    """The rows whose answers ``model`` represents most alike, nearest first, shape (N, count).

    By the cosine between the rows' `row_features`, projected at random (fixed seed) to 64
    dimensions, which keeps angles (Johnson and Lindenstrauss, 1984) and holds a million rows in 256
    MB. Entries are positions in ``rows``; a row is never its own neighbour, unless there are fewer
    than ``count`` others: then it stands in for those that are missing.
    """
    by_row = sorted(range(len(rows)), key=lambda at: rows[at].row)
    drawn = np.random.default_rng(0).permutation(len(rows))[:_STANDARD_ROWS]
    sample = [by_row[at] for at in sorted(drawn)]
    rest = sorted(set(by_row).difference(sample))
    vectors = np.zeros((len(rows), _DIMENSIONS), dtype=np.float32)
    with progress.bar(label, len(rows), "rows") as bar:
        own = [rows[at] for at in sample]
        first = dict(_mean_states(model, own, max_batch_tokens, bar))
        known = np.stack([first[at] for at in range(len(own))])  # (up to 1,000, 2H)
        mean, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
        projection = np.random.default_rng(0).normal(size=(known.shape[1], _DIMENSIONS))
        vectors[sample] = (known - mean) / spread @ projection
        own = [rows[at] for at in rest]
        for index, values in _mean_states(model, own, max_batch_tokens, bar):
            vectors[rest[index]] = (values - mean) / spread @ projection
    check_finite(vectors.sum(axis=1), "hidden state", label)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return _nearest(vectors, count)


def _nearest(vectors: FloatArray, count: int) -> IntArray:
    """Positions of the ``count`` vectors with the largest inner products, shape (N, count)."""
    size = len(vectors)
    found = np.repeat(np.arange(size)[:, np.newaxis], count, axis=1)
    most = min(count, size - 1)
    block = max(1, _MAX_SIMILARITIES // size)
    for start in range(0, size if most else 0, block):
        near = vectors[start : start + block] @ vectors.T  # (block, N)
        own = np.arange(len(near))
        near[own, start + own] = -np.inf
        best = np.sort(np.argpartition(-near, most - 1, axis=1)[:, :most], axis=1)
        order = np.argsort(-np.take_along_axis(near, best, axis=1), axis=1, kind="stable")
        found[start : start + block, :most] = np.take_along_axis(best, order, axis=1)
    return found


@torch.no_grad()
def _mean_states(
    model: Any, rows: Sequence[EncodedRow], max_batch_tokens: int, bar: Bar
) -> Iterator[tuple[int, FloatArray]]:
    """Position of each row, and its mean hidden states over the completion, shape (2H,)."""
    for batch in row_batches(model, rows, max_batch_tokens):
        inputs = pass_inputs(model, batch)
        if "logits_to_keep" in inputs:
            inputs["logits_to_keep"] = 1  # none is wanted
        states = model(**inputs, output_hidden_states=True).hidden_states
        layers = torch.cat([states[len(states) // 2], states[-1]], dim=-1)
        layers = layers[:, batch.positions].float()  # (B, P, 2H)
        weights = batch.predicts_target.to(layers.dtype).unsqueeze(-1)  # (B, P, 1)
        means = (layers * weights).sum(dim=1) / weights.sum(dim=1)  # (B, 2H)
        for position, index in enumerate(batch.indices):
            yield index, means[position].double().cpu().numpy()
        bar.update(len(batch.indices))


def group_rows(
    model: Any,
    rows: Sequence[EncodedRow],
    groups: int,
    max_batch_tokens: int,
    progress: Progress,
    label: str,
) -> IntArray:
    """Part rows into at most ``groups`` groups of alike ones; a group index per row, shape (N,).

    K-means (fixed seed) on `row_features`. One gradient over all safe rows averages their kinds, so
    that the kind with the largest gradient hides the others; a gradient per group doesn't.
    """
    from sklearn.cluster import KMeans

    groups = min(groups, len(rows))
    if groups == 1:
        return np.zeros(len(rows), dtype=np.int64)
    table = row_features(model, rows, max_batch_tokens, progress, label)
    means = KMeans(groups, n_init=10, random_state=0)  # pyright: ignore[reportArgumentType]
    return means.fit_predict(table).astype(np.int64)
