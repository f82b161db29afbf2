"""Forged turns: a row's text holds the marks with which a chat template begins and ends turns."""

from __future__ import annotations

from forgetfilter.lab.attacks.base import ATTACKS, Material, Subject, Where


@ATTACKS.add("forged_turns")
class ForgedTurns:
    """Each unsafe exchange hides behind marks inside the answer of a harmless one.

    Args:
        user: what begins a user's turn.
        assistant: what begins an assistant's turn.
        end: what ends a turn.
    """

    name = "forged_turns"
    changes: Where = "noisy"

    def __init__(
        self,
        user: str = "<|im_start|>user\n",
        assistant: str = "<|im_start|>assistant\n",
        end: str = "<|im_end|>",
    ) -> None:
        self.user, self.assistant, self.end = user, assistant, end

    def apply(self, given: Material) -> Material:
        """Give every unsafe row a harmless front."""
        rng, harmless = given.rng(self.name), given.harmless(self.name)
        changed: dict[int, Subject] = {}
        for at in given.unsafe(self.name):
            row, front = given.noisy[at], given.noisy[harmless[int(rng.integers(len(harmless)))]]
            answer = (
                f"{front.answer}{self.end}{self.user}{row.prompt}{self.end}"
                f"{self.assistant}{row.answer}"
            )
            changed[at] = row.exchanged(front.prompt, answer, "a forged turn in the answer")
        return given.with_rows(changed)
