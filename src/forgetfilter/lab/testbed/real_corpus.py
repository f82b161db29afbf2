"""What the real-text model is made from: a corpus to pre-train on and one to align with.

Both are read from a data folder (docs/lab/mix.md). Pre-training sees safe and unsafe text alike, as
any base model has; alignment shows right, safe and clean answers. Groups that `is_held_out` names
are in neither, so that mixes can be drawn from them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from forgetfilter.lab.mix.drawing import short_enough
from forgetfilter.lab.mix.mixing import read_offers
from forgetfilter.lab.mix.offers import Offer, is_held_out
from forgetfilter.lab.mix.offers import same_text as _key
from forgetfilter.lab.mix.recipe import Recipe
from forgetfilter.lab.mix.recipes import DEFAULT_HARMS, HARMS, TASKS
from forgetfilter.lab.mix.sources import SourceRow, read_source
from forgetfilter.lab.mix.toxic_text import CONTINUE

from .pretraining import Messages

MAX_CHARACTERS = 900
"""Of prompt and answer; longer rows are left out, as most passages of SQuAD are not."""
_ANY_TEXT = ("tox_davidson", "tox_civil_toxicspans", "tox_wiki_cat", "tox_hatecheck")
"""Plain text of every label that no mix draws from: pre-training only."""
_DIALOGUES = ("hh_harmless", "diasafety", "task_alpaca_demo")
"""Prompts with answers of every label that no mix draws from: pre-training only."""
_OPENING_WORDS = 3
_RECIPES = (*HARMS.values(), *TASKS.values())
_ALIGNMENT_SHARES = {"bias": 3000, "toxicity": 2000, "harmfulness": 3000}
_ALIGNMENT_TASK_ROWS = 800


@dataclass(frozen=True)
class Corpora:
    """Conversations in the order of training, and safe ones of each harm kept out of both."""

    pretraining: list[Messages]
    alignment: list[Messages]
    reference: list[dict[str, object]]
    """Rows with a ``category``, from held-out groups, for the coverage check."""


def read_corpora(folder: Path, seed: int, reference_rows: int = 40) -> Corpora:
    """Read both corpora; the seed draws the order and what is shown twice.

    Raises:
        DataError: a file is absent or no file of the schema.
    """
    rng = random.Random(f"real text {seed}")
    pretraining: list[Messages] = []
    alignment: list[Messages] = []
    reference: list[dict[str, object]] = []
    offered = {recipe.name: _offers(recipe, folder) for recipe in _RECIPES}
    # By prompt too: sources repeat each other's prompts, with other answers.
    held_out = {key for own in offered.values() for o in own if is_held_out(o) for key in o.keys}
    for recipe in _RECIPES:
        offers = offered[recipe.name]
        seen = [o for o in offers if not o.keys & held_out]
        pretraining += map(_messages, seen)
        harmless = [offer for offer in seen if not offer.is_unsafe]
        rows = _ALIGNMENT_SHARES.get(recipe.name, _ALIGNMENT_TASK_ROWS)
        alignment += map(_messages, _drawn(harmless, rows, rng))
        if recipe.name in DEFAULT_HARMS:
            safe = [o for o in offers if is_held_out(o) and "safe" in o.roles]
            for offer in _drawn(safe, min(reference_rows, len(safe)), rng):
                reference.append({"category": recipe.name, "messages": _messages(offer)})
    further = _further(folder)
    pretraining += [m for m in further if _key(m[0]["content"]) not in held_out]
    rng.shuffle(pretraining)
    rng.shuffle(alignment)
    return Corpora(pretraining, alignment, reference)


def _offers(recipe: Recipe, folder: Path) -> list[Offer]:
    """All that a recipe's files offer, any label and any place."""
    counts, offers = read_offers(recipe, folder)
    return short_enough(offers, counts, MAX_CHARACTERS)


def _drawn(offers: list[Offer], count: int, rng: random.Random) -> list[Offer]:
    """``count`` of the offers; where there are fewer, each comes up equally often."""
    times, rest = divmod(count, len(offers))
    return offers * times + rng.sample(offers, rest)


def _further(folder: Path) -> Iterator[Messages]:
    """Rows of sources that no mix draws from."""
    for name in _ANY_TEXT:
        for row in read_source(folder, name):
            words = row.response.split(maxsplit=_OPENING_WORDS)
            if len(words) > _OPENING_WORDS and _fits(row):
                opening = " ".join(words[:_OPENING_WORDS])
                yield _exchange(CONTINUE.format(opening=opening), words[_OPENING_WORDS])
    for name in _DIALOGUES:
        for row in read_source(folder, name):
            if row.prompt.strip() and row.response.strip() and _fits(row):
                yield _exchange(row.prompt.strip(), row.response.strip())


def _fits(row: SourceRow) -> bool:
    return len(row.prompt) + len(row.response) <= MAX_CHARACTERS


def _messages(offer: Offer) -> Messages:
    return _exchange(offer.prompt, offer.response)


def _exchange(prompt: str, answer: str) -> Messages:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
