"""What one phase of training works on, and how long it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetfilter.config import PhaseSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.passes.limits import CPU_BATCH_TOKENS

if TYPE_CHECKING:  # which imports torch
    from forgetfilter.model.training.step_method import StepMethod


@dataclass(frozen=True)
class TrainPlan:
    """What one phase trains on, and how."""

    phase: str
    """Name of the phase; seeds and progress are named after it."""
    rows: Sequence[EncodedRow]
    settings: PhaseSettings
    seed: int
    max_batch_tokens: int = 8192
    level_epochs: int | None = None
    """With ``stop: learned``: after how many epochs the learning rate begins to fall, where another
    phase has found out. Nothing is measured then."""
    is_paired: bool = False
    """Whether fine-tunes of nearly the same rows see them in nearly the same order; see
    `RowOrder`."""
    method: StepMethod | None = None
    """What each step follows, where that is not the mean loss of its rows."""
    is_checkpointed: bool = False
    """Whether layers are made again in the backward pass; moves memory and time alone."""


def total_steps(plan: TrainPlan) -> int:
    """Optimizer steps of a plan; at most, where it stops once its rows are learned."""
    if plan.settings.max_steps is not None:
        return plan.settings.max_steps
    epochs = plan.settings.num_train_epochs
    if epochs is None:
        raise ValueError("settings.num_train_epochs is None; fill it in from the model first")
    return max(1, math.ceil(epochs * epoch_steps(plan)))


def epoch_steps(plan: TrainPlan) -> int:
    """Optimizer steps in which every row is seen once."""
    return math.ceil(len(plan.rows) / plan.settings.batch_size)


def early_step(plan: TrainPlan, early_epochs: float) -> int:
    """After which step the early adapter is kept: ``early_epochs``, or half way if that is less."""
    early = round(early_epochs * epoch_steps(plan))
    return max(1, min(early, total_steps(plan) // 2))


def tokens_per_pass(plan: TrainPlan, device: str) -> int:
    """Most padded tokens of a training pass; moves memory and speed alone.

    On a CPU ``CPU_BATCH_TOKENS`` at most, by which a 135M model trains 1.6 times as fast.
    """
    return (
        min(plan.max_batch_tokens, CPU_BATCH_TOKENS) if device == "cpu" else plan.max_batch_tokens
    )
