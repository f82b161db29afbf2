"""Whether a row pulls the model the way that safe rows do, or that bad exemplars do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.lab.row_scorers.gradients import (
    first_tokens,
    length_of,
    mean_gradient,
    open_to_gradients,
    products,
    sketches,
)
from forgetfilter.lab.row_scorers.hidden_states import unit

if TYPE_CHECKING:
    from forgetfilter.model.state import ModelState

Over = Literal["mean", "max"]
"""What is made of a row's cosines with several exemplars."""


@ROW_SCORERS.add("gradient_cosine")
class GradientCosine:
    """Minus the cosine between a row's gradient and the mean gradient of the safe rows.

    A row that pulls against the safe ones undoes what they teach. Gradients are those of mean
    completion losses with respect to an adapter.

    Args:
        state: ``base``, the model as given with a fresh adapter; ``learned``, the model after the
            learn phase on all noisy rows, as `Forgetting` has it.
    """

    name = "gradient_cosine"
    needs = Needs(safe_rows=True)

    def __init__(self, state: Literal["base", "learned"] = "base") -> None:
        self.state = state

    def score(self, given: Given) -> RowScores:
        """The cosines, negated."""
        start = given.bench.base if self.state == "base" else learned(given)
        model = open_to_gradients(given, start)
        safe = mean_gradient(given, model, given.safe)
        dots, norms = products(given, model, given.noisy, [safe])
        return judged(-dots[0] / np.maximum(norms * length_of(safe), 1e-30), self.name)


@ROW_SCORERS.add("gradshield")
class GradShield:
    """How much a gradient step on a row lowers a safety score, to first order; nats per token.

    "GradShield: Alignment Preserving Finetuning" (arXiv 2605.14194): the dot product of a row's
    update with the gradient of a differentiable proxy of safety on a probing set. The paper's proxy
    could not be confirmed.
    Chosen here: the mean log-probability of the first tokens of the safe rows' answers, which
    settle whether a model complies; so the score is minus the dot product of the row's loss
    gradient with that of the safe rows' first tokens. Its adaptive threshold is no part of a
    ranking.

    Args:
        tokens: of each safe answer.
    """

    name = "gradshield"
    needs = Needs(safe_rows=True)

    def __init__(self, tokens: int = 5) -> None:
        self.tokens = max(1, tokens)

    def score(self, given: Given) -> RowScores:
        """The losses of safety."""
        model = open_to_gradients(given, given.bench.base)
        probing = [first_tokens(row, self.tokens) for row in given.safe]
        safe = mean_gradient(given, model, probing)
        return judged(-products(given, model, given.noisy, [safe])[0][0], self.name)


@ROW_SCORERS.add("dabuf")
class Dabuf:
    """Cosine between a row's gradient and those of bad exemplars, in a model tuned on the rows.

    "Detecting and Filtering Unsafe Training Data via Data Attribution" (arXiv 2502.11411, version
    1, DABUF). The tuned model is the learn phase's. Its screening of long jailbreak answers with a
    moderation classifier is left out; gradients are an adapter's, projected at random.

    Args:
        budget: exemplars.
        over: whether a row's cosines with the exemplars are averaged (``mean``) or the largest
            counts (``max``).
        dimensions: of the projection.
    """

    name = "dabuf"

    def __init__(self, budget: int = 20, over: Over = "mean", dimensions: int = 8192) -> None:
        self.over: Over = over
        self.dimensions = dimensions
        self.needs = Needs(exemplars=budget)

    def score(self, given: Given) -> RowScores:
        """The cosines."""
        exemplars = given.exemplars(self.needs.exemplars)
        model = open_to_gradients(given, learned(given))
        rows = sketches(given, model, given.noisy, self.dimensions)
        targets = sketches(given, model, exemplars, self.dimensions)
        return judged(pooled_cosine(rows, targets, self.over), self.name)


def pooled_cosine(rows: FloatArray, targets: FloatArray, over: Over = "mean") -> FloatArray:
    """Mean or largest cosine of each row, shape (N, D), with the targets, shape (K, D)."""
    cosines = unit(rows) @ unit(targets).T
    return cosines.mean(axis=1) if over == "mean" else cosines.max(axis=1)


def learned(given: Given) -> ModelState:
    """The model after the learn phase, whose stage all scorers share; its passes are counted."""
    import json
    from pathlib import Path

    from forgetfilter.model.stages.phases import TRAINING_FILE

    bench, settings = given.bench, given.setting.config.learn
    state = bench.train("learned", given.noisy, settings, bench.base, "learn")
    report = json.loads((Path(str(state.adapter)).parent / TRAINING_FILE).read_text())
    given.passes.differentiated(int(report["steps"]) * min(settings.batch_size, len(given.noisy)))
    return state
