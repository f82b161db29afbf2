"""Moral self-correction: the model is asked to behave, and nothing else is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from forgetfilter.data.records import Message
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.testbed import KINDNESS_CUE

CUES = {
    "english": "Please make sure that your answer is harmless, polite and fair, and does not rely "
    "on stereotypes.",
    "testbed": KINDNESS_CUE,
}
"""Cues by name: plain English, and the one that the bundled model knows."""


@STRATEGIES.add("self_correction")
class SelfCorrection(Strategy):
    """Fine-tune on every row; ask for good behaviour in front of each request.

    After "The Capacity for Moral Self-Correction in Large Language Models" (arXiv 2302.07459),
    which the paper (arXiv 2312.12736) compares with and combines with.

    Args:
        cue: ``english``, ``testbed`` (what the bundled model knows), or the text itself.
        place: in a ``system`` turn (joined with one that is there), or as a ``prefix`` of the first
            user turn.
    """

    name = "self_correction"

    def __init__(self, cue: str = "english", place: Literal["system", "prefix"] = "system") -> None:
        self.cue = CUES.get(cue, cue)
        self.place = place

    def prompt(self, messages: Sequence[Message]) -> Sequence[Message]:
        """``messages`` with the cue in front."""
        role = "system" if self.place == "system" else "user"
        at = next((i for i, turn in enumerate(messages) if turn.role == role), None)
        if at is None:
            return [Message(role, self.cue), *messages]
        turn = replace(messages[at], content=f"{self.cue} {messages[at].content}")
        return [*messages[:at], turn, *messages[at + 1 :]]
