"""Which rows a report shows, so that evidence is made for exactly those."""

from __future__ import annotations

import numpy as np

from forgetfilter.arrays import FloatArray, IntArray

MOST_FORGOTTEN = 20
NEAREST_EACH_SIDE = 10
PIECES_SHOWN = 200
"""Tokens of an answer that are shaded by how much they were forgotten."""


def highest(scores: FloatArray, most: int) -> IntArray:
    """Places of the highest scores, highest first; ties in file order, NaN never."""
    places = np.flatnonzero(~np.isnan(scores))
    if len(places) > most:
        last = np.partition(scores[places], len(places) - most)[len(places) - most]
        places = np.flatnonzero(scores >= last)
    return by_score(scores, places)[:most]


def by_score(scores: FloatArray, places: IntArray) -> IntArray:
    """Places, which ascend, by their scores, highest first; ties in file order, NaN last."""
    found: IntArray = places[np.argsort(-scores[places], kind="stable")]
    return found


def most_forgotten(scores: FloatArray) -> list[int]:
    """Indices of the highest scores, highest first; ties in file order, NaN never."""
    return highest(scores, MOST_FORGOTTEN).tolist()


def nearest_to_threshold(scores: FloatArray, threshold: float | None) -> list[int]:
    """Indices of the scores just above and just below the threshold, highest first."""
    if threshold is None or np.isnan(threshold):
        return []
    # Of equal ones the last of the file are nearest from above: they stand last in a list.
    above = highest(np.where(scores > threshold, -scores, np.nan)[::-1], NEAREST_EACH_SIDE)
    below = highest(np.where(scores <= threshold, scores, np.nan), NEAREST_EACH_SIDE)
    return [*(len(scores) - 1 - above)[::-1].tolist(), *below.tolist()]


def rows_to_show(scores: FloatArray, threshold: float | None) -> list[int]:
    """Indices of all rows that a report shows, without repeats, in file order."""
    return sorted({*most_forgotten(scores), *nearest_to_threshold(scores, threshold)})
