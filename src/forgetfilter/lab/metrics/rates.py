"""Shares with intervals, and paired differences between two models on the same prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from forgetfilter.lab.metrics.intervals import Estimate, mean_interval, scale_of


def share(hits: Sequence[bool]) -> Estimate:
    """Share of ``hits`` that are true, with the Wilson score interval (95%)."""
    if not len(hits):
        return Estimate(math.nan, math.nan, math.nan)
    return _wilson(int(np.sum(hits)), len(hits))


@lru_cache(maxsize=4096)
def _wilson(hits: int, n: int) -> Estimate:
    # scipy tests a hypothesis on the way, which takes a millisecond each time.
    from scipy.stats import binomtest

    result = binomtest(hits, n)
    interval = result.proportion_ci(method="wilson")
    return Estimate(float(result.statistic), float(interval.low), float(interval.high))


def paired_difference(
    first: Sequence[float], second: Sequence[float], unit: str = "share, 0..1"
) -> Estimate:
    """Mean of ``first`` minus that of ``second`` on the same prompts, with its 95% interval.

    Args:
        first: one value per prompt, shape (N,).
        second: the same of another model.
        unit: of either.
    """
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    return mean_interval(differences.tolist(), scale_of(f"difference; {unit}"))


def mean_over_seeds(values: Sequence[float], unit: str, cases: int | None = None) -> Estimate:
    """Mean of one value per seed with its 95% interval over seeds; see `mean_interval`.

    Args:
        values: at least one.
        unit: which says the range, such as ``share, 0..1``.
        cases: how many cases all seeds together have, where the unit is of cases.
    """
    return mean_interval(values, scale_of(unit), cases)


def mean_over_cases(values: Sequence[float], unit: str) -> Estimate:
    """Mean of one value per case with its 95% interval over cases; NaN where there is none."""
    if not len(values):
        return Estimate(math.nan, math.nan, math.nan)
    return mean_interval(values, scale_of(unit), len(values))
