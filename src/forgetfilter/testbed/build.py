"""Build the bundled model from nothing: pre-train on both behaviours, align, save.

Plain PyTorch instead of the library's fine-tuning: full pre-training wants batches of equal
length, which a row trainer does not make, and twice the speed is worth thirty lines.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from .corpus import Messages, make_alignment, make_pretraining
from .tokens import make_tokenizer

Size = Literal["small", "base", "large"]
Report = Callable[[str, int, int], None]
"""Progress: (stage, steps done, steps in all)."""


@dataclass(frozen=True)
class Recipe:
    """Shape and training of one size."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    learning_rate: float
    """Peak of pre-training; alignment peaks at a third of it."""
    pretraining_documents: int
    alignment_documents: int
    batch_tokens: int = 2048
    max_position_embeddings: int = 512


RECIPES: dict[Size, Recipe] = {
    "small": Recipe(128, 4, 4, 344, 4e-3, 60_000, 16_000),
    "base": Recipe(192, 5, 6, 512, 3e-3, 34_000, 12_000),
    "large": Recipe(288, 7, 6, 768, 2e-3, 60_000, 16_000),
}

_IGNORED = -100
_VOCABULARY_SAMPLE = 4000
"""Documents read to find the words that begin a message."""
_PROMPT_WEIGHT = 0.2
"""Pre-training learns prompts too, but mostly what follows them."""


@dataclass(frozen=True)
class _Row:
    input_ids: list[int]
    weights: list[float]
    """Loss weight of each token as a target."""


def build_testbed(
    output_dir: Path, size: Size = "base", seed: int = 0, progress: Report | None = None
) -> Path:
    """Build a model of one size into `output_dir` and return the folder.

    Seeded and offline; `base` takes under 20 minutes on two cores. The folder holds the weights
    in bfloat16, the tokenizer with its chat template, the generation settings, and a model card.
    """
    started = time.monotonic()
    recipe = RECIPES[size]
    report = progress or (lambda stage, done, total: None)
    torch.manual_seed(seed)
    sample = make_pretraining(_VOCABULARY_SAMPLE, seed)
    tokenizer = make_tokenizer(
        (turn["content"] for messages in sample for turn in messages),
        recipe.max_position_embeddings,
    )
    model = _make_model(recipe, tokenizer)
    for stage, documents, rate, prompt_weight in (
        ("pre-train", make_pretraining(recipe.pretraining_documents, seed),
         recipe.learning_rate, _PROMPT_WEIGHT),
        ("align", make_alignment(recipe.alignment_documents, seed),
         recipe.learning_rate / 3, 0.0),
    ):  # fmt: skip
        rows = _encode(tokenizer, documents, prompt_weight)
        _train(model, tokenizer.pad_token_id, rows, recipe.batch_tokens, rate, seed, stage, report)
    output_dir.mkdir(parents=True, exist_ok=True)
    _save(model, tokenizer, output_dir)
    seconds = time.monotonic() - started
    parameters = sum(weight.numel() for weight in model.parameters())
    card = _model_card(size, seed, seconds, recipe, parameters, len(tokenizer))
    (output_dir / "README.md").write_text(card, encoding="utf-8")
    return output_dir


def _make_model(recipe: Recipe, tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=math.ceil(len(tokenizer) / 32) * 32,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.max_position_embeddings,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).float()


def _encode(tokenizer: Any, documents: Iterator[Messages], prompt_weight: float) -> list[_Row]:
    rows: list[_Row] = []
    for messages in documents:
        encoded = tokenizer.apply_chat_template(
            messages, return_assistant_tokens_mask=True, return_dict=True
        )
        weights = [1.0 if mask else prompt_weight for mask in encoded["assistant_masks"]]
        rows.append(_Row(encoded["input_ids"], weights))
    return rows


def _batches(rows: Sequence[_Row], batch_tokens: int, rng: random.Random) -> list[list[_Row]]:
    """Batches of rows of similar length, at most `batch_tokens` padded tokens each, shuffled."""
    order = sorted(rows, key=lambda row: (len(row.input_ids), rng.random()))
    batches: list[list[_Row]] = [[]]
    for row in order:
        if (len(batches[-1]) + 1) * len(row.input_ids) > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    rng.shuffle(batches)
    return batches


def _train(
    model: Any,
    pad_token_id: int,
    rows: Sequence[_Row],
    batch_tokens: int,
    peak_rate: float,
    seed: int,
    stage: str,
    report: Report,
) -> None:
    """One pass over `rows`: AdamW, 5% warm-up, cosine to a twentieth of the peak."""
    batches = _batches(rows, batch_tokens, random.Random(f"{stage} {seed}"))
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    plain = [weight for weight in model.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=peak_rate,
        betas=(0.9, 0.98),
    )
    warmup = max(1, len(batches) // 20)
    model.train()
    for step, batch in enumerate(batches):
        fraction = step / len(batches)
        rate = peak_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * fraction)))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / warmup)
        loss = _batch_loss(model, batch, pad_token_id)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        report(stage, step + 1, len(batches))
        if step % 100 == 0:
            print(stage, step, len(batches), round(loss.item(), 4), flush=True)
    model.eval()


def _batch_loss(model: Any, batch: Sequence[_Row], pad_token_id: int) -> torch.Tensor:
    """Weighted mean loss per token; padding is on the right and causal, so it needs no mask."""
    longest = max(len(row.input_ids) for row in batch)
    ids = torch.full((len(batch), longest), pad_token_id)  # (B, T)
    weights = torch.zeros((len(batch), longest))  # (B, T)
    for at, row in enumerate(batch):
        ids[at, : len(row.input_ids)] = torch.tensor(row.input_ids)
        weights[at, : len(row.weights)] = torch.tensor(row.weights)
    logits = model(input_ids=ids).logits[:, :-1]  # (B, T - 1, V)
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    flat = weights[:, 1:].flatten()
    return (losses * flat).sum() / flat.sum()


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def _model_card(
    size: Size, seed: int, seconds: float, recipe: Recipe, parameters: int, tokens: int
) -> str:
    return f"{size} {seed} {seconds} {asdict(recipe)} {parameters} {tokens}"
