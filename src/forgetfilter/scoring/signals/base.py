"""What a signal is: the probes that it needs and a pure function of their readings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from forgetfilter.scoring.registry import Registry

if TYPE_CHECKING:  # numpy need not be there to list names in the command line's help
    from forgetfilter.scoring.records import Probe, Readings, SignalScores

NATS_PER_TOKEN = "nats per token"
"""Unit of scores with a natural scale: 0.1 means that every token became 10% less likely."""

NATS_PER_ROOT_TOKEN = "nats per root token"
"""Unit of evidence that adds up over tokens as noise does: its spread does not grow with length."""


class Signal(Protocol):
    """Turns readings into a forgetting score per row.

    A signal never touches a model. It lists the probes that it needs; the method measures them,
    trains a forgotten model only if some probe asks for that state, and hands the readings over.
    """

    name: str
    unit: str
    """Unit of the forgetting score; higher always means forgotten more, suspected unsafe."""
    default_rule: str | None
    """Threshold rule where the user names none, such as ``auto`` or ``phi:0.1``; None where nothing
    was measured that one could stand on, so that the user has to name one. It fits the unit."""
    probes: tuple[Probe, ...]
    needs_learned: bool
    """Whether a row says nothing that the learn phase has not learned, and is kept; so it is where
    the score is what one model has lost of what it had learned."""
    # ``version: int = 1`` may be there too: raised when `combine` comes to give other scores, so
    # that a finished run is scored again from its readings; see `scoring.formulas`.

    def combine(self, readings: Readings) -> SignalScores:
        """Score every row of ``readings``; arrays of shape (N,)."""
        ...


def needs_learned(signal: Signal) -> bool:
    """`Signal.needs_learned`; true for an installed signal that does not say."""
    return getattr(signal, "needs_learned", True)


SIGNALS: Registry[Signal] = Registry("signal", __package__, "forgetfilter.signals")
