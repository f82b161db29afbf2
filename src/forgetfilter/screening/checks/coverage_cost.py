"""What scoring and coverage cost, in tokens of forward passes, before either is paid.

A gradient counts as three forward passes: one forward, and a backward pass that costs about two.
Padding is not counted: rows of like length share a pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from forgetfilter.config import RestoreSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.strata import damage_rows
from forgetfilter.scoring.records import HALVES, WHOLE
from forgetfilter.screening.method import Setting, probes_to_read

_GRADIENT = 3


class Budget:
    """Tokens that may still be spent."""

    def __init__(self, left: float) -> None:
        self.left = left

    def charge(self, cost: float) -> None:
        """Take ``cost`` off."""
        self.left -= cost


def tokens(rows: Sequence[EncodedRow]) -> int:
    """Tokens of one forward pass over the rows."""
    return sum(len(row.input_ids) for row in rows)


def restoring_tokens(rows: Sequence[EncodedRow], steps: int, settings: RestoreSettings) -> float:
    """Tokens of a restoration: each row of a step is read in base, and its gradient is taken."""
    used = steps * min(settings.batch_size, len(rows))
    return (1 + _GRADIENT) * used * tokens(rows) / max(len(rows), 1)


def scoring_tokens(setting: Setting) -> float:
    """Tokens of scoring all noisy rows by the run's signal, the learn phase not counted.

    Less than it costs, never more: generations count as one pass over the row, and a forgetting run
    or directions not at all.
    """
    probes = probes_to_read(setting.config)
    total = 0.0
    for probe in probes:
        if probe.kind == "damage":
            total += 2 * tokens(damage_rows(setting.safe, setting.bench.seed))
        else:
            total += tokens(setting.noisy)
    restore, states = setting.config.restore, {probe.state for probe in probes}
    for _, _, late, early in (WHOLE, *HALVES):
        for name, steps in ((late, restore.steps), (early, restore.early_steps)):
            if name in states:
                total += restoring_tokens(setting.safe, steps, restore)
    return total
