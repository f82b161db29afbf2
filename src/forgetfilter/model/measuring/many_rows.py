"""What compares each row with all others, in bounded memory where rows are many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import BoolArray, FloatArray, IntArray
from forgetfilter.data.records import EncodedRow

HELD_ROWS = 8192
"""So many rows are compared with all others at once: 256 MB of similarities."""
FITTED_ROWS = 50_000
"""Rows that a classifier is fitted on at most."""
_ROWS_TOGETHER = 512
_OTHERS_TOGETHER = 4096
_JUDGED_TOGETHER = 2**16


def in_order(rows: Sequence[EncodedRow]) -> IntArray:
    """Places of rows by what they are numbered, shape (N,)."""
    return np.argsort(np.fromiter((row.row for row in rows), np.int64, len(rows)), kind="stable")


def nearest_of_many(vectors: npt.NDArray[np.float32], count: int) -> IntArray:
    """Positions of the ``count`` vectors with the largest inner products, shape (N, count).

    Nearest first, of equal ones the first; none is its own. There are more than ``count`` vectors.
    Memory is that of the result and 60 MB.
    """
    size = len(vectors)
    found = np.zeros((size, count), dtype=np.int64)
    for start in range(0, size, _ROWS_TOGETHER):
        own = vectors[start : start + _ROWS_TOGETHER]
        best = np.full((len(own), count), -np.inf, dtype=np.float32)
        place = np.zeros((len(own), count), dtype=np.int64)
        for first in range(0, size, _OTHERS_TOGETHER):
            near = own @ vectors[first : first + _OTHERS_TOGETHER].T
            itself = np.arange(len(own)) + start - first
            is_here = (itself >= 0) & (itself < near.shape[1])
            near[np.flatnonzero(is_here), itself[is_here]] = -np.inf
            nearer = np.flatnonzero((near > best[:, -1:]).any(axis=1))
            if len(nearer):
                either = np.concatenate([best[nearer], near[nearer]], axis=1)
                order = np.argsort(-either, axis=1, kind="stable")[:, :count]
                there = np.arange(first, first + near.shape[1])
                places = np.concatenate(
                    [place[nearer], np.broadcast_to(there, (len(nearer), len(there)))], axis=1
                )
                best[nearer] = np.take_along_axis(either, order, axis=1)
                place[nearer] = np.take_along_axis(places, order, axis=1)
        found[start : start + len(own)] = place
    return found


def odds_of_many(
    classifier: Any, folds: Any, vectors: npt.NDArray[np.float32], is_safe: BoolArray
) -> FloatArray:
    """What a classifier says of each vector, fitted on some of the others, log odds, shape (N,).

    As `cross_val_predict` does, but fitted on all safe rows of a part and on as many of its other
    rows as `FITTED_ROWS` leaves room for, drawn with a fixed seed.

    Args:
        classifier: of scikit-learn.
        folds: splits rows into parts, of scikit-learn.
        vectors: shape (N, D).
        is_safe: which of them are safe rows', shape (N,).
    """
    odds = np.zeros(len(vectors))
    rng = np.random.default_rng(0)
    for others, judged in folds.split(is_safe, is_safe):
        safe, rest = others[is_safe[others]], others[~is_safe[others]]
        room = max(FITTED_ROWS - len(safe), len(safe), 2)
        drawn = rng.permutation(len(rest))[:room]
        fitted = np.sort(np.concatenate([safe, rest[drawn]]))
        classifier.fit(vectors[fitted], is_safe[fitted])
        for start in range(0, len(judged), _JUDGED_TOGETHER):
            part = judged[start : start + _JUDGED_TOGETHER]
            odds[part] = classifier.decision_function(vectors[part])
    return odds
