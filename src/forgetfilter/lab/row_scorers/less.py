"""LESS: gradients of rows as Adam would follow them, against those of targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter.lab.row_scorers.adapter_training import (
    Weights,
    batches,
    fresh_adapter,
    learning_rate,
    put,
    row_losses,
)
from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.lab.row_scorers.gradients import sketches
from forgetfilter.lab.row_scorers.hidden_states import unit

if TYPE_CHECKING:
    from torch import Tensor

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


@dataclass(frozen=True)
class Checkpoint:
    """The warm-up after an epoch."""

    weights: Weights
    mean: Weights
    """Adam's running mean of the gradients."""
    square: Weights
    """Its running mean of their squares."""
    rate: float
    """Mean learning rate of the epoch."""


@ROW_SCORERS.add("less")
class Less:
    """Cosine between a row's Adam update and the gradients of bad exemplars, over a warm-up.

    "LESS: Selecting Influential Data for Targeted Instruction Tuning" (arXiv 2402.04333), with bad
    rows as the targets, so that its top is dropped. An adapter is warmed up on a few of the noisy
    rows; for the checkpoint of each epoch the score adds its learning rate times the cosine,
    averaged over the targets. Chosen here: the adapter's shape and learning rate are those of the
    learn phase (the paper has rank 128 and 2e-5), the projection is a count sketch in place of a
    dense one, and all targets are one task.

    Args:
        budget: exemplars.
        dimensions: of the projection; 8192 in the paper.
        warmup: share of the noisy rows that the adapter is warmed up on, but at least a batch.
        epochs: of the warm-up, a checkpoint each.
    """

    name = "less"

    def __init__(
        self, budget: int = 20, dimensions: int = 8192, warmup: float = 0.05, epochs: int = 4
    ) -> None:
        self.needs = Needs(exemplars=budget)
        self.dimensions, self.warmup, self.epochs = dimensions, warmup, max(1, epochs)

    def score(self, given: Given) -> RowScores:
        """The cosines, weighted by the learning rates."""
        exemplars = given.exemplars(self.needs.exemplars)
        model, checkpoints = self._warm_up(given)
        total = np.zeros(len(given.noisy))
        whole = sum(one.rate for one in checkpoints)
        for one in checkpoints:
            put(model, one.weights)
            rows = sketches(given, model, given.noisy, self.dimensions, _following(one))
            targets = sketches(given, model, exemplars, self.dimensions)
            total += one.rate / whole * (unit(rows) @ unit(targets).T).mean(axis=1)
        return judged(total, self.name)

    def _warm_up(self, given: Given) -> tuple[Any, Sequence[Checkpoint]]:
        """Adam on a few noisy rows, its learning rate falling to zero in a line."""
        import torch

        size = given.setting.config.learn.batch_size
        rng = given.rng(self.name)
        count = min(len(given.noisy), max(size, round(self.warmup * len(given.noisy))))
        drawn = [given.noisy[at] for at in rng.permutation(len(given.noisy))[:count]]
        model, weights = fresh_adapter(given, self.name)
        rate = learning_rate(given)
        optimizer = torch.optim.Adam(list(weights.values()), lr=rate, betas=_BETAS, eps=_EPSILON)
        steps = self.epochs * -(-count // size)
        found: list[Checkpoint] = []
        step = 0
        for _ in range(self.epochs):
            rates: list[float] = []
            for indices in batches(count, size, rng):
                rates.append(rate * (1 - step / steps))
                optimizer.param_groups[0]["lr"] = rates[-1]
                losses = row_losses(given, model, [drawn[at] for at in indices], weights)
                optimizer.zero_grad()
                losses.mean().backward()
                optimizer.step()
                step += 1
            found.append(_checkpoint(weights, optimizer, float(np.mean(rates))))
        return model, found


def adam_update(gradient: Tensor, mean: Tensor, square: Tensor) -> Tensor:
    """The update that Adam would make of a row's gradient, without its learning rate.

    ``(b1 m + (1 - b1) g) / sqrt(b2 v + (1 - b2) g^2 + eps)``, as the authors' code has it: without
    the correction of the running means for their start.
    """
    first = _BETAS[0] * mean + (1 - _BETAS[0]) * gradient
    second = _BETAS[1] * square + (1 - _BETAS[1]) * gradient.pow(2)
    return first / (second + _EPSILON).sqrt()


def _following(one: Checkpoint) -> Any:
    def change(name: str, gradient: Tensor) -> Tensor:
        return adam_update(gradient, one.mean[name], one.square[name])

    return change


def _checkpoint(weights: Weights, optimizer: Any, rate: float) -> Checkpoint:
    states = {name: optimizer.state[own] for name, own in weights.items()}
    return Checkpoint(
        {name: own.detach().clone() for name, own in weights.items()},
        {name: own["exp_avg"].clone() for name, own in states.items()},
        {name: own["exp_avg_sq"].clone() for name, own in states.items()},
        rate,
    )
