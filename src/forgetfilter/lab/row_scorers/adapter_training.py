"""Plain training of an adapter, row losses in hand, for scorers that train in their own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter.arrays import IntArray

if TYPE_CHECKING:
    from torch import Tensor

    from forgetfilter.data.records import EncodedRow
    from forgetfilter.lab.row_scorers.base import Given

Weights = dict[str, "Tensor"]
"""An adapter's tensors by the name of the parameter that they stand for."""


def fresh_adapter(given: Given, name: str) -> tuple[Any, Weights]:
    """The base model with a fresh adapter, in evaluation mode (no dropout), and its weights.

    The weights are copies that gradients can be taken of; the model's own are left as they are.
    """
    model = given.bench.model.trainable(given.bench.base, name).eval()
    return model, {
        key: own.detach().clone().requires_grad_(True)
        for key, own in model.named_parameters()
        if own.requires_grad
    }


def row_losses(
    given: Given, model: Any, rows: Sequence[EncodedRow], weights: Weights, *, is_read: bool = False
) -> Tensor:
    """Mean completion loss of each row with ``weights`` in the model, nats per token, shape (n,).

    With ``is_read`` no gradient can be taken of it, and none is counted.
    """
    import torch

    from forgetfilter.model.passes.forward import at_targets, pass_inputs, row_batches, target_nats

    (given.passes.read if is_read else given.passes.differentiated)(len(rows))
    parts: list[Tensor] = []
    order: list[int] = []
    with torch.set_grad_enabled(not is_read):
        for batch in row_batches(model, rows, given.bench.max_batch_tokens):
            inputs = pass_inputs(model, batch)
            output = torch.func.functional_call(model, weights, (), inputs)
            nats = target_nats(at_targets(output.logits, batch), batch)
            owner = torch.tensor(batch.owner, device=nats.device)
            size = len(batch.indices)
            sums = torch.zeros(size, device=nats.device).index_add(0, owner, nats)
            parts.append(sums / torch.bincount(owner, minlength=size))
            order += batch.indices
    back = np.argsort(order)
    return torch.cat(parts)[torch.tensor(back, device=parts[0].device)]


def learning_rate(given: Given) -> float:
    """That of the learn phase, so that all scorers that train have the same."""
    rate = given.bench.completed(given.setting.config.learn).learning_rate
    if rate is None:
        raise ValueError("the learn phase has no learning rate")
    return rate


def batches(count: int, size: int, rng: np.random.Generator) -> list[IntArray]:
    """All of ``count`` rows in a random order, in batches of ``size``; the last may be smaller."""
    order = rng.permutation(count)
    return [order[at : at + size] for at in range(0, count, size)]


def put(model: Any, weights: Weights) -> Any:
    """``model`` with ``weights`` in its adapter, in place."""
    import torch

    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    return model
