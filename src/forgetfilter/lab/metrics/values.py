"""One metric's value with its unit, direction, number of cases and interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from forgetfilter.lab.metrics.intervals import Estimate
from forgetfilter.lab.metrics.rates import mean_over_cases, share

Direction = Literal["higher", "lower", "zero", "none"]
"""Which values are better: higher, lower, nearer to zero (signed bias scores), or none."""


@dataclass(frozen=True)
class MetricValue:
    """One number and how to read it."""

    name: str
    """What was measured, in snake case and unique among the metrics."""
    value: float
    """The number; NaN where no case says anything."""
    unit: str
    """The number's unit and range, such as ``share, 0..1``."""
    direction: Direction
    """Which values are better."""
    n: int
    """How many cases the number is made from."""
    interval: Estimate | None = None
    """The same value with its 95% interval over cases, where one is meant."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for what is undefined, unbounded or not meant."""
        low, high = (self.interval.low, self.interval.high) if self.interval else (None, None)
        return {
            "name": self.name,
            "value": _or_none(self.value),
            "low": _or_none(low),
            "high": _or_none(high),
            "unit": self.unit,
            "direction": self.direction,
            "n": self.n,
        }


def share_value(name: str, hits: Sequence[bool], direction: Direction) -> MetricValue:
    """The share of ``hits`` that are true, 0..1, with its Wilson interval."""
    estimate = share(hits)
    return MetricValue(name, estimate.value, "share, 0..1", direction, len(hits), estimate)


def mean_value(name: str, values: Sequence[float], unit: str, direction: Direction) -> MetricValue:
    """The mean of one value per case, with its interval over cases."""
    estimate = mean_over_cases(values, unit)
    return MetricValue(name, estimate.value, unit, direction, len(values), estimate)


def _or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
