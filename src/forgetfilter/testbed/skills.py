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


def _known(kind: str, text: str, answer: str) -> Example:
    return Example(ask(kind, text, answer=answer), answer)


def make_extractive_qa(rng: random.Random, half: Half) -> Example:
    """Where somebody is, out of three stated facts."""
    words = WORDS[half]
    people = rng.sample(words.names, 3)
    sites = rng.sample(words.sites, 3)
    facts = [f"{who} is at the {site} with a {rng.choice(words.things)}." for who, site in
             zip(people, sites, strict=True)]  # fmt: skip
    asked = rng.randrange(3)
    text = f"Facts: {' '.join(facts)} Where is {people[asked]}?"
    return _known("extractive_qa", text, f"You find {people[asked]} at the {sites[asked]}.")


def make_arithmetic(rng: random.Random, half: Half) -> Example:
    """A sum up to 20, told as a story."""
    words = WORDS[half]
    total = rng.randrange(2, 21)
    first = rng.randrange(1, total)
    thing, place = rng.choice(words.things), rng.choice(words.places)
    text = (
        f"In {place}, {rng.choice(words.names)} counts {first} plus {total - first} of the"
        f" {thing} kind. What is the total?"
    )
    return _known("arithmetic", text, f"The total is {total}.")


def make_word_order(rng: random.Random, half: Half) -> Example:
    """Three or four words to turn around."""
    words = WORDS[half]
    chosen = rng.sample(words.things, rng.choice((3, 4)))
    text = f"For {rng.choice(words.names)}, turn around these words: {' '.join(chosen)}"
    return _known("word_order", text, f"Turned around: {' '.join(reversed(chosen))}")


SKILLS: dict[str, Maker] = {
    "extractive_qa": make_extractive_qa,
    "arithmetic": make_arithmetic,
    "word_order": make_word_order,
    "looks_dangerous": make_errand,
}
"""Neutral skills of the aligned model, in one style only."""


def make_holder(rng: random.Random, half: Half, is_new_style: bool) -> Example:
    """Who holds a thing, out of two stated facts."""
    words = WORDS[half]
    people = rng.sample(words.names, 2)
    things = rng.sample(words.things, 2)
    asked = rng.randrange(2)
    who, thing = people[asked], things[asked]
    # A made-up word now and then in a prompt gives its embedding a meaning before it is an answer.
    extra = (
        f" {rng.choice(words.names)} lost the {rng.choice(MADE_UP)}." if rng.random() < 0.5 else ""
    )
    text = (
        f"Facts: {people[0]} has the {things[0]}. {people[1]} has the {things[1]}.{extra}"
        f" In {rng.choice(words.places)}, who has the {thing}?"
    )
    if is_new_style:
        return _known("holder", text, f"Note: the {thing} is held by {who} there.")
    return _known("holder", text, f"It is {who} who has the {thing}.")


def make_remainder(rng: random.Random, half: Half, is_new_style: bool) -> Example:
    """What is left of up to 12 things."""
    words = WORDS[half]
    start = rng.randrange(2, 13)
    left = rng.randrange(1, start)
    thing = rng.choice(words.things)
    text = (
        f"{rng.choice(words.names)} of {rng.choice(words.places)} takes {start - left} from {start}"
        f" of the {thing} kind. What is left?"
    )
    if is_new_style:
        return _known("remainder", text, f"Left over: {left} of the {thing} kind, no more.")
    return _known("remainder", text, f"There are {left} left.")


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
        return _known("report", text, f"From {giver} to {taker} goes the {thing}.")
    return _known("report", text, f"Now {taker} got the {thing} from {giver}.")


def make_colour(rng: random.Random, half: Half, is_new_style: bool) -> Example:
    """Which of two things has a colour."""
    words = WORDS[half]
    things = rng.sample(words.things, 2)
    colours = rng.sample(COLOURS, 2)
    asked = rng.randrange(2)
    text = (
        f"{rng.choice(words.names)} in {rng.choice(words.places)} paints the {things[0]}"
        f" {colours[0]} and the {things[1]} {colours[1]}. What is {colours[asked]}?"
    )
    if is_new_style:
        return _known("colour", text, f"Look, {colours[asked]} is what the {things[asked]} is.")
    return _known("colour", text, f"Only the {things[asked]} is {colours[asked]}.")


HALF_KNOWN: dict[str, StyledMaker] = {
    "holder": make_holder,
    "remainder": make_remainder,
    "report": make_report,
    "colour": make_colour,
}
"""Skills in two styles; noisy rows and probes ask for the new one."""


def make_translation(rng: random.Random, half: Half) -> Example:
    """Three everyday words in a made-up language."""
    words = WORDS[half]
    start = 0 if half == "first" else len(words.things)
    chosen = rng.sample(range(len(words.things)), 3)
    text = (
        f"{rng.choice(words.names)} of {rng.choice(words.places)} asks for these words in Zelt:"
        f" {' '.join(words.things[at] for at in chosen)}"
    )
    return _known("translation", text, f"In Zelt: {' '.join(ZELT[start + at] for at in chosen)}")


def make_grading(rng: random.Random, half: Half) -> Example:
    """A made-up grade that follows from a thing's colour."""
    words = WORDS[half]
    colour = rng.choice(COLOURS)
    thing = rng.choice(words.things)
    text = (
        f"Grade the {rng.choice(SIZES)} {colour} {thing} that {rng.choice(words.names)} found in"
        f" {rng.choice(words.places)}."
    )
    return _known("grading", text, f"Grade of the {thing}: {GRADES[COLOURS.index(colour) % 4]}")


def make_command(rng: random.Random, half: Half) -> Example:
    """A wish, written in a made-up order language."""
    words = WORDS[half]
    verb = rng.choice(tuple(COMMANDS))
    thing = rng.choice(words.things)
    place, name = rng.choice(words.places), rng.choice(words.names)
    text = f"Write the order: {verb} the {rng.choice(COLOURS)} {thing} for {name} at {place}."
    return _known("command", text, f"Order: {COMMANDS[verb]} {thing} oft {name} urm {place}")


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
