"""What a pass says of each of its rows: its loss, and whether its answer is the first choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.data.records import EncodedRow

if TYPE_CHECKING:
    from forgetfilter.model.passes.forward import RowBatch


@dataclass(frozen=True)
class CompletionLosses:
    """Teacher-forced readings of every row, each of shape (N,)."""

    loss_sum: FloatArray
    """Nats, summed over the completion tokens."""
    greedy_match: BoolArray
    """Whether each completion token is the model's first choice given the true ones before it."""
    leading_sum: FloatArray | None = None
    """Nats, summed with `EncodedRow.leading_weights`."""

    def columns(self, state: str) -> dict[str, FloatArray | BoolArray]:
        """The same as columns of readings in ``state``."""
        assert self.leading_sum is not None
        return {
            f"loss_sum_{state}": self.loss_sum,
            f"greedy_match_{state}": self.greedy_match,
            f"leading_loss_{state}": self.leading_sum,
        }


def row_losses(
    rows: Sequence[EncodedRow], batch: RowBatch, nats: Tensor, is_choice: Tensor
) -> CompletionLosses:
    """What a pass over ``rows`` says of each of them, summed in float64.

    Args:
        rows: those of the pass, in order, B of them.
        batch: the pass.
        nats: loss of each completion token, shape (K,).
        is_choice: whether each is the model's first choice, shape (K,).
    """
    losses, is_miss = nats.double().cpu().numpy(), (~is_choice).cpu().numpy()
    leading = losses * np.concatenate([losses[:0], *(row.leading_weights for row in rows)])

    def summed(values: FloatArray | BoolArray) -> FloatArray:
        return np.bincount(batch.owner, values, minlength=len(rows)).astype(np.float64)

    return CompletionLosses(summed(losses), summed(is_miss) == 0, summed(leading))
