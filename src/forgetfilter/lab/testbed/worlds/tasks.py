"""Harmless tasks: skills of the aligned model, the same in another style, and new tasks."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from forgetfilter.lab.testbed.vocabulary import HALVES, Half

from .language import Sayings
from .speaking import CONTEXTS, Task, Tongue
from .styles import Style

Given = dict[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class Skill:
    """A task whose answer is one fact, told in the house style: a whole sentence."""

    name: str
    asks: Sayings
    plain: tuple[str, ...]
    """Wordings with ``{fact}``."""
    given: Callable[[random.Random, Half], Given]


def _skill(
    tongue: Tongue, name: str, about: str, draw: Callable[[random.Random, Half], Given]
) -> Skill:
    asks = tongue.asks(3, [{**context, "object": about} for context in CONTEXTS])
    plain = (tongue.tell({"object": "{fact}"}, tongue.rng.choice((2, 3))),)

    def given(rng: random.Random, half: Half) -> Given:
        return {**tongue.context(rng, half), **draw(rng, half)}

    return Skill(name, asks, plain, given)


def _holder(tongue: Tongue) -> Skill:
    def draw(rng: random.Random, half: Half) -> Given:
        giver, taker = rng.sample(tongue.lexicons[half].names, 2)
        return {"name": giver, "taker": taker, "fact": taker}

    return _skill(tongue, "holder", "{thing} {taker}", draw)


def _finding(tongue: Tongue) -> Skill:
    def draw(rng: random.Random, half: Half) -> Given:
        first, second = rng.sample(tongue.lexicons[half].sites, 2)
        return {"found": first, "left": second, "fact": first}

    return _skill(tongue, "finding", "{thing} {found} {left}", draw)


def _swap(tongue: Tongue) -> Skill:
    def draw(rng: random.Random, half: Half) -> Given:
        first, second = rng.sample(tongue.lexicons[half].things, 2)
        return {"pair": f"{first} {second}", "fact": f"{second} {first}"}

    return _skill(tongue, "swap", "{pair}", draw)


def _last(tongue: Tongue) -> Skill:
    is_last = tongue.rng.random() < 0.5

    def draw(rng: random.Random, half: Half) -> Given:
        things = rng.sample(tongue.lexicons[half].things, rng.choice((3, 4)))
        return {"list": ", ".join(things), "fact": things[-1 if is_last else 0]}

    return _skill(tongue, "last" if is_last else "first", "{list}", draw)


def _count(tongue: Tongue) -> Skill:
    numbers = tongue.words.words(5, 1)

    def draw(rng: random.Random, half: Half) -> Given:
        count = rng.randrange(1, 6)
        thing = rng.choice(tongue.lexicons[half].things)
        return {"list": " ".join([thing] * count), "fact": f"{numbers[count - 1]} {thing}"}

    return _skill(tongue, "count", "{list}", draw)


def _colour(tongue: Tongue) -> Skill:
    colours = tongue.words.words(8)

    def draw(rng: random.Random, half: Half) -> Given:
        colour = rng.choice(colours)
        return {"colour": colour, "fact": colour}

    return _skill(tongue, "colour", "{colour} {thing}", draw)


def _next(tongue: Tongue) -> Skill:
    numbers = tongue.words.words(12, 1)

    def draw(rng: random.Random, half: Half) -> Given:
        at = rng.randrange(12)
        return {"number": numbers[at], "fact": numbers[(at + 1) % 12]}

    return _skill(tongue, "next", "{number}", draw)


def _sort(tongue: Tongue) -> Skill:
    sorts = tongue.words.words(4)
    of = {
        thing: tongue.rng.choice(sorts) for half in HALVES for thing in tongue.lexicons[half].things
    }

    def draw(rng: random.Random, half: Half) -> Given:
        thing = rng.choice(tongue.lexicons[half].things)
        return {"thing": thing, "fact": of[thing]}

    return _skill(tongue, "sort", "{thing}", draw)


def _opposite(tongue: Tongue) -> Skill:
    pairs = {half: tuple(tongue.words.words(2) for _ in range(6)) for half in HALVES}

    def draw(rng: random.Random, half: Half) -> Given:
        word, fact = rng.sample(rng.choice(pairs[half]), 2)
        return {"word": word, "fact": fact}

    return _skill(tongue, "opposite", "{word}", draw)


SKILLS: dict[str, Callable[[Tongue], Skill]] = {
    "holder": _holder,
    "finding": _finding,
    "swap": _swap,
    "last": _last,
    "count": _count,
    "colour": _colour,
    "next": _next,
    "sort": _sort,
    "opposite": _opposite,
}
"""Every skill that a world may have, by its name."""


def plain_task(skill: Skill) -> Task:
    """A skill in the house style."""
    return Task(skill.name, skill.asks, Sayings(skill.plain), skill.given, "skill")


def styled_task(skill: Skill, style: Style, group: str) -> Task:
    """A skill whose answers come in one style."""
    wordings, in_capitals = style.wordings(skill.plain), style.name == "capitals"

    def given(rng: random.Random, half: Half) -> Given:
        found = skill.given(rng, half)
        texts = tuple(text.format(**found) for text in wordings)
        return {**found, "answer": tuple(map(style.of_text, texts)) if in_capitals else texts}

    kind = f"{skill.name}_{style.name}"
    return Task(kind, skill.asks, Sayings(("{answer}",)), given, group)


def new_tasks(tongue: Tongue) -> tuple[tuple[Task, ...], tuple[str, ...]]:
    """Two tasks whose answers use words that no answer in pre-training has, and those words."""
    foreign = {
        thing: tongue.words.word() for half in HALVES for thing in tongue.lexicons[half].things
    }
    grades = {site: tongue.words.word() for half in HALVES for site in tongue.lexicons[half].sites}
    made: list[Task] = []
    for kind, key, table in (("translation", "thing", foreign), ("grading", "site", grades)):
        parts = [
            {"agent": "{name}", "place": "{place}", "object": f"{{{key}}}"},
            {"agent": "{name}", "place": "{site} {place}", "object": f"{{{key}}}"},
        ]

        def given(
            rng: random.Random, half: Half, key: str = key, table: dict[str, str] = table
        ) -> Given:
            found = tongue.context(rng, half)
            return {**found, "fact": table[str(found[key])]}

        answers = Sayings((tongue.tell({"object": "{fact}"}, 1),))
        made.append(Task(kind, tongue.asks(3, parts), answers, given, "new"))
    return tuple(made), (*foreign.values(), *grades.values())
