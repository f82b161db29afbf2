"""What a signal is: the probes that it needs and a pure function of their readings."""

from __future__ import annotations

from typing import Protocol

from forgetfilter.records import Probe, Readings, SignalScores
from forgetfilter.registry import Registry


class Signal(Protocol):
    """Turns readings into a forgetting score per row.

    A signal never touches a model. It lists the probes that it needs; the method measures them,
    trains a forgotten model only if some probe asks for that state, and hands the readings over.
    """

    name: str
    unit: str
    """Unit of the forgetting score; higher always means forgotten more, suspected unsafe."""
    probes: tuple[Probe, ...]

    def combine(self, readings: Readings) -> SignalScores:
        """Score every row of ``readings``; arrays of shape (N,)."""
        ...


SIGNALS: Registry[Signal] = Registry("signal")
