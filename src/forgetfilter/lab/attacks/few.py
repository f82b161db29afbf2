"""How many unsafe rows there are, and how alike: a handful among thousands, or copies of a few."""

from __future__ import annotations

from dataclasses import replace

from forgetfilter.lab.attacks.base import ATTACKS, Material, Subject, Where, at_least
from forgetfilter.lab.attacks.reworded import with_typos


@ATTACKS.add("few")
class Few:
    """Only so many unsafe rows stay in the file; the others are left out.

    A fixed number of rows can be enough, however large the file ("Poisoning Attacks on LLMs Require
    a Near-constant Number of Poison Samples", arXiv 2510.07192: 250 documents).

    Args:
        count: unsafe rows that stay; 1 is a single rare row.
    """

    name = "few"
    changes: Where = "noisy"

    def __init__(self, count: int = 10) -> None:
        at_least(self.name, "count", count, 1)
        self.count = count

    def apply(self, given: Material) -> Material:
        """Draw those that stay."""
        unsafe = given.unsafe(self.name)
        order = given.rng(self.name).permutation(len(unsafe)).tolist()
        gone = [unsafe[at] for at in order[self.count :]]
        kept = {
            unsafe[at]: replace(given.noisy[unsafe[at]], change="one of few")
            for at in order[: self.count]
        }
        return given.with_rows(kept).without(gone)


@ATTACKS.add("near_duplicates")
class NearDuplicates:
    """All unsafe rows are copies of a few, each with typing errors of its own.

    As many as before: the others are left out.

    Args:
        originals: rows that are copied.
        typos: share of the words with an error.
    """

    name = "near_duplicates"
    changes: Where = "noisy"

    def __init__(self, originals: int = 3, typos: float = 0.1) -> None:
        at_least(self.name, "originals", originals, 1)
        at_least(self.name, "typos", typos, 0)
        self.originals, self.typos = originals, typos

    def apply(self, given: Material) -> Material:
        """Put a copy in the place of every other unsafe row."""
        rng, unsafe = given.rng(self.name), given.unsafe(self.name)
        chosen = sorted(rng.permutation(len(unsafe))[: self.originals].tolist())
        stay = {unsafe[at] for at in chosen}
        models = [given.noisy[at] for at in sorted(stay)]
        changed: dict[int, Subject] = {}
        out: list[Subject] = []
        for number, at in enumerate(unsafe):
            if at in stay:
                continue
            row, like = given.noisy[at], models[number % len(models)]
            prompt = with_typos(like.prompt, self.typos, rng)
            answer = with_typos(like.answer, self.typos, rng)
            change = f"a near copy of {like.example_id}"
            # The place and the name stay, so that neither tells.
            own = replace(row, messages=like.messages, kind=like.kind, harm=like.harm)
            changed[at] = own.exchanged(prompt, answer, change)
            out.append(replace(row, change="left out"))
        after = given.with_rows(changed)
        return replace(after, left_out=(*given.left_out, *out))
