"""Strategies, one file each. Add yours: one file, and one import line here."""

from forgetfilter.strategies import baselines, controls, forget_filter, self_correction
from forgetfilter.strategies.base import STRATEGIES, Outcome, Setting, Strategy, fine_tune
from forgetfilter.strategies.chain import build_strategy, check_spec

__all__ = [
    "STRATEGIES",
    "Outcome",
    "Setting",
    "Strategy",
    "baselines",
    "build_strategy",
    "check_spec",
    "controls",
    "fine_tune",
    "forget_filter",
    "self_correction",
]
