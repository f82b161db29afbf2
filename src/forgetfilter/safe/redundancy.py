"""How many different rows a safe set holds: repeats, near repeats, and the Vendi score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from forgetfilter.arrays import FloatArray, IntArray

NEAR = 0.6
"""Jaccard similarity of two rows' words from which on they count as near duplicates; no two of
the packaged rows reach it."""
MOST_COMPARED = 4_000
"""Rows compared pair by pair; of more, a sample is."""
MOST_VENDI = 1_500
"""Rows whose similarities are held at once; of more, a sample is."""
MOST_PAIRS = 10_000
"""Pairs of near duplicates that are listed."""
_BLOCK = 256
_HASHED = 2**18
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


@dataclass(frozen=True)
class Redundancy:
    """What of a file repeats itself. Row numbers are positions in the texts that were given."""

    exact: tuple[tuple[int, ...], ...]
    """Groups of texts that have the same words in the same order."""
    near: tuple[tuple[int, int, float], ...]
    """Pairs that share at least `NEAR` of their words, and how much; exact ones left out."""
    near_count: int
    """How many such pairs there are; of more than `MOST_PAIRS` not all are in ``near``."""
    compared: int
    """How many texts were compared pair by pair, one of each group of exact repeats."""
    effective: float
    """Vendi score of the texts read: effectively different texts, 1 to ``sampled``; higher is
    more varied."""
    sampled: int
    """How many texts the Vendi score was computed on."""


def measure_redundancy(texts: Sequence[str], seed: int = 0) -> Redundancy:
    """Repeats and variety of ``texts``.

    Time and memory are bounded: exact repeats are sought among all texts, near ones among at most
    `MOST_COMPARED`, and the Vendi score is that of at most `MOST_VENDI`; both are drawn with
    ``seed``.
    """
    exact, first = _exact(texts)
    rng = np.random.default_rng(seed)
    compared = _draw(first, MOST_COMPARED, rng)
    sampled = _draw(np.arange(len(texts)), MOST_VENDI, rng)
    near, near_count = _near([texts[int(i)] for i in compared], compared)
    return Redundancy(
        exact=exact,
        near=near,
        near_count=near_count,
        compared=len(compared),
        effective=vendi_score(_tfidf([texts[int(i)] for i in sampled])),
        sampled=len(sampled),
    )


def vendi_score(features: Any) -> float:
    """Effective number of different items: ``exp(-sum(v * ln v))`` over the eigenvalues v of K / n.

    K is the cosine similarity of the rows of ``features`` (N, D), which must have unit length;
    items without any feature are all alike. 1 where all are the same, N where no two share anything
    (Friedman & Dieng 2022, arXiv 2210.02410).
    """
    count = features.shape[0]
    if not count:
        return 0.0
    kernel = np.asarray((features @ features.T).todense(), dtype=np.float64)
    empty = kernel.diagonal() < 0.5
    kernel[np.ix_(empty, empty)] = 1.0
    values = np.linalg.eigvalsh(kernel / count)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def words(text: str) -> list[str]:
    """Words in lower case, without marks."""
    return _WORD.findall(text.lower().replace("’", "'"))


def _exact(texts: Sequence[str]) -> tuple[tuple[tuple[int, ...], ...], IntArray]:
    """Groups of texts with the same words in the same order, and the first text of each kind."""
    groups: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        # A text without words (other marks only) is compared as it is.
        groups.setdefault(" ".join(words(text)) or text, []).append(i)
    repeated = tuple(tuple(group) for group in groups.values() if len(group) > 1)
    return repeated, np.array([group[0] for group in groups.values()], dtype=np.int64)


def _draw(items: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    """All items, or ``most`` of them in their order."""
    if len(items) <= most:
        return items
    return np.sort(rng.choice(items, most, replace=False))


def _near(texts: Sequence[str], rows: IntArray) -> tuple[tuple[tuple[int, int, float], ...], int]:
    """Pairs with a Jaccard similarity of word sets of at least `NEAR`, the most alike first.

    Of too many the first ones are listed; the number is that of all.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    options: dict[str, Any] = {"analyzer": words, "norm": None, "alternate_sign": False}
    sets: Any = HashingVectorizer(n_features=_HASHED, binary=True, **options).transform(texts)
    sizes: FloatArray = np.asarray(sets.sum(axis=1)).ravel()
    found: list[tuple[int, int, float]] = []
    count = 0
    for start in range(0, len(texts), _BLOCK):
        shared = (sets[start : start + _BLOCK] @ sets.T).tocoo()
        left, right = shared.row + start, shared.col
        alike = shared.data / (sizes[left] + sizes[right] - shared.data)
        keep = np.flatnonzero((left < right) & (alike >= NEAR))
        count += len(keep)
        keep = keep[: MOST_PAIRS - len(found)]
        found += [
            (int(rows[i]), int(rows[j]), float(value))
            for i, j, value in zip(left[keep], right[keep], alike[keep], strict=True)
        ]
    return tuple(sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))), count


def _tfidf(texts: Sequence[str]) -> Any:
    """Unit vectors of hashed words and word pairs, rare ones weighing more."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    options: dict[str, Any] = {"analyzer": _words_and_pairs, "norm": None, "alternate_sign": False}
    counts: Any = HashingVectorizer(n_features=_HASHED, **options).transform(texts)
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts)


def _words_and_pairs(text: str) -> list[str]:
    single = words(text)
    return single + [f"{a} {b}" for a, b in pairwise(single)]
