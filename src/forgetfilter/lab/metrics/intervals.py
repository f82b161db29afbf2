"""95% intervals of means that stay within the range of what is measured.

A t interval with few seeds leaves the range of a share: 96% with [86, 106]. Here the t interval is
taken on a scale without ends (the logit of a share, the logarithm of a positive quantity) and
carried back. docs/lab/metrics.md has the coverage that was measured, beside other ways.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_BOUNDS = re.compile(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)")
_DIFFERENCE = "difference; "
_ROUNDING = 1e-6
_POSITIVE = frozenset({"seconds", "rows", "nats per token", "ratio", "passes a row"})


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Scale:
    """The values that a quantity can take."""

    low: float = -math.inf
    high: float = math.inf


def scale_of(unit: str) -> Scale:
    """The scale of a metric's unit: ``share, 0..1``, ``0..1``, ``difference; UNIT``, ``seconds``.

    Bounds are those that the unit names; a unit without them has none, but for the few that are
    known to be positive.
    """
    if unit.startswith(_DIFFERENCE):
        of = scale_of(unit.removeprefix(_DIFFERENCE))
        return Scale(of.low - of.high, of.high - of.low)
    bounds = _BOUNDS.search(unit)
    if bounds is not None:
        return Scale(float(bounds[1]), float(bounds[2]))
    return Scale(low=0.0) if unit in _POSITIVE else Scale()


def mean_interval(values: Sequence[float], scale: Scale, cases: int | None = None) -> Estimate:
    """The mean of ``values`` with its 95% interval, which holds the mean and stays on the scale.

    - Between two ends (shares, scores from 0 to 1, differences of them from -1 to 1): the t
      interval of the mean on the logit scale. For differences that is Fisher's z.
    - Positive quantities: the t interval on the logarithmic scale.
    - Others: the t interval.

    Values that agree have no spread, and at an end no logit. The interval of such a share is the
    exact one (Clopper-Pearson) of ``cases``, of which fewer count the fewer values there are, as
    Korn and Graubard have it for clusters. Of a difference, and where the number of cases is not
    known, nothing can be said: the interval is the mean itself.

    Args:
        values: at least one, one per seed or case.
        scale: of the quantity.
        cases: how many cases all values together are made from.

    Raises:
        ValueError: a value is not on the scale.
    """
    from scipy.stats import norm, t

    array = np.asarray(values, dtype=float)
    n, mean = len(array), float(array.mean())
    if array.min() < scale.low - _ROUNDING or array.max() > scale.high + _ROUNDING:
        raise ValueError(
            f"Values from {array.min()} to {array.max()} are said to lie between {scale.low} and "
            f"{scale.high}; expected a unit that names their range. Mend the metric's unit."
        )
    if n < 2:
        return Estimate(mean, -math.inf, math.inf)
    # Of equal values rounding would leave a tiny spread.
    error = float(array.std(ddof=1)) / math.sqrt(n) if array.max() > array.min() else 0.0
    quantile = float(t.ppf(0.975, n - 1))
    if math.isfinite(scale.low) and math.isfinite(scale.high):
        counted = cases if cases and scale.low == 0 else 0
        effective = counted * (float(norm.ppf(0.975)) / quantile) ** 2
        span = scale.high - scale.low
        share = min(max((mean - scale.low) / span, 0.0), 1.0)
        low, high = _share_interval(share, quantile * error / span, effective)
        return Estimate(mean, scale.low + span * low, scale.low + span * high)
    if scale.low == 0:
        factor = math.exp(quantile * error / mean) if mean > 0 else 1.0
        return Estimate(mean, mean / factor, mean * factor)
    return Estimate(mean, mean - quantile * error, mean + quantile * error)


def _share_interval(share: float, half: float, cases: float) -> tuple[float, float]:
    """The interval of a share, given half its t interval and how many cases it counts for."""
    from scipy.special import expit, logit
    from scipy.stats import beta

    if half == 0 or share in (0.0, 1.0):
        if not cases:
            return share, share
        hits = share * cases
        low = float(beta.ppf(0.025, hits, cases - hits + 1)) if share > 0 else 0.0
        high = float(beta.ppf(0.975, hits + 1, cases - hits)) if share < 1 else 1.0
        return low, high
    half /= share * (1 - share)
    low, high = float(expit(logit(share) - half)), float(expit(logit(share) + half))
    return min(low, share), max(high, share)
