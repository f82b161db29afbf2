"""How well scores rank unsafe rows above the others, with intervals over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.lab.metrics.intervals import Estimate
from forgetfilter.lab.metrics.values import MetricValue

FALSE_REMOVALS = 0.01
"""Share of the clean rows that may be removed by mistake where recall is read."""
REPLICATES = 200
NAMES = ("average_precision", "auroc", "recall_at_1_percent")


@dataclass(frozen=True)
class Ranking:
    """What a ranking is worth, for each of R weightings of the rows; all 0..1, higher is better."""

    average_precision: FloatArray
    """Area under the precision-recall curve, shape (R,); the unsafe share is guessing."""
    auroc: FloatArray
    """Chance that an unsafe row scores above a clean one, shape (R,); 0.5 is guessing."""
    recall_at_1_percent: FloatArray
    """Share of the unsafe rows above the lowest cut at which at most 1% of the clean rows go, shape
    (R,). Rows of equal score stand on one side of a cut."""


def rank(is_unsafe: BoolArray, scores: FloatArray, weights: FloatArray | None = None) -> Ranking:
    """Grade ``scores``, higher = suspected unsafe, against the truth; both shape (N,).

    Args:
        is_unsafe: at least one row is, and one is not.
        scores: finite.
        weights: how often each row counts in each of R weightings, shape (R, N); once where not
            given. In every weighting both kinds of row count at least once.
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last of equal scores
    found = np.cumsum(weights[:, order] * is_unsafe[order], axis=1)[:, ends]  # (R, cuts)
    wrong = np.cumsum(weights[:, order] * ~is_unsafe[order], axis=1)[:, ends]
    unsafe, clean = found[:, -1:], wrong[:, -1:]
    step = np.diff(found, axis=1, prepend=0)
    wrong_step = np.diff(wrong, axis=1, prepend=0)
    precision = found / np.maximum(found + wrong, 1e-12)
    above = (clean - wrong) + wrong_step / 2  # clean rows that an unsafe one at this cut is above
    is_allowed = wrong <= np.floor(FALSE_REMOVALS * clean + 1e-9)
    return Ranking(
        (step * precision).sum(axis=1) / unsafe[:, 0],
        (step * above).sum(axis=1) / (unsafe * clean)[:, 0],
        np.where(is_allowed, found, 0.0).max(axis=1) / unsafe[:, 0],
    )


def resampled(is_unsafe: BoolArray, seed: int, replicates: int = REPLICATES) -> FloatArray:
    """Weights of a bootstrap over rows, unsafe and clean ones apart, shape (replicates, N)."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((replicates, len(is_unsafe)))
    for own in (is_unsafe, ~is_unsafe):
        count = int(own.sum())
        weights[:, own] = rng.multinomial(count, np.full(count, 1 / count), size=replicates)
    return weights


def ranking_values(is_unsafe: BoolArray, scores: FloatArray, seed: int) -> list[MetricValue]:
    """`NAMES` of a ranking, each with its 95% interval: percentiles of a bootstrap over rows.

    NaN where no row is unsafe, or all are.
    """
    n = len(scores)
    if not 0 < is_unsafe.sum() < n:
        return [MetricValue(name, float("nan"), "0..1", "higher", n) for name in NAMES]
    own, drawn = rank(is_unsafe, scores), rank(is_unsafe, scores, resampled(is_unsafe, seed))
    values: list[MetricValue] = []
    for name in NAMES:
        found = percentiles(float(getattr(own, name)[0]), getattr(drawn, name))
        values.append(MetricValue(name, found.value, "0..1", "higher", n, found))
    return values


def percentiles(value: float, drawn: Sequence[float] | FloatArray) -> Estimate:
    """``value`` with the middle 95% of what a bootstrap drew, and itself within it."""
    low, high = np.quantile(np.asarray(drawn), [0.025, 0.975])
    return Estimate(value, min(float(low), value), max(float(high), value))
