"""What the model as given says of a row: its loss, its perplexity, and how unusual the loss is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.scoring.records import Probe, StateName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forgetfilter.data.records import EncodedRow
    from forgetfilter.model.state import ModelState


@ROW_SCORERS.add("base_loss")
class BaseLoss:
    """Mean loss of a row's completion in the model as given, nats per token.

    Its ranking is that of the completion's perplexity, which is its exponential.
    """

    name = "base_loss"
    needs = Needs()

    def score(self, given: Given) -> RowScores:
        """The losses."""
        return judged(mean_losses(given, given.bench.base), self.name)


@ROW_SCORERS.add("perplexity")
class Perplexity:
    """Perplexity of a row's whole text, prompt included, in the model as given.

    The filter of "Baseline Defenses for Adversarial Attacks Against Aligned Language Models" (arXiv
    2309.00614), which drops texts of high perplexity. Unlike `BaseLoss` it also counts the prompt.
    """

    name = "perplexity"
    needs = Needs()

    def score(self, given: Given) -> RowScores:
        """Exponential of the mean loss over all tokens but the first."""
        whole = [_whole(row) for row in given.noisy]
        given.passes.read(len(whole))
        found = given.bench.token_losses(given.bench.base, whole, self.name)
        return judged(np.array([np.exp(own.mean()) for own in found]), self.name)


@ROW_SCORERS.add("loss_outlier")
class LossOutlier:
    """How far a row's mean loss lies from the median of all rows', in either direction.

    In units of the median absolute deviation times 1.4826, which is a standard deviation where
    losses are normally distributed. A row that the model knows too well stands out as one that it
    does not know.
    """

    name = "loss_outlier"
    needs = Needs()

    def score(self, given: Given) -> RowScores:
        """The distances."""
        return judged(robust_distance(mean_losses(given, given.bench.base)), self.name)


def mean_losses(given: Given, state: ModelState, name: StateName = "base") -> FloatArray:
    """Mean completion loss of every noisy row in ``state``, nats per token, shape (N,)."""
    given.passes.read(len(given.noisy))
    probe = Probe("loss", name)
    return given.bench.measure([probe], {name: state}, given.noisy).loss_mean(name)


def robust_distance(values: FloatArray) -> FloatArray:
    """Absolute distance from the median in robust standard deviations, shape (N,).

    Zero for all where half of the values or more are the same.
    """
    distance = np.abs(values - np.median(values))
    spread = 1.4826 * float(np.median(distance))
    return distance / spread if spread > 0 else np.zeros(len(values))


def _whole(row: EncodedRow) -> EncodedRow:
    """The row with a loss on each of its tokens."""
    from dataclasses import replace

    everywhere: Sequence[bool] = [True] * len(row.input_ids)
    return replace(row, is_target=np.array(everywhere))
