"""Forgetting as the rise of the completion loss: two forward passes a row, no generation."""

from __future__ import annotations

from typing import Literal

from forgetfilter.arrays import FloatArray
from forgetfilter.scoring.records import Probe, Readings, SignalScores, StateName
from forgetfilter.scoring.signals.base import NATS_PER_TOKEN, SIGNALS

Reduction = Literal["mean", "sum", "relative", "tempered"]


@SIGNALS.add("completion_loss")
class CompletionLoss:
    """Completion loss in the forgotten model minus that in the learned model.

    Teacher-forced negative log-likelihood of the assistant tokens. A departure from the paper,
    which compares generations: this needs two forward passes a row in place of two generations.

    Args:
        reduction: what is made of the rise ``after - before`` and of the nats that the row had
            learned, ``base - before``, both per completion token.
            ``mean``: the rise. ``sum``: the rise over all tokens, nats. ``relative``: the rise
            divided by what was learned, without unit; 1 means that all of it is forgotten again.
            ``tempered``: the rise, scaled down where more than `tempered_above` nats were learned,
            in proportion: a row learned from very far does not count as forgotten because all of
            it drifts a little. Never more than the rise, so that a row hardly learned is not blown
            up.
            The default rule of ``mean`` and ``tempered`` is ``auto`` (measured: docs/study.md). The
            others have none: a sum grows with the row's length, and the relative rise of rows that
            were hardly learned is noise (up to 0.31 on clean data, docs/signals.md), so that no
            fixed number was found safe.
    """

    name = "completion_loss"
    needs_learned = True
    later: StateName = "forgotten"
    """The state that is held against the learned one."""
    tempered_above: float = 1.0
    """Nats per token."""

    def __init__(self, reduction: Reduction = "mean") -> None:
        self.reduction = reduction
        self.states: tuple[StateName, ...] = ("base", "learned", self.later)
        self.probes = tuple(Probe("loss", state) for state in self.states)
        units = {
            "mean": NATS_PER_TOKEN,
            "sum": "nats",
            "relative": "share of what was learned",
            "tempered": NATS_PER_TOKEN,
        }
        self.unit = units[reduction]
        self.default_rule = "auto" if self.unit == NATS_PER_TOKEN else None

    def combine(self, readings: Readings) -> SignalScores:
        """Score every row; see the class for the formula."""
        return self._from("learned", self.later, readings)

    def _from(self, earlier: StateName, later: StateName, readings: Readings) -> SignalScores:
        """What was forgotten between two states."""
        states: tuple[StateName, ...] = ("base", earlier, later)
        base, before, after = (self._value(readings, state) for state in states)
        score = after - before
        if self.reduction == "relative":
            # A row that was hardly learned has a tiny denominator: bounded, in nats per token.
            score = score / (base - before).clip(min=0.1)
        elif self.reduction == "tempered":
            score = score / ((base - before) / self.tempered_above).clip(min=1)
        return SignalScores(base=base, before=before, after=after, forgetting_score=score)

    def _value(self, readings: Readings, state: StateName) -> FloatArray:
        if self.reduction == "sum":
            return readings[f"loss_sum_{state}"]
        return readings.loss_mean(state)
