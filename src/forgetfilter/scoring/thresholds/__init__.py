"""Threshold rules, one file each; the registry finds them by itself."""

from forgetfilter.scoring.thresholds.base import THRESHOLDS, ThresholdRule, decide
from forgetfilter.scoring.thresholds.choosing import (
    as_signal_has_it,
    check_unit,
    choose_rule,
    fits,
    reads_decisions,
)

__all__ = [
    "THRESHOLDS",
    "ThresholdRule",
    "as_signal_has_it",
    "check_unit",
    "choose_rule",
    "decide",
    "fits",
    "reads_decisions",
]
