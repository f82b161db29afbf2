"""Which rows a report shows, so that evidence is made for exactly those."""

from __future__ import annotations

import numpy as np

from forgetfilter.arrays import FloatArray

MOST_FORGOTTEN = 20
NEAREST_EACH_SIDE = 10
PIECES_SHOWN = 200
"""Tokens of an answer that are shaded by how much they were forgotten."""


def most_forgotten(scores: FloatArray) -> list[int]:
    """Indices of the highest scores, highest first; ties in file order, NaN never."""
    order = np.argsort(-scores, kind="stable")
    return [int(i) for i in order[:MOST_FORGOTTEN] if not np.isnan(scores[i])]


def nearest_to_threshold(scores: FloatArray, threshold: float | None) -> list[int]:
    """Indices of the scores just above and just below the threshold, highest first."""
    if threshold is None or np.isnan(threshold):
        return []
    order = np.argsort(-scores, kind="stable")
    order = order[~np.isnan(scores[order])]
    is_above = scores[order] > threshold
    above, below = order[is_above][-NEAREST_EACH_SIDE:], order[~is_above][:NEAREST_EACH_SIDE]
    return [*above.tolist(), *below.tolist()]


def rows_to_show(scores: FloatArray, threshold: float | None) -> list[int]:
    """Indices of all rows that a report shows, without repeats, in file order."""
    return sorted({*most_forgotten(scores), *nearest_to_threshold(scores, threshold)})
