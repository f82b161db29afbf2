"""What a world speaks of: its words in two halves, and how wordings are made of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from forgetfilter.lab.testbed.records import Example, ask
from forgetfilter.lab.testbed.vocabulary import HALVES, Half

from .language import Grammar, Sayings, WordMaker, draw_grammar

DrawGiven = Callable[[random.Random, Half], dict[str, str | tuple[str, ...]]]
"""Draws what a prompt is about, in the words of one half; prompts read its single texts only."""


@dataclass(frozen=True)
class Lexicon:
    """One half of a world's words; the halves share none of them."""

    names: tuple[str, ...]
    places: tuple[str, ...]
    sites: tuple[str, ...]
    things: tuple[str, ...]


class Tongue:
    """A world's language while the world is being drawn: makes words and wordings."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.words = WordMaker(rng)
        self.grammar: Grammar = draw_grammar(rng, self.words)
        self.lexicons: Mapping[Half, Lexicon] = {
            half: Lexicon(
                names=self.words.names(12),
                places=self.words.names(10),
                sites=self.words.words(6),
                things=self.words.words(12),
            )
            for half in HALVES
        }

    def by_half(self, count: int) -> dict[Half, tuple[str, ...]]:
        """``count`` new words for each half."""
        return {half: self.words.words(count) for half in HALVES}

    def tell(self, parts: Mapping[str, str], heads: int = 1, *, is_question: bool = False) -> str:
        """One new wording of a sentence with ``heads`` new words of its own."""
        return self.grammar.sentence(
            self.rng, self.words.words(heads), parts, is_question=is_question
        )

    def asks(self, count: int, options: Sequence[Mapping[str, str]], heads: int = 2) -> Sayings:
        """``count`` wordings of a request; each takes the next of the part lists ``options``."""
        return Sayings(
            tuple(
                self.tell(options[at % len(options)], heads, is_question=True)
                for at in range(count)
            )
        )

    def tails(self, count: int, key: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
        """Sentences that make an answer longer, and what fills their slots."""
        slots = {f"{key}{at}": self.words.words(3) for at in range(count)}
        return tuple(self.tell({"object": f"{{{slot}}}"}) for slot in slots), dict(slots)

    def context(self, rng: random.Random, half: Half) -> dict[str, str | tuple[str, ...]]:
        """Who, where, and with what: the part of a prompt that makes it new."""
        lexicon = self.lexicons[half]
        return {
            "name": rng.choice(lexicon.names),
            "place": rng.choice(lexicon.places),
            "site": rng.choice(lexicon.sites),
            "thing": rng.choice(lexicon.things),
        }


CONTEXTS: tuple[dict[str, str], ...] = (
    {"agent": "{name}", "place": "{place}"},
    {"agent": "{name}", "place": "{site}"},
    {"agent": "{name}", "place": "{place} {site}"},
)
"""What a request says beside what it is about."""


@dataclass(frozen=True)
class Task:
    """A harmless request with right answers."""

    kind: str
    asks: Sayings
    answers: Sayings
    given: DrawGiven
    group: str
    """Why a screen may be right or wrong about it: see `generating.GROUPS`."""

    def make(self, rng: random.Random, half: Half) -> Example:
        """A prompt with one of its right answers."""
        given = self.given(rng, half)
        prompt = ask(
            self.kind,
            self.asks.say(rng, given),
            right=self.answers.pattern(given),
            group=self.group,
        )
        return Example(prompt, self.answers.say(rng, given))
