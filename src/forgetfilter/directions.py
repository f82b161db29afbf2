"""Gradients over rows, and how fast each row's loss changes along a direction in weight space.

With theta the trainable (adapter) parameters, a *direction* v has one tensor per parameter. The
rate of change of a loss l along v is the directional derivative <v, grad l(theta)>, found for all
rows by forward passes alone, without any per-row gradient.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from forgetfilter.measuring import (
    RowBatch,
    at_targets,
    pass_inputs,
    row_batches,
    target_logits,
    target_nats,
)
from forgetfilter.progress import Progress
from forgetfilter.records import EncodedRow, FloatArray, IntArray, Objective

Direction = Mapping[str, Tensor]
Method = Literal["forward", "finite"]

# Finite differences move the adapter by this share of its norm: small enough that the loss is
# straight over the step, large enough to stand far above float32 rounding (docs/lab/signals.md).
_FINITE_STEP = 1e-3


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


@dataclass(frozen=True)
class LossRates:
    """How fast each row's completion loss changes along one direction."""

    rate_sum: FloatArray
    """Nats per unit of the direction, summed over the completion tokens, shape (N,)."""
    token_rates: tuple[FloatArray, ...]
    """The same for each completion token of each row, in order."""


def trainable_parameters(model: Any) -> dict[str, Tensor]:
    """The parameters that directions are about, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def row_features(
    model: Any, rows: Sequence[EncodedRow], max_batch_tokens: int, progress: Progress, label: str
) -> FloatArray:
    """Mean hidden state over each row's completion, middle and last layer, shape (N, 2H).

    Standardised over the rows: every column has mean 0 and standard deviation 1.
    """
    features: list[FloatArray] = [np.zeros(0)] * len(rows)
    with progress.bar(label, len(rows), "rows") as bar:
        for batch in row_batches(model, rows, max_batch_tokens):
            states = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                output_hidden_states=True,
                use_cache=False,
            ).hidden_states
            layers = torch.cat([states[len(states) // 2], states[-1]], dim=-1)
            layers = layers[:, batch.positions].float()  # (B, P, 2H)
            weights = batch.predicts_target.to(layers.dtype).unsqueeze(-1)  # (B, P, 1)
            means = (layers * weights).sum(dim=1) / weights.sum(dim=1)  # (B, 2H)
            for position, index in enumerate(batch.indices):
                features[index] = means[position].double().cpu().numpy()
            bar.update(len(batch.indices))
    table = np.stack(features)
    return (table - table.mean(axis=0)) / (table.std(axis=0) + 1e-6)


def group_rows(
    model: Any,
    rows: Sequence[EncodedRow],
    groups: int,
    max_batch_tokens: int,
    progress: Progress,
    label: str,
) -> IntArray:
    """Part rows into at most ``groups`` groups of alike ones; a group index per row, shape (N,).

    K-means (fixed seed) on `row_features`. One gradient over all safe rows averages their kinds, so
    that the kind with the largest gradient hides the others; a gradient per group doesn't.
    """
    from sklearn.cluster import KMeans

    groups = min(groups, len(rows))
    if groups == 1:
        return np.zeros(len(rows), dtype=np.int64)
    table = row_features(model, rows, max_batch_tokens, progress, label)
    means = KMeans(groups, n_init=10, random_state=0)  # pyright: ignore[reportArgumentType]
    return means.fit_predict(table).astype(np.int64)


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
    """
    if model.training:  # a tenth of a small batch's time goes into asking every module
        model.eval()
    parameters = trainable_parameters(model)
    total: list[Tensor] = []
    values = np.zeros(len(rows))
    with progress.bar(label, len(rows), "rows") as bar:
        for batch in row_batches(model, rows, max_batch_tokens):
            nats = (
                target_nats(target_logits(model, batch), batch)
                if objective == "completion_loss"
                else _kl_to_base(model, batch, base)
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
    gradient = {name: value.float() for name, value in zip(parameters, total, strict=True)}
    return SafeGradient(gradient, values, squared_norm(gradient))


@torch.no_grad()
def divergences(
    model: Any, rows: Sequence[EncodedRow], max_batch_tokens: int, progress: Progress, label: str
) -> FloatArray:
    """``KL(base || model)`` of each row, nats per completion token, shape (N,).

    The base model is ``model`` with its adapter off.
    """
    model.eval()
    values = np.zeros(len(rows))
    with progress.bar(label, len(rows), "rows") as bar:
        for batch in row_batches(model, rows, max_batch_tokens):
            values[batch.indices] = _row_means(batch, _kl_to_base(model, batch))
            bar.update(len(batch.indices))
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
        for batch in row_batches(model, rows, max_batch_tokens):
            counts = np.bincount(batch.owner).tolist()
            parts = _log_probabilities(model, batch).split(counts)
            for index, own in zip(batch.indices, parts, strict=True):
                found[index] = own
    return found


def _kl_to_base(model: Any, batch: RowBatch, known: Sequence[Tensor] | None = None) -> Tensor:
    """``KL(base || model)`` at each completion token, shape (K,)."""
    if known is None:
        with torch.no_grad(), model.disable_adapter():
            base = _log_probabilities(model, batch)  # (K, V)
    else:
        base = torch.cat([known[index] for index in batch.indices])  # (K, V)
    own = _log_probabilities(model, batch)  # (K, V)
    return (base.exp() * (base - own)).sum(dim=-1)


def _log_probabilities(model: Any, batch: RowBatch) -> Tensor:
    return torch.log_softmax(target_logits(model, batch), dim=-1)


def loss_rates(
    model: Any,
    rows: Sequence[EncodedRow],
    directions: Sequence[Direction],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    method: Method = "finite",
) -> list[LossRates]:
    """Rate of change of each row's loss along each direction at the model's present weights.

    Args:
        model: a model with a trainable adapter.
        rows: the rows to measure.
        directions: each holds one tensor per trainable parameter.
        max_batch_tokens: bounds memory.
        progress: where the rows are counted.
        label: names the bar.
        method: ``finite`` takes the difference over a step of 0.001 of the adapter's norm, one
            forward pass a direction and one for all; use it in float32. ``forward`` differentiates
            in forward mode, exact to rounding in any number format, at three to four times the
            cost.
    """
    model.eval()
    sums = np.zeros((len(directions), len(rows)))
    tokens: list[list[FloatArray]] = [[np.zeros(0)] * len(rows) for _ in directions]
    steps = [_finite_step(model, direction) for direction in directions]
    with progress.bar(label, len(rows), "rows") as bar, torch.no_grad(), _plain_attention():
        for batch in row_batches(model, rows, max_batch_tokens):
            here = None if method == "forward" else target_nats(target_logits(model, batch), batch)
            for k, direction in enumerate(directions):
                if here is None:
                    rates = _forward_rates(model, batch, direction)
                elif steps[k] == 0:  # a direction that vanishes moves nothing
                    rates = torch.zeros_like(here)
                else:
                    moved = _moved_nats(model, batch, direction, steps[k])
                    rates = (moved - here.double()) / steps[k]
                values = rates.double().cpu().numpy()
                size = len(batch.indices)
                sums[k, batch.indices] = np.bincount(batch.owner, weights=values, minlength=size)
                for position, index in enumerate(batch.indices):
                    tokens[k][index] = values[batch.owner == position]
            bar.update(len(batch.indices))
    return [LossRates(own, tuple(parts)) for own, parts in zip(sums, tokens, strict=True)]


def write_directions(
    folder: Path,
    model: Any,
    rows: Sequence[EncodedRow],
    objective: Objective,
    groups: int,
    max_batch_tokens: int,
    progress: Progress,
    label: str,
) -> None:
    """Part the safe rows into groups and keep the gradient of each, with what is known of it."""
    from safetensors.torch import save_file

    limits = (max_batch_tokens, progress, label)
    group = group_rows(model, rows, groups, *limits)
    facts: list[dict[str, float]] = []
    for number in range(int(group.max()) + 1):
        members = [row for row, own in zip(rows, group, strict=True) if own == number]
        found = safe_gradient(model, members, objective, *limits)
        tensors = {name: t.cpu().contiguous() for name, t in found.gradient.items()}
        save_file(tensors, folder / f"direction-{number}.safetensors")
        facts.append(
            {
                "rows": len(members),
                "value": float(found.values.mean()),
                "squared_norm": found.squared_norm,
                "restoring_step": found.restoring_step,
            }
        )
    (folder / "directions.json").write_text(json.dumps(facts, indent=2))


def read_facts(folder: Path) -> list[dict[str, float]]:
    """What `write_directions` knew of each group: rows, value, squared_norm, restoring_step."""
    return json.loads((folder / "directions.json").read_text())


def read_descents(folder: Path) -> list[dict[str, Tensor]]:
    """Minus the gradient of each group that `write_directions` has kept."""
    from safetensors.torch import load_file

    files = [
        folder / f"direction-{number}.safetensors" for number in range(len(read_facts(folder)))
    ]
    return [{name: -tensor for name, tensor in load_file(file).items()} for file in files]


def squared_norm(tensors: Mapping[str, Tensor]) -> float:
    """Squared Euclidean norm over all tensors."""
    return float(sum(t.detach().double().pow(2).sum() for t in tensors.values()))


def _forward_rates(model: Any, batch: RowBatch, direction: Direction) -> Tensor:
    """Per-token rates by forward-mode differentiation, shape (K,)."""
    with forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(p.detach(), direction[name].to(p))
            for name, p in trainable_parameters(model).items()
        }
        logits = _logits_at(model, duals, batch)
        tangent = forward_ad.unpack_dual(target_nats(logits, batch)).tangent
        if tangent is None:
            raise RuntimeError("the loss has no tangent: no trainable parameter reaches it")
        return tangent


def _moved_nats(model: Any, batch: RowBatch, direction: Direction, step: float) -> Tensor:
    """Per-token losses after a step along the direction, shape (K,)."""
    parameters = trainable_parameters(model)
    moved = {name: p.detach() + step * direction[name].to(p) for name, p in parameters.items()}
    return target_nats(_logits_at(model, moved, batch), batch).double()


def _logits_at(model: Any, weights: Mapping[str, Tensor], batch: RowBatch) -> Tensor:
    """`target_logits` of one pass with other trainable parameters in place of the model's own."""
    inputs = pass_inputs(model, batch)
    logits = torch.func.functional_call(model, dict(weights), kwargs=inputs).logits
    return at_targets(logits, batch)


def _finite_step(model: Any, direction: Direction) -> float:
    """Length of a finite step in units of the direction."""
    norm = np.sqrt(squared_norm(direction))
    own = np.sqrt(squared_norm(trainable_parameters(model)))
    return _FINITE_STEP * own / norm if norm > 0 else 0.0


def _plain_attention() -> AbstractContextManager[Any]:
    """Attention kernels that can be differentiated forward; the fused ones can't."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)
