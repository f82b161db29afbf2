"""Metrics, one family per file; each says its direction and unit."""

from forgetfilter.metrics.detection import Detection, detection
from forgetfilter.metrics.rates import Estimate, mean_over_seeds, paired_difference, share

__all__ = ["Detection", "Estimate", "detection", "mean_over_seeds", "paired_difference", "share"]
