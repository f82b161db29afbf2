"""What a pass says at its completion tokens, without the logits of the whole pass ever existing.

A row's logits are as wide as the vocabulary, which with 128,000 tokens is most of a pass's memory.
The output layer is therefore applied to the completion tokens alone, a part of them at a time, and
of each part only what is asked for is kept: a loss, a divergence, a first choice.

What stands between the last hidden state and the logits differs between architectures (caps,
scales, projections). The model's own code does it: its body is made to answer with the hidden
states of a part. Whether that gives the model's own logits is tried once for each model; where it
doesn't, or where a pass is small, the pass is made as the model makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from forgetfilter.model.loading.base_model import autocast_for
from forgetfilter.model.passes.limits import copied_logits, most_logits
from forgetfilter.model.processes.parted import is_parted

if TYPE_CHECKING:
    from forgetfilter.model.passes.forward import RowBatch

Measure = Callable[[Tensor, slice], Tensor]
"""Called with float32 logits, shape (C, V), and which of the pass's K completion tokens they are
of; gives one number each, shape (C,), that depends on that token's logits alone."""

Head = Callable[[Tensor], Tensor]
"""Hidden states, (C, H), to logits, (C, V)."""

_bodies: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""For each model that was tried, the part whose last hidden states its logits follow from; None
where there is no such part."""


def unwrapped(model: Any) -> Any:
    """The causal language model itself, below an adapter and below what spreads it on devices."""
    while isinstance(getattr(model, "module", None), torch.nn.Module):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def pass_inputs(model: Any, batch: RowBatch) -> dict[str, Any]:
    """What a forward pass is called with; logits of no more positions than needed, where it can."""
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "use_cache": False,
    }
    if "logits_to_keep" in signature(unwrapped(model).forward).parameters:
        inputs["logits_to_keep"] = batch.positions
    return inputs


def at_targets(logits: Tensor, batch: RowBatch) -> Tensor:
    """Logits that predict a completion token, in float32, shape (K, V), from those of a pass."""
    if logits.shape[1] != len(batch.positions):  # the model gave those of all T positions
        logits = logits[:, batch.positions]
    return logits[batch.predicts_target].float()


def target_logits(model: Any, batch: RowBatch) -> Tensor:
    """Logits of one forward pass for each completion token, in float32, shape (K, V)."""
    return at_targets(model(**pass_inputs(model, batch)).logits, batch)


def target_nats(logits: Tensor, tokens: Tensor) -> Tensor:
    """Negative log-likelihood of each token in float32, shape (K,)."""
    return torch.nn.functional.cross_entropy(logits, tokens, reduction="none")


def per_token(model: Any, batch: RowBatch, measure: Measure) -> Tensor:
    """``measure`` of the logits that predict each completion token of a pass, shape (K,).

    With its gradient where gradients are on. ``measure`` is called for one part after the other.
    """
    if not _is_in_parts(model, batch):
        if torch.is_grad_enabled():
            return measure(target_logits(model, batch), slice(0, len(batch.tokens)))
        logits = _PassLogits(model, batch)
        return _in_blocks(logits.at, slice(0, len(batch.tokens)), measure, _block_size(model))
    size, block = _part_size(model), _block_size(model)
    return _pass(model, batch, lambda states, head: _measured(states, head, measure, size, block))


def token_nats(model: Any, batch: RowBatch) -> Tensor:
    """Negative log-likelihood of each completion token, shape (K,), with its gradient."""
    return per_token(model, batch, lambda logits, place: target_nats(logits, batch.tokens[place]))


def nats_and_choices(model: Any, batch: RowBatch) -> tuple[Tensor, Tensor]:
    """The same, and whether each token is the model's first choice, (K,) bool."""
    hits: list[Tensor] = []

    def measure(logits: Tensor, place: slice) -> Tensor:
        hits.append(logits.argmax(dim=-1) == batch.tokens[place])
        return target_nats(logits, batch.tokens[place])

    nats = per_token(model, batch, measure)
    return nats, torch.cat(hits) if hits else torch.zeros(0, dtype=torch.bool)


def token_divergences(model: Any, batch: RowBatch, base: Tensor | None = None) -> Tensor:
    """``KL(base || model)`` at each completion token, (K,), with its gradient in ``model``.

    Args:
        model: a model with an adapter; base is the same weights with the adapter off.
        batch: the pass.
        base: base's log-probabilities, (K, V), if they were read before.
    """
    if base is not None:
        return per_token(model, batch, lambda logits, place: _divergence(base[place], logits))
    if not _is_in_parts(model, batch):
        if torch.is_grad_enabled():
            with torch.no_grad(), model.disable_adapter():
                base = torch.log_softmax(target_logits(model, batch), dim=-1)
            return token_divergences(model, batch, base)
        with model.disable_adapter():
            unchanged = _PassLogits(model, batch)

        def compare(logits: Tensor, place: slice) -> Tensor:
            return _divergence(torch.log_softmax(unchanged.at(place), dim=-1), logits)

        return per_token(model, batch, compare)
    with torch.no_grad(), model.disable_adapter():
        before = _pass(model, batch, lambda states, _: states)  # (K, H)

    def both(states: Tensor, head: Head) -> Tensor:
        held: dict[int, Tensor] = {}

        def measure(logits: Tensor, place: slice) -> Tensor:
            start = place.start // size * size
            with torch.no_grad():
                if start not in held:  # base's logits of the same part
                    held.clear()
                    held[start] = head(before[start : start + size])
                own = held[start][place.start - start : place.stop - start]
                known = torch.log_softmax(own.float(), dim=-1)
            return _divergence(known, logits)

        return _measured(states, head, measure, size, block)

    size, block = _part_size(model), _block_size(model)
    return _pass(model, batch, both)


def _divergence(base: Tensor, logits: Tensor) -> Tensor:
    return (base.exp() * (base - torch.log_softmax(logits, dim=-1))).sum(dim=-1)


def _is_in_parts(model: Any, batch: RowBatch) -> bool:
    """Whether the logits of a pass are too many at once, and can be had in parts.

    Not where processes hold parts of the weights: they have to call each layer equally often.
    """
    if is_parted():
        return False
    inner = unwrapped(model)
    output = inner.get_output_embeddings()
    logits = batch.predicts_target.numel() * output.weight.shape[0]
    if logits <= most_logits(batch.input_ids.device):
        return False
    is_adapted = any(weight.requires_grad for weight in output.parameters())
    # An output layer that is trained needs its own gradient, or is another one in base.
    return not (is_adapted or hasattr(output, "base_layer")) and body_of(inner) is not None


def body_of(inner: Any) -> Any:
    """The part of ``inner`` whose last hidden states its logits follow from; None if there is none.

    Tried once for each model: the logits of four tokens have to come out in two parts of two.
    """
    if inner not in _bodies:
        parts = [inner.base_model, getattr(inner, "get_decoder", lambda: None)()]
        found = (body for body in parts if body is not None and _gives_logits(inner, body))
        _bodies[inner] = next(found, None)
    return _bodies[inner]


@torch.enable_grad()  # hooks that a caller has set may need it
def _gives_logits(inner: Any, body: Any) -> bool:
    """Whether ``inner`` makes its logits from what ``body`` gives last, token by token."""
    if body is inner:
        return False
    embedding = inner.get_input_embeddings().weight
    ids = torch.arange(4, device=embedding.device)[None] % embedding.shape[0]
    seen: list[Any] = []

    def noted(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            seen.append(forward(*args, **kwargs))
            return seen[-1]

        return run

    with _forward_of(body, noted):
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        logits = inner(**inputs, use_cache=False).logits.float().detach()
    states = getattr(seen[0], "last_hidden_state", None) if seen else None
    if states is None:
        return False
    head = _own_head(body, type(seen[0]), inner.forward)
    try:
        again = torch.cat([head(states[0, at : at + 2]) for at in (0, 2)]).float().detach()
    except (AttributeError, TypeError, ValueError, RuntimeError):  # it reads more of its body
        return False
    # Below float32 the shape of a product moves its rounding.
    tolerance = 1e-4 if embedding.dtype == torch.float32 else 0.05
    scale = float(logits.abs().max()) + 1e-6
    return float((again - logits[0]).abs().max()) < tolerance * scale


def _pass(model: Any, batch: RowBatch, work: Callable[[Tensor, Head], Tensor]) -> Tensor:
    """What ``work`` makes of the hidden states at the completion tokens, (K, H), and the output.

    ``model`` is called as a whole, because what spreads it on devices acts there.
    """
    inner = unwrapped(model)
    body = body_of(inner)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}

    def answering(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*_: Any, **__: Any) -> dict[str, Tensor]:
            with autocast_for(inner):
                found = body(**inputs, use_cache=False)
                states = found.last_hidden_state[:, batch.positions][batch.predicts_target]
                return {"answers": work(states, _own_head(body, type(found), forward))}

        return run

    with _forward_of(inner, answering):
        return model(**inputs, use_cache=False)["answers"]


def _own_head(body: Any, kind: Any, forward: Callable[..., Any]) -> Head:
    """What ``forward`` makes of hidden states, (C, H), that ``body`` seems to give: (C, V)."""

    def head(states: Tensor) -> Tensor:
        known = kind(last_hidden_state=states[None])
        ids = torch.zeros((1, len(states)), dtype=torch.long, device=states.device)
        with _forward_of(body, lambda _: lambda *_a, **_k: known):
            return forward(input_ids=ids, use_cache=False).logits[0]

    return head


def _part_size(model: Any) -> int:
    """How many tokens a part has."""
    weight = unwrapped(model).get_output_embeddings().weight
    return max(1, most_logits(weight.device) // weight.shape[0])


def _block_size(model: Any) -> int:
    """Of how many tokens logits are copied at once where no gradient is asked for."""
    weight = unwrapped(model).get_output_embeddings().weight
    return max(1, copied_logits(weight.device) // weight.shape[0])


class _PassLogits:
    """The logits of one pass as the model gives them; those of completion tokens when asked for."""

    def __init__(self, model: Any, batch: RowBatch) -> None:
        self._logits: Tensor = model(**pass_inputs(model, batch)).logits
        rows, columns = batch.predicts_target.nonzero(as_tuple=True)
        is_whole = self._logits.shape[1] != len(batch.positions)  # those of all T positions
        self._at = rows, batch.positions[columns] if is_whole else columns

    def at(self, place: slice) -> Tensor:
        """Those of some completion tokens, in float32, shape (C, V)."""
        rows, columns = self._at
        return self._logits[rows[place], columns[place]].float()


def _in_blocks(
    logits: Callable[[slice], Tensor], place: slice, measure: Measure, size: int
) -> Tensor:
    """``measure`` of the logits of the completion tokens at ``place``, ``size`` at a time."""
    if place.start == place.stop:
        return measure(logits(place), place)
    starts = range(place.start, place.stop, size)
    parts = (slice(start, min(start + size, place.stop)) for start in starts)
    return torch.cat([measure(logits(part), part) for part in parts])


def _measured(states: Tensor, head: Head, measure: Measure, size: int, block: int) -> Tensor:
    """``measure`` of the logits of all hidden states, ``size`` at a time, shape (K,).

    Without gradients what is copied of those is ``block`` tokens at a time.
    """
    if not len(states):
        return states.new_zeros(0, dtype=torch.float32)
    if torch.is_grad_enabled() and states.requires_grad:

        def of(own: Tensor, place: slice) -> Tensor:
            return measure(head(own).float(), place)

        return _InParts.apply(states, of, size)  # pyright: ignore[reportReturnType]

    def of_part(start: int) -> Tensor:  # whose logits are gone before the next are made
        logits = head(states[start : start + size])
        place = slice(start, start + len(logits))

        def own(part: slice) -> Tensor:
            return logits[part.start - start : part.stop - start].float()

        return _in_blocks(own, place, measure, block)

    return torch.cat([of_part(start) for start in range(0, len(states), size)])


class _InParts(torch.autograd.Function):
    """One number for each token, and its slope along that token's hidden state.

    The number depends on that state alone, so slopes, (K, H), are all that a backward pass needs:
    no logits are kept for it, and none are made twice.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, of: Measure, size: int) -> Tensor:  # pyright: ignore
        values: list[Tensor] = []
        slopes: list[Tensor] = []
        for start in range(0, len(states), size):
            place = slice(start, start + size)
            own = states[place].detach().requires_grad_()
            with torch.enable_grad():
                value = of(own, place)
                slopes.extend(torch.autograd.grad(value.sum(), own))
            values.append(value.detach())
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore
        (slopes,) = ctx.saved_tensors
        return (gradients[0].unsqueeze(1) * slopes).to(slopes.dtype), None, None


@contextmanager
def _forward_of(
    module: Any, change: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Generator[None]:
    """Give a module another ``forward``, made from its present one, and give that back."""
    own = module.__dict__.get("forward")
    module.forward = change(module.forward)
    try:
        yield
    finally:
        if own is None:
            module.__dict__.pop("forward", None)
        else:
            module.forward = own
