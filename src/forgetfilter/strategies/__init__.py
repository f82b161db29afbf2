"""Strategies, one file each. Add yours: one file, and one import line here."""

from forgetfilter.strategies import baselines, forget_filter
from forgetfilter.strategies.base import STRATEGIES, Outcome, Setting, Strategy, fine_tune

__all__ = [
    "STRATEGIES",
    "Outcome",
    "Setting",
    "Strategy",
    "baselines",
    "fine_tune",
    "forget_filter",
]
