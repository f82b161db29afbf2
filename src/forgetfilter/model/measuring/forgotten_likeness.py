"""How alike a model represents rows to those that are forgotten most, or stand out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from forgetfilter.arrays import FloatArray, IntArray
from forgetfilter.data.many_rows.views import chosen
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.measuring import many_rows
from forgetfilter.model.measuring.likeness import row_vectors
from forgetfilter.model.passes.shards import Shards
from forgetfilter.progress import Progress

_DIMENSIONS = 128
"""Of the vector of an answer, and of that of its prompt."""
_MOST, _LEAST = 0.2, 0.5
"""Shares of the rows that are taken for forgotten, and for not; the rest is unlabelled."""
_CLEAREST = 0.85
"""The same share of the rows above a cut; of the others `_LEAST`."""
_LEAST_ABOVE = 0.1
"""Share of the rows above a cut from which on what they share says something."""
_FOLDS, _DRAWS = 5, 2
_STRENGTH = 0.01
"""Inverse of the classifier's penalty: it has 256 dimensions, and may have few rows."""
_LEAST_ROWS = 40
"""Fewer rows say nothing of kinds."""
_MOST_ODDS = 10.0


def forgotten_likeness(
    model: Any,
    rows: Sequence[EncodedRow],
    evidence: FloatArray,
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
) -> FloatArray:
    """How much each row is like those that are forgotten most, log odds, shape (N,).

    A logistic regression is trained on the file's own clearest rows (self-training: Yarowsky, 1995;
    of positive and unlabelled rows the two-step technique: Liu et al., 2003): it tells the fifth of
    the rows with the most evidence from the half with the least, by what ``model`` makes of their
    answers and of their prompts (`row_vectors`, 128 numbers each). No label is read. Each row is
    judged by classifiers that were not trained on it (five folds, drawn twice with fixed seeds),
    so that its own evidence counts only through others. Where evidence is noise there is nothing to
    tell; but in a clean file too some kinds of harmless rows may be forgotten more than others.

    Args:
        model: the base model; is read.
        rows: the noisy rows.
        evidence: of forgetting, shape (N,); only its order counts.
        max_batch_tokens: padded tokens of a pass.
        progress: bars go there.
        label: names them.
        shards: keep what was read of answers, the longer part; prompts are read anew.

    Returns:
        Log odds from -10 to 10; higher = more like the rows that are forgotten most. All zero where
        there are fewer than 40 rows or all evidence is the same.

    Raises:
        ModelError: a hidden state isn't finite.
    """
    if len(rows) < _LEAST_ROWS or evidence.max() <= evidence.min():
        return np.zeros(len(rows))
    limits = (max_batch_tokens, progress, label)
    return _likeness(model, rows, evidence, _ends, *limits, shards or Shards())


def removed_likeness(
    model: Any,
    rows: Sequence[EncodedRow],
    scores: FloatArray,
    cut: float,
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
) -> FloatArray:
    """How much each row is like those that stand out above ``cut``, log odds, shape (N,).

    As `forgotten_likeness`, by a classifier that tells the upper 85% of the rows above
    ``cut`` from the lower half of the others. A row just above the cut is no example of either: it
    may be there by chance.

    Args:
        model: the base model; is read.
        rows: the noisy rows.
        scores: shape (N,); only their order and which are above ``cut`` count.
        cut: rows with higher scores stand out.
        max_batch_tokens: padded tokens of a pass.
        progress: bars go there.
        label: names them.
        shards: keep what was read of answers, the longer part; prompts are read anew.

    Returns:
        Log odds from -10 to 10; higher = more like the rows that stand out most. All zero where
        there are fewer than 40 rows, or fewer than a tenth of them stand out: too few to tell kinds
        by.

    Raises:
        ModelError: a hidden state isn't finite.
    """
    if len(rows) < _LEAST_ROWS or np.mean(scores > cut) < _LEAST_ABOVE:
        return np.zeros(len(rows))
    limits = (max_batch_tokens, progress, label)
    return _likeness(model, rows, scores, partial(_sides, cut), *limits, shards or Shards())


def _likeness(
    model: Any,
    rows: Sequence[EncodedRow],
    scores: FloatArray,
    labels_of: Callable[[FloatArray], IntArray],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards,
) -> FloatArray:
    """What a classifier of the rows that ``labels_of`` labels says of all of them, shape (N,)."""
    # Folds are drawn by the rows' numbers: the order that rows are given in changes nothing.
    by_row = many_rows.in_order(rows)
    ordered, labels = chosen(rows, by_row), labels_of(scores[by_row])
    limits = (max_batch_tokens, progress, label)
    unkept = Shards()
    unkept.folder = shards.folder  # the same disk
    vectors = (
        row_vectors(model, ordered, "answer", *limits, shards, _DIMENSIONS),
        row_vectors(model, ordered, "prompt", *limits, unkept, _DIMENSIONS),
    )
    found = np.empty(len(rows))
    found[by_row] = np.clip(_odds(vectors, labels), -_MOST_ODDS, _MOST_ODDS)
    return found


def _ends(evidence: FloatArray) -> IntArray:
    """1 for the rows with the most evidence, 0 for those with the least, -1 for others; (N,)."""
    order = np.argsort(-evidence, kind="stable")
    return _labelled(order, max(1, int(_MOST * len(order))), int(_LEAST * len(order)))


def _sides(cut: float, scores: FloatArray) -> IntArray:
    """1 for the rows furthest above ``cut``, 0 for those furthest below, -1 for others; (N,)."""
    order = np.argsort(-scores, kind="stable")
    above = int(np.count_nonzero(scores > cut))
    return _labelled(order, max(1, int(_CLEAREST * above)), int(_LEAST * (len(order) - above)))


def _labelled(order: IntArray, first: int, last: int) -> IntArray:
    """1 for so many of the first rows of ``order``, 0 for so many of the last, -1 for others."""
    labels = np.full(len(order), -1)
    labels[order[:first]] = 1
    labels[order[len(order) - last :]] = 0
    return labels


def _odds(vectors: tuple[many_rows.Vectors, many_rows.Vectors], labels: IntArray) -> FloatArray:
    """What classifiers say of rows that they were not trained on, log odds, shape (N,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    odds = np.zeros(len(labels))
    for draw in range(_DRAWS):
        rng = np.random.default_rng(draw)
        for others, judged in KFold(_FOLDS, shuffle=True, random_state=draw).split(labels):
            labelled = others[labels[others] >= 0]
            if len(labelled) > many_rows.FITTED_ROWS:
                labelled = np.sort(rng.choice(labelled, many_rows.FITTED_ROWS, replace=False))
            if len(np.unique(labels[labelled])) < 2:
                continue
            classifier = make_pipeline(
                StandardScaler(),
                LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=1000),
            )
            classifier.fit(_joined(vectors, labelled), labels[labelled])
            for part in _parts(judged):
                odds[part] += classifier.decision_function(_joined(vectors, part)) / _DRAWS
            for own in vectors:
                many_rows.put_back(own)
    return odds


def _joined(vectors: tuple[many_rows.Vectors, many_rows.Vectors], at: IntArray) -> FloatArray:
    """Both vectors of some rows, one behind the other, shape (n, 256)."""
    return np.concatenate([own[at] for own in vectors], axis=1).astype(np.float64)


def _parts(at: IntArray) -> Iterator[IntArray]:
    for start in range(0, len(at), many_rows.PART_ROWS):
        yield at[start : start + many_rows.PART_ROWS]
