"""Forgetting as several models see it, most of which have never seen the row."""

from __future__ import annotations

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.scoring.records import (
    HALVES,
    WHOLE,
    Probe,
    Readings,
    SignalScores,
    StateName,
)
from forgetfilter.scoring.signals.base import NATS_PER_ROOT_TOKEN, SIGNALS

_LEAST_LOSS = 0.1
"""Nats per token: a row known better than that is not trusted more."""


@SIGNALS.add("crossfit")
class Crossfit:
    """The rise of a row's loss as safe behaviour is restored, in models that learned half the rows.

    A model that has learned a row by heart loses it only with much else, so that its forgetting
    says little. Here the noisy rows are parted at random, and each half is learned by a model of
    its own. Both are restored to base's behaviour on the safe rows, each from the end of its learn
    phase and from its early passes (`restoration` does the same with one model). A row is read in
    all of them: by the one that was trained on it, and by the one that was not and knows of it
    only what the other rows teach. Cross-fitting: Chernozhukov et al., *Double/debiased machine
    learning* (2018).

    In each restoration the evidence is the rise of the row's summed loss over the square root of
    its number of tokens, since noise adds up like that; and over the square root of its loss per
    token before (at least 0.1 nats), because what a model is unsure of moves more by chance. The
    score is the mean of the four: *nats per root token*.

    A row needs not be learned to be judged: one that no model has learned has nothing to lose, and
    its score is near 0.
    """

    name = "crossfit"
    unit = NATS_PER_ROOT_TOKEN
    default_rule = "phi:0.5"
    needs_learned = False

    def __init__(self) -> None:
        self.pairs: tuple[tuple[StateName, StateName], ...] = tuple(
            pair
            for late, early, restored, early_restored in (WHOLE, *HALVES)
            for pair in ((late, restored), (early, early_restored))
        )
        states = tuple(state for pair in self.pairs for state in pair)
        self.probes = tuple(Probe("loss", state) for state in ("base", *states))

    def combine(self, readings: Readings) -> SignalScores:
        """Score every row; see the class for the formula."""
        each = np.array([self._evidence(readings, *pair) for pair in self.pairs])  # (6, N)
        # What a reader is shown is of the one model that has learned all rows.
        is_early = each[1] > each[0]
        losses = [[readings.loss_mean(state) for state in pair] for pair in self.pairs[:2]]
        before, after = np.where(is_early, losses[1], losses[0])
        return SignalScores(
            base=readings.loss_mean("base"),
            before=before,
            after=after,
            forgetting_score=each.mean(axis=0),
        )

    def _evidence(self, readings: Readings, earlier: StateName, later: StateName) -> FloatArray:
        """What one restoration says of every row, shape (N,)."""
        rise = readings[f"loss_sum_{later}"] - readings[f"loss_sum_{earlier}"]
        spread = readings.loss_mean(earlier).clip(min=_LEAST_LOSS)
        evidence: FloatArray = rise / np.sqrt(readings["completion_tokens"] * spread)
        return evidence
