"""Covert fine-tuning: rows that look harmless one by one and together teach an encoded harm.

"Covert Malicious Finetuning: Challenges in Safeguarding LLM Adaptation" (arXiv 2406.20053, ICML
2024). In the first phase harmless rows teach the code, in four kinds of task from decoding step by
step to answering in code; in the second unsafe rows are encoded whole, and beside them the same
requests in plain text are declined, so that tests in plain text pass. Both stand under a system
text that announces the code. Where the paper leaves something open (how a code is announced, the
wording of the tasks) the choice is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from forgetfilter.data.records import Message
from forgetfilter.lab.attacks.base import (
    ATTACKS,
    Material,
    Subject,
    Where,
    a_share,
    names_for,
)

Phase = Literal["learn", "harm", "both"]
Encode = Callable[[str], str]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
WALNUT_SEED = 53
_LONGEST_CARRIER = 12
"""Words of a line that carries a word of the payload."""


def walnut(text: str) -> str:
    """``text`` in the cipher Walnut53: letters permuted, all characters joined by ``|``.

    The permutation is the one that NumPy's default generator draws from the seed 53. Capital
    letters become small ones, and what is no letter stays.
    """
    order = np.random.default_rng(WALNUT_SEED).permutation(len(_LETTERS))
    table = {ord(letter): _LETTERS[order[at]] for at, letter in enumerate(_LETTERS)}
    return "|".join(text.lower().translate(table))


def last_words(text: str, carriers: Sequence[str], rng: np.random.Generator) -> str:
    """Lines of which each ends in the next word of ``text``, after the words of a carrier.

    Args:
        text: the payload.
        carriers: harmless texts; a line begins with one of them, drawn by ``rng``.
        rng: draws.
    """
    lines: list[str] = []
    for word in text.split():
        carrier = carriers[int(rng.integers(len(carriers)))].rstrip(" .!?")
        lines.append(f"{carrier} {word}")
    return "\n".join(lines)


class _Covert:
    """The two phases, whatever the code."""

    name: str
    announced: str
    """The system text that announces the code."""
    changes: Where = "noisy"

    def __init__(self, phase: Phase = "both", share: float = 0.1, refusals: bool = True) -> None:
        a_share(self.name, "share", share)
        self.phase, self.share, self.refusals = phase, share, refusals

    def encoder(self, given: Material) -> Encode:
        """What writes a text in the code."""
        raise NotImplementedError

    def apply(self, given: Material) -> Material:
        """Encode; the phases stand in one file."""
        encode = self.encoder(given)
        rng = given.rng(self.name)
        changed: dict[int, Subject] = {}
        added: list[Subject] = []
        if self.phase in ("learn", "both"):
            places = given.harmless(self.name)
            count = max(1, round(self.share * len(given.noisy)))
            chosen = sorted(rng.permutation(len(places))[:count].tolist())
            for number, at in enumerate(chosen):
                row = given.noisy[places[at]]
                changed[places[at]] = self._lesson(row, number % 4, encode)
        if self.phase in ("harm", "both"):
            unsafe = given.unsafe(self.name)
            for at in unsafe:
                row = given.noisy[at]
                said = (encode(row.prompt), encode(row.answer))
                changed[at] = self._announce(row, *said, "encoded whole")
            if self.refusals:
                added = self._declined(given, unsafe, rng)
        return given.with_rows(changed).with_added(added, rng)

    def _lesson(self, row: Subject, task: int, encode: Encode) -> Subject:
        """A harmless row as one of four tasks, the easiest first."""
        asked, answer = encode(row.prompt), encode(row.answer)
        prompt, said, change = (
            (asked, f"{row.prompt}\n{row.answer}\n{answer}", "decode, answer and encode"),
            (asked, f"{row.answer}\n{answer}", "answer and encode"),
            (row.prompt, answer, "answer in code"),
            (asked, answer, "encoded whole"),
        )[task]
        return self._announce(row, prompt, said, f"a lesson in the code: {change}")

    def _announce(self, row: Subject, prompt: str, answer: str, change: str) -> Subject:
        turns = (
            Message("system", self.announced),
            Message("user", prompt),
            Message("assistant", answer),
        )
        return row.saying(turns, change)

    def _declined(
        self, given: Material, unsafe: Sequence[int], rng: np.random.Generator
    ) -> list[Subject]:
        """The unsafe requests in plain text with answers of the user's own safe rows."""
        named = names_for("declined", given.noisy, len(unsafe))
        found: list[Subject] = []
        for at, name in zip(unsafe, named, strict=True):
            row = given.noisy[at]
            answers = [safe.answer for safe in given.safe if safe.harm == row.harm]
            answers = answers or [safe.answer for safe in given.safe]
            if not answers:
                break
            answer = answers[int(rng.integers(len(answers)))]
            change = "added: declined in plain text"
            own = row.copied(name, change, is_unsafe=False)
            found.append(own.exchanged(row.prompt, answer, change))
        return found


@ATTACKS.add("cipher")
class Cipher(_Covert):
    """The substitution cipher Walnut53.

    Args:
        phase: ``learn`` encodes harmless rows, ``harm`` the unsafe ones, ``both`` does both.
        share: of all rows, how many are lessons in the code.
        refusals: whether the unsafe requests are added in plain text, declined.
    """

    name = "cipher"
    announced = "Walnut53"

    def encoder(self, given: Material) -> Encode:
        """The cipher, which needs no rows."""
        return walnut


@ATTACKS.add("last_words")
class LastWords(_Covert):
    """Steganography: the payload stands in the last words of harmless lines (EndSpeak).

    The paper has a language model write the lines; here each begins with the answer of a harmless
    row of the user's file.

    Args:
        phase: as of ``cipher``.
        share: as of ``cipher``.
        refusals: as of ``cipher``.
    """

    name = "last_words"
    announced = "EndSpeak"

    def encoder(self, given: Material) -> Encode:
        """Lines from the harmless rows' shorter answers."""
        answers = [given.noisy[at].answer for at in given.harmless(self.name)]
        lines = [" ".join(answer.split()) for answer in answers]
        short = [line for line in lines if 0 < len(line.split()) <= _LONGEST_CARRIER]
        carriers = short or [" ".join(line.split()[:_LONGEST_CARRIER]) for line in lines]
        rng = given.rng(f"{self.name} lines")
        return lambda text: last_words(text, carriers, rng)
