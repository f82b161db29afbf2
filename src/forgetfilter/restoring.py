"""Restore: take a fine-tuned model back to the base model's behaviour on the safe rows.

The objective is ``KL(base || model)`` at the completion tokens of the safe rows, which is zero in
the base model: its gradient holds only what fine-tuning has damaged. Plain gradient descent follows
it with the stochastic Polyak step ``f / (c |g|^2)`` (Loizou et al., AISTATS 2021, arXiv
2002.10542), so there is no learning rate to set; c = 1/2, which brings a batch's divergence to zero
where it is quadratic, as it is about the base model. An optimizer that gives every weight the same
pace (Adam) would move tasks as well.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from forgetfilter.adapters import check_trainable
from forgetfilter.config import RestoreSettings
from forgetfilter.directions import safe_gradient, squared_norm, trainable_parameters
from forgetfilter.progress import Progress
from forgetfilter.records import EncodedRow

_POLYAK_C = 0.5
# No step moves the adapter by more than this share of its norm: where the divergence is all but
# rounding, the Polyak step divides one small number by another.
_LONGEST_MOVE = 0.1


@dataclass(frozen=True)
class RestorePlan:
    """What is restored on, and how."""

    rows: Sequence[EncodedRow]
    """The safe rows."""
    settings: RestoreSettings
    seed: int
    """Draws the batches."""
    max_batch_tokens: int = 8192


@dataclass(frozen=True)
class RestoreOutcome:
    """The course of a restoration."""

    divergences: list[float]
    """``KL(base || model)`` on each step's batch before the step, nats per token; falls to 0."""
    moves: list[float]
    """How far each step moved the adapter, as a share of its norm."""


def restore(model: Any, plan: RestorePlan, progress: Progress) -> RestoreOutcome:
    """Restore the behaviour of ``model`` with its adapter off, by changing the adapter in place.

    Every row of a batch counts alike, and batches depend on the seed alone, so that how rows share
    forward passes moves nothing.

    Raises:
        ModelError: ``model`` has no trainable adapter.
    """
    check_trainable(model)
    settings = plan.settings
    outcome = RestoreOutcome([], [])
    batches = _batches(len(plan.rows), settings, plan.seed)
    silent = Progress(is_silent=True)
    with progress.bar("restore", settings.steps, "steps") as bar:
        for indices in batches:
            batch = [plan.rows[i] for i in indices]
            found = safe_gradient(model, batch, "kl_to_base", plan.max_batch_tokens, silent, "")
            weights = trainable_parameters(model)
            slope = math.sqrt(found.squared_norm / max(squared_norm(weights), 1e-30))
            move = min(max(found.restoring_step, 0.0) / _POLYAK_C * slope, _LONGEST_MOVE)
            if move > 0:
                with torch.no_grad():
                    for name, weight in weights.items():
                        weight.sub_(move / slope * found.gradient[name].to(weight))
            outcome.divergences.append(float(found.values.mean()))
            outcome.moves.append(move)
            bar.update(1)
    return outcome


def _batches(count: int, settings: RestoreSettings, seed: int) -> Iterator[list[int]]:
    """``settings.steps`` batches of row indices; every row comes up before any comes up again."""
    rng = random.Random(seed)
    size = min(settings.batch_size, count)
    waiting: list[int] = []
    for _ in range(settings.steps):
        while len(waiting) < size:
            waiting += rng.sample(range(count), count)
        yield waiting[:size]
        del waiting[:size]
