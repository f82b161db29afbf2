"""Forgetting signals, one file each; the registry finds them by itself."""

from forgetfilter.scoring.signals.base import SIGNALS, Signal, needs_learned

__all__ = ["SIGNALS", "Signal", "needs_learned"]
