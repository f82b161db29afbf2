"""How alike a model represents rows to those that are forgotten most: self-training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    found = np.zeros(len(rows))
    if len(rows) < _LEAST_ROWS or evidence.max() <= evidence.min():
        return found
    # Folds are drawn by the rows' numbers: the order that rows are given in changes nothing.
    by_row = many_rows.in_order(rows)
    ordered, evidence = chosen(rows, by_row), evidence[by_row]
    limits = (max_batch_tokens, progress, label)
    shards, unkept = shards or Shards(), Shards()
    unkept.folder = shards.folder  # the same disk
    vectors = (
        row_vectors(model, ordered, "answer", *limits, shards, _DIMENSIONS),
        row_vectors(model, ordered, "prompt", *limits, unkept, _DIMENSIONS),
    )
    found[by_row] = np.clip(_odds(vectors, _labels(evidence)), -_MOST_ODDS, _MOST_ODDS)
    return found


def _labels(evidence: FloatArray) -> IntArray:
    """1 for the rows with the most evidence, 0 for those with the least, -1 for others; (N,)."""
    size = len(evidence)
    order = np.argsort(-evidence, kind="stable")
    labels = np.full(size, -1)
    labels[order[: max(1, int(_MOST * size))]] = 1
    labels[order[size - int(_LEAST * size) :]] = 0
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
