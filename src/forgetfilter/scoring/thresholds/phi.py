"""A fixed threshold, as in the paper."""

from __future__ import annotations

import math

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.errors import ConfigError
from forgetfilter.scoring.records import Cut, Readings
from forgetfilter.scoring.thresholds.base import THRESHOLDS


@THRESHOLDS.add("phi")
class Phi:
    """Remove what scores above a fixed number (arXiv 2312.12736 uses 0.1 with ROUGE-1).

    Args:
        value: the threshold, in the signal's own unit.
    """

    name = "phi"
    units = None

    def __init__(self, value: float = 0.1) -> None:
        if not math.isfinite(value):
            raise ConfigError(f"phi is {value}; expected a finite number, for example phi:0.1.")
        self.value = value

    def cut(self, scores: FloatArray, is_eligible: BoolArray, readings: Readings) -> Cut:
        """Cut at the given value whatever the scores are."""
        return Cut(value=self.value)
