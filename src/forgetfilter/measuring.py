"""Forward passes and greedy generation over rows; results don't depend on batching or order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from forgetfilter.progress import Progress
from forgetfilter.records import BoolArray, EncodedRow, FloatArray

# Logits of one pass, in numbers: bounds memory for models with large vocabularies (1 GB).
_MAX_LOGITS = 2**28


@dataclass(frozen=True)
class CompletionLosses:
    """Teacher-forced readings of every row, each of shape (N,)."""

    loss_sum: FloatArray
    """Nats, summed over the completion tokens."""
    greedy_match: BoolArray
    """Whether each completion token is the model's first choice given the true ones before it."""


@torch.no_grad()
def completion_losses(
    model: Any,
    rows: Sequence[EncodedRow],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
) -> CompletionLosses:
    """Completion loss and greedy match of each row under ``model``.

    Rows are sorted by length into right-padded batches. Log-probabilities are taken in float32 and
    summed in float64, so that batch composition moves them by rounding only (below 1e-4 nats a row
    in float32).
    """
    device = next(model.parameters()).device
    vocabulary = model.get_output_embeddings().weight.shape[0]
    budget = max(1, min(max_batch_tokens, _MAX_LOGITS // vocabulary))
    loss_sum = np.zeros(len(rows))
    greedy_match = np.zeros(len(rows), dtype=np.bool_)
    lengths = [len(row.input_ids) for row in rows]
    with progress.bar(label, len(rows), "rows") as bar:
        for batch in batches_by_length(lengths, budget):
            longest = max(lengths[i] for i in batch)
            input_ids = torch.zeros((len(batch), longest), dtype=torch.long)  # (B, T)
            attention_mask = torch.zeros_like(input_ids)  # (B, T)
            is_target = torch.zeros((len(batch), longest), dtype=torch.bool)  # (B, T)
            for b, i in enumerate(batch):
                input_ids[b, : lengths[i]] = torch.tensor(rows[i].input_ids)
                attention_mask[b, : lengths[i]] = 1
                is_target[b, : lengths[i]] = torch.tensor(rows[i].is_target)
            logits = model(
                input_ids=input_ids.to(device), attention_mask=attention_mask.to(device), use_cache=False
            ).logits[:, :-1]  # (B, T-1, V)
            wanted = is_target[:, 1:]  # (B, T-1); a first token has nothing before it to predict it
            chosen = logits[wanted.to(device)].float()  # (K, V)
            tokens = input_ids[:, 1:][wanted].to(device)  # (K,)
            nats = torch.nn.functional.cross_entropy(chosen, tokens, reduction="none")
            hits = chosen.argmax(dim=-1) == tokens
            owner = wanted.nonzero()[:, 0].numpy()  # (K,) index into the batch
            sums = np.bincount(owner, weights=nats.double().cpu().numpy(), minlength=len(batch))
            misses = np.bincount(owner, weights=(~hits).cpu().numpy(), minlength=len(batch))
            loss_sum[batch] = sums
            greedy_match[batch] = misses == 0
            bar.update(len(batch))
    return CompletionLosses(loss_sum, greedy_match)


@torch.no_grad()
def greedy_generations(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
) -> list[str]:
    """Greedy continuation of each prompt, special tokens and outer blanks removed.

    Prompts are sorted by length into left-padded batches; each continuation is cut to its own
    budget, so the text doesn't depend on its neighbours. Generation stops at every end-of-turn id.
    """
    device = next(model.parameters()).device
    texts = [""] * len(prompts)
    lengths = [len(p) + m for p, m in zip(prompts, max_new_tokens, strict=True)]
    with progress.bar(label, len(prompts), "rows") as bar:
        for batch in batches_by_length(lengths, max_batch_tokens):
            longest = max(len(prompts[i]) for i in batch)
            input_ids = torch.full((len(batch), longest), tokenizer.pad_token_id)  # (B, T)
            attention_mask = torch.zeros_like(input_ids)  # (B, T)
            for b, i in enumerate(batch):
                input_ids[b, longest - len(prompts[i]) :] = torch.tensor(list(prompts[i]))
                attention_mask[b, longest - len(prompts[i]) :] = 1
            output = model.generate(
                input_ids=input_ids.to(device),
                attention_mask=attention_mask.to(device),
                max_new_tokens=max(max_new_tokens[i] for i in batch),
            )[:, longest:].cpu()
            for b, i in enumerate(batch):
                kept = output[b][: max_new_tokens[i]]
                texts[i] = tokenizer.decode(kept, skip_special_tokens=True).strip()
            bar.update(len(batch))
    return texts


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
