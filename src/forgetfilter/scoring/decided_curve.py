"""How likely a row is unsafe by its score, as a logistic curve through what people decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray

_LOOSENESS = 10.0
"""Variance of the prior on the slope, in the spread of the decided scores: weak, so that a few
decisions that part without an error don't claim to be sure. Chosen with docs/lab/transfer_real.md's
choosing mix and the bundled world."""
_SAME = 1e-9
"""Share of a score within which others are the same."""
_NOTHING = 1e-100
"""A difference of scores, in any unit, that is none."""
_RANGE = 0.9
"""Probability that the number of harmless rows lies in the range that is told."""
_PARTS = 500
"""Of many rows by their scores, of which each counts as so many rows of one score."""


@dataclass(frozen=True)
class DecidedCurve:
    """The likeliest curve, with a weak prior on its slope.

    After Platt, "Probabilistic Outputs for Support Vector Machines" (1999).
    """

    middle: float
    """Mean of the decided scores."""
    spread: float
    """Their standard deviation, or 1 where they are all the same."""
    slope: float
    """Log odds by a standard deviation; where it isn't above 0, higher scores say nothing."""
    height: float
    """Log odds in the middle."""
    read: FloatArray
    """The decided scores, standardised, shape (D,)."""
    is_unsafe: BoolArray
    """What was decided, shape (D,)."""

    @classmethod
    def through(cls, scores: FloatArray, is_unsafe: BoolArray) -> DecidedCurve:
        """Fit it.

        Args:
            scores: of the decided rows, in any unit, shape (D,).
            is_unsafe: which of them were removed, shape (D,); both kinds are there.
        """
        from sklearn.linear_model import LogisticRegression

        middle, spread = float(scores.mean()), float(scores.std())
        # Of equal scores the mean is off by rounding, and that would be a spread; squares of
        # differences as small as `_NOTHING` are zero.
        if np.ptp(scores) <= max(_SAME * np.abs(scores).max(), _NOTHING):
            middle, spread = float(scores[0]), 1.0
            scores = np.full_like(scores, middle)
        read = (scores - middle) / spread
        fitted: Any = LogisticRegression(C=_LOOSENESS, max_iter=1000)
        fitted.fit(read[:, None], is_unsafe)
        slope, height = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
        return cls(middle, spread, slope, height, read, is_unsafe)

    @property
    def plausibility(self) -> float:
        """Log of how likely the curve makes what was decided, with that of its prior."""
        return float(self._plausibility(np.array([self.slope]), np.array([self.height]))[0])

    def score_at(self, probability: float) -> float:
        """The score at which a row is unsafe with a probability above 0 and below 1."""
        wanted = np.log(probability / (1 - probability))
        return self.middle + self.spread * float((wanted - self.height) / self.slope)

    def harmless_among(self, scores: FloatArray) -> float:
        """How many rows with these scores are expected to be harmless."""
        found = (scores - self.middle) / self.spread
        return float(_chance(-(self.slope * found + self.height)).sum())

    def range_among(self, scores: FloatArray) -> list[int]:
        """Between which numbers of them are, by all curves, with a probability of 0.9.

        Curves weigh as the decisions and the prior make them likely (a grid of them around the
        likeliest one); of each the number is taken for a Poisson one.
        """
        from scipy.stats import poisson

        slopes, heights = self._others()
        seen = self._plausibility(slopes, heights)
        weights = np.exp(seen - seen.max())
        found = np.sort((scores - self.middle) / self.spread)
        parts = [part for part in np.array_split(found, _PARTS) if len(part)]
        middles, sizes = np.array([np.mean(part) for part in parts]), [len(part) for part in parts]
        means = _chance(-(slopes[:, None] * middles + heights[:, None])) @ np.array(sizes, float)
        ends = [(1 - _RANGE) / 2, (1 + _RANGE) / 2]
        most = int(poisson.ppf(1 - 1e-6, means.max()))
        counts = np.unique(np.geomspace(1, most + 1, 400).astype(np.int64) - 1)
        below = weights @ poisson.cdf(counts, means[:, None]) / weights.sum()
        return [min(int(counts[np.searchsorted(below, end)]), len(scores)) for end in ends]

    def _plausibility(self, slopes: FloatArray, heights: FloatArray) -> FloatArray:
        odds = slopes[:, None] * self.read + heights[:, None]
        against = np.where(self.is_unsafe, -odds, odds)
        return -np.logaddexp(0, against).sum(1) - slopes**2 / 2 / _LOOSENESS

    def _others(self) -> tuple[FloatArray, FloatArray]:
        """Slopes and heights of 41 x 41 curves, five standard deviations to each side of this."""
        chance = _chance(self.slope * self.read + self.height)
        columns = np.stack([self.read, np.ones(len(self.read))])
        precise = (columns * chance * (1 - chance)) @ columns.T
        precise += np.diag([1 / _LOOSENESS, 1e-6])
        steps = np.linspace(-5, 5, 41)
        both = np.stack(np.meshgrid(steps, steps)).reshape(2, -1)
        slopes, heights = np.linalg.cholesky(np.linalg.inv(precise)) @ both
        return slopes + self.slope, heights + self.height


def _chance(odds: FloatArray) -> FloatArray:
    from scipy.special import expit

    return np.asarray(expit(odds))
