"""How much a row would change the model: its gradient's length, and its influence on itself."""

from __future__ import annotations

from typing import Literal

import numpy as np

from forgetfilter.arrays import FloatArray, IntArray
from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.lab.row_scorers.gradients import Parameters, open_to_gradients, products


@ROW_SCORERS.add("gradient_norm")
class GradientNorm:
    """Length of the gradient of a row's mean loss in the model as given, nats per token and unit.

    "Continual Safety Alignment via Gradient-Based Sample Selection" (arXiv 2604.17215) drops the
    rows with the largest gradients while it trains, without any safe rows; only its abstract could
    be read. Chosen here: once before training, the mean loss of the completion's tokens, and the
    gradient of an adapter.

    Args:
        parameters: ``adapter``, a fresh LoRA adapter; ``all``, every weight, a pass for each row.
    """

    name = "gradient_norm"
    needs = Needs()

    def __init__(self, parameters: Parameters = "adapter") -> None:
        self.parameters: Parameters = parameters

    def score(self, given: Given) -> RowScores:
        """The lengths."""
        return judged(_lengths(given, self.parameters), self.name)


@ROW_SCORERS.add("self_influence")
class SelfInfluence:
    """Influence of a row on its own loss, the squared length of its gradient; the top is dropped.

    "Benign Samples Matter! Fine-tuning on Outlier Benign Samples Severely Breaks Safety" (arXiv
    2505.06843) attacks with the benign rows of the highest score; a filter removes them. A mean
    loss gives short answers long gradients, so that paper adds the length (Self-Inf-N):
    ``log(influence + 1) + log(tokens + 1)``, tokens being those of the completion.

    Args:
        normalise: ``length``, Self-Inf-N; ``none``, the squared length alone.
        parameters: ``adapter``, a fresh LoRA adapter; ``all``, every weight, a pass for each row.
    """

    name = "self_influence"
    needs = Needs()

    def __init__(
        self, normalise: Literal["length", "none"] = "length", parameters: Parameters = "adapter"
    ) -> None:
        self.normalise, self.parameters = normalise, parameters

    def score(self, given: Given) -> RowScores:
        """The influences."""
        parameters: Parameters = "all" if self.parameters == "all" else "adapter"
        influence = _lengths(given, parameters) ** 2
        if self.normalise == "length":
            tokens = np.array([row.target_tokens for row in given.noisy])
            influence = length_normalised(influence, tokens)
        return judged(influence, self.name)


def length_normalised(influence: FloatArray, tokens: IntArray) -> FloatArray:
    """``log(influence + 1) + log(tokens + 1)`` of each row, shape (N,)."""
    return np.log1p(influence) + np.log1p(tokens)


def _lengths(given: Given, parameters: Parameters) -> FloatArray:
    model = open_to_gradients(given, given.bench.base, parameters)
    return products(given, model, given.noisy, [], parameters)[1]
