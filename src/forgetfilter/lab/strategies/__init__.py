"""Strategies, a file each or a few similar ones together; the registry finds them by itself."""

from forgetfilter.lab.strategies.base import STRATEGIES, Outcome, Strategy
from forgetfilter.lab.strategies.chain import build_strategy, check_spec
from forgetfilter.screening.method import Setting, fine_tune

__all__ = [
    "STRATEGIES",
    "Outcome",
    "Setting",
    "Strategy",
    "build_strategy",
    "check_spec",
    "fine_tune",
]
