"""Threshold rules, one file each. Add yours: one file, and one import line here."""

from forgetfilter.thresholds import fraction, phi
from forgetfilter.thresholds.base import THRESHOLDS, ThresholdRule, decide

__all__ = ["THRESHOLDS", "ThresholdRule", "decide", "fraction", "phi"]
