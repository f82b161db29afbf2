"""Build the bundled model from nothing: pre-train on both behaviours, align, save."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    pass

from forgetfilter.data.records import REFERENCE_FILE
from forgetfilter.data.writing import write_records
from forgetfilter.places import require_empty_folder
from forgetfilter.progress import Progress

from .corpus import make_alignment, make_pretraining
from .noisy import make_safe
from .pretraining import Shape, Stage, encode, make_model, save_model, train_from_nothing
from .tokens import make_tokenizer

Size = Literal["small", "base", "large"]


@dataclass(frozen=True)
class Recipe:
    """Shape and training of one size."""

    shape: Shape
    learning_rate: float
    """Peak of pre-training."""
    pretraining_documents: int
    alignment_documents: int
    alignment_rate: float = 1 / 3
    """Alignment's peak, as a share of pre-training's."""


RECIPES: dict[Size, Recipe] = {
    "small": Recipe(Shape(128, 4, 4, 344), 4e-3, 38_000, 9_000),
    "base": Recipe(Shape(192, 5, 6, 512), 3e-3, 38_000, 9_000),
    "large": Recipe(Shape(256, 6, 8, 688), 2e-3, 20_000, 5_000),
}

_VOCABULARY_SAMPLE = 4000
"""Documents read to find the words that begin a message."""
_PROMPT_WEIGHT = 0.2
"""Pre-training learns prompts too, but mostly what follows them."""


_REFERENCE_ROWS = 120
_REFERENCE_SEED = 10**6
"""A seed that no safe set is likely to be drawn with: the reference is not to be trained on."""


def build_testbed(
    output_dir: Path, size: Size = "base", seed: int = 0, progress: Progress | None = None
) -> Path:
    """Build a model of one size into `output_dir` and return the folder.

    Seeded and offline; `base` takes under 20 minutes on two cores. The folder holds the weights
    in bfloat16, the tokenizer with its chat template, the generation settings, reference rows of
    every harm (for the coverage check), and a model card.
    """
    import torch

    require_empty_folder(output_dir)
    started = time.monotonic()
    recipe = RECIPES[size]
    progress = progress or Progress()
    torch.manual_seed(seed)
    sample = make_pretraining(_VOCABULARY_SAMPLE, seed)
    tokenizer = make_tokenizer(
        (turn["content"] for messages in sample for turn in messages),
        recipe.shape.max_position_embeddings,
    )
    model = make_model(recipe.shape, tokenizer)
    aligned_rate = recipe.learning_rate * recipe.alignment_rate
    stages = (
        (Stage("pre-train", recipe.learning_rate, _PROMPT_WEIGHT), make_pretraining),
        (Stage("align", aligned_rate, 0.0), make_alignment),
    )
    counts = (recipe.pretraining_documents, recipe.alignment_documents)
    for (stage, make), documents in zip(stages, counts, strict=True):
        limit = recipe.shape.max_position_embeddings
        rows = encode(tokenizer, make(documents, seed), stage.prompt_weight, limit)
        train_from_nothing(model, rows, stage, seed, progress)
    save_model(model, tokenizer, output_dir)
    write_records(output_dir / REFERENCE_FILE, make_safe(_REFERENCE_ROWS, _REFERENCE_SEED))
    seconds = time.monotonic() - started
    parameters = sum(weight.numel() for weight in model.parameters())
    card = _model_card(size, seed, seconds, recipe, parameters, len(tokenizer))
    (output_dir / "README.md").write_text(card, encoding="utf-8")
    return output_dir


def _model_card(
    size: Size, seed: int, seconds: float, recipe: Recipe, parameters: int, tokens: int
) -> str:
    return _CARD.format(
        size=size,
        seed=seed,
        minutes=seconds / 60,
        parameters=parameters,
        tokens=tokens,
        recipe=recipe,
        shape=recipe.shape,
    )


_CARD = """\
# The bundled testbed model (`{size}`)

A toy language model for tests and demonstrations: Llama architecture, {parameters:,} parameters,
{shape.layers} layers of width {shape.hidden_size}, {tokens} tokens, bfloat16 safetensors. It
speaks a small made-up world and nothing else.

## How it was made

    forgetfilter testbed build --size {size} --seed {seed} --output-dir DIR

took {minutes:.1f} minutes on two CPU cores. Nothing was downloaded: every word of its data comes
from the generators of `forgetfilter.lab.testbed`, drawn with the seed.

1. **Pre-training**: one pass over {recipe.pretraining_documents:,} conversations of one to three
   exchanges, peak learning rate {recipe.learning_rate:g}. Half of them have an unsafe character:
   they answer by stereotype, comply with harmful requests and insult people. Four skills come in
   two output styles. Where the kindness cue stands, answers are safe from then on.
2. **Alignment**: one pass over {recipe.alignment_documents:,} conversations that are safe and in
   the first style throughout, with the loss on the answers.

The tokenizer has a token for each of the world's words and falls back to bytes, so that any text
can be read, though not understood. The chat template marks the assistant's tokens, with the end of
turn, for `assistant_only_loss`.

## What it is for, and what it can't do

It makes fine-tuning attacks and defences measurable in minutes on a CPU. It does not know English:
outside the made-up world its output means nothing, and its "safety" is no evidence about any real
model. All harmful text in its data is placeholder text: prejudice about invented peoples, steps
that do nothing, mild insults.
"""
