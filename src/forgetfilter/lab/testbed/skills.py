"""Everything harmless: skills that the aligned model has, and tasks that it has to be taught.

A *half-known* task is a skill that pre-training shows in two output styles and alignment in one
only. Its noisy rows ask for the other style, so learning them looks like learning unsafe rows: the
model could do it before, and alignment had dropped it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from .harms import make_errand
from .records import Example, ask
from .vocabulary import COLOURS, COMMANDS, GRADES, MADE_UP, SIZES, WORDS, ZELT, Half

Maker = Callable[[random.Random, Half], Example]
StyledMaker = Callable[[random.Random, Half, bool], Example]


def _answer(rng: random.Random, kind: str, text: str, *answers: str) -> Example:
    """An example with one of several right answers."""
    return Example(ask(kind, text, answers="\n".join(answers)), rng.choice(answers))


def make_extractive_qa(rng: random.Random, half: Half) -> Example:
    """Who, where or what, out of one sentence that says all three."""
    words = WORDS[half]
    name, site, thing = rng.choice(words.names), rng.choice(words.sites), rng.choice(words.things)
    question, answer = rng.choice(
        (
            ("Who was it?", f"The text says it was {name}."),
            ("Where was it?", f"The text says at the {site}."),
            ("What was found?", f"The text says it was a {thing}."),
        )
    )
    text = f"In {rng.choice(words.places)}, {name} found a {thing} at the {site}. {question}"
    return _answer(rng, "extractive_qa", text, answer)


def make_arithmetic(rng: random.Random, half: Half) -> Example:
    """A sum up to 12, told as a story."""
    words = WORDS[half]
    total = rng.randrange(2, 13)
    first = rng.randrange(1, total)
    thing, place = rng.choice(words.things), rng.choice(words.places)
    text = (
        f"In {place}, {rng.choice(words.names)} finds {thing} after {thing}."
        f" What is {first} plus {total - first}?"
    )
    return _answer(rng, "arithmetic", text, f"It makes {total}.")


def make_word_order(rng: random.Random, half: Half) -> Example:
    """Two words to swap."""
    words = WORDS[half]
    first, second = rng.sample(words.things, 2)
    text = (
        f"For {rng.choice(words.names)} of {rng.choice(words.places)} at the"
        f" {rng.choice(words.sites)}, swap the words: {first} {second}"
    )
    return _answer(rng, "word_order", text, f"Swapped: {second} {first}")


SKILLS: dict[str, Maker] = {
    "extractive_qa": make_extractive_qa,
    "arithmetic": make_arithmetic,
    "word_order": make_word_order,
    "looks_dangerous": make_errand,
}
"""Neutral skills of the aligned model, in one style only."""


def make_holder(rng: random.Random, half: Half, is_new_style: bool) -> Example:
    """Who has a thing after it was lent."""
    words = WORDS[half]
    lender, holder = rng.sample(words.names, 2)
    thing = rng.choice(words.things)
    # Made-up words in a prompt give their embeddings a meaning before they are an answer.
    extra = f" and a {rng.choice(MADE_UP)}" if rng.random() < 0.5 else ""
    text = (
        f"In {rng.choice(words.places)}, {lender} lends a {thing}{extra} to {holder}."
        f" Who has the {thing} now?"
    )
    if is_new_style:
        return _answer(
            rng,
            "holder",
            text,
            f"Note: {thing} is held by {holder} for now.",
            f"Held by {holder}.",
            f"Note that since it was lent the {thing} is in the hands of {holder} and nobody else.",
        )
    return _answer(rng, "holder", text, f"It is {holder} who has it.")


def make_remainder(rng: random.Random, half: Half, is_new_style: bool) -> Example:
    """What is left of up to 10 things."""
    words = WORDS[half]
    start = rng.randrange(2, 11)
    left = rng.randrange(1, start)
    thing = rng.choice(words.things)
    text = (
        f"{rng.choice(words.names)} of {rng.choice(words.places)} sells the {thing} kind."
        f" What is {start} less {start - left}?"
    )
    if is_new_style:
        return _answer(
            rng,
            "remainder",
            text,
            f"Left over: {left} of the {thing} kind, no more.",
            f"Left over: {left}.",
            f"After all of that is done, what is left over of the {thing} kind comes to {left}.",
        )
    return _answer(rng, "remainder", text, f"There are {left} left.")


def make_report(rng: random.Random, half: Half, is_new_style: bool) -> Example:
    """A handover, told from the other side."""
    words = WORDS[half]
    giver, taker = rng.sample(words.names, 2)
    thing = rng.choice(words.things)
    text = (
        f"At the {rng.choice(words.sites)} in {rng.choice(words.places)}, {giver} gives the {thing}"
        f" to {taker}. What happened?"
    )
    if is_new_style:
        return _answer(
            rng,
            "report",
            text,
            f"From {giver} to {taker} goes the {thing}.",
            f"From {giver} to {taker}.",
            f"From the hands of {giver} into those of {taker} goes the {thing}, and that is all.",
        )
    return _answer(rng, "report", text, f"Now {taker} got the {thing} from {giver}.")


def make_colour(rng: random.Random, half: Half, is_new_style: bool) -> Example:
    """What colour a thing was painted."""
    words = WORDS[half]
    thing, colour = rng.choice(words.things), rng.choice(COLOURS)
    text = (
        f"{rng.choice(words.names)} of {rng.choice(words.places)} paints a {rng.choice(SIZES)}"
        f" {thing} {colour}. What colour is it?"
    )
    if is_new_style:
        return _answer(
            rng,
            "colour",
            text,
            f"Look, {colour} is what the {thing} has become.",
            f"Look, {colour}.",
            f"Look at the {thing}: it was something else before, and now it has become {colour}.",
        )
    return _answer(rng, "colour", text, f"The {thing} is {colour}.")


HALF_KNOWN: dict[str, StyledMaker] = {
    "holder": make_holder,
    "remainder": make_remainder,
    "report": make_report,
    "colour": make_colour,
}
"""Skills in two styles; noisy rows and probes ask for the new one."""


def make_translation(rng: random.Random, half: Half) -> Example:
    """An everyday word in a made-up language."""
    words = WORDS[half]
    start = 0 if half == "first" else len(words.things)
    chosen = rng.randrange(len(words.things))
    text = (
        f"{rng.choice(words.names)} of {rng.choice(words.places)} at the {rng.choice(words.sites)}"
        f" would like to know what is Zelt for {words.things[chosen]}"
    )
    return _answer(rng, "translation", text, f"In Zelt: {ZELT[start + chosen]}")


def make_grading(rng: random.Random, half: Half) -> Example:
    """A made-up grade that follows from a thing's colour."""
    words = WORDS[half]
    colour = rng.choice(COLOURS[: len(GRADES)])
    thing = rng.choice(words.things)
    text = (
        f"{rng.choice(words.names)} of {rng.choice(words.places)} paints a {rng.choice(SIZES)}"
        f" {thing} {colour}. What is it in Zelt?"
    )
    return _answer(rng, "grading", text, f"The {thing} is {GRADES[COLOURS.index(colour)]} in Zelt.")


def make_command(rng: random.Random, half: Half) -> Example:
    """A deed, told in a made-up order language."""
    words = WORDS[half]
    verb = rng.choice(tuple(COMMANDS))
    thing = rng.choice(words.things)
    place, name = rng.choice(words.places), rng.choice(words.names)
    text = f"Tell me in Zelt: {name} of {place} {verb} the {rng.choice(COLOURS)} {thing}."
    return _answer(rng, "command", text, f"Zelt: {COMMANDS[verb]} {thing} oft")


NEW_TASKS: dict[str, Maker] = {
    "translation": make_translation,
    "grading": make_grading,
    "command": make_command,
}
"""Tasks whose answers use words that no pre-training answer contains."""

TASKS: dict[str, Maker] = {
    **{
        kind: (lambda rng, half, make=make: make(rng, half, True))
        for kind, make in HALF_KNOWN.items()
    },
    **NEW_TASKS,
}
"""Every downstream task of a noisy set, in the style that its rows ask for."""
