"""How far a fine-tuned model has moved from the base model on some rows, and the gradient of that.

The base model is the same weights with the adapter off. Gradients are with respect to the trainable
(adapter) parameters, one tensor per parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forgetfilter.arrays import FloatArray
from forgetfilter.data.records import EncodedRow
from forgetfilter.finite import check_finite
from forgetfilter.model.passes.answer_head import target_logits, token_divergences, token_nats
from forgetfilter.model.passes.forward import RowBatch, row_batches
from forgetfilter.model.passes.shards import Shards
from forgetfilter.model.processes.dealing import added_up
from forgetfilter.model.processes.joining import together
from forgetfilter.progress import Progress
from forgetfilter.scoring.records import Objective


@dataclass(frozen=True)
class SafeGradient:
    """The gradient of an objective over the safe rows."""

    gradient: dict[str, Tensor]
    """One tensor per trainable parameter."""
    values: FloatArray
    """The objective of each safe row, nats per token, shape (M,)."""
    squared_norm: float
    """Squared Euclidean norm of the gradient."""

    @property
    def restoring_step(self) -> float:
        """The Polyak step: how far along minus the gradient the mean objective would reach zero.

        To first order. 0 where the gradient vanishes: there is nothing to restore.
        """
        return float(self.values.mean()) / self.squared_norm if self.squared_norm > 0 else 0.0


def trainable_parameters(model: Any) -> dict[str, Tensor]:
    """The parameters that gradients are taken of, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def squared_norm(tensors: Mapping[str, Tensor]) -> float:
    """Squared Euclidean norm over all tensors."""
    return float(sum(t.detach().double().pow(2).sum() for t in tensors.values()))


def safe_gradient(
    model: Any,
    rows: Sequence[EncodedRow],
    objective: Objective,
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    base: Sequence[Tensor] | None = None,
) -> SafeGradient:
    """Gradient of an objective over the safe rows, in float32; dropout off.

    Every row counts alike: per-token values are averaged within a row, then over rows, so neither
    batching nor order matters.

    Args:
        model: a model with a trainable adapter.
        rows: the safe rows.
        objective: ``completion_loss`` (nats per token); or ``kl_to_base``, the divergence
            ``KL(base || model)`` at each completion token (nats per token), the base model being
            the same weights with the adapter off.
        max_batch_tokens: bounds memory.
        progress: where the rows are counted.
        label: names the bar.
        base: what `base_log_probabilities` gave for these rows, if it was asked before; only for
            ``kl_to_base``.

    Raises:
        ModelError: the objective of a row, or the gradient, is NaN or infinite.
    """
    if model.training:  # a tenth of a small batch's time goes into asking every module
        model.eval()
    parameters = trainable_parameters(model)
    total: list[Tensor] = []
    values = np.zeros(len(rows))
    with progress.bar(label, len(rows), "rows") as bar:
        batches = row_batches(model, rows, max_batch_tokens, is_fine=True)
        for batch in batches:
            with batches.or_halves(batch):
                nats = (
                    token_nats(model, batch)
                    if objective == "completion_loss"
                    else token_divergences(model, batch, _known(batch, base))
                )
                weights = 1 / np.bincount(batch.owner)[batch.owner]
                each = torch.tensor(weights, dtype=nats.dtype, device=nats.device)
                loss = (nats * each).sum() / len(rows)
                found = torch.autograd.grad(loss, list(parameters.values()))
                # Summed in float64; a single batch needs no sum.
                pairs = zip(total, found, strict=True)
                total = [sum_.double() + own for sum_, own in pairs] if total else list(found)
                values[batch.indices] = _row_means(batch, nats)
                bar.update(len(batch.indices))
    if group := together():
        empty = [torch.zeros_like(weight) for weight in parameters.values()]
        total = group.add_up_tensors([own.double() for own in total or empty])
    values = added_up(values)
    check_finite(values, objective, label)
    gradient = {name: value.float() for name, value in zip(parameters, total, strict=True)}
    slope = squared_norm(gradient)
    check_finite(slope, f"gradient of {objective}", label)
    return SafeGradient(gradient, values, slope)


@torch.no_grad()
def divergences(
    model: Any,
    rows: Sequence[EncodedRow],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
) -> FloatArray:
    """``KL(base || model)`` of each row, nats per completion token, shape (N,).

    The base model is ``model`` with its adapter off.

    Raises:
        ModelError: the divergence of a row is NaN or infinite.
    """
    model.eval()
    values = np.zeros(len(rows))
    shards = shards or Shards()
    is_done = shards.begin(len(rows), {"values": values})
    with progress.bar(label, len(rows), "rows", int(is_done.sum())) as bar:
        batches = row_batches(model, rows, max_batch_tokens, is_done)
        for batch in batches:
            with batches.or_halves(batch):
                values[batch.indices] = _row_means(batch, token_divergences(model, batch))
                shards.add(batch.indices)
                bar.update(len(batch.indices))
    values = added_up(values)
    check_finite(values, "divergence from base", label)
    return values


def _row_means(batch: RowBatch, nats: Tensor) -> FloatArray:
    """Mean over each row's completion tokens of a value per token, shape (rows of the batch,)."""
    sums = np.bincount(batch.owner, nats.detach().double().cpu().numpy())
    return sums / np.bincount(batch.owner)


@torch.no_grad()
def base_log_probabilities(
    model: Any, rows: Sequence[EncodedRow], max_batch_tokens: int
) -> list[Tensor]:
    """Base's log-probabilities at the completion tokens of each row, (tokens, V) a row.

    The base model is ``model`` with its adapter off.
    """
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    with model.disable_adapter():
        batches = row_batches(model, rows, max_batch_tokens)
        for batch in batches:
            with batches.or_halves(batch):
                counts = np.bincount(batch.owner).tolist()
                parts = torch.log_softmax(target_logits(model, batch), dim=-1).split(counts)
                for index, own in zip(batch.indices, parts, strict=True):
                    found[index] = own
    return found


def _known(batch: RowBatch, base: Sequence[Tensor] | None) -> Tensor | None:
    """Base's log-probabilities at the completion tokens of a pass, (K, V), if they were read."""
    return None if base is None else torch.cat([base[index] for index in batch.indices])
