"""Forgetting signals, one file each. Add yours: one file, and one import line here."""

from forgetfilter.signals import completion_loss, rate, restoration, rouge1
from forgetfilter.signals.base import SIGNALS, Signal

__all__ = ["SIGNALS", "Signal", "completion_loss", "rate", "restoration", "rouge1"]
