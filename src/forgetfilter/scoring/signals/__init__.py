"""Forgetting signals, one file each; the registry finds them by itself."""

from forgetfilter.scoring.signals.base import SIGNALS, Signal

__all__ = ["SIGNALS", "Signal"]
