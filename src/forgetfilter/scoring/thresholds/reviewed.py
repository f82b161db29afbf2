"""A cut where a row is unsafe with a given probability, by what people decided of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray, IntArray
from forgetfilter.errors import ConfigError
from forgetfilter.scoring.records import REVIEWED, TRUSTED, Cut, Readings
from forgetfilter.scoring.thresholds.base import THRESHOLDS

_FEWEST = 10
"""Decisions without which nothing is fitted."""
_LOOSENESS = 10.0
"""Variance of the prior on the slope, in the spread of the decided scores: weak, so that a few
decisions that part without an error don't claim to be sure. Chosen with docs/lab/transfer_real.md's
choosing mix and the bundled world."""
_RANGE = 0.9
"""Probability that the number of false removals lies in the range that is told."""
_PARTS = 500
"""Of the removed rows by their scores, of which each counts as so many rows of one score."""
_NAMED = 10
"""Rows that are named to be read."""


@THRESHOLDS.add("reviewed")
class Reviewed:
    """Cut where a row is unsafe with a probability of ``probability``, by what people decided.

    A logistic curve of the score is fitted to the rows that reviewers kept and removed (after
    Platt, "Probabilistic Outputs for Support Vector Machines", 1999), with a weak prior on its
    slope. Rows above the score at which it has reached ``probability`` go. Whoever chooses rows to
    read by their scores, the highest or those nearest the cut, doesn't bend the curve; whoever
    searches for words does. The expected number of false removals is that of the curve, over the
    removed rows that nobody decided; so few decisions leave many curves possible, and the note
    ``harmless_range`` says between which numbers it lies with a probability of 0.9.

    With a joint score whose second opinion is the likeness to rows that were removed from this very
    run, decisions from before that likeness was measured don't count: those rows made the score.

    Where decided rows with higher scores aren't unsafe more often, nothing is removed.

    Args:
        probability: that a row at the cut is unsafe, above 0 and below 1.
    """

    name = "reviewed"
    units = None
    reads_decisions = True

    def __init__(self, probability: float = 0.7) -> None:
        if not 0 < probability < 1:
            raise ConfigError(
                f"reviewed: probability is {probability:g}; expected a number above 0 and below 1, "
                "for example reviewed:probability=0.7."
            )
        self.probability = probability

    def cut(self, scores: FloatArray, is_eligible: BoolArray, readings: Readings) -> Cut:
        """The score at which the curve through the decided rows reaches the probability.

        Raises:
            ConfigError: too few rows were decided, or all of them alike.
        """
        decided = np.full(len(scores), -1)
        if REVIEWED in readings:
            decided = np.where(is_eligible, readings[REVIEWED], -1)
        known, is_open = decided >= 0, is_eligible & (decided < 0)
        if TRUSTED in readings:  # kept, whatever they score
            is_open &= ~readings[TRUSTED].astype(np.bool_)
        is_unsafe = decided[known] == 1
        notes: dict[str, Any] = {"decided": int(known.sum())}
        notes["decided_unsafe"] = int(is_unsafe.sum())
        if notes["decided"] < _FEWEST or len(set(is_unsafe.tolist())) < 2:
            raise _too_few(notes, _to_read(scores, is_open, is_unsafe, readings.row))
        middle, spread = float(scores[known].mean()), float(scores[known].std()) or 1.0
        read = (scores[known] - middle) / spread
        slope, height = _curve(read, is_unsafe)
        if slope <= 0:
            highest = float(scores[is_eligible].max())
            return Cut(value=highest, lacks_estimate=True, notes={**notes, "ranks": False})
        wanted = np.log(self.probability / (1 - self.probability))
        value = middle + spread * float((wanted - height) / slope)
        judged = scores[is_eligible]
        value = float(np.clip(value, np.nextafter(judged.min(), -np.inf), judged.max()))
        gone = (scores[is_open & (scores > value)] - middle) / spread
        harmless = float(_chance(-(slope * gone + height)).sum())
        notes["harmless_range"] = _range_of(read, is_unsafe, (slope, height), gone)
        return Cut(value=value, expected_false_removals=harmless, notes=notes)


def spread_over(count: int) -> IntArray:
    """All places 0 to ``count - 1``, so ordered that the first few are spread over all of them.

    The bits of each place are read backwards (a van der Corput sequence).
    """
    bits = int(max(count - 1, 1)).bit_length()
    places = np.arange(count, dtype=np.int64)
    backwards = np.zeros(count, dtype=np.int64)
    for bit in range(bits):
        backwards |= ((places >> bit) & 1) << (bits - 1 - bit)
    return np.argsort(backwards, kind="stable")


def spread_over_scores(scores: FloatArray) -> IntArray:
    """Places of rows: the upper half first, and the first few of each half spread over it."""
    ranked = np.argsort(-scores, kind="stable")
    half = (len(ranked) + 1) // 2
    halves = (ranked[:half], ranked[half:])
    return np.concatenate([part[spread_over(len(part))] for part in halves])


def _to_read(
    scores: FloatArray, is_open: BoolArray, is_unsafe: BoolArray, row: IntArray
) -> list[int]:
    """Numbers of rows to be read first: spread over the scores, where both kinds may be."""
    places = np.flatnonzero(is_open)
    order, half = places[spread_over_scores(scores[places])], (len(places) + 1) // 2
    is_upper_unsafe = len(is_unsafe) >= _FEWEST and is_unsafe.all()
    part = order[half:] if is_upper_unsafe else order[:half]
    return [int(row[at]) for at in part[:_NAMED]]


def _curve(scores: FloatArray, is_unsafe: BoolArray) -> tuple[float, float]:
    """Slope and height of the log odds of being unsafe, by standardised scores."""
    from sklearn.linear_model import LogisticRegression

    fitted: Any = LogisticRegression(C=_LOOSENESS, max_iter=1000)
    fitted.fit(scores[:, None], is_unsafe)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def _range_of(
    read: FloatArray, is_unsafe: BoolArray, curve: tuple[float, float], gone: FloatArray
) -> list[int]:
    """Between which numbers of harmless rows among ``gone`` there are, by all curves.

    Curves weigh as the decisions and the prior make them likely (a grid of them around the
    likeliest one); of each the number is taken for a Poisson one.
    """
    from scipy.stats import poisson

    slopes, heights = _curves_near(read, curve)
    odds = slopes[:, None] * read + heights[:, None]
    seen = -np.logaddexp(0, np.where(is_unsafe, -odds, odds)).sum(1) - slopes**2 / 2 / _LOOSENESS
    weights = np.exp(seen - seen.max())
    parts = [part for part in np.array_split(np.sort(gone), _PARTS) if len(part)]
    middles, sizes = np.array([np.mean(part) for part in parts]), [len(part) for part in parts]
    means = _chance(-(slopes[:, None] * middles + heights[:, None])) @ np.array(sizes, float)
    ends = [(1 - _RANGE) / 2, (1 + _RANGE) / 2]
    most = int(poisson.ppf(1 - 1e-6, means.max()))
    counts = np.unique(np.geomspace(1, most + 1, 400).astype(np.int64) - 1)
    below = weights @ poisson.cdf(counts, means[:, None]) / weights.sum()
    return [min(int(counts[np.searchsorted(below, end)]), len(gone)) for end in ends]


def _chance(odds: FloatArray) -> FloatArray:
    from scipy.special import expit

    return np.asarray(expit(odds))


def _curves_near(read: FloatArray, curve: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Slopes and heights of 41 x 41 curves, five standard deviations to each side of ``curve``."""
    chance = _chance(curve[0] * read + curve[1])
    columns = np.stack([read, np.ones(len(read))])
    precise = (columns * chance * (1 - chance)) @ columns.T + np.diag([1 / _LOOSENESS, 1e-6])
    steps = np.linspace(-5, 5, 41)
    both = np.stack(np.meshgrid(steps, steps)).reshape(2, -1)
    slopes, heights = np.linalg.cholesky(np.linalg.inv(precise)) @ both
    return slopes + curve[0], heights + curve[1]


def _too_few(notes: dict[str, Any], named: list[int]) -> ConfigError:
    unsafe, decided = notes["decided_unsafe"], notes["decided"]
    rows = ", ".join(f"#{row}" for row in named)
    message = (
        f"The rule reviewed cuts by what people decided of this run's rows, and {decided} of their "
        f"decisions can be used ({unsafe} to remove, {decided - unsafe} to keep). Expected "
        f"{_FEWEST} or more, of both kinds. Read some with `forgetfilter review`, in the order "
        "'Spread over the scores', and decide them"
    )
    message += f" (for example {rows})" if rows else ""
    if decided >= _FEWEST and not unsafe:
        message += "; if the highest are harmless too, --threshold fraction:0 keeps all"
    return ConfigError(f"{message}, or name another rule.")
