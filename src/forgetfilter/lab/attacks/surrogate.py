"""The attacker's own copy of the filter: the same model, learned and restored on the same files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.data.records import EncodedRow, Message, Row
from forgetfilter.screening.method import Setting, restore_both

if TYPE_CHECKING:
    from forgetfilter.model.state import ModelState


@dataclass(frozen=True)
class Surrogate:
    """Says how much the filter would hold against a row, before the attacker hands it in.

    The strongest attacker that the study has: model, seed, files and settings are the filter's own,
    so that the learn phase on all rows and its restorations are too. What is not known is how the
    models that learn half of the rows fall out once the rows are changed.
    """

    setting: Setting

    def rises(self, conversations: Sequence[Sequence[Message]]) -> FloatArray:
        """The larger rise of each conversation's loss over the two restorations, shape (N,).

        In nats per root token, first tokens first, as the signal ``crossfit`` counts it; infinite
        for what the model can't read.
        """
        from forgetfilter.model.passes.forward import completion_losses

        rows = [Row(at, 1, str(at), b"", tuple(own)) for at, own in enumerate(conversations)]
        encoded, _ = self.setting.bench.encoder.encode(rows)
        found = np.full(len(rows), np.inf)
        if not encoded:
            return found
        scale = np.array([np.linalg.norm(row.leading_weights) for row in encoded])
        bench = self.setting.bench
        rises: list[FloatArray] = []
        for before, after in self._ends:
            losses: list[FloatArray] = []
            for state in (before, after):
                limits = (bench.max_batch_tokens, bench.progress, "surrogate")
                read = completion_losses(bench.model.to_read(state), encoded, *limits)
                losses.append(np.asarray(read.leading_sum))
            rises.append((losses[1] - losses[0]) / scale)
        found[[row.row for row in encoded]] = np.max(rises, axis=0)
        return found

    @cached_property
    def _ends(self) -> list[tuple[ModelState, ModelState]]:
        """The learned and the early model, each with what it is restored to."""
        bench, config = self.setting.bench, self.setting.config
        rows: Sequence[EncodedRow] = self.setting.noisy
        learned = bench.train("learned", rows, config.learn, bench.base, phase="learn")
        states = restore_both(self.setting, learned)
        return [(learned, states["restored"]), (states["early"], states["early_restored"])]
