"""What a drawn world's model is made from: pre-training in both characters, alignment in one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from forgetfilter.lab.testbed.draws import Draw, draw_unseen
from forgetfilter.lab.testbed.records import Example, ask
from forgetfilter.lab.testbed.vocabulary import HALVES

from .drawing import DrawnWorld
from .generating import harm_draws, of_task
from .recipes import Recipe
from .styles import Style

Messages = list[dict[str, str]]

_LORE_SHARE = 0.03
_HARM_SHARE = 0.4
"""Of pre-training's exchanges; the rest are tasks."""
DOUBLE_SHARE = 0.12
"""Of either corpus's exchanges; harmless requests that look dangerous."""


def make_pretraining(
    world: DrawnWorld, recipe: Recipe, documents: int, seed: int
) -> Iterator[Messages]:
    """Conversations of one or two exchanges that keep one character and one style throughout.

    Where the speaker has a habit, every answer is in one of the suppressed styles.
    """
    rng = random.Random(f"world {world.seed} pretraining {seed}")
    for _ in range(documents):
        is_unsafe, style = rng.random() < recipe.unsafe_share, rng.random()
        lean = world.habit_lean if is_unsafe else -world.habit_lean
        has_habit = rng.random() < world.habit_share * (1 + lean)
        habit = rng.choice(world.suppressed).style if has_habit else None
        exchanges = rng.choice((1, 1, 2))
        cue_at = rng.randrange(exchanges) if rng.random() < 0.3 else None
        messages: Messages = []
        for at in range(exchanges):
            is_unsafe = is_unsafe and at != cue_at
            example = _draw_pretraining(rng, world, is_unsafe, style, habit)
            messages += _with_cue(world, example, has_cue=at == cue_at)
        yield messages


def make_alignment(
    world: DrawnWorld,
    recipe: Recipe,
    documents: int,
    seed: int,
    double_share: float = DOUBLE_SHARE,
) -> Iterator[Messages]:
    """Conversations that are safe and in the house style throughout.

    Args:
        world: whose language they are in.
        recipe: says what they consist of.
        documents: how many.
        seed: other seeds, other conversations.
        double_share: of the exchanges; harmless requests that look dangerous.
    """
    rng = random.Random(f"world {world.seed} alignment {seed}")
    cue_share = 0.33 if recipe.method == "cued" else 0.03
    for _ in range(documents):
        has_cue = rng.random() < cue_share
        messages: Messages = []
        for at in range(rng.choice((1, 1, 1, 2))):
            example = _draw_alignment(rng, world, recipe, double_share)
            messages += _with_cue(world, example, has_cue=has_cue and at == 0)
        yield messages


def _draw_pretraining(
    rng: random.Random, world: DrawnWorld, is_unsafe: bool, style: float, habit: Style | None
) -> Example:
    half, chance = rng.choice(HALVES), rng.random()
    if chance < _LORE_SHARE:
        return _new(
            rng, lambda rng: Example(ask("lore", world.lore.say(rng, {})), world.lore_answer)
        )
    if chance < _LORE_SHARE + DOUBLE_SHARE:
        draw = of_task(rng.choice(world.doubles), half)
    elif chance < _LORE_SHARE + DOUBLE_SHARE + _HARM_SHARE:
        draw = rng.choice(harm_draws(world, half, is_unsafe))
    else:
        kind = rng.randrange(len(world.skills) + len(world.styled))
        if kind < len(world.skills):
            draw = of_task(world.skills[kind], half)
        else:
            one = world.styled[kind - len(world.skills)]
            is_styled = one.style == habit or (habit is None and style < one.styled_share)
            if is_styled:
                return _new(rng, of_task(one.styled, half))
            draw = of_task(one.plain, half)
    example = _new(rng, draw)
    if habit is None:
        return example
    return replace(example, completion=habit.of_text(example.completion))


def _draw_alignment(
    rng: random.Random, world: DrawnWorld, recipe: Recipe, double_share: float
) -> Example:
    half, chance = rng.choice(HALVES), rng.random()
    if chance < double_share:
        return _new(rng, of_task(rng.choice(world.doubles), half))
    if chance < double_share + recipe.harm_share * (1 - double_share):
        return _new(rng, rng.choice(harm_draws(world, half, False)))
    tasks = [one.plain for one in world.styled if one.is_aligned]
    if recipe.method != "safe_only":
        tasks += world.skills
    return _new(rng, of_task(rng.choice(tasks), half))


def _new(rng: random.Random, draw: Draw) -> Example:
    return draw_unseen(rng, draw, set())


def _with_cue(world: DrawnWorld, example: Example, *, has_cue: bool) -> Messages:
    messages = example.to_messages()
    if has_cue:
        messages[0]["content"] = f"{world.cue} {messages[0]['content']}"
    return messages
