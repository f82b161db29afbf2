"""Kinds of safe row, and draws in which every kind comes up.

A kind is the row's ``category`` where the file names several. A small draw from all rows at once
may hold three rows of one kind and nineteen of another, and what the draw has none of is not
restored. Where a file names no categories all rows take turns: clusters of rows that use the same
words were tried in their place, and found fewer unsafe rows (docs/lab/signals.md).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from forgetfilter.arrays import IntArray
from forgetfilter.data.records import EncodedRow

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


def alike_first(rows: Sequence[EncodedRow], like: Sequence[EncodedRow]) -> list[int]:
    """Indices of ``rows``, those first whose words are most like those of ``like``."""
    table = _words([*rows, *like])
    mean = np.asarray(table[len(rows) :].sum(axis=0)).reshape(-1)
    likeness = np.asarray(table[: len(rows)] @ mean).reshape(-1)
    return np.argsort(-likeness, kind="stable").tolist()


def _words(rows: Sequence[EncodedRow]) -> Any:
    """How often each row holds each token, weighted by how rare the token is; sparse, unit rows.

    What all rows share, such as a chat template's marks, weighs least.
    """
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import TfidfTransformer

    tokens = [np.asarray(row.input_ids) for row in rows]
    _, columns = np.unique(np.concatenate(tokens), return_inverse=True)
    owner = np.repeat(np.arange(len(rows)), [len(own) for own in tokens])
    at = (owner.astype(np.int32), columns.astype(np.int32))  # scikit-learn takes no longer ones
    counts: Any = csr_array((np.ones(len(columns)), at))
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts)
