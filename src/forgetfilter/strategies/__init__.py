"""Strategies, one file each or a few alike; the registry finds them by itself."""

from forgetfilter.strategies.base import STRATEGIES, Outcome, Setting, Strategy, fine_tune
from forgetfilter.strategies.chain import build_strategy, check_spec

__all__ = [
    "STRATEGIES",
    "Outcome",
    "Setting",
    "Strategy",
    "build_strategy",
    "check_spec",
    "fine_tune",
]
