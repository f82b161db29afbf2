"""Shares with intervals, and paired differences between two models on the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from forgetfilter.records import FloatArray


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def share(hits: Sequence[bool]) -> Estimate:
    """Share of ``hits`` that are true, with the Wilson score interval (95%)."""
    if not len(hits):
        return Estimate(float("nan"), float("nan"), float("nan"))
    return _wilson(int(np.sum(hits)), len(hits))


@lru_cache(maxsize=4096)
def _wilson(hits: int, n: int) -> Estimate:
    # scipy tests a hypothesis on the way, which takes a millisecond each time.
    from scipy.stats import binomtest

    result = binomtest(hits, n)
    interval = result.proportion_ci(method="wilson")
    return Estimate(float(result.statistic), float(interval.low), float(interval.high))


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """Share of ``first`` minus share of ``second`` on the same prompts, 95% t interval."""
    return _mean(np.asarray(first, dtype=float) - np.asarray(second, dtype=float))


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of one value per seed, 95% t interval over seeds."""
    return _mean(np.asarray(values, dtype=float))


def _mean(array: FloatArray) -> Estimate:
    from scipy.stats import t

    n = len(array)
    mean = float(array.mean())
    half = float(t.ppf(0.975, n - 1) * array.std(ddof=1) / np.sqrt(n)) if n > 1 else np.inf
    return Estimate(mean, mean - half, mean + half)


def mean_over_cases(values: Sequence[float]) -> Estimate:
    """Mean of one value per case, 95% t interval over cases; NaN where there is none."""
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"))
    return _mean(np.asarray(values, dtype=float))
