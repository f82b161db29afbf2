"""Learn until learned: when a phase has learned what it can, measured instead of guessed.

A row that was not learned can't be forgotten, and too few passes leave rare rows unlearned; too
many cost time. After each epoch two shares are measured on some of the rows: those that are
learned, and those learned to the letter (every token is the model's first choice). Once neither
rises by a point, training can end. The first share alone settles before the model has learned
its tasks (docs/lab/results.md).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from forgetfilter.data.records import EncodedRow
from forgetfilter.model.passes.forward import CompletionLosses, completion_losses
from forgetfilter.progress import Progress
from forgetfilter.scoring.records import is_learned

_MEASURED_ROWS = 500
"""Enough that one point of share is five rows; the same rows are measured each time."""
_LEAST_RISE = 0.01
_LEAST_EPOCHS = 2


class LearnedShare:
    """The learned share, epoch by epoch, and the decision when training can end.

    Args:
        rows: the rows that are trained on; at most 500 of them, drawn with the seed, are measured.
        seed: draws them.
        max_batch_tokens: bounds memory; below float32 the shares move with it by rounding.
    """

    def __init__(self, rows: Sequence[EncodedRow], seed: int, max_batch_tokens: int) -> None:
        chosen = random.Random(seed).sample(range(len(rows)), min(len(rows), _MEASURED_ROWS))
        self._rows = [rows[i] for i in sorted(chosen)]
        self._max_batch_tokens = max_batch_tokens
        self._before: CompletionLosses | None = None
        self.shares: list[float] = []
        """Learned share of the measured rows after each epoch, between 0 and 1."""
        self.exact_shares: list[float] = []
        """Share of the measured rows that are learned to the letter, after each epoch."""

    @property
    def has_begun(self) -> bool:
        """Whether it is known where training started from."""
        return self._before is not None

    def state(self) -> dict[str, Any]:
        """What it remembers from epoch to epoch, as JSON."""
        before = self._before
        return {
            "before": before and [before.loss_sum.tolist(), before.greedy_match.tolist()],
            "shares": self.shares,
            "exact_shares": self.exact_shares,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        if state["before"] is not None:
            losses, matches = state["before"]
            self._before = CompletionLosses(np.array(losses), np.array(matches, dtype=np.bool_))
        self.shares, self.exact_shares = list(state["shares"]), list(state["exact_shares"])

    def begin(self, model: Any) -> None:
        """Measure where training starts from."""
        self._before = self._measure(model, "the model before training")

    def is_enough(self, model: Any) -> bool:
        """Measure after an epoch; whether both shares have all but stopped rising.

        Raises:
            ModelError: a loss is NaN or infinite, so that no share can be told.
        """
        if self._before is None:
            raise RuntimeError("begin() comes first: the share is relative to the start")
        after = self._measure(model, "the model in training")
        vocabulary = model.get_output_embeddings().weight.shape[0]
        guessing = math.log(vocabulary) * np.array([row.target_tokens for row in self._rows])
        before = self._before.loss_sum
        learned = is_learned(before, after.loss_sum, after.greedy_match, guessing)
        self.shares.append(float(learned.mean()))
        self.exact_shares.append(float(after.greedy_match.mean()))
        if len(self.shares) < _LEAST_EPOCHS:
            return False
        return all(
            share[-1] - share[-2] < _LEAST_RISE for share in (self.shares, self.exact_shares)
        )

    def _measure(self, model: Any, place: str) -> CompletionLosses:
        was_training = model.training
        model.eval()
        silent = Progress(is_silent=True)
        limits = (self._max_batch_tokens, silent, place)
        found = completion_losses(model, self._rows, *limits)
        model.train(was_training)
        return found
