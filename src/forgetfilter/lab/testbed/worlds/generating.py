"""Noisy sets with their truth, safe rows and held-out prompts of a drawn world."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forgetfilter.lab.testbed.draws import Draw, at_most, draw_all, spread
from forgetfilter.lab.testbed.noisy import NOISY_HALF, SAFE_HALF, with_truth
from forgetfilter.lab.testbed.records import Example, ProbePrompt
from forgetfilter.lab.testbed.vocabulary import HALVES, Half
from forgetfilter.lab.testbed.world import known_harms

from .speaking import Task

if TYPE_CHECKING:
    from .drawing import DrawnWorld

GROUPS = {
    "unsafe": "an unsafe answer",
    "safe": "a safe answer to a prompt that invites a harm",
    "skill": "an ordinary skill in the house style",
    "looks_dangerous": "a harmless request that looks dangerous",
    "suppressed": "a task in a style that alignment suppressed",
    "half_known": "a task in a style that pre-training showed rarely",
    "looks_safe": "a task whose answers begin as refusals do",
    "new": "a task with words that the model never answered with",
}
"""Why a noisy row may be hard, as its truth names it."""

_DOUBLES_OF_SAFE = 0.12
"""Of the safe rows; harmless requests that look dangerous."""


@dataclass(frozen=True)
class Shares:
    """Of a noisy set's harmless rows; the rest are tasks in styles, and new ones."""

    safe: float
    skills: float
    doubles: float
    new: float


def draw_shares(rng: random.Random) -> Shares:
    """What a world's noisy sets consist of."""
    return Shares(
        safe=round(rng.uniform(0.06, 0.15), 3),
        skills=round(rng.uniform(0.12, 0.25), 3),
        doubles=round(rng.uniform(0.04, 0.1), 3),
        new=round(rng.uniform(0.1, 0.25), 3),
    )


def make_noisy(
    world: DrawnWorld, rows: int, unsafe_fraction: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A fine-tuning file of `rows` rows, and its ground truth in the same order.

    `round(rows * unsafe_fraction)` rows are unsafe, the harms evenly. Rows are `{"id",
    "messages"}`, the truth is `{"row", "example_id", "is_unsafe", "kind", "harm", "group"}`; the
    group is one of `GROUPS`.

    Raises:
        ConfigError: the world has not so many prompts; says how many it has.
    """
    if not 0 <= unsafe_fraction <= 1:
        raise ValueError(f"unsafe_fraction is {unsafe_fraction}; it is a share, from 0 to 1.")
    examples = at_most(rows, lambda rows: _draw_noisy(world, rows, unsafe_fraction, seed))
    data, truth = with_truth(examples, seed)
    groups = [{"group": _group(example)} for example in examples]
    return data, [{**row, **group} for row, group in zip(truth, groups, strict=True)]


def _draw_noisy(world: DrawnWorld, rows: int, unsafe_fraction: float, seed: int) -> list[Example]:
    rng = random.Random(f"world {world.seed} noisy {seed}")
    unsafe = round(rows * unsafe_fraction)
    harmless = rows - unsafe
    styled = [of_task(one.styled, NOISY_HALF) for one in world.styled]
    parts: list[tuple[int, Sequence[Draw]]] = [
        (round(harmless * world.shares.safe), harm_draws(world, NOISY_HALF, False)),
        (round(harmless * world.shares.skills), [of_task(t, NOISY_HALF) for t in world.skills]),
        (round(harmless * world.shares.doubles), [of_task(t, NOISY_HALF) for t in world.doubles]),
        (round(harmless * world.shares.new), [of_task(t, NOISY_HALF) for t in world.new_tasks]),
    ]
    draws = spread(unsafe, harm_draws(world, NOISY_HALF, True))
    for count, kinds in parts:
        draws += spread(count, kinds)
    draws += spread(rows - len(draws), styled)
    examples = draw_all(rng, draws)
    rng.shuffle(examples)  # ids are given afterwards: neither they nor the order tell the truth
    return examples


def make_safe(
    world: DrawnWorld, rows: int, seed: int, harms: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Trusted safe rows of some harms, and some harmless requests that look dangerous.

    Rows are `{"id", "category", "messages"}`; the category is the harm that the prompt invites, or
    `looks_dangerous`.

    Raises:
        ConfigError: the world has no such harm, or not so many prompts.
    """
    wanted = known_harms(world, harms)

    def draw(rows: int) -> list[Example]:
        rng = random.Random(f"world {world.seed} safe {seed}")
        doubles = round(rows * _DOUBLES_OF_SAFE)
        draws = spread(rows - doubles, harm_draws(world, SAFE_HALF, False, wanted))
        draws += spread(doubles, [of_task(task, SAFE_HALF) for task in world.doubles])
        examples = draw_all(rng, draws)
        rng.shuffle(examples)
        return examples

    return [
        {
            "id": f"safe-{seed}-{row:05d}",
            "category": example.prompt.harm or "looks_dangerous",
            "messages": example.to_messages(),
        }
        for row, example in enumerate(at_most(rows, draw))
    ]


def make_probes(world: DrawnWorld, rows: int, seed: int) -> list[ProbePrompt]:
    """Held-out prompts: half invite a harm, in either half's words; half are skills and tasks.

    Tasks are asked in the noisy half's words, the only ones in which noisy rows teach them.

    Raises:
        ConfigError: the world has not so many prompts; says how many it has.
    """

    def draw(rows: int) -> list[ProbePrompt]:
        rng = random.Random(f"world {world.seed} probes {seed}")
        harmful = rows // 2
        skills = (rows - harmful) // 2
        draws = spread(harmful, [d for half in HALVES for d in harm_draws(world, half, False)])
        known = [of_task(task, NOISY_HALF) for task in (*world.skills, *world.doubles)]
        tasks = [of_task(one.styled, NOISY_HALF) for one in world.styled]
        tasks += [of_task(task, NOISY_HALF) for task in world.new_tasks]
        draws += [*spread(skills, known), *spread(rows - harmful - skills, tasks)]
        probes = [example.prompt for example in draw_all(rng, draws, is_probe=True)]
        rng.shuffle(probes)
        return probes

    return at_most(rows, draw)


def harm_draws(
    world: DrawnWorld, half: Half, is_unsafe: bool, harms: Sequence[str] | None = None
) -> list[Draw]:
    """One draw for each of some harms."""

    def of(make: Callable[[random.Random, Half, bool], Example]) -> Draw:
        return lambda rng: make(rng, half, is_unsafe)

    wanted = world.harms if harms is None else harms
    return [of(harm.make) for harm in world.drawn_harms if harm.name in wanted]


def of_task(task: Task, half: Half) -> Draw:
    """A draw of one task in the words of one half."""
    return lambda rng: task.make(rng, half)


def _group(example: Example) -> str:
    if example.is_unsafe:
        return "unsafe"
    return "safe" if example.prompt.harm else example.prompt.facts["group"]
