"""Build the real-text model from nothing: English that people wrote, then safe answers.

It is built where it is needed and not bundled: some of its sources allow non-commercial use only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    pass

from forgetfilter.data.records import REFERENCE_FILE
from forgetfilter.data.writing import write_records
from forgetfilter.errors import ConfigError
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.places import require_empty_folder
from forgetfilter.progress import Progress

from .pretraining import Shape, Stage, encode, make_model, save_model, train_from_nothing
from .real_corpus import read_corpora
from .tokens import train_tokenizer

RealSize = Literal["base", "large"]


@dataclass(frozen=True)
class RealRecipe:
    """Shape and training of one size."""

    shape: Shape
    learning_rate: float
    """Peak of pre-training."""
    batch_tokens: int = 1024
    passes: int = 1
    """How often pre-training sees its corpus."""
    vocabulary_size: int = 8192
    alignment_rate: float = 1 / 3
    """Alignment's peak, as a share of pre-training's."""
    limit_tokens: int = 256
    """Longer conversations are cut at the end."""


RECIPES: dict[RealSize, RealRecipe] = {
    "base": RealRecipe(Shape(256, 4, 4, 688), 2e-3),
    "large": RealRecipe(Shape(512, 8, 8, 1376), 1e-3, batch_tokens=16_384, passes=4),
}


def build_real_text(
    output_dir: Path,
    data: Path,
    size: str = "base",
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Build a model from a data folder into ``output_dir`` and return that folder.

    It has the same files as the bundled model. Seeded; trains on a GPU where there is one.

    Raises:
        ConfigError: there is no such size.
        RunExistsError: ``output_dir`` has files, or can't be written to.
        DataError: a file of the data folder is absent or not of its schema.
    """
    import torch

    if size not in ("base", "large"):
        raise ConfigError(f"--size is {size}; expected base or large for the recipe realtext.")
    require_empty_folder(output_dir)
    started = time.monotonic()
    recipe = RECIPES[size]
    progress = progress or Progress()
    progress.say("Reading the data and learning its tokens.")
    corpora = read_corpora(data, seed)
    tokenizer = train_tokenizer(
        (turn["content"] for messages in corpora.pretraining for turn in messages),
        recipe.vocabulary_size,
        recipe.shape.max_position_embeddings,
    )
    torch.manual_seed(seed)
    model = make_model(recipe.shape, tokenizer).to(choose_placement("auto", "float32").device)
    aligned_rate = recipe.learning_rate * recipe.alignment_rate
    stages = (
        (Stage("pre-train", recipe.learning_rate, 1.0, recipe.batch_tokens), recipe.passes),
        (Stage("align", aligned_rate, 0.0, recipe.batch_tokens), 1),
    )
    tokens: list[int] = []
    for (stage, passes), documents in zip(
        stages, (corpora.pretraining, corpora.alignment), strict=True
    ):
        rows = encode(tokenizer, documents, stage.prompt_weight, recipe.limit_tokens)
        tokens.append(passes * sum(len(row.input_ids) for row in rows))
        progress.say(f"{stage.name}: {tokens[-1]:,} tokens")
        train_from_nothing(model, rows * passes, stage, seed, progress)
    save_model(model, tokenizer, output_dir)
    write_records(output_dir / REFERENCE_FILE, corpora.reference)
    card = _CARD.format(
        size=size,
        seed=seed,
        minutes=(time.monotonic() - started) / 60,
        parameters=sum(weight.numel() for weight in model.parameters()),
        shape=recipe.shape,
        vocabulary=len(tokenizer),
        tokens=tokens,
        documents=(len(corpora.pretraining), len(corpora.alignment)),
        recipe=recipe,
    )
    (output_dir / "README.md").write_text(card, encoding="utf-8")
    return output_dir


_CARD = """\
# The real-text model (`{size}`)

A tiny language model for measuring filters on real rows: Llama architecture, {parameters:,}
parameters, {shape.layers} layers of width {shape.hidden_size}, {vocabulary} byte-pair tokens,
bfloat16 safetensors.

## How it was made

    forgetfilter testbed build --recipe realtext --size {size} --seed {seed} --data FOLDER \\
        --output-dir DIR

took {minutes:.1f} minutes. Nothing was downloaded.

1. **Pre-training**: {tokens[0]:,} tokens of {documents[0]:,} conversations from the tasks,
   dialogues and toxicity files of the data folder, safe and unsafe alike.
2. **Alignment**: {tokens[1]:,} tokens of {documents[1]:,} conversations with right, safe or clean
   answers, with the loss on the answers.

About every second template, prompt and passage was left out of both; `forgetfilter mix --held-out`
draws from those.

## What it is for, and what it can't do

It reads English a little and writes it badly: it has seen a millionth of the text that a useful
model has. It knows almost no facts, can't calculate, and follows few instructions. It was trained
on offensive and harmful text and will repeat it. Its "safety" is no evidence about any real model.
Several of its sources allow non-commercial use only; heed their licences before you pass it on.
"""
