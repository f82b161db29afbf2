"""The gradient of an optimizer step, computed by several processes: each takes some of its rows.

The batch of a step stays the one in the settings. Each process computes the loss of its own rows,
over the number of tokens of all, and the gradients are added up, so that every process takes the
step that one process alone would take. The trainer's own data parallelism fills the last batch of
an epoch up with rows that were in it already, which would be other steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import LossOn, loss_labels
from forgetfilter.model.processes.joining import Processes, together
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.model.training.step_method import Step, StepMethod


def in_shares(plan: TrainPlan, model: Any) -> TrainPlan:
    """The plan as each of several processes follows it; as it is where one process is alone.

    All begin with the weights of process 0.
    """
    group = together()
    if group is None or plan.method is not None:
        return plan
    group.align([weight.data for weight in model.parameters() if weight.requires_grad])
    return replace(plan, method=SharedStep(group))


class SharedStep(StepMethod):
    """The plain step, taken by all processes of a group together."""

    def __init__(self, group: Processes) -> None:
        self._group = group

    @property
    def key(self) -> dict[str, Any]:
        """Nothing: it is the plain step."""
        return {}

    def gradient(self, step: Step) -> float:
        """Add up what each process computes on its share of the rows.

        Raises:
            ModelError: another process was lost.
            RuntimeError: the processes don't take the same step, or not each row once.
        """
        group, before = self._group, step.passes_over.counted
        if step.number == 0 and group.rank:  # where there is dropout, it is not that of process 0
            torch.manual_seed((torch.initial_seed() + group.rank) % 2**63)
        counts = [_tokens(row, step.passes_over.loss_on) for row in step.rows]
        lengths = [len(row.input_ids) for row in step.rows]
        own = group.share(lengths)
        loss = self._pass_over(step, [step.rows[at] for at in own], 1 / max(1, sum(counts)))
        if group.is_parted:  # each process has to call the model equally often
            calls = [
                len(step.passes_over.cut([lengths[at] for at in group.share(lengths, rank)]))
                for rank in range(group.size)
            ]
            for _ in range(max(calls) - calls[group.rank]):
                self._pass_over(step, [step.rows[0]], 0.0)
        step.passes_over.counted = before + len(step.rows)
        self._check(step, own)
        weights = list(step.weights.values())
        found = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        for weight, gradient in zip(weights, group.add_up_tensors(found), strict=True):
            weight.grad = gradient
        return float(group.add_up(np.array([loss]))[0])

    def _pass_over(self, step: Step, rows: list[EncodedRow], weight: float) -> float:
        """Add the gradient of the summed loss of ``rows`` times ``weight``; that value."""
        total = 0.0
        for batch in step.passes(rows):
            loss = step.nats(batch).sum() * weight
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            total += float(loss.detach())
        return total

    def _check(self, step: Step, own: list[int]) -> None:
        """See that all take the same step, and each row once; the last row stands for the order."""
        counts = np.zeros(len(step.rows) + 2)
        counts[own] += 1
        first = self._group.rank == 0
        counts[-2:] = [0, 0] if first else [step.number, step.indices[-1]]
        found = self._group.add_up(counts)
        others = self._group.size - 1
        is_same = list(found[-2:]) == [others * step.number, others * step.indices[-1]]
        if not is_same or (found[:-2] != 1).any():
            raise RuntimeError(
                f"Step {step.number} is not the same in all {self._group.size} processes. The same "
                "rows are expected, each in one of them. Nothing of this phase is kept."
            )


def _tokens(row: EncodedRow, loss_on: LossOn) -> int:
    """How many tokens of a row carry loss."""
    return int(np.count_nonzero(loss_labels(row, loss_on)[1:] != -100))
