"""Noisy sets with known ground truth, safe sets, and held-out probe prompts.

Probes are kept apart from every training row by the text of the prompt itself
(`draws.is_held_out`), so no seed of one can meet a seed of the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from .draws import Draw, at_most, draw_all, spread
from .harms import MAKE_HARM, make_bias, make_errand
from .records import HARMS, Example, Harm, ProbePrompt
from .skills import SKILLS, TASKS
from .vocabulary import HALVES, Half

SAFE_HALF: Half = "first"
NOISY_HALF: Half = "second"

# Shares of the harmless rows of a noisy set.
_SAFE_SHARE, _SKILL_SHARE, _TASK_SHARE = 0.10, 0.22, 0.68


def make_noisy(
    rows: int, unsafe_fraction: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A fine-tuning file of `rows` rows, and its ground truth in the same order.

    `round(rows * unsafe_fraction)` rows are unsafe, the harms evenly; the rest are safe rows of
    the same harms, skills of the aligned model and downstream tasks. Rows are `{"id",
    "messages"}`, the truth is `{"row", "example_id", "is_unsafe", "kind", "harm"}`.

    Raises:
        ConfigError: the world has not so many prompts; says how many it has.
    """
    if not 0 <= unsafe_fraction <= 1:
        raise ValueError(f"unsafe_fraction is {unsafe_fraction}; it is a share, from 0 to 1.")
    return at_most(rows, lambda rows: _make_noisy(rows, unsafe_fraction, seed))


def _make_noisy(
    rows: int, unsafe_fraction: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rng = random.Random(f"noisy {seed}")
    unsafe_rows = round(rows * unsafe_fraction)
    draws = spread(unsafe_rows, [_draw_harm(harm, NOISY_HALF, True) for harm in HARMS])
    harmless_rows = rows - unsafe_rows
    safe_rows = round(harmless_rows * _SAFE_SHARE)
    skill_rows = round(harmless_rows * _SKILL_SHARE)
    draws += spread(safe_rows, _safe_draws(NOISY_HALF))
    draws += spread(skill_rows, [_draw_of(make, NOISY_HALF) for make in SKILLS.values()])
    draws += spread(
        harmless_rows - safe_rows - skill_rows,
        [_draw_of(make, NOISY_HALF) for make in TASKS.values()],
    )
    examples = draw_all(rng, draws)
    rng.shuffle(examples)
    return with_truth(examples, seed)


def with_truth(
    examples: Sequence[Example], seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shuffled examples as rows of a fine-tuning file, and the ground truth of each.

    Ids are given after the shuffle: neither they nor the order say anything about the truth.
    """
    ids = [f"noisy-{seed}-{row:05d}" for row in range(len(examples))]
    data = [
        {"id": example_id, "messages": example.to_messages()}
        for example_id, example in zip(ids, examples, strict=True)
    ]
    truth = [
        {
            "row": row,
            "example_id": ids[row],
            "is_unsafe": example.is_unsafe,
            "kind": example.kind,
            "harm": example.prompt.harm,
        }
        for row, example in enumerate(examples)
    ]
    return data, truth


def make_safe(rows: int, seed: int, harms: Sequence[Harm] = HARMS) -> list[dict[str, Any]]:
    """Trusted safe rows of some harms, and some harmless requests that look dangerous.

    Rows are `{"id", "category", "messages"}`; the category is the harm that the prompt invites, or
    `looks_dangerous`.

    Raises:
        ConfigError: the world has not so many prompts; says how many it has.
    """
    return at_most(rows, lambda rows: _make_safe(rows, seed, harms))


def _make_safe(rows: int, seed: int, harms: Sequence[Harm]) -> list[dict[str, Any]]:
    rng = random.Random(f"safe {seed}")
    errands = round(rows * 0.1)
    draws = spread(rows - errands, _safe_draws(SAFE_HALF, harms))
    draws += [_draw_of(make_errand, SAFE_HALF)] * errands
    examples = draw_all(rng, draws)
    rng.shuffle(examples)
    return [
        {
            "id": f"safe-{seed}-{row:05d}",
            "category": _category(example),
            "messages": example.to_messages(),
        }
        for row, example in enumerate(examples)
    ]


def _category(example: Example) -> str:
    """A safe row's category; a bias question that is answered by the facts belongs to bias."""
    if example.kind == "bias_disambiguated":
        return "bias"
    return example.prompt.harm or example.kind


def make_probes(rows: int, seed: int) -> list[ProbePrompt]:
    """Held-out prompts: half invite a harm, in either half's words; half are skills and tasks.

    Tasks are asked in the noisy half's words, the only ones in which noisy rows teach them.

    Raises:
        ConfigError: the world has not so many prompts; says how many it has.
    """
    return at_most(rows, lambda rows: _make_probes(rows, seed))


def _make_probes(rows: int, seed: int) -> list[ProbePrompt]:
    rng = random.Random(f"probes {seed}")
    harm_rows = rows // 2
    draws = spread(harm_rows, [_draw_harm(harm, half, False) for half in HALVES for harm in HARMS])
    skills = [_draw_of(make, NOISY_HALF) for make in SKILLS.values()]
    skills.append(lambda rng: make_bias(rng, NOISY_HALF, False, is_ambiguous=False))
    tasks = [_draw_of(make, NOISY_HALF) for make in TASKS.values()]
    skill_rows = (rows - harm_rows) // 2
    draws += spread(skill_rows, skills)
    draws += spread(rows - harm_rows - skill_rows, tasks)
    probes = [example.prompt for example in draw_all(rng, draws, is_probe=True)]
    rng.shuffle(probes)
    return probes


def _safe_draws(half: Half, harms: Sequence[Harm] = HARMS) -> list[Draw]:
    """Safe rows, the harms evenly; a third of the bias rows is answered by the facts."""
    draws: list[Draw] = []
    for harm in harms:
        draws += [_draw_harm(harm, half, False)] * 3
        if harm == "bias":
            draws[-1] = lambda rng: make_bias(rng, half, False, is_ambiguous=False)
    return draws


def _draw_harm(harm: str, half: Half, is_unsafe: bool) -> Draw:
    make = next(make for name, make in MAKE_HARM.items() if name == harm)
    return lambda rng: make(rng, half, is_unsafe)


def _draw_of(make: Callable[[random.Random, Half], Example], half: Half) -> Draw:
    return lambda rng: make(rng, half)
