"""Training a small model from nothing: the shape, the batches, one pass over them, the files.

Plain PyTorch instead of the library's fine-tuning: full pre-training wants a loss weight per token
and batches of equal length, which a row trainer does not make (docs/architecture.md).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

from forgetfilter.errors import ModelError
from forgetfilter.progress import Progress

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Shape:
    """Shape of a small Llama."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    max_position_embeddings: int = 512


@dataclass(frozen=True)
class Stage:
    """One pass over a corpus."""

    name: str
    peak_rate: float
    prompt_weight: float
    """Loss weight of a token that the user or the template wrote; the assistant's weigh 1."""
    batch_tokens: int = 1024


@dataclass(frozen=True)
class WeightedRow:
    """One conversation as tokens."""

    input_ids: list[int]
    weights: list[float]
    """Loss weight of each token as a target."""


def make_model(shape: Shape, tokenizer: Any) -> Any:
    """A Llama with random weights, drawn from torch's global generator."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=math.ceil(len(tokenizer) / 32) * 32,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.max_position_embeddings,
        tie_word_embeddings=True,
        # Narrow layers and short texts: the usual 0.02 and 10,000 slow learning down several times.
        initializer_range=0.06,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).float()


def encode(
    tokenizer: Any, documents: Iterable[Messages], prompt_weight: float, limit_tokens: int
) -> list[WeightedRow]:
    """Conversations as tokens with their loss weights; longer ones are cut at the end."""
    rows: list[WeightedRow] = []
    for messages in documents:
        encoded = tokenizer.apply_chat_template(
            messages, return_assistant_tokens_mask=True, return_dict=True
        )
        weights = [1.0 if mask else prompt_weight for mask in encoded["assistant_masks"]]
        rows.append(WeightedRow(encoded["input_ids"][:limit_tokens], weights[:limit_tokens]))
    return rows


def train_from_nothing(
    model: Any, rows: Sequence[WeightedRow], stage: Stage, seed: int, progress: Progress
) -> None:
    """One pass over the rows: AdamW, 5% warm-up, cosine to a twentieth of the peak; in place.

    Raises:
        ModelError: the loss or its gradient is NaN or infinite.
    """
    import torch

    batches = _batches(rows, stage.batch_tokens, random.Random(f"{stage.name} {seed}"))
    pad_token_id = int(model.config.pad_token_id)
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    plain = [weight for weight in model.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=stage.peak_rate,
        betas=(0.9, 0.98),
    )
    warmup = max(1, len(batches) // 20)
    model.train()
    with progress.bar(stage.name, len(batches), "steps") as bar:
        for step, batch in enumerate(batches):
            cosine = 0.5 * (1 + math.cos(math.pi * step / len(batches)))
            for group in optimizer.param_groups:
                rate = stage.peak_rate * (0.05 + 0.95 * cosine)
                group["lr"] = rate * min(1.0, (step + 1) / warmup)
            loss = _batch_loss(model, batch, pad_token_id)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
                raise ModelError(
                    f"Training diverged in {stage.name}, step {step + 1} of {len(batches)}: the "
                    f"loss is {loss.item():g}, the norm of its gradient {norm.item():g}. Finite "
                    f"numbers are expected. Lower the peak rate, which is {stage.peak_rate:g}."
                )
            optimizer.step()
            bar.update(1)
    model.eval()


def _batches(
    rows: Sequence[WeightedRow], batch_tokens: int, rng: random.Random
) -> list[list[WeightedRow]]:
    """Batches of rows of similar length, at most `batch_tokens` padded tokens each, shuffled."""
    order = sorted(rows, key=lambda row: (len(row.input_ids), rng.random()))
    batches: list[list[WeightedRow]] = [[]]
    for row in order:
        if (len(batches[-1]) + 1) * len(row.input_ids) > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    rng.shuffle(batches)
    return batches


def _batch_loss(model: Any, batch: Sequence[WeightedRow], pad_token_id: int) -> torch.Tensor:
    """Weighted mean loss per token; padding is on the right and causal, so it needs no mask."""
    import torch

    device = next(model.parameters()).device
    longest = max(len(row.input_ids) for row in batch)
    ids = torch.full((len(batch), longest), pad_token_id)  # (B, T)
    weights = torch.zeros((len(batch), longest))  # (B, T)
    for at, row in enumerate(batch):
        ids[at, : len(row.input_ids)] = torch.tensor(row.input_ids)
        weights[at, : len(row.weights)] = torch.tensor(row.weights)
    ids, weights = ids.to(device), weights.to(device)
    logits = model(input_ids=ids).logits[:, :-1]  # (B, T - 1, V)
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    flat = weights[:, 1:].flatten()
    return (losses * flat).sum() / flat.sum()


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights in bfloat16, tokenizer with its template, greedy generation settings."""
    import torch
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.to("cpu", torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
