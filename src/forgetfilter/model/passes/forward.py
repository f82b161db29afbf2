"""Forward passes and greedy generation over rows.

In float32 results depend neither on batching nor on order. Below it they do, within the tolerance
that `placement.Placement.is_exact` states.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.data.records import EncodedRow, TokenArray
from forgetfilter.finite import check_finite
from forgetfilter.model.loading.base_model import padding_id
from forgetfilter.model.loading.model_files import configured_context_tokens
from forgetfilter.model.passes import answer_head
from forgetfilter.model.passes.answer_head import (
    at_targets,
    nats_and_choices,
    pass_inputs,
    target_logits,
    token_nats,
)
from forgetfilter.model.passes.batch_plan import Int32Array, batches_by_length
from forgetfilter.model.passes.halving import batch_budget, check_halving, remember, say_halved
from forgetfilter.model.passes.limits import CPU_BATCH_TOKENS
from forgetfilter.model.passes.row_losses import CompletionLosses, row_losses
from forgetfilter.model.passes.shards import Shards
from forgetfilter.model.processes.dealing import added_up, deal, filled_in
from forgetfilter.model.processes.joining import together
from forgetfilter.progress import Progress

# Logits of one pass, in numbers, where the model can't be asked (1 GB).
_MAX_LOGITS = 2**28

__all__ = [  # what a pass gives at completion tokens is named from here too
    "CompletionLosses",
    "RowBatch",
    "RowBatches",
    "at_targets",
    "batch_of",
    "completion_losses",
    "greedy_generations",
    "pass_inputs",
    "row_batches",
    "target_logits",
    "target_nats",
    "token_losses",
]


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


class RowBatches:
    """Batches of rows of similar length, longest first; smaller ones once memory has run out.

    Where several processes compute together, this process's batches; see `dealing.deal`. One
    without indices is there to call the model with, and holds nothing.

    Args:
        model: says on which device, and how many tokens fit there at once.
        rows: what is cut into batches.
        max_batch_tokens: most padded tokens of a batch of more than one row.
        is_done: batches of which every row is done are left out, the others are the same without
            them; shape (N,).
        is_fine: whether processes may be dealt single rows; see `dealing.deal`.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[EncodedRow],
        max_batch_tokens: int,
        is_done: BoolArray | None = None,
        is_fine: bool = False,
    ) -> None:
        self._rows = rows
        self._model = model
        self._device = next(model.parameters()).device
        self._budget = batch_budget(model, max_batch_tokens)
        self._is_done, self._is_fine = is_done, is_fine
        self._failed: list[int] = []

    def __iter__(self) -> Iterator[RowBatch]:
        sizes = (len(row.input_ids) for row in self._rows)
        lengths = np.fromiter(sizes, np.int32, len(self._rows))
        cut = partial(batches_by_length, max_tokens=self._budget)
        for dealt, is_own in deal(lengths, cut, self._is_fine):
            if self._is_done is not None and self._is_done[dealt].all():
                continue
            waiting = self._cut(dealt, lengths)
            while waiting:
                indices = waiting.popleft()
                batch = self._padded(indices, lengths)
                yield batch if is_own else _emptied(batch)
                if self._failed:
                    self._budget = say_halved(len(indices), int(lengths[indices[0]]))
                    remember(self._model, self._budget)
                    rest = [*self._failed, *(i for part in waiting for i in part)]
                    waiting, self._failed = self._cut(rest, lengths), []

    @contextmanager
    def or_halves(self, batch: RowBatch) -> Generator[None]:
        """Work on a batch; where memory runs out, its rows come again in batches of half the size.

        What the work has done until then must not count: results are kept in its last lines.

        Raises:
            ModelError: memory doesn't hold a single row, or the weights are parted among processes,
                which have to call the model equally often.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            is_parted = (group := together()) is not None and group.is_parted
            rows = 1 if is_parted else len(batch.indices)
            check_halving(error, rows, batch.input_ids.shape[1])
            self._failed = batch.indices

    def _cut(self, indices: list[int], lengths: Int32Array) -> deque[list[int]]:
        """The same rows in batches that fit now: mostly one."""
        own = lengths[indices]
        return deque([indices[at] for at in part] for part in batches_by_length(own, self._budget))

    def _padded(self, indices: list[int], lengths: Int32Array) -> RowBatch:
        shape = (len(indices), int(lengths[indices[0]]))
        input_ids = torch.zeros(shape, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        is_target = torch.zeros(shape, dtype=torch.bool)
        for b, i in enumerate(indices):
            input_ids[b, : lengths[i]] = torch.tensor(self._rows[i].input_ids)
            attention_mask[b, : lengths[i]] = 1
            is_target[b, : lengths[i]] = torch.tensor(self._rows[i].is_target)
        return batch_of(indices, input_ids, attention_mask, is_target, self._device)


def row_batches(
    model: Any,
    rows: Sequence[EncodedRow],
    max_batch_tokens: int,
    is_done: BoolArray | None = None,
    is_fine: bool = False,
) -> RowBatches:
    """Cut rows into batches of similar length, as many tokens as fit; see `RowBatches`."""
    return RowBatches(model, rows, max_batch_tokens, is_done, is_fine)


def most_batch_tokens(vocabulary: int, device: str, max_batch_tokens: int) -> int:
    """Most tokens of one batch, padding included, where the model is not at hand."""
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
        owner=wanted.nonzero()[:, 0].cpu().numpy(),
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


def target_nats(logits: Tensor, batch: RowBatch) -> Tensor:
    """Negative log-likelihood of each completion token in float32, shape (K,)."""
    return answer_head.target_nats(logits, batch.tokens)


@torch.no_grad()
def completion_losses(
    model: Any,
    rows: Sequence[EncodedRow],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
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
    shards = shards or Shards()
    columns = {"loss": loss_sum, "leading": leading_sum, "match": greedy_match}
    is_done = shards.begin(len(rows), columns)
    with progress.bar(label, len(rows), "rows", int(is_done.sum())) as bar:
        batches = row_batches(model, rows, max_batch_tokens, is_done)
        for batch in batches:
            with batches.or_halves(batch):
                found, is_choice = nats_and_choices(model, batch)
                own = batch.indices
                read = row_losses([rows[i] for i in own], batch, found, is_choice)
                loss_sum[own], leading_sum[own] = read.loss_sum, read.leading_sum
                greedy_match[own] = read.greedy_match
                shards.add(own)
                bar.update(len(own))
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
        batches = row_batches(model, rows, max_batch_tokens)
        for batch in batches:
            with batches.or_halves(batch):
                nats = token_nats(model, batch).double().cpu().numpy()
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
    shards: Shards | None = None,
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
    stops = stop_ids(model)
    group = together()
    budgets = [
        max(1, min(wanted, context - len(prompt)))
        for prompt, wanted in zip(prompts, max_new_tokens, strict=True)
    ]
    shards = shards or Shards()
    is_done = shards.begin(len(prompts), {"texts": texts})
    with progress.bar(label, len(prompts), "rows", int(is_done.sum())) as bar:
        cut = partial(_generation_batches, prompts, budgets, max_batch_tokens, context)
        for batch, is_own in deal([len(prompt) for prompt in prompts], lambda _: cut()):
            if is_done[batch].all():
                continue
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
            shards.add(batch)
            bar.update(len(batch) if is_own else 0)
    return filled_in(texts)


def stop_ids(model: Any) -> frozenset[int]:
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
