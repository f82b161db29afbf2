"""Threshold rules, one file each; the registry finds them by itself."""

from forgetfilter.scoring.thresholds.base import THRESHOLDS, ThresholdRule, decide
from forgetfilter.scoring.thresholds.choosing import (
    check_unit,
    choose_rule,
    fits,
    for_unit,
    reads_decisions,
)

__all__ = [
    "THRESHOLDS",
    "ThresholdRule",
    "check_unit",
    "choose_rule",
    "decide",
    "fits",
    "for_unit",
    "reads_decisions",
]
