"""Groups of rows that a model represents alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from forgetfilter.arrays import FloatArray, IntArray
from forgetfilter.data.records import EncodedRow
from forgetfilter.finite import check_finite
from forgetfilter.model.passes.forward import pass_inputs, row_batches
from forgetfilter.progress import Bar, Progress


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


@torch.no_grad()
def _mean_states(
    model: Any, rows: Sequence[EncodedRow], max_batch_tokens: int, bar: Bar
) -> Iterator[tuple[int, FloatArray]]:
    """Position of each row, and its mean hidden states over the completion, shape (2H,)."""
    batches = row_batches(model, rows, max_batch_tokens)
    for batch in batches:
        with batches.or_halves(batch):
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
