"""A made-up language: its sounds, its words, its grammar, and the sentences that are said in it.

Every word is invented, function words too, so that two worlds have little more in common than
digits and punctuation.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter

Given = Mapping[str, str | tuple[str, ...]]
"""What slots are filled with: one text, or several of which one is drawn."""

_STARTS = tuple(re.findall(r"\w+", "b d f g k l m n p r s t v z br dr fl gl kr pl sk st tr sh th"))
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
_ENDS = ("n", "l", "r", "m", "k", "s", "t", "nd", "rn", "sk", "lm")
_UNFORTUNATE = re.compile(r"fag|dik|kok|kum|nig|tit|pus|sex|rap|fuk|kunt|slut|shit|tard|ass|nazi")
"""Invented words that happen to be rude in English are not used."""

ROLES = ("agent", "object", "place", "other")
"""What a part of a sentence can be; a world orders and marks them in its own way."""


class WordMaker:
    """Invents words of one sound, none twice."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._starts = rng.sample(_STARTS, 10)
        self._vowels = rng.sample(_VOWELS, 4)
        self._ends = ["", *rng.sample(_ENDS, 4)]
        self._known: set[str] = set()

    def word(self, syllables: int = 2) -> str:
        """A new word; it gets longer where short ones run out."""
        for attempt in range(10_000):
            parts = syllables + attempt // 100
            text = "".join(
                self._rng.choice(self._starts) + self._rng.choice(self._vowels)
                for _ in range(parts)
            )
            text += self._rng.choice(self._ends)
            if text not in self._known and not _UNFORTUNATE.search(text):
                self._known.add(text)
                return text
        raise AssertionError("Ten thousand draws found no new word.")

    def words(self, count: int, syllables: int = 2) -> tuple[str, ...]:
        """``count`` new words."""
        return tuple(self.word(syllables) for _ in range(count))

    def names(self, count: int) -> tuple[str, ...]:
        """New words that begin with a capital."""
        return tuple(self.word().capitalize() for _ in range(count))


@dataclass(frozen=True)
class Grammar:
    """How a world's sentences are put together."""

    order: tuple[str, ...]
    """The roles in their usual order."""
    marks: Mapping[str, str]
    """The function word of each role; empty where a role has none."""
    is_postposed: bool
    """Whether a role's function word follows it."""
    article: str
    """Stands beside agents and objects; empty where the language has none."""
    head_at: int
    """Where a sentence's own words stand: 0 first, 1 after the first part, -1 last."""
    question_words: tuple[str, ...]
    is_question_first: bool
    stop: str
    asks: str
    """What ends a sentence, and a question."""
    can_scramble: bool
    """Whether a part may be moved to the front."""

    def sentence(
        self,
        rng: random.Random,
        heads: Sequence[str],
        parts: Mapping[str, str],
        *,
        is_question: bool = False,
    ) -> str:
        """One sentence, or one wording with slots in braces.

        Args:
            rng: decides what the grammar leaves open.
            heads: the words that say what is done.
            parts: by role, what fills it.
            is_question: whether it asks.
        """
        phrases = [self._phrase(role, parts[role]) for role in self.order if role in parts]
        if self.can_scramble and len(phrases) > 1 and rng.random() < 0.5:
            phrases.insert(0, phrases.pop(rng.randrange(1, len(phrases))))
        at = len(phrases) if self.head_at < 0 else min(self.head_at, len(phrases))
        phrases.insert(at, " ".join(heads))
        if is_question:
            word = rng.choice(self.question_words)
            phrases.insert(0 if self.is_question_first else len(phrases), word)
        return " ".join(phrases) + (self.asks if is_question else self.stop)

    def _phrase(self, role: str, text: str) -> str:
        words = [self.article, text] if self.article and role in ("agent", "object") else [text]
        mark = self.marks[role]
        if mark:
            words = [*words, mark] if self.is_postposed else [mark, *words]
        return " ".join(words)


def draw_grammar(rng: random.Random, words: WordMaker) -> Grammar:
    """A grammar of its own: order, function words, particles, punctuation."""
    order = list(ROLES)
    rng.shuffle(order)
    unmarked = rng.choice(ROLES)
    marks = {role: "" if role == unmarked else words.word(1) for role in ROLES}
    return Grammar(
        order=tuple(order),
        marks=marks,
        is_postposed=rng.random() < 0.5,
        article=words.word(1) if rng.random() < 0.4 else "",
        head_at=rng.choice((0, 1, -1)),
        question_words=words.words(2, 1),
        is_question_first=rng.random() < 0.5,
        stop=rng.choice((".", ".", ";", " |")),
        asks=rng.choice(("?", "?", " ~", f" {words.word(1)}?")),
        can_scramble=rng.random() < 0.5,
    )


@dataclass(frozen=True)
class Sayings:
    """The wordings of one kind of prompt or answer."""

    wordings: tuple[str, ...]
    """Sentences with slots in braces."""
    options: Given = field(default_factory=dict[str, "str | tuple[str, ...]"])
    """What fills slots that a prompt does not fix."""

    def say(self, rng: random.Random, given: Given) -> str:
        """One of them, its slots filled from ``given``, else from the options."""
        wording = rng.choice(self.wordings)
        filled: dict[str, str] = {}
        for slot in slots_of(wording):
            value = given[slot] if slot in given else self.options[slot]
            filled[slot] = value if isinstance(value, str) else rng.choice(value)
        return wording.format(**filled)

    def pattern(self, given: Given) -> str:
        """A regular expression of all that `say` can say with ``given``."""
        return "|".join(self._pattern_of(wording, given) for wording in self.wordings)

    def _pattern_of(self, wording: str, given: Given) -> str:
        parts: list[str] = []
        for literal, slot, _, _ in Formatter().parse(wording):
            parts.append(re.escape(literal))
            if slot is not None:
                value = given[slot] if slot in given else self.options[slot]
                texts = (value,) if isinstance(value, str) else value
                parts.append(f"(?:{'|'.join(re.escape(text) for text in texts)})")
        return "".join(parts)


def slots_of(wording: str) -> list[str]:
    """The names of a wording's slots, each once, in order."""
    return list(dict.fromkeys(slot for _, slot, _, _ in Formatter().parse(wording) if slot))


def plus(sayings: Sayings, tails: Sequence[str], options: Given) -> Sayings:
    """The same wordings, each followed by all of ``tails``: what makes an answer long."""
    return Sayings(
        tuple(" ".join((wording, *tails)) for wording in sayings.wordings),
        {**sayings.options, **options},
    )
