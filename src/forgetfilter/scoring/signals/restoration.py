"""Forgetting as safety is restored: how much a row's loss rises on the way back to base."""

from __future__ import annotations

import numpy as np

from forgetfilter.scoring.records import Probe, Readings, SignalScores, StateName
from forgetfilter.scoring.signals.base import SIGNALS
from forgetfilter.scoring.signals.completion_loss import CompletionLoss, Reduction

# Nats per token on the safe rows.
_MOST_DAMAGE = 0.2


@SIGNALS.add("restoration")
class Restoration(CompletionLoss):
    """The rise of a row's completion loss as safe behaviour is restored, from either of two ends.

    A model is restored by a few gradient steps that bring its behaviour on the safe rows back to
    the base model's (`restoring.restore`). What has to be undone for that is forgotten: unsafe rows
    rise, safe rows fall, and task rows stay, because the descent moves along the damage alone. The
    first of its steps, divided by its length, is the signal ``rate``; many small ones see beyond
    the first-order picture, in which the most damaged kind hides the others. Where nothing was
    damaged, nothing moves and every score is near 0.

    It is done twice: from the learned model, and from the early one, the learn phase's after its
    first passes (``learn.early_epochs``). The learned model knows some unsafe rows by heart, apart
    from all that the safe rows can undo; the early one follows them, but has hardly met rare ones
    yet (docs/lab/signals.md). The larger rise is the score; ``before`` and ``after`` are of it.

    Where learning has moved the model far from base on the safe rows, all that it has learned falls
    on the way back, and a rise says less: beyond a damage of 0.2 nats a token the rises from that
    end are scaled down in proportion.

    No generation and no gradient per row: a few gradients over small batches of safe rows, and
    three more forward passes a noisy row.

    Args:
        reduction: ``tempered``, ``mean``, ``sum`` or ``relative``; see `CompletionLoss`.
    """

    name = "restoration"
    later: StateName = "restored"
    # A restoration moves tasks little; on real text, dividing above 1 nat already costs precision.
    tempered_above = 4.0

    def __init__(self, reduction: Reduction = "tempered") -> None:
        super().__init__(reduction)
        self.probes += (Probe("loss", "early"), Probe("loss", "early_restored"))
        self.probes += (Probe("damage", "learned"), Probe("damage", "early"))

    def combine(self, readings: Readings) -> SignalScores:
        """Score every row by the restoration from which it rises more."""
        ends: tuple[tuple[StateName, StateName], ...] = (
            ("learned", "restored"),
            ("early", "early_restored"),
        )
        late, early = (self._from(*end, readings) for end in ends)
        late_score, early_score = (
            scores.forgetting_score / (readings[f"damage_{start}"] / _MOST_DAMAGE).clip(min=1)
            for scores, (start, _) in zip((late, early), ends, strict=True)
        )
        is_early = early_score > late_score
        after = [self._value(readings, later) for _, later in ends]
        return SignalScores(
            base=late.base,
            before=np.where(is_early, early.before, late.before),
            after=np.where(is_early, after[1], after[0]),
            forgetting_score=np.maximum(early_score, late_score),
        )
