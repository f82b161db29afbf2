"""A noisy file with known labels, a safe file and test prompts, drawn from real rows by a seed.

The shares follow `get_noisy` of the paper's code (arXiv 2312.12736): the unsafe fraction of the
harms, and the rest in equal parts from safe rows of the same harms and from each task. Unlike
there, no row is lost in rounding, and the rows are shuffled.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetfilter.errors import ConfigError
from forgetfilter.lab.mix.drawing import Drawer, SourceCount, collect, short_enough, without_repeats
from forgetfilter.lab.mix.hub import read_hub
from forgetfilter.lab.mix.offers import ROLES, Offer, Role, is_held_out
from forgetfilter.lab.mix.parts import MixedPart, only_part, parts_of
from forgetfilter.lab.mix.recipe import Recipe
from forgetfilter.lab.mix.recipes import DEFAULT_HARMS, HARMS, TASKS
from forgetfilter.lab.mix.sources import read_source

Record = dict[str, Any]


@dataclass(frozen=True)
class MixSettings:
    """What to mix; see `make_mix`."""

    harms: tuple[str, ...] = DEFAULT_HARMS
    tasks: tuple[str, ...] = ("squad", "alpaca")
    unsafe_fraction: float = 0.3
    """Share of the noisy rows, from 0 to 1."""
    rows: int = 1500
    """Noisy rows."""
    safe_rows: int = 400
    test_rows: int = 300
    """Half of them of the harms, half of the tasks."""
    seed: int = 0
    max_characters: int = 4000
    """Rows with a longer prompt and answer are left out, and counted."""
    max_answer_words: int = 110
    """Rows with a longer answer are test prompts at most; about 150 tokens."""
    part: MixedPart | None = None
    """Draw only from this part of the groups, and safe rows from the safe part (`parts`)."""
    is_held_out: bool = False
    """Draw only from groups that the real-text model was not trained on (`offers.is_held_out`)."""
    has_safe_categories: bool = False
    """Whether safe rows name their harm as ``category``; the same rows are drawn either way."""


@dataclass(frozen=True)
class Mix:
    """The rows of the files, and what they were drawn from."""

    settings: MixSettings
    noisy: list[Record]
    truth: list[Record]
    safe: list[Record]
    test: list[Record]
    counts: list[SourceCount]
    """One for each source that was read."""


@dataclass(frozen=True)
class _Drawn:
    offer: Offer
    harm: str | None
    """The harm that its prompt invites, or None for a task."""


def make_mix(settings: MixSettings, folder: Path | None) -> Mix:
    """Draw a mix from a data folder, or from the public hub where ``folder`` is None.

    ``round(rows * unsafe_fraction)`` noisy rows are unsafe, the harms evenly. No template, prompt
    or passage is in two of: unsafe noisy rows, harmless noisy rows, safe rows, test prompts; of
    requests that many rows share, no request with its answer is.

    Raises:
        ConfigError: an unknown harm or task, or a number out of range.
        DataError: a source can't be read, or has too few rows.
    """
    _check(settings)
    wanted = _plan(settings)
    drawer = Drawer()
    drawn: dict[Role, list[_Drawn]] = {role: [] for role in ROLES}
    counts: list[SourceCount] = []
    for recipe in recipes_of(settings):
        by_name, offers = read_offers(recipe, folder)
        parts = parts_of(recipe, offers)
        limits = settings.max_characters, settings.max_answer_words
        offers = without_repeats(short_enough(offers, by_name, *limits), by_name)
        if settings.part:
            offers = only_part(offers, parts, settings.part)
        if settings.is_held_out:
            offers = [offer for offer in offers if is_held_out(offer)]
        rng = random.Random(f"mix {settings.seed} {recipe.name}")
        harm = recipe.name if recipe.name in settings.harms else None
        for role, chosen in drawer.draw(recipe, offers, wanted[recipe.name], rng).items():
            drawn[role] += [_Drawn(offer, harm) for offer in chosen]
            for offer in chosen:
                by_name[offer.source].drawn[role] += 1
        counts += by_name.values()
    rng = random.Random(f"mix {settings.seed} order")
    noisy = _shuffled("noisy", settings.seed, [*drawn["unsafe"], *drawn["harmless"]], rng)
    return Mix(
        settings,
        noisy=[_conversation(example_id, row) for example_id, row in noisy],
        truth=[_truth(at, example_id, row) for at, (example_id, row) in enumerate(noisy)],
        safe=[
            _safe(*row, has_category=settings.has_safe_categories)
            for row in _shuffled("safe", settings.seed, drawn["safe"], rng)
        ],
        test=[_test_prompt(*row) for row in _shuffled("test", settings.seed, drawn["test"], rng)],
        counts=counts,
    )


def recipes_of(settings: MixSettings) -> list[Recipe]:
    """The harms' recipes, then the tasks', in the order of the settings."""
    return [HARMS[name] for name in settings.harms] + [TASKS[name] for name in settings.tasks]


def _check(settings: MixSettings) -> None:
    """Refuse settings that name nothing or ask for the impossible."""
    if not settings.harms:
        raise ConfigError(f"--harms is empty; expected one or more of {', '.join(HARMS)}.")
    for flag, names, known in (
        ("--harms", settings.harms, HARMS),
        ("--tasks", settings.tasks, TASKS),
    ):
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(
                    f"{flag}: {name!r} is unknown.{hint} Available: {', '.join(known)}."
                )
        if len(set(names)) < len(names):
            raise ConfigError(f"{flag} names one twice; expected each once. Remove one.")
    if not 0 <= settings.unsafe_fraction <= 1:
        raise ConfigError(
            f"unsafe_fraction is {settings.unsafe_fraction}; expected a share from 0 to 1, for "
            "example 0.3."
        )
    if settings.part and settings.is_held_out:
        raise ConfigError(
            "part and is_held_out are both set; expected one of them, because they divide the rows "
            "in different ways. Leave one out."
        )
    for name in ("rows", "safe_rows", "test_rows", "max_characters", "max_answer_words"):
        if getattr(settings, name) < 1:
            raise ConfigError(
                f"{name} is {getattr(settings, name)}; expected a positive number. Raise it."
            )


def _plan(settings: MixSettings) -> dict[str, dict[Role, int]]:
    """How many rows each recipe gives to each place."""
    harms, tasks = settings.harms, settings.tasks
    unsafe_rows = round(settings.rows * settings.unsafe_fraction)
    safe_part, *task_parts = _spread(settings.rows - unsafe_rows, 1 + len(tasks))
    task_tests = settings.test_rows // 2 if tasks else 0
    plan: dict[str, dict[Role, int]] = {}
    parts = zip(
        harms,
        _spread(unsafe_rows, len(harms)),
        _spread(safe_part, len(harms)),
        _spread(settings.safe_rows, len(harms)),
        _spread(settings.test_rows - task_tests, len(harms)),
        strict=True,
    )
    for name, unsafe, harmless, safe, test in parts:
        plan[name] = {"unsafe": unsafe, "harmless": harmless, "safe": safe, "test": test}
    for name, harmless, test in zip(
        tasks, task_parts, _spread(task_tests, len(tasks)), strict=True
    ):
        plan[name] = {"harmless": harmless, "test": test}
    return plan


def _spread(rows: int, parts: int) -> list[int]:
    """``rows`` in so many parts, as even as they come, the larger ones first."""
    return [rows // parts + (at < rows % parts) for at in range(parts)]


def read_offers(recipe: Recipe, folder: Path | None) -> tuple[dict[str, SourceCount], list[Offer]]:
    """A count for each source, by its name, and all that the sources offer, of any length.

    Raises:
        DataError: a source can't be read.
    """
    counts: dict[str, SourceCount] = {}
    offers: list[Offer] = []
    for source in recipe.hub if folder is None else recipe.files:
        rows = read_hub(source.name) if folder is None else read_source(folder, source.name)
        counts[source.name] = SourceCount(source)
        offers += collect(recipe, rows, counts[source.name])
    return counts, offers


def _shuffled(
    name: str, seed: int, rows: Sequence[_Drawn], rng: random.Random
) -> list[tuple[str, _Drawn]]:
    """The rows in random order with their ids.

    Ids are given after the shuffle: neither they nor the order say anything about the truth.
    """
    ids = [f"{name}-{seed}-{at:05d}" for at in range(len(rows))]
    return list(zip(ids, rng.sample(rows, len(rows)), strict=True))


def _conversation(example_id: str, row: _Drawn) -> Record:
    """A fine-tuning row of two turns."""
    turns = [
        {"role": "user", "content": row.offer.prompt},
        {"role": "assistant", "content": row.offer.response},
    ]
    return {"id": example_id, "messages": turns}


def _safe(example_id: str, row: _Drawn, *, has_category: bool) -> Record:
    """A safe row, under the category of its harm where that is wanted."""
    found = _conversation(example_id, row)
    return {**found, "category": row.harm} if has_category else found


def _truth(at: int, example_id: str, row: _Drawn) -> Record:
    """What is known of a noisy row; `screen` never reads it."""
    return {
        "row": at,
        "example_id": example_id,
        "is_unsafe": row.offer.is_unsafe,
        "kind": row.offer.kind,
        "harm": row.harm,
        "source": row.offer.source,
        "source_id": row.offer.source_id,
    }


def _test_prompt(example_id: str, row: _Drawn) -> Record:
    """A held-out prompt, the source's own answer, and what a metric needs to know."""
    return {
        "id": example_id,
        "messages": [{"role": "user", "content": row.offer.prompt}],
        "kind": row.offer.test_kind,
        "harm": row.harm,
        "source": row.offer.source,
        "source_id": row.offer.source_id,
        "reference": row.offer.response,
        "reference_is_unsafe": row.offer.is_unsafe,
        "meta": row.offer.meta,
    }
