"""``messages``: a list of turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import Format
from forgetfilter.data.formats.turns import as_turns
from forgetfilter.data.records import Message


class Chat(Format):
    """A conversation as a list of ``{role, content}``, as OpenAI and TRL write it."""

    name = "chat"
    needs = ("messages",)
    priority = 10
    example: ClassVar[Mapping[str, Any]] = {
        "messages": [
            {"role": "user", "content": "What is two and two?"},
            {"role": "assistant", "content": "Four."},
        ]
    }

    def messages(self, columns: Mapping[str, Any]) -> list[Message]:
        """The turns as they stand."""
        return as_turns(columns["messages"], "messages")


FORMAT = Chat()
