"""How fast each row's loss changes while the model descends on an objective over the safe rows.

With theta the trainable (adapter) parameters, a *direction* v has one tensor per parameter. The
rate of change of a row's loss l along v is the directional derivative <v, grad l(theta)>. The safe
rows are parted into groups of alike ones, each with a direction of its own: minus the gradient.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forgetfilter.arrays import FloatArray
from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import ModelError
from forgetfilter.finite import check_finite
from forgetfilter.model.measuring.divergence import safe_gradient, trainable_parameters
from forgetfilter.model.measuring.grouping import group_rows
from forgetfilter.model.passes.answer_head import token_nats
from forgetfilter.model.passes.forward import row_batches
from forgetfilter.model.passes.shards import Shards
from forgetfilter.model.processes.dealing import added_up
from forgetfilter.progress import Progress
from forgetfilter.scoring.records import Objective

Direction = Mapping[str, Tensor]


def loss_rates(
    model: Any,
    rows: Sequence[EncodedRow],
    directions: Sequence[Direction],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
) -> FloatArray:
    """Rate of change of each row's loss along K directions at the model's present weights.

    Exact, by one forward and one backward pass a batch whatever K is: the gradient of row b at the
    weight of a linear layer is ``sum_t g_bt x_bt^T``, a sum over its tokens t, with x the layer's
    input and g the gradient at its output. No more than one layer's is held at a time.

    Args:
        model: a model with a trainable adapter.
        rows: the rows to measure.
        directions: each holds one tensor per trainable parameter.
        max_batch_tokens: bounds memory.
        progress: where the rows are counted.
        label: names the bar.
        shards: keep what is measured on the way.

    Returns:
        Nats per unit of each direction, summed over a row's completion tokens, shape (K, N).

    Raises:
        ModelError: a trainable parameter is not the weight of a linear layer that sees whole rows,
            or the rate of a row is NaN or infinite.
    """
    model.eval()
    weights = list(trainable_parameters(model).values())
    rates = np.zeros((len(directions), len(rows)))
    found: list[Tensor] = []
    shards = shards or Shards()
    is_done = shards.begin(len(rows), {"rates": rates.T})
    bars = progress.bar(label, len(rows), "rows", int(is_done.sum()))
    with bars as bar, _rates_noted(model, directions, found):
        batches = row_batches(model, rows, max_batch_tokens, is_done)
        for batch in batches:
            found.clear()
            with batches.or_halves(batch):
                torch.autograd.grad(token_nats(model, batch).sum(), weights)  # calls the hooks
                rates[:, batch.indices] = sum(own.cpu().double().numpy() for own in found)
                shards.add(batch.indices)
                bar.update(len(batch.indices))
    rates = added_up(rates)
    check_finite(rates.sum(axis=0), "rate of change of the loss", label)
    return rates


@contextmanager
def _rates_noted(
    model: Any, directions: Sequence[Direction], found: list[Tensor]
) -> Generator[None]:
    """Make each backward pass append every trainable layer's part of the rates, shape (K, B)."""
    names = {id(weight): name for name, weight in trainable_parameters(model).items()}
    missing = dict(names)
    hooks: list[Any] = []
    try:
        for module in model.modules():
            own = id(getattr(module, "weight", None))
            name = names.get(own)
            if name is None:
                continue
            missing.pop(own, None)
            if not isinstance(module, torch.nn.Linear):
                raise _unfit(f"{name}, of a {type(module).__name__}")
            along = torch.stack([direction[name] for direction in directions])  # (K, out, in)
            hook = _layer_hook(along.to(module.weight.device, torch.float32), found)
            hooks.append(module.register_forward_hook(hook))
        for name in missing.values():
            raise _unfit(name)
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _layer_hook(along: Tensor, found: list[Tensor]) -> Callable[..., None]:
    """A forward hook of a linear layer for directions of its weight, shape (K, out, in)."""

    def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        given = inputs[0].detach()  # (B, T, in)
        if given.ndim != 3:
            raise _unfit(f"a {type(module).__name__} that isn't shown rows as they are batched")

        def note(gradient: Tensor) -> None:  # (B, T, out)
            by_row = gradient.float().transpose(1, 2) @ given.float()  # (B, out, in)
            found.append(along.flatten(1) @ by_row.flatten(1).T)

        output.register_hook(note)

    return hook


def _unfit(what: str) -> ModelError:
    return ModelError(
        f"Rates of change can't be measured for {what}. An adapter of linear layers (LoRA) is "
        "expected. Use --signal restoration."
    )


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
    (folder / "directions.json").write_text(json.dumps(facts, indent=2, allow_nan=False))


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
