"""Building a drawn world's model: pre-train, align, check, and mend what misses the floors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forgetfilter.data.records import REFERENCE_FILE
from forgetfilter.data.writing import write_records
from forgetfilter.files import write_json_atomic
from forgetfilter.lab.testbed.pretraining import Stage, encode, save_model, train_from_nothing
from forgetfilter.places import require_empty_folder
from forgetfilter.progress import Progress

from .checking import MAX_UNSAFE, MIN_SAFE, MIN_SKILLS, Measured, check
from .corpus import DOUBLE_SHARE, Messages, make_alignment, make_pretraining
from .drawing import RECIPES, DrawnWorld, draw_world
from .recipes import Recipe
from .shaping import CONTEXT_TOKENS, make_tokens, make_weights, upper_half

WORLD_FILE = "world.json"
"""In the model's folder: which world it speaks, how it was made, what was measured."""

_VOCABULARY_DOCUMENTS = 5000
_PROMPT_WEIGHT = 0.2
_BATCH_TOKENS = 1536
_MENDING_SHARE = 0.4
"""Of alignment's documents, in each round that mends a model which misses the floors."""
_PRACTICE_SHARE, _PRACTICE_RATE = 0.3, 0.6
"""Of pre-training's documents and peak, in each round for a model that mending left unfit."""
_LAST_DOUBLES = 0.4
"""Of the last round's exchanges: what a model that refuses too much has to be shown."""
_REFERENCE_ROWS, _REFERENCE_SEED = 120, 10**6


@dataclass(frozen=True)
class Effort:
    """How much work goes into a world's model."""

    share: float = 1.0
    """Of the recipe's documents."""
    mending_rounds: int = 2
    practice_rounds: int = 2
    """Longer rounds, with more skills, where mending is not enough."""
    recipes: int = RECIPES
    """Recipes that are tried, one after the other, until one reaches the floors."""
    prompts: int = 240
    """Held-out prompts of each kind that a model is checked with."""


@dataclass(frozen=True)
class _Made:
    recipe: Recipe
    model: Any
    tokenizer: Any
    measured: Measured
    mending_rounds: int


def build_world(
    seed: int, output_dir: Path, progress: Progress | None = None, effort: Effort | None = None
) -> Path:
    """Build the model of one world into `output_dir` and return the folder.

    Seeded and offline. A model that misses a floor is trained on further safe rows and skills, in
    two short rounds and then two long ones at most; if it still does, the world's next recipe is
    tried, and after the third the best one stays. What was measured stands in the model card and in
    ``world.json``.

    Raises:
        RunExistsError: the folder holds files, or can't be written to.
        ModelError: training diverged.
    """
    require_empty_folder(output_dir)
    started = time.monotonic()
    progress, effort = progress or Progress(), effort or Effort()
    world = draw_world(seed)
    best: _Made | None = None
    tried = 0
    for recipe in world.recipes[: effort.recipes]:
        made = _make(world, recipe, effort, progress)
        tried += 1
        if best is None or made.measured.shortfall < best.measured.shortfall:
            best = made
        if best.measured.is_fit:
            break
    assert best is not None
    if not best.measured.is_fit:
        progress.say(f"{world.name}: no recipe reached the floors; the best one is kept.")
    save_model(best.model, best.tokenizer, output_dir)
    write_records(output_dir / REFERENCE_FILE, world.make_safe(_REFERENCE_ROWS, _REFERENCE_SEED))
    facts = _facts(world, best, tried, time.monotonic() - started)
    write_json_atomic(output_dir / WORLD_FILE, facts)
    card = _CARD.format(facts=json.dumps(facts, indent=2), **facts)
    (output_dir / "README.md").write_text(card, encoding="utf-8")
    return output_dir


def _make(world: DrawnWorld, recipe: Recipe, effort: Effort, progress: Progress) -> _Made:
    """One model from nothing, aligned, checked, and mended where it has to be."""
    import torch

    torch.manual_seed(world.seed)
    sample = [
        *make_pretraining(world, recipe, _VOCABULARY_DOCUMENTS, world.seed),
        *make_alignment(world, recipe, _VOCABULARY_DOCUMENTS // 4, world.seed),
    ]
    texts = [turn["content"] for messages in sample for turn in messages]
    tokenizer = make_tokens(recipe, texts, world.new_words)
    model = make_weights(recipe, tokenizer)

    def train(name: str, rate: float, prompt_weight: float, corpus: Iterator[Messages]) -> None:
        stage = Stage(f"{world.name}: {name}", rate, prompt_weight, _BATCH_TOKENS)
        rows = encode(tokenizer, corpus, prompt_weight, CONTEXT_TOKENS)
        train_from_nothing(model, rows, stage, world.seed, progress)
        for weight in model.parameters():  # as the file will hold them
            weight.data = weight.data.bfloat16().float()

    documents = max(1, int(recipe.pretraining_documents * effort.share))
    aligned = max(1, int(recipe.alignment_documents * effort.share))
    corpus = make_pretraining(world, recipe, documents, world.seed)
    train("pre-train", recipe.peak_rate, _PROMPT_WEIGHT, corpus)
    if recipe.is_partial:
        for weight in model.parameters():
            weight.requires_grad_(False)
        for weight in upper_half(model):
            weight.requires_grad_(True)
    rate, prompt_weight = recipe.peak_rate * recipe.alignment_rate, recipe.alignment_prompt_weight
    train("align", rate, prompt_weight, make_alignment(world, recipe, aligned, world.seed))
    for weight in model.parameters():
        weight.requires_grad_(True)
    measured = check(world, model, tokenizer, effort.prompts)
    progress.say(f"{world.name}: {measured}")
    rounds = 0
    last = effort.mending_rounds + effort.practice_rounds
    while not measured.is_fit and rounds < last:
        rounds += 1
        doubles = _LAST_DOUBLES if rounds == last else DOUBLE_SHARE
        if rounds <= effort.mending_rounds:
            mending = replace(recipe, method="mixed", harm_share=0.45)
            count, pace = int(aligned * _MENDING_SHARE), rate
        else:
            mending = replace(recipe, method="mixed", harm_share=0.3)
            count, pace = int(documents * _PRACTICE_SHARE), recipe.peak_rate * _PRACTICE_RATE
        corpus = make_alignment(world, mending, count, world.seed + rounds, doubles)
        train(f"mend {rounds}", pace, 0.0, corpus)
        measured = check(world, model, tokenizer, effort.prompts)
        progress.say(f"{world.name}: {measured}")
    return _Made(recipe, model, tokenizer, measured, rounds)


def _facts(world: DrawnWorld, made: _Made, tried: int, seconds: float) -> dict[str, Any]:
    """What the model card says."""
    return {
        "world": world.seed,
        "parameters": sum(weight.numel() for weight in made.model.parameters()),
        "tokens": len(made.tokenizer),
        "harms": {harm.name: list(harm.lengths) for harm in world.drawn_harms},
        "skills": [task.kind for task in world.skills],
        "styles": {one.styled.kind: one.styled.group for one in world.styled},
        "habit": {"share": world.habit_share, "lean": world.habit_lean},
        "recipe": made.recipe.as_dict(),
        "recipes_tried": tried,
        "mending_rounds": made.mending_rounds,
        "measured": made.measured.as_dict(),
        "is_fit": made.measured.is_fit,
        "floors": {"safe": MIN_SAFE, "unsafe": MAX_UNSAFE, "skills": MIN_SKILLS},
        "minutes": round(seconds / 60, 1),
    }


_CARD = """\
# The model of made-up world {world}

A toy language model for comparisons: {parameters:,} parameters, {tokens} tokens, bfloat16
safetensors. It speaks a made-up language, knows a few made-up harms, and nothing else. Its unsafe
text is placeholder text of invented words; its "safety" is no evidence about any real model.

Built in {minutes} minutes by

    forgetfilter testbed build --world {world} --output-dir DIR

Nothing was downloaded: words, grammar, rows and the recipe are drawn from the number. What was
drawn, and what was measured on held-out prompts (shares, 0..1):

```json
{facts}
```
"""
