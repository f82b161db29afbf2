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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forgetfilter.config import RestoreSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.strata import by_share, kinds_of
from forgetfilter.finite import check_finite
from forgetfilter.model.loading.adapters import check_trainable
from forgetfilter.model.measuring.divergence import (
    base_log_probabilities,
    safe_gradient,
    squared_norm,
    trainable_parameters,
)
from forgetfilter.model.processes.joining import together
from forgetfilter.model.training.checkpoints import PhaseCheckpoints, load_weights, save_weights
from forgetfilter.progress import Progress

_POLYAK_C = 0.5
# No step moves the adapter by more than this share of its norm: where the divergence is small, the
# Polyak step divides one small number by another.
_LONGEST_MOVE = 0.1
# Nats per token; less is rounding, and there is nothing to restore. Below float32 an adapter that
# moves next to nothing reads as 0.002 (`benchmarks/bfloat16.py`). That is taken off, because a
# Polyak step goes to where the objective is least.
_LEAST_DIVERGENCE = 1e-6
_ROUNDED_DIVERGENCE = 2e-3
# Base's log-probabilities are read for as many batches at once as stay within so many numbers
# (256 MB): fewer and fuller passes, an eighth less time on the testbed.
_MOST_AHEAD = 2**26


@dataclass(frozen=True)
class RestorePlan:
    """What is restored on, and how."""

    rows: Sequence[EncodedRow]
    """The safe rows."""
    settings: RestoreSettings
    seed: int
    """Orders the rows within each kind."""
    max_batch_tokens: int = 8192


@dataclass(frozen=True)
class RestoreOutcome:
    """The course of a restoration."""

    divergences: list[float]
    """``KL(base || model)`` on each step's batch before the step, nats per token; falls to 0."""
    moves: list[float]
    """How far each step moved the adapter, as a share of its norm."""
    rows_used: list[int]
    """Which safe rows (`EncodedRow.row`) were in a batch, ascending."""


def restore(
    model: Any,
    plan: RestorePlan,
    progress: Progress,
    checkpoints: PhaseCheckpoints | None = None,
) -> RestoreOutcome:
    """Restore the behaviour of ``model`` with its adapter off, by changing the adapter in place.

    Every row of a batch counts alike, and batches depend on the rows and the seed alone, so that
    how rows share forward passes moves nothing. It goes on from the last of its ``checkpoints``.

    Raises:
        ModelError: ``model`` has no trainable adapter; or a divergence or a step is NaN or
            infinite, in which case the adapter is left as the step before made it.
    """
    check_trainable(model)
    settings = plan.settings
    outcome = RestoreOutcome([], [], [])
    weights = trainable_parameters(model)
    if group := together():
        group.align(list(weights.values()))
    rounding = 0.0 if _is_exact(model) else _ROUNDED_DIVERGENCE
    silent = Progress(is_silent=True)
    entry = checkpoints.latest() if checkpoints else None
    if entry is not None:
        load_weights(model, entry.folder)
        outcome = RestoreOutcome(**entry.facts)
    done = len(outcome.moves)
    with progress.bar("restore", settings.steps, "steps", done) as bar:
        for batch, base in _batches_with_base(model, plan, done):
            place = f"restore, step {len(outcome.moves) + 1} of {settings.steps}"
            limits = (plan.max_batch_tokens, silent, place)
            outcome.rows_used.extend(row.row for row in batch)
            found = safe_gradient(model, batch, "kl_to_base", *limits, base)
            divergence = float(found.values.mean())
            above = max(0.0, divergence - rounding)
            step = found.restoring_step if above > _LEAST_DIVERGENCE else 0.0
            step *= above / divergence if step else 1.0
            slope = math.sqrt(found.squared_norm / max(squared_norm(weights), 1e-30))
            move = min(step / _POLYAK_C * slope, _LONGEST_MOVE)
            check_finite(move, "length of the step", place)
            if move > 0:
                with torch.no_grad():
                    for name, weight in weights.items():
                        weight.sub_(move / slope * found.gradient[name].to(weight))
            outcome.divergences.append(divergence)
            outcome.moves.append(move)
            bar.update(1)
            if checkpoints and checkpoints.is_due and len(outcome.moves) < settings.steps:
                write = partial(save_weights, model)
                checkpoints.write(len(outcome.moves), vars(outcome), write)
    return replace(outcome, rows_used=sorted(set(outcome.rows_used)))


def _batches_with_base(
    model: Any, plan: RestorePlan, done: int
) -> Iterator[tuple[list[EncodedRow], list[Tensor] | None]]:
    """The batches, and what `base_log_probabilities` reads at their rows, where it was read ahead.

    Without the first ``done``. What is read ahead together is the same all the same, so that a
    restoration that goes on rounds as one that was never killed.

    Only in float32: a shorter format rounds by the shape of a pass, so that only a pass of the same
    shape tells the divergence of a barely damaged model. Nor by several processes, each of which
    would read base's at rows of others.
    """
    batches = [[plan.rows[i] for i in indices] for indices in _batches(plan)]
    vocabulary = model.get_output_embeddings().weight.shape[0]
    can_read_ahead = _is_exact(model) and together() is None
    most = _MOST_AHEAD // vocabulary if can_read_ahead else 0  # tokens
    while batches:
        tokens = np.cumsum([sum(row.target_tokens for row in batch) for batch in batches])
        ahead = max(1, int(np.searchsorted(tokens, most, side="right")))
        group, batches = batches[:ahead], batches[ahead:]
        skipped = min(done, ahead)
        done -= skipped
        if skipped == ahead:
            continue
        base: Iterator[Tensor] | None = None
        if ahead > 1:
            coming = [row for batch in group for row in batch]
            base = iter(base_log_probabilities(model, coming, plan.max_batch_tokens))
        for number, batch in enumerate(group):
            found = None if base is None else list(islice(base, len(batch)))
            if number >= skipped:
                yield batch, found


def _is_exact(model: Any) -> bool:
    """Whether it computes in float32; its adapter always is in float32."""
    return model.get_output_embeddings().weight.dtype == torch.float32


def _batches(plan: RestorePlan) -> Iterator[list[int]]:
    """Batches of row indices, one a step, each kind of row by its share.

    Every row comes up before any comes up again.
    """
    order = by_share(kinds_of(plan.rows), plan.seed)
    size = min(plan.settings.batch_size, len(order))
    rows = cycle(order)
    for _ in range(plan.settings.steps):
        yield list(islice(rows, size))
