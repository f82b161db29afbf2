"""Threshold rules, one file each. Add yours: one file, and one import line here."""

from forgetfilter.thresholds import auto, fraction, phi
from forgetfilter.thresholds.base import THRESHOLDS, ThresholdRule, decide

__all__ = ["THRESHOLDS", "ThresholdRule", "auto", "decide", "fraction", "phi"]
