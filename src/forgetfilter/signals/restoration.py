"""Forgetting as safety is restored: how much a row's loss rises on the way back to base."""

from __future__ import annotations

from forgetfilter.records import StateName
from forgetfilter.signals.base import SIGNALS
from forgetfilter.signals.completion_loss import CompletionLoss, Reduction


@SIGNALS.add("restoration")
class Restoration(CompletionLoss):
    """Completion loss in the restored model minus that in the early model.

    The early model is the learn phase's after its first passes (``learn.early_epochs``): it follows
    the rows, but does not know them by heart yet. A row that is known by heart is kept apart from
    what the safe rows can undo (docs/signals.md). The restored model is the early one after a few
    gradient steps that bring its behaviour on the safe rows back to the base model's
    (`restoring.restore`). What has to be undone for that is forgotten: unsafe rows rise, safe rows fall, and task rows stay, because the descent moves along
    the damage alone. The first of its steps, divided by its length, is the signal ``rate``; many
    small ones see beyond the first-order picture, in which the most damaged kind hides the others.
    Where nothing was damaged, nothing moves and every score is near 0.

    No generation and no gradient per row: a few gradients over small batches of safe rows and one
    more forward pass a noisy row.

    Args:
        reduction: ``tempered``, ``mean``, ``sum`` or ``relative``; see `CompletionLoss`.
    """

    name = "restoration"
    earlier: StateName = "early"
    later: StateName = "restored"

    def __init__(self, reduction: Reduction = "tempered") -> None:
        super().__init__(reduction)
