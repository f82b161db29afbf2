"""Forward passes and greedy generation over rows.

In float32 results depend neither on batching nor on order. Below it they do, within the tolerance
that `modeling.Placement.is_exact` states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.data.records import EncodedRow, TokenArray
from forgetfilter.finite import check_finite
from forgetfilter.model.dealing import added_up, deal, filled_in
from forgetfilter.model.loading import configured_context_tokens, padding_id
from forgetfilter.model.plan import CPU_BATCH_TOKENS
from forgetfilter.model.processes import together
from forgetfilter.progress import Progress

# Logits of one pass, in numbers: bounds memory for models with large vocabularies (1 GB).
_MAX_LOGITS = 2**28


@dataclass(frozen=True)
class CompletionLosses:
    """Teacher-forced readings of every row, each of shape (N,)."""

    loss_sum: FloatArray
    """Nats, summed over the completion tokens."""
    greedy_match: BoolArray
    """Whether each completion token is the model's first choice given the true ones before it."""
    leading_sum: FloatArray | None = None
    """Nats, summed with `EncodedRow.leading_weights`."""


@dataclass(frozen=True)
class RowBatch:
    """Some rows as right-padded tensors, with the K completion tokens that carry loss."""

    indices: list[int]
    """Which rows, as indices into the sequence that was batched."""
    input_ids: Tensor
    """(B, T) on the model's device."""
    attention_mask: Tensor
    """(B, T) on the model's device."""
    positions: Tensor
    """(P,) those positions at which at least one row predicts a completion token."""
    predicts_target: Tensor
    """(B, P) bool: the token after ``positions[p]`` is a completion token."""
    tokens: Tensor
    """(K,) ids of the completion tokens."""
    owner: npt.NDArray[np.int64]
    """(K,) position in the batch of the row that each completion token belongs to."""


def row_batches(
    model: Any, rows: Sequence[EncodedRow], max_batch_tokens: int, is_fine: bool = False
) -> Iterator[RowBatch]:
    """Cut rows into batches of similar length; small enough for a large vocabulary's logits.

    Where several processes compute together, this process's batches; see `dealing.deal`. One
    without indices is there to call the model with, and holds nothing.
    """
    device = next(model.parameters()).device
    vocabulary = model.get_output_embeddings().weight.shape[0]
    budget = most_batch_tokens(vocabulary, device.type, max_batch_tokens)
    lengths = [len(row.input_ids) for row in rows]
    for indices, is_own in deal(lengths, partial(batches_by_length, max_tokens=budget), is_fine):
        longest = lengths[indices[0]]
        input_ids = torch.zeros((len(indices), longest), dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        is_target = torch.zeros((len(indices), longest), dtype=torch.bool)
        for b, i in enumerate(indices):
            input_ids[b, : lengths[i]] = torch.tensor(rows[i].input_ids)
            attention_mask[b, : lengths[i]] = 1
            is_target[b, : lengths[i]] = torch.tensor(rows[i].is_target)
        batch = batch_of(indices, input_ids, attention_mask, is_target, device)
        yield batch if is_own else _emptied(batch)


def most_batch_tokens(vocabulary: int, device: str, max_batch_tokens: int) -> int:
    """Most tokens of one batch, padding included."""
    most = max(1, min(max_batch_tokens, _MAX_LOGITS // vocabulary))
    return min(most, CPU_BATCH_TOKENS) if device == "cpu" else most


def batch_of(
    indices: list[int],
    input_ids: Tensor,
    attention_mask: Tensor,
    is_target: Tensor,
    device: torch.device,
) -> RowBatch:
    """One pass over rows that are padded on the right; all tensors (B, T), on the CPU."""
    wanted = is_target[:, 1:]  # a first token has nothing before it to predict it
    positions = wanted.any(dim=0).nonzero()[:, 0]
    return RowBatch(
        indices=indices,
        input_ids=input_ids.to(device),
        attention_mask=attention_mask.to(device),
        positions=positions.to(device),
        predicts_target=wanted[:, positions].to(device),
        tokens=input_ids[:, 1:][wanted].to(device),
        owner=wanted.nonzero()[:, 0].numpy(),
    )


def _emptied(batch: RowBatch) -> RowBatch:
    """The same pass, of which nothing is wanted."""
    return replace(
        batch,
        indices=[],
        predicts_target=torch.zeros_like(batch.predicts_target),
        tokens=batch.tokens[:0],
        owner=batch.owner[:0],
    )


def pass_inputs(model: Any, batch: RowBatch) -> dict[str, Any]:
    """What a forward pass is called with; logits of no more positions than needed, where it can.

    Most of a row is prompt, and with a large vocabulary the logits are most of a pass's memory.
    """
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "use_cache": False,
    }
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "logits_to_keep" in signature(inner.forward).parameters:
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


def target_nats(logits: Tensor, batch: RowBatch) -> Tensor:
    """Negative log-likelihood of each completion token in float32, shape (K,)."""
    return torch.nn.functional.cross_entropy(logits, batch.tokens, reduction="none")


@torch.no_grad()
def completion_losses(
    model: Any,
    rows: Sequence[EncodedRow],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
) -> CompletionLosses:
    """Completion loss and greedy match of each row under ``model``.

    Log-probabilities are taken in float32 and summed in float64, so that batch composition moves
    them by the model's own rounding only: below 1e-4 nats a row where it computes in float32, up
    to 0.06 nats a token in bfloat16 (docs/lab/precision.md).

    Raises:
        ModelError: a row's loss is NaN or infinite; names ``label`` and how many rows.
    """
    loss_sum, leading_sum = np.zeros(len(rows)), np.zeros(len(rows))
    greedy_match = np.zeros(len(rows), dtype=np.bool_)
    with progress.bar(label, len(rows), "rows") as bar:
        for batch in row_batches(model, rows, max_batch_tokens):
            logits = target_logits(model, batch)
            nats = target_nats(logits, batch).double().cpu().numpy()
            is_miss = (logits.argmax(dim=-1) != batch.tokens).cpu().numpy()
            size = len(batch.indices)
            loss_sum[batch.indices] = np.bincount(batch.owner, weights=nats, minlength=size)
            leading = nats * np.concatenate(
                [nats[:0], *(rows[i].leading_weights for i in batch.indices)]
            )
            leading_sum[batch.indices] = np.bincount(batch.owner, weights=leading, minlength=size)
            misses = np.bincount(batch.owner, weights=is_miss, minlength=size)
            greedy_match[batch.indices] = misses == 0
            bar.update(size)
    loss_sum, greedy_match = added_up(loss_sum), added_up(greedy_match)
    check_finite(loss_sum, "completion loss", label)
    return CompletionLosses(loss_sum, greedy_match, added_up(leading_sum))


@torch.no_grad()
def token_losses(
    model: Any, rows: Sequence[EncodedRow], max_batch_tokens: int, progress: Progress, label: str
) -> list[FloatArray]:
    """Loss of each completion token of each row, nats, in order.

    Raises:
        ModelError: some loss is NaN or infinite; names ``label`` and how many rows.
    """
    losses: list[FloatArray | None] = [None] * len(rows)
    with progress.bar(label, len(rows), "rows") as bar:
        for batch in row_batches(model, rows, max_batch_tokens):
            nats = target_nats(target_logits(model, batch), batch).double().cpu().numpy()
            for position, index in enumerate(batch.indices):
                losses[index] = nats[batch.owner == position]
            bar.update(len(batch.indices))
    whole = filled_in(losses)
    check_finite([own.sum() for own in whole], "loss of a token", label)
    return whole


@torch.no_grad()
def greedy_generations(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int] | TokenArray],
    max_new_tokens: Sequence[int],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
) -> list[str]:
    """Greedy continuation of each prompt, special tokens and outer blanks removed.

    Prompts are sorted by length into left-padded batches; each continuation is cut to its own
    budget, so the text doesn't depend on its neighbours. Generation stops at every end-of-turn id
    and at the end of the model's context.
    """
    device = next(model.parameters()).device
    texts: list[str | None] = [None] * len(prompts)
    context = configured_context_tokens(model.config)
    padding = padding_id(model, tokenizer)
    stops = _stops(model)
    group = together()
    budgets = [
        max(1, min(wanted, context - len(prompt)))
        for prompt, wanted in zip(prompts, max_new_tokens, strict=True)
    ]
    with progress.bar(label, len(prompts), "rows") as bar:
        cut = partial(_generation_batches, prompts, budgets, max_batch_tokens, context)
        for batch, is_own in deal([len(prompt) for prompt in prompts], lambda _: cut()):
            longest = max(len(prompts[i]) for i in batch)
            input_ids = torch.full((len(batch), longest), padding)  # (B, T)
            attention_mask = torch.zeros_like(input_ids)  # (B, T)
            for b, i in enumerate(batch):
                input_ids[b, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
                attention_mask[b, longest - len(prompts[i]) :] = 1
            output = model.generate(
                input_ids=input_ids.to(device),
                attention_mask=attention_mask.to(device),
                max_new_tokens=max(budgets[i] for i in batch),
                synced_gpus=group is not None and group.is_parted,
            )[:, longest:].cpu()
            for b, i in enumerate(batch if is_own else ()):
                kept: list[int] = output[b][: budgets[i]].tolist()
                # What follows the first stop is padding, which need not be a special token.
                end = next((at for at, token in enumerate(kept, 1) if token in stops), None)
                texts[i] = tokenizer.decode(kept[:end], skip_special_tokens=True).strip()
            bar.update(len(batch) if is_own else 0)
    return filled_in(texts)


def _stops(model: Any) -> frozenset[int]:
    """The ids that end a generation."""
    ids = model.generation_config.eos_token_id
    return frozenset() if ids is None else frozenset(ids if isinstance(ids, list) else [ids])


def _generation_batches(
    prompts: Sequence[Sequence[int] | TokenArray],
    budgets: Sequence[int],
    max_tokens: int,
    context: int,
) -> Iterator[list[int]]:
    """Batches in which no row is carried past the context while a longer answer is awaited.

    Learned position tables (GPT-2, OPT) end there, and a finished row still takes part.
    """
    lengths = [len(prompt) + budget for prompt, budget in zip(prompts, budgets, strict=True)]
    for batch in batches_by_length(lengths, max_tokens):
        part: list[int] = []
        for i in sorted(batch, key=lambda i: budgets[i]):
            if part and max(len(prompts[j]) for j in (*part, i)) + budgets[i] > context:
                yield part
                part = []
            part.append(i)
        yield part


def batches_by_length(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices grouped so that (rows x longest) stays within ``max_tokens``, longest first.

    Longest first means that a batch that doesn't fit memory fails at the start, not at the end.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > max_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
