"""``chosen`` and ``rejected`` answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from forgetfilter.data.formats.base import Format
from forgetfilter.data.formats.turns import as_turns, as_turns_or_text, pairs
from forgetfilter.data.formats.values import UnreadableRow, as_text, is_empty
from forgetfilter.data.records import Message


class Preference(Format):
    """Two answers, of which a model is trained towards the first: that one is scored.

    The rejected answer is what training moves away from, so it is not read.
    """

    name = "preference"
    needs = ("chosen", "rejected")
    reads = ("prompt", "question", "instruction", "input", "query", "history", "conversations")
    priority = 60
    example: ClassVar[Mapping[str, Any]] = {
        "prompt": "What is two and two?",
        "chosen": "Four.",
        "rejected": "Five.",
    }

    def messages(self, columns: Mapping[str, Any]) -> list[Message]:
        """The prompt, if it isn't part of the chosen conversation, and the chosen answer."""
        chosen = as_turns_or_text(columns["chosen"], "chosen", "assistant")
        prompt = _prompt(columns)
        if any(turn.role == "user" for turn in chosen):
            return _last_answer_only(chosen)
        return [replace(turn, carries_loss=turn.role != "assistant") for turn in prompt] + chosen


def _prompt(columns: Mapping[str, Any]) -> list[Message]:
    earlier = columns.get("history")
    turns = [] if is_empty(earlier) else pairs(earlier, "history")
    if not is_empty(columns.get("conversations")):
        return turns + as_turns(columns["conversations"], "conversations")
    if not is_empty(columns.get("prompt")):
        return turns + as_turns_or_text(columns["prompt"], "prompt", "user")
    names = [n for n in ("question", "query", "instruction", "input") if n in columns]
    parts = [as_text(columns[name], name) for name in names]
    asked = "\n\n".join(part for part in parts if part.strip())
    return [*turns, Message("user", asked)] if asked else turns


def _last_answer_only(turns: list[Message]) -> list[Message]:
    """A whole conversation, of which the answers before the last are those of both sides."""
    last = max(n for n, turn in enumerate(turns) if turn.role == "user")
    given = [replace(turn, carries_loss=turn.role != "assistant") for turn in turns[:last]]
    if len(turns) == last + 1:
        raise UnreadableRow("chosen ends in the user's turn; expected the assistant's")
    return given + turns[last:]


FORMAT = Preference()
