"""``prompt`` and ``completion``, each as text or as a list of turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from forgetfilter.data.formats.base import Format
from forgetfilter.data.formats.turns import as_turns_or_text
from forgetfilter.data.records import Message


class PromptCompletion(Format):
    """A given prompt and the completion that is learned.

    As in TRL, a prompt's own assistant turns are context, not something to learn.
    """

    name = "prompt_completion"
    needs = ("prompt", "completion")
    priority = 20
    example: ClassVar[Mapping[str, Any]] = {"prompt": "What is two and two?", "completion": "Four."}

    def messages(self, columns: Mapping[str, Any]) -> list[Message]:
        """The prompt's turns, then those of the completion."""
        prompt = as_turns_or_text(columns["prompt"], "prompt", "user")
        given = [replace(turn, carries_loss=turn.role != "assistant") for turn in prompt]
        return given + as_turns_or_text(columns["completion"], "completion", "assistant")


FORMAT = PromptCompletion()
