"""The interval of a share that was counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

_QUANTILE = 1.959963984540054
"""Of the standard normal distribution, at 0.975."""


@dataclass(frozen=True)
class Share:
    """``hits`` of ``cases``, as a share from 0 to 1 with its 95% interval."""

    hits: int
    cases: int
    value: float | None
    """None where there are no cases."""
    low: float
    high: float


def wilson(hits: int, cases: int) -> Share:
    """A share with Wilson's score interval, which stays in [0, 1] and holds for few cases.

    Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 1927.

    Raises:
        ValueError: more hits than cases, or a negative number.
    """
    if not 0 <= hits <= cases:
        raise ValueError(f"{hits} of {cases} is no share.")
    if not cases:
        return Share(0, 0, None, 0.0, 1.0)
    share, square = hits / cases, _QUANTILE**2
    center = (share + square / (2 * cases)) / (1 + square / cases)
    half = _QUANTILE * math.sqrt(share * (1 - share) / cases + square / (4 * cases**2))
    half /= 1 + square / cases
    low = 0.0 if hits == 0 else max(center - half, 0.0)
    high = 1.0 if hits == cases else min(center + half, 1.0)
    return Share(hits, cases, share, low, high)
