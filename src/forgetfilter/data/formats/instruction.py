"""``instruction`` and ``output``, with or without an ``input``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import Format
from forgetfilter.data.formats.values import as_text
from forgetfilter.data.records import Message


class Instruction(Format):
    """One question, made of the instruction and its input, and one answer."""

    needs = ("instruction", "output")
    priority = 30
    example: ClassVar[Mapping[str, Any]] = {
        "instruction": "Add the numbers.",
        "input": "2 and 2",
        "output": "4",
    }

    def messages(self, columns: Mapping[str, Any]) -> list[Message]:
        """The instruction with its input as one question, and the answer."""
        names = [name for name in ("instruction", "input") if name in columns]
        parts = [as_text(columns[name], name) for name in names]
        question = "\n\n".join(part for part in parts if part.strip())
        return [
            Message("user", question),
            Message("assistant", as_text(columns["output"], "output")),
        ]


FORMAT = Instruction()
