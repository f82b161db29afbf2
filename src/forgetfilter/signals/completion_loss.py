"""Forgetting as the rise of the completion loss: two forward passes a row, no generation."""

from __future__ import annotations

from typing import Literal

from forgetfilter.records import FloatArray, Probe, Readings, SignalScores, StateName
from forgetfilter.signals.base import SIGNALS


@SIGNALS.add("completion_loss")
class CompletionLoss:
    """Completion loss in the forgotten model minus that in the learned model.

    Teacher-forced negative log-likelihood of the assistant tokens. A departure from the paper,
    which compares generations: this needs two forward passes a row in place of two generations.

    Args:
        reduction: ``mean`` (nats per completion token), ``sum`` (nats), or ``relative``: the rise
            divided by what the row had learned, ``(after - before) / (base - before)``, without
            unit; 1 means that all that was learned of the row is forgotten again.
    """

    name = "completion_loss"
    later: StateName = "forgotten"
    """The state that is held against the learned one."""

    def __init__(self, reduction: Literal["mean", "sum", "relative"] = "mean") -> None:
        self.reduction = reduction
        self.states: tuple[StateName, ...] = ("base", "learned", self.later)
        self.probes = tuple(Probe("loss", state) for state in self.states)
        units = {
            "mean": "nats per token",
            "sum": "nats",
            "relative": "share of what was learned",
        }
        self.unit = units[reduction]

    def combine(self, readings: Readings) -> SignalScores:
        """Score every row; see the class for the formula."""
        base, before, after = (self._value(readings, state) for state in self.states)
        score = after - before
        if self.reduction == "relative":
            # A row that was hardly learned has a tiny denominator; 0.1 nats a token bounds it.
            score = score / (base - before).clip(min=0.1)
        return SignalScores(base=base, before=before, after=after, forgetting_score=score)

    def _value(self, readings: Readings, state: StateName) -> FloatArray:
        if self.reduction == "sum":
            return readings[f"loss_sum_{state}"]
        return readings.loss_mean(state)
