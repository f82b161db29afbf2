"""What one optimizer step follows, for ways of training that change more than rows or settings.

`fine_tuning.train` owns the optimizer, the schedule, the order of the rows and the end. A
`StepMethod` is asked for the gradient of each step, before it is clipped, and for nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import LossOn, loss_labels
from forgetfilter.model.loading.base_model import autocast_for
from forgetfilter.model.passes.answer_head import token_nats
from forgetfilter.model.passes.batch_plan import cheapest_passes
from forgetfilter.model.passes.forward import RowBatch, batch_of


def padded_inputs(
    rows: Sequence[EncodedRow], loss_on: LossOn, pad_token_id: int
) -> dict[str, Tensor]:
    """``input_ids``, ``labels`` and ``attention_mask`` of ``rows``, each (B, T).

    Padded on the right; the attention mask follows positions, not ids.
    """
    longest = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), longest), pad_token_id)
    labels = torch.full((len(rows), longest), -100)
    attention_mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for i, row in enumerate(rows):
        length = len(row.input_ids)
        input_ids[i, :length] = torch.tensor(row.input_ids)
        labels[i, :length] = torch.tensor(loss_labels(row, loss_on))
        attention_mask[i, :length] = 1
    return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


def answer_loss(model: Any, inputs: Mapping[str, Tensor], tokens: Any) -> Tensor:
    """Loss of the tokens of a pass that carry one, summed, over those of the whole batch.

    The loss that TRL computes; on a CPU that scores every position of every row, and a 135M model
    with 49,000 tokens spends half of its time on it.
    """
    return token_nats(model, pass_of(inputs)).sum() / tokens


def pass_of(inputs: Mapping[str, Tensor]) -> RowBatch:
    """The pass over rows that `padded_inputs` has made tensors of, on the device where they are."""
    ids, mask, labels = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
    return batch_of(list(range(len(ids))), ids, mask, labels != -100, ids.device)


@dataclass
class Passes:
    """Cuts the rows of a step into forward passes as plain training does, and counts them.

    Rows of similar length share a pass: in a file of rows between 22 and 61 tokens a third of what
    one pass over each step computes is padding. The loss is a sum over the tokens of all passes.
    """

    loss_on: LossOn
    pad_token_id: int
    max_tokens: int
    """Most padded tokens of a pass of several rows."""
    pass_cost: int
    """What a pass costs however small it is, in padded tokens."""
    counted: int = 0
    """Forward and backward passes so far, each over one row."""

    def cut(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which rows of these lengths share each pass."""
        return cheapest_passes(lengths, self.max_tokens, self.pass_cost)

    def parts(self, inputs: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """`padded_inputs` of all rows of a step, cut into those of its passes.

        What is (B, T) loses the columns in which a pass has padding alone; what is (B,) has none.
        """
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        return [
            {
                name: whole[own, : lengths[own[0]]] if whole.dim() > 1 else whole[own]
                for name, whole in inputs.items()
            }
            for own in self.cut(lengths)
        ]

    def __call__(self, rows: Sequence[EncodedRow], device: torch.device) -> Iterator[RowBatch]:
        """The passes over ``rows``; their ``indices`` are places in ``rows``."""
        for places in self.cut([len(row.input_ids) for row in rows]):
            part = [rows[place] for place in places]
            found = padded_inputs(part, self.loss_on, self.pad_token_id)
            is_target = found["labels"] != -100
            inputs = found["input_ids"], found["attention_mask"]
            self.counted += len(part)
            yield batch_of(places, *inputs, is_target, device)


@dataclass(frozen=True)
class Step:
    """One optimizer step that a method is asked for."""

    model: Any
    """In training mode, its gradients empty."""
    number: int
    """From 0."""
    total: int
    """How many there will be; at most, where the end is found out in training."""
    indices: Sequence[int]
    """Which rows of the phase the step is about."""
    rows: Sequence[EncodedRow]
    """The same rows."""
    passes_over: Passes

    @property
    def weights(self) -> dict[str, Tensor]:
        """What is trained, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def passes(self, rows: Sequence[EncodedRow]) -> Iterator[RowBatch]:
        """The forward passes over ``rows``, cut as plain training cuts them."""
        return self.passes_over(rows, next(self.model.parameters()).device)

    def nats(self, batch: RowBatch) -> Tensor:
        """Loss of each token of a pass that carries one, (K,), with its graph."""
        with autocast_for(self.model):
            return token_nats(self.model, batch)

    def row_losses(self, batch: RowBatch) -> Tensor:
        """Mean over its tokens of the loss of each row of a pass, (B,), with its graph."""
        nats = self.nats(batch)
        owner = torch.tensor(batch.owner, device=nats.device)
        counts = np.bincount(batch.owner, minlength=len(batch.indices)).clip(min=1)
        sums = torch.zeros(len(batch.indices), device=nats.device).index_add(0, owner, nats)
        return sums / torch.tensor(counts, device=nats.device)

    def add_gradient(self, rows: Sequence[EncodedRow]) -> float:
        """Add the gradient of the mean loss over all tokens of ``rows``; that loss, in nats.

        The plain step is this on `rows`.
        """
        settings = self.passes_over
        tokens = sum(
            sum(label != -100 for label in loss_labels(row, settings.loss_on)[1:]) for row in rows
        )
        total = 0.0
        for batch in self.passes(rows):
            loss = self.nats(batch).sum() / max(1, tokens)
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            total += float(loss.detach())
        return total


class StepMethod(ABC):
    """How the gradient of each optimizer step is made.

    One object serves one phase: what it remembers from step to step it sets up at step 0.
    """

    @property
    @abstractmethod
    def key(self) -> dict[str, Any]:
        """All that decides what it does, as JSON: part of the name of the stage that it makes."""

    @abstractmethod
    def gradient(self, step: Step) -> float:
        """Leave in ``.grad`` of the weights what the optimizer is to follow; returns the loss."""

    def state(self) -> dict[str, Any] | None:
        """All that it remembers from step to step, for checkpoints: tensors, numbers, texts.

        Empty where it remembers nothing; None, as here, where that can't be saved: a phase with
        such a method has no checkpoints.
        """
        return None

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; its tensors are on the CPU now."""
        if state:
            raise NotImplementedError(f"{type(self).__name__} has a state() but no resume()")
