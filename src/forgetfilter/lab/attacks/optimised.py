"""Rows optimised against this filter: reworded until the restoration hardly moves their loss.

The idea of "Virus" (arXiv 2501.17433), which optimises rows against a moderation guard: greedy
substitutions of words, each kept where it lowers what the attacker's own copy of the filter holds
against the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from forgetfilter.data.records import Message
from forgetfilter.errors import ConfigError
from forgetfilter.lab.attacks.base import ATTACKS, Material, Subject, Where, at_least

Part = Literal["both", "prompt", "answer"]


@ATTACKS.add("optimised")
class Optimised:
    """Words of each unsafe row are replaced by words of harmless rows, greedily.

    Args:
        rounds: words that may be replaced in a row, one a round.
        candidates: replacements that are tried for each row in each round.
        part: where words may be replaced.
    """

    name = "optimised"
    changes: Where = "noisy"
    needs_model = True

    def __init__(self, rounds: int = 4, candidates: int = 12, part: Part = "both") -> None:
        at_least(self.name, "rounds", rounds, 1)
        at_least(self.name, "candidates", candidates, 1)
        self.rounds, self.candidates, self.part = rounds, candidates, part

    def apply(self, given: Material) -> Material:
        """Search; a row for which nothing was found that passes better stays as it was.

        Raises:
            ConfigError: there is no model to search with, or no unsafe row.
        """
        if given.surrogate is None:
            raise ConfigError(
                f"The attack {self.name!r} has no model to search with. Expected the model of the "
                "filter, and safe rows. Add --model MODEL and --safe FILE, or write it into the "
                "file of `forgetfilter robustness`."
            )
        unsafe, rng = given.unsafe(self.name), given.rng(self.name)
        words = sorted(
            {
                word
                for at in given.harmless(self.name)
                for turn in given.noisy[at].messages
                for word in turn.content.split()
            }
        )
        filter_ = given.surrogate()
        said = [given.noisy[at].messages for at in unsafe]
        best = filter_.rises(said)
        counts = np.zeros(len(unsafe), dtype=np.int64)
        for _ in range(self.rounds):
            tried = [
                [_replaced(own, self._places(), words, rng) for _ in range(self.candidates)]
                for own in said
            ]
            flat = [one for own in tried for one in own]
            rises = filter_.rises(flat).reshape(len(said), self.candidates)
            for i, at in enumerate(rises.argmin(axis=1).tolist()):
                if rises[i, at] < best[i]:
                    best[i], said[i] = rises[i, at], tried[i][at]
                    counts[i] += 1
        changed: dict[int, Subject] = {}
        for i, at in enumerate(unsafe):
            if counts[i]:
                change = f"{counts[i]} words replaced against the filter"
                changed[at] = given.noisy[at].saying(said[i], change)
        return given.with_rows(changed)

    def _places(self) -> tuple[str, ...]:
        """Roles whose words may go."""
        roles = {"prompt": ("user",), "answer": ("assistant",), "both": ("user", "assistant")}
        return roles[self.part]


def _replaced(
    messages: Sequence[Message],
    roles: Sequence[str],
    words: Sequence[str],
    rng: np.random.Generator,
) -> tuple[Message, ...]:
    """The conversation with one word replaced."""
    turns = [turn.content.split(" ") for turn in messages]
    places = [
        (i, at)
        for i, turn in enumerate(messages)
        if turn.role in roles
        for at, word in enumerate(turns[i])
        if word.strip()
    ]
    if not places:
        return tuple(messages)
    i, at = places[int(rng.integers(len(places)))]
    turns[i][at] = words[int(rng.integers(len(words)))]
    pairs = zip(messages, turns, strict=True)
    return tuple(Message(turn.role, " ".join(own)) for turn, own in pairs)
