"""Weights of rows that are found while a model is tuned on safe and noisy rows together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter.arrays import FloatArray, IntArray
from forgetfilter.lab.row_scorers.adapter_training import (
    Weights,
    batches,
    fresh_adapter,
    learning_rate,
    row_losses,
)

if TYPE_CHECKING:
    from torch import Tensor

    from forgetfilter.lab.row_scorers.base import Given

_BETAS = (0.9, 0.95)
_FIRST_LOGIT = 0.1


@dataclass(frozen=True)
class Course:
    """How the weights are found."""

    name: str
    """Seeds the adapter and the order of the rows."""
    epochs: int
    """Passes over the noisy rows."""
    selector_rate: float
    """Learning rate of the weights' logits."""
    shares: Callable[[int], tuple[float, float]]
    """What the safe and the weighted noisy rows' losses count in the model's, by epoch from 0."""
    has_second_model: bool = False
    """Whether a second model is tuned on the weighted noisy rows alone, whose loss is taken off."""


def row_weights(logits: FloatArray) -> FloatArray:
    """``N * softmax(logits)``: how much each of N rows counts, 1 on average."""
    powers = np.exp(logits - logits.max())
    return len(logits) * powers / powers.sum()


def selector_gradient(logits: FloatArray, rows: IntArray, losses: FloatArray) -> FloatArray:
    """Gradient of ``mean over the batch of weight_i * loss_i`` by all logits, shape (N,).

    Args:
        logits: of all N rows.
        rows: positions of the B rows of the batch.
        losses: of these, nats per token; for the full update less those of the second model.
    """
    weights = row_weights(logits)
    own = np.zeros(len(logits))
    np.add.at(own, rows, losses)
    together = float((weights[rows] * losses).sum()) / len(logits)
    return weights / len(rows) * (own - together)


def find_logits(given: Given, course: Course) -> FloatArray:
    """The logits of the noisy rows' weights at the end of ``course``, shape (N,).

    Each step takes a batch of noisy and one of safe rows, of the learn phase's size: the model
    follows the sum of both losses, the noisy rows weighted; the logits then follow the weighted
    loss as it was before that step. Both by Adam, as in the code of SEAL's authors.
    """
    import torch

    config = given.setting.config.learn
    model, weights = fresh_adapter(given, course.name)
    second = {key: own.detach().clone().requires_grad_(True) for key, own in weights.items()}
    rate, rng = learning_rate(given), given.rng(course.name)
    optimizer, second_optimizer = _adam(weights, rate), _adam(second, rate)
    logits = torch.full((len(given.noisy),), _FIRST_LOGIT, dtype=torch.float64)
    selector = torch.optim.Adam([logits], lr=course.selector_rate, betas=_BETAS)
    safe_left: list[IntArray] = []
    for epoch in range(course.epochs):
        safe_share, noisy_share = course.shares(epoch)
        for indices in batches(len(given.noisy), config.batch_size, rng):
            safe_left = safe_left or batches(len(given.safe), config.batch_size, rng)
            safe = [given.safe[at] for at in safe_left.pop()]
            noisy = [given.noisy[at] for at in indices]
            counted = torch.tensor(row_weights(logits.numpy())[indices], dtype=torch.float32)
            losses = row_losses(given, model, noisy, weights, is_read=noisy_share == 0)
            loss: Tensor = (counted.to(losses.device) * losses).mean() * noisy_share
            if safe_share:
                loss = loss + safe_share * row_losses(given, model, safe, weights).mean()
            _step(optimizer, loss)
            found = losses.detach().double().cpu().numpy()
            if course.has_second_model:
                theirs = row_losses(given, model, noisy, second)
                _step(second_optimizer, (counted.to(theirs.device) * theirs).mean())
                found = found - theirs.detach().double().cpu().numpy()
            logits.grad = torch.tensor(selector_gradient(logits.numpy(), indices, found))
            selector.step()
    return logits.numpy()


def _adam(weights: Weights, rate: float) -> Any:
    import torch

    return torch.optim.Adam(list(weights.values()), lr=rate, betas=_BETAS)


def _step(optimizer: Any, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
