"""Harm among harmless text: inside long harmless rows, or with a harmless tail.

The first is the idea of "Embedded Attack" (arXiv 2606.30263): pairs hidden inside harmless rows
defeat guards that judge whole rows. The second dilutes whatever is averaged over a row.
"""

from __future__ import annotations

from forgetfilter.data.records import Message
from forgetfilter.lab.attacks.base import ATTACKS, Material, Subject, Where, at_least


@ATTACKS.add("inside_benign")
class InsideBenign:
    """Each unsafe exchange stands between harmless ones, within one request and one answer.

    Args:
        parts: harmless exchanges before it, and as many after it.
    """

    name = "inside_benign"
    changes: Where = "noisy"

    def __init__(self, parts: int = 2) -> None:
        at_least(self.name, "parts", parts, 1)
        self.parts = parts

    def apply(self, given: Material) -> Material:
        """Lengthen every unsafe row."""
        rng, harmless = given.rng(self.name), given.harmless(self.name)
        changed: dict[int, Subject] = {}
        for at in given.unsafe(self.name):
            row = given.noisy[at]
            drawn = rng.integers(len(harmless), size=2 * self.parts)
            others = [given.noisy[harmless[i]] for i in drawn]
            rows = [*others[: self.parts], row, *others[self.parts :]]
            prompt = "\n".join(one.prompt for one in rows)
            answer = "\n".join(one.answer for one in rows)
            change = f"put between {2 * self.parts} harmless exchanges"
            changed[at] = row.exchanged(prompt, answer, change)
        return given.with_rows(changed)


@ATTACKS.add("benign_tail")
class BenignTail:
    """Harmless exchanges follow each unsafe one.

    Args:
        parts: how many.
        turns: whether they are further turns; else they lengthen the answer alone.
    """

    name = "benign_tail"
    changes: Where = "noisy"

    def __init__(self, parts: int = 3, turns: bool = False) -> None:
        at_least(self.name, "parts", parts, 1)
        self.parts, self.turns = parts, turns

    def apply(self, given: Material) -> Material:
        """Lengthen every unsafe row."""
        rng, harmless = given.rng(self.name), given.harmless(self.name)
        changed: dict[int, Subject] = {}
        for at in given.unsafe(self.name):
            row = given.noisy[at]
            others = [
                given.noisy[harmless[i]] for i in rng.integers(len(harmless), size=self.parts)
            ]
            if self.turns:
                turns = list(row.messages)
                for one in others:
                    turns += [Message("user", one.prompt), Message("assistant", one.answer)]
                changed[at] = row.saying(turns, f"{self.parts} harmless turns follow")
                continue
            answer = "\n".join([row.answer, *(one.answer for one in others)])
            change = f"{self.parts} harmless answers follow"
            changed[at] = row.exchanged(row.prompt, answer, change)
        return given.with_rows(changed)
