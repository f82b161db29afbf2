"""``conversations``: a list of turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import Format
from forgetfilter.data.formats.turns import as_turns
from forgetfilter.data.records import Message


class ShareGPT(Format):
    """A conversation as a list of ``{from, value}``, with roles called human, gpt and so on."""

    name = "sharegpt"
    needs = ("conversations",)
    priority = 12
    example: ClassVar[Mapping[str, Any]] = {
        "conversations": [
            {"from": "human", "value": "What is two and two?"},
            {"from": "gpt", "value": "Four."},
        ]
    }

    def messages(self, columns: Mapping[str, Any]) -> list[Message]:
        """The turns as they stand."""
        return as_turns(columns["conversations"], "conversations")


FORMAT = ShareGPT()
