"""Kinds of safe row, and draws in which every kind comes up.

A kind is the row's ``category`` where the file names several. A small draw from all rows at once
may hold three rows of one kind and nineteen of another, and what the draw has none of is not
restored. Where a file names no categories all rows take turns: clusters of rows that use the same
words were tried in their place, and found fewer unsafe rows (docs/lab/signals.md).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from forgetfilter.arrays import IntArray
from forgetfilter.data.records import EncodedRow

_TOGETHER = 4096
"""Rows whose words are counted at once."""
DAMAGE_ROWS = 200
"""Safe rows on which damage is read, at most; its mean is then known to within about a tenth."""


def kinds_of(rows: Sequence[EncodedRow]) -> IntArray:
    """The kind of each row as a number from 0, shape (N,); all alike where none is named."""
    names = sorted({row.category for row in rows})
    if len(names) > 1:
        number = {name: at for at, name in enumerate(names)}
        return np.array([number[row.category] for row in rows], dtype=np.int64)
    return np.zeros(len(rows), dtype=np.int64)


def by_share(kinds: IntArray, seed: int) -> list[int]:
    """An order of all rows of which each start holds every kind, and each kind by its share.

    One row of each kind comes first; from then on each kind comes up as often as it has rows.

    Args:
        kinds: the kind of each row, shape (N,).
        seed: shuffles the rows of a kind, and the kinds.
    """
    rng = random.Random(seed)
    members: dict[int, list[int]] = {}
    for at, kind in enumerate(kinds.tolist()):
        members.setdefault(kind, []).append(at)
    queues = [rng.sample(own, len(own)) for own in members.values()]
    rng.shuffle(queues)
    placed = [(rank / len(own), at) for own in queues for rank, at in enumerate(own)]
    return [at for _, at in sorted(placed, key=lambda place: place[0])]


def in_proportion(categories: Sequence[str], count: int, seed: int) -> list[int]:
    """``count`` rows of which each category has its share, to within a row; all if there are fewer.

    Returns:
        Indices of the rows, ascending.
    """
    total = len(categories)
    if total <= count:
        return list(range(total))
    rng = random.Random(seed)
    by_category = sorted(range(total), key=lambda at: (categories[at], rng.random()))
    start = rng.random()
    return sorted(by_category[int((at + start) * total / count)] for at in range(count))


def damage_rows(safe: Sequence[EncodedRow], seed: int) -> list[EncodedRow]:
    """The safe rows on which damage is read: all, or a few hundred that hold every category."""
    chosen = in_proportion([row.category for row in safe], DAMAGE_ROWS, seed)
    return [safe[at] for at in chosen]


def alike_first(rows: Sequence[EncodedRow], like: Sequence[EncodedRow]) -> IntArray:
    """Indices of ``rows``, those first whose words are most like those of ``like``, shape (N,).

    Words are tokens, each weighted by how rare it is among all rows: what they share, such as a
    chat template's marks, weighs least. Only some thousand rows are in memory at once.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    met = np.zeros(0)  # in how many rows each token is
    for row in chain(rows, like):
        there = np.unique(row.input_ids)
        if len(there) and there[-1] >= len(met):
            met = np.pad(met, (0, int(there[-1]) + 1 - len(met)))
        met[there] += 1
    weights: Any = TfidfTransformer(sublinear_tf=True)
    # As `fit` would on a table of all rows.
    weights.idf_ = np.log((len(rows) + len(like) + 1) / (met + 1)) + 1.0
    mean = np.asarray(weights.transform(_counts(like, len(met))).sum(axis=0)).reshape(-1)
    likeness = np.zeros(len(rows))
    for start in range(0, len(rows), _TOGETHER):
        part = rows[start : start + _TOGETHER]
        found = weights.transform(_counts(part, len(met))) @ mean
        likeness[start : start + len(part)] = np.asarray(found).reshape(-1)
    return np.argsort(-likeness, kind="stable")


def _counts(rows: Sequence[EncodedRow], words: int) -> Any:
    """How often each row holds each token, sparse, shape (N, ``words``)."""
    from scipy.sparse import csr_array

    tokens = [np.asarray(row.input_ids) for row in rows]
    owner = np.repeat(np.arange(len(rows), dtype=np.int32), [len(own) for own in tokens])
    at = (owner, np.concatenate(tokens))
    return csr_array((np.ones(len(owner)), at), shape=(len(rows), words))
