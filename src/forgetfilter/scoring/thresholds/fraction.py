"""Remove a given share of the rows: the most forgotten ones."""

from __future__ import annotations

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.errors import ConfigError
from forgetfilter.scoring.records import Cut, Readings
from forgetfilter.scoring.thresholds.base import THRESHOLDS


@THRESHOLDS.add("fraction")
class Fraction:
    """Cut so that at most ``value`` of all scored rows go.

    Ties at the cut stay, because a row goes only if its score is strictly above the threshold, so
    slightly fewer rows than asked for can go, never more.

    Args:
        value: share of the scored rows to remove, between 0 and 1.
    """

    name = "fraction"
    units = None

    def __init__(self, value: float = 0.1) -> None:
        if not 0 <= value <= 1:
            raise ConfigError(
                f"fraction is {value}; expected a share between 0 and 1, for example fraction:0.1."
            )
        self.value = value

    def cut(self, scores: FloatArray, is_eligible: BoolArray, readings: Readings) -> Cut:
        """The score of the first row that stays when rows leave in order of their score."""
        eligible = np.sort(scores[is_eligible])[::-1]
        count = int(np.floor(self.value * len(scores) + 1e-9))
        if len(eligible) == 0:
            return Cut(value=0.0, fixes_share=True)
        if count >= len(eligible):
            return Cut(value=float(np.nextafter(eligible[-1], -np.inf)), fixes_share=True)
        return Cut(value=float(eligible[count]), fixes_share=True)
