"""What compares each row with all others, in bounded memory where rows are many."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import BoolArray, FloatArray, Int32Array, IntArray
from forgetfilter.data.records import EncodedRow

HELD_ROWS = 8192
"""So many rows are compared with all others at once: 256 MB of similarities."""
FITTED_ROWS = 50_000
"""Rows that a classifier is fitted on at most."""
_ROWS_TOGETHER = 512
_OTHERS_TOGETHER = 4096
_JUDGED_TOGETHER = 2**16
_DECIMALS = 9
"""Of log odds: rows with equal vectors are exactly alike, in whatever order sums are taken."""
PART_ROWS = 2**14
"""Rows after which what was read of a file may leave the memory."""

Vectors = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]


def open_vectors(rows: int, dimensions: int, folder: Path | None = None) -> Vectors:
    """Zeros of shape (rows, dimensions), float32; where they are many, in a file without a name.

    Args:
        rows: more than `HELD_ROWS` lie in the file.
        dimensions: of a row.
        folder: on whose disk it lies; None: the system's place for temporary files.
    """
    return _opened(np.float32, rows, dimensions, folder)


def open_tokens(rows: int, count: int, folder: Path | None = None) -> Tokens:
    """Zeros of shape (rows, count), int32; as `open_vectors`."""
    return _opened(np.int32, rows, count, folder)


def _opened(
    dtype: type[np.float32 | np.int32], rows: int, size: int, folder: Path | None
) -> npt.NDArray[Any]:
    if rows <= HELD_ROWS:
        return np.zeros((rows, size), dtype=dtype)
    with tempfile.TemporaryFile(dir=folder, prefix="forgetfilter-") as file:
        return np.memmap(file, dtype, "w+", shape=(rows, size))


def put_back(vectors: Vectors) -> None:
    """Take what lies in a file out of this process's memory; it is read again when needed."""
    if isinstance(vectors, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        held = vectors.base
        if isinstance(held, mmap.mmap):
            held.madvise(mmap.MADV_DONTNEED)


def parts_of(vectors: Vectors) -> Iterator[Vectors]:
    """Views of some thousand rows, one after the other, of which one is in memory at a time."""
    for start in range(0, max(len(vectors), 1), PART_ROWS):
        yield vectors[start : start + PART_ROWS]
        put_back(vectors)


def in_order(rows: Sequence[EncodedRow]) -> IntArray:
    """Places of rows by what they are numbered, shape (N,)."""
    return np.argsort(np.fromiter((row.row for row in rows), np.int64, len(rows)), kind="stable")


def nearest_of_many(vectors: Vectors, count: int) -> Int32Array:
    """Positions of the ``count`` vectors with the largest inner products, shape (N, count).

    Nearest first, of equal ones the first; none is its own. There are more than ``count`` vectors.
    Memory is that of the result and 60 MB.
    """
    size = len(vectors)
    found = np.zeros((size, count), dtype=np.int32)
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
            if not (first + _OTHERS_TOGETHER) % PART_ROWS:
                put_back(vectors)
        found[start : start + len(own)] = place
    return found


def odds_by_folds(
    classifier: Any,
    folds: Any,
    vectors: Vectors,
    is_safe: BoolArray,
    places: IntArray | None = None,
) -> FloatArray:
    """What a classifier says of each row, fitted on some of the others, log odds, shape (M,).

    It is fitted on all safe rows of a part and on as many of its other rows as `FITTED_ROWS` leaves
    room for, drawn with a fixed seed.

    Args:
        classifier: of scikit-learn.
        folds: splits rows into parts, of scikit-learn.
        vectors: shape (V, D).
        is_safe: which of N rows are safe ones, shape (N,).
        places: of the rows' vectors, and then of further ones of the first rows in their order, if
            any: those are fitted on by none, and judged by the classifier that judges their row.
            Shape (M,); None: each row has its own, and there are no others.
    """
    at = np.arange(len(vectors)) if places is None else places
    odds = np.zeros(len(at))
    rows, again = len(is_safe), len(at) - len(is_safe)
    rng = np.random.default_rng(0)
    for others, own in folds.split(is_safe, is_safe):
        safe, rest = others[is_safe[others]], others[~is_safe[others]]
        room = max(FITTED_ROWS - len(safe), len(safe), 2)
        drawn = rng.permutation(len(rest))[:room]
        fitted = np.sort(np.concatenate([safe, rest[drawn]]))
        # In float32 the fit is so inexact that rows nearly alike change places.
        classifier.fit(vectors[at[fitted]].astype(np.float64), is_safe[fitted])
        judged = np.concatenate([own, rows + own[own < again]])
        for start in range(0, len(judged), _JUDGED_TOGETHER):
            part = judged[start : start + _JUDGED_TOGETHER]
            odds[part] = classifier.decision_function(vectors[at[part]].astype(np.float64))
            put_back(vectors)
    return np.round(odds, _DECIMALS)
