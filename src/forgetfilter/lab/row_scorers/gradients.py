"""Gradients of each row's loss on its own, by one backward pass a batch where that can be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from forgetfilter.arrays import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

    from forgetfilter.data.records import EncodedRow
    from forgetfilter.lab.row_scorers.base import Given
    from forgetfilter.model.state import ModelState

Gradients = dict[str, "Tensor"]
"""One tensor per parameter, with a first axis for the rows where several are meant."""
Parameters = Literal["adapter", "all"]
"""Of what the gradient is taken. ``adapter``: a LoRA adapter; a fresh one is zero, and its gradient
is a random projection of that of the weights that it stands beside."""
_MOST_TOKENS = 2048
"""Padded tokens of a pass, for the gradients of all its rows are held at once."""


def open_to_gradients(given: Given, state: ModelState, parameters: Parameters = "adapter") -> Any:
    """The model in ``state``, in evaluation mode; on base a fresh adapter drawn by the seed.

    With ``all`` it is the base model with every weight open, whatever adapter ``state`` has not.
    """
    model = given.bench.model
    if parameters == "all":
        return model.in_state(given.bench.base)
    if state.adapter is not None:
        return model.in_state(state, is_trainable=True)
    return model.trainable(state, "row_scorer").eval()


def row_gradients(
    given: Given, model: Any, rows: Sequence[EncodedRow], parameters: Parameters = "adapter"
) -> Iterator[tuple[list[int], Gradients]]:
    """Gradients of the rows' mean completion losses (nats per token), a batch of rows at a time.

    Yields:
        The rows' positions, and per parameter a float32 tensor of shape (rows, ...).
    """
    from forgetfilter.model.passes.forward import row_batches

    given.passes.differentiated(len(rows))
    if parameters == "all":
        yield from _one_by_one(model, rows, _all_opened(model))
        return
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    layers = _linear_layers(model, wanted)
    if layers is None:
        yield from _one_by_one(model, rows, wanted)
        return
    most = min(_MOST_TOKENS, given.bench.max_batch_tokens)
    for batch in row_batches(model, rows, most):
        yield batch.indices, _by_layer(model, batch, layers, list(wanted.values()))


def _by_layer(model: Any, batch: Any, layers: Mapping[str, Any], weights: list[Any]) -> Gradients:
    """The gradients of a batch's rows: at a linear layer ``sum_t g_bt x_bt^T`` over its tokens."""
    import torch

    found: Gradients = {}
    hooks = [module.register_forward_hook(_noting(name, found)) for name, module in layers.items()]
    try:
        torch.autograd.grad(_row_means(model, batch).sum(), weights)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: found[name] for name in layers}


def _noting(name: str, found: Gradients) -> Callable[..., None]:
    def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        given = inputs[0].detach().float()  # (B, T, in)

        def note(gradient: Any) -> None:  # (B, T, out)
            found[name] = gradient.float().transpose(1, 2) @ given

        output.register_hook(note)

    return hook


def _one_by_one(
    model: Any, rows: Sequence[EncodedRow], wanted: Mapping[str, Any]
) -> Iterator[tuple[list[int], Gradients]]:
    """The same by a pass for each row, for any kind of parameter."""
    import torch

    from forgetfilter.model.passes.forward import row_batches

    for at, row in enumerate(rows):
        (batch,) = row_batches(model, [row], len(row.input_ids))
        loss = _row_means(model, batch).sum()
        found: Any = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
        yield (
            [at],
            {
                name: (torch.zeros_like(p) if g is None else g).float().unsqueeze(0)
                for (name, p), g in zip(wanted.items(), found, strict=True)
            },
        )


def _row_means(model: Any, batch: Any) -> Any:
    """Mean completion loss of each row of a batch, nats per token, shape (B,)."""
    import torch

    from forgetfilter.model.passes.forward import target_logits, target_nats

    nats = target_nats(target_logits(model, batch), batch)
    owner = torch.tensor(batch.owner, device=nats.device)
    sums = torch.zeros(len(batch.indices), device=nats.device).index_add(0, owner, nats)
    return sums / torch.bincount(owner, minlength=len(batch.indices))


def _all_opened(model: Any) -> dict[str, Any]:
    """Every floating-point parameter, open to gradients."""
    found = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found


def _linear_layers(model: Any, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """The layers whose weights are ``wanted``, by the weight's name; None where not all are."""
    import torch

    found = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and f"{name}.weight" in wanted
    }
    return {name: found[name] for name in wanted} if found.keys() == wanted.keys() else None


def mean_gradient(
    given: Given,
    model: Any,
    rows: Sequence[EncodedRow],
    parameters: Parameters = "adapter",
    *,
    normalised: bool = False,
) -> Gradients:
    """Mean over ``rows`` of their gradients, each at length 1 first where ``normalised``."""
    total: Gradients = {}
    for _, own in row_gradients(given, model, rows, parameters):
        lengths = _squared_norms(own).sqrt().clamp(min=1e-12)
        for name, gradient in own.items():
            flat = gradient.flatten(1)
            part = (flat / lengths[:, None] if normalised else flat).sum(dim=0) / len(rows)
            part = part.view(gradient.shape[1:])
            total[name] = total[name] + part if name in total else part
    return total


def products(
    given: Given,
    model: Any,
    rows: Sequence[EncodedRow],
    directions: Sequence[Gradients],
    parameters: Parameters = "adapter",
) -> tuple[FloatArray, FloatArray]:
    """Inner products of each row's gradient with K directions, (K, N), and its length, (N,)."""
    dots, norms = np.zeros((len(directions), len(rows))), np.zeros(len(rows))
    for indices, own in row_gradients(given, model, rows, parameters):
        norms[indices] = _squared_norms(own).sqrt().cpu().numpy()
        for at, direction in enumerate(directions):
            parts = [g.flatten(1) @ direction[name].flatten() for name, g in own.items()]
            dots[at, indices] = sum(parts).double().cpu().numpy()  # pyright: ignore
    return dots, norms


def length_of(direction: Gradients) -> float:
    """Euclidean length over all tensors."""
    return float(sum(float(t.double().pow(2).sum()) for t in direction.values())) ** 0.5


def _squared_norms(gradients: Gradients) -> Tensor:
    parts = [gradient.flatten(1).pow(2).sum(dim=1) for gradient in gradients.values()]
    return sum(parts[1:], parts[0])


def sketches(
    given: Given,
    model: Any,
    rows: Sequence[EncodedRow],
    dimensions: int,
    change: Callable[[str, Tensor], Tensor] | None = None,
) -> FloatArray:
    """Each row's adapter gradient, projected at random to ``dimensions`` numbers; shape (N, D).

    A count sketch (Charikar et al., 2002): every coordinate is added to one of D sums, drawn by its
    parameter's name, with a random sign. Inner products are kept in expectation, as by a dense
    random projection, in one pass over the gradient.

    Args:
        given: where passes are counted.
        model: as of `open_to_gradients`.
        rows: whose gradients.
        dimensions: D.
        change: what is made of a parameter's gradients, shape (rows, ...), before.
    """
    import torch

    draws: dict[str, tuple[Tensor, Tensor]] = {}
    table = np.zeros((len(rows), dimensions))
    for indices, own in row_gradients(given, model, rows):
        total = torch.zeros(len(indices), dimensions)
        for name, gradient in own.items():
            changed = (gradient if change is None else change(name, gradient)).flatten(1).cpu()
            if name not in draws:
                draws[name] = _draw(name, changed.shape[1], dimensions)
            place, sign = draws[name]
            total.index_add_(1, place, changed * sign)
        table[indices] = total.double().numpy()
    return table


def _draw(name: str, size: int, dimensions: int) -> tuple[Tensor, Tensor]:
    """For each coordinate of a parameter the sum that it is added to, and its sign."""
    import torch

    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    place = torch.randint(dimensions, (size,), generator=generator)
    return place, torch.randint(2, (size,), generator=generator) * 2.0 - 1.0


def first_tokens(row: EncodedRow, count: int) -> EncodedRow:
    """``row`` with a loss on the first ``count`` of its completion tokens alone."""
    is_target = row.is_target & (np.cumsum(row.is_target) <= count)
    end = int(np.flatnonzero(is_target)[-1]) + 1
    return replace(row, input_ids=row.input_ids[:end], is_target=is_target[:end])
