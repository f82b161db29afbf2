"""What a row format is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.turns import pairs
from forgetfilter.data.formats.values import as_text, is_empty
from forgetfilter.data.records import Message


class Format(ABC):
    """One shape of row: a file of this package that holds it as ``FORMAT`` is found by itself.

    A row may have the columns of several formats; the one with the lowest `priority` reads it. Of
    the columns that the format doesn't know, those that a trainer may learn from cost the row, and
    all others are ignored.
    """

    name: ClassVar[str]
    """What ``--format`` calls it."""
    needs: ClassVar[tuple[str, ...]]
    """The columns without which a row is not of this format."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Columns that it reads where they are there."""
    priority: ClassVar[int]
    """The lowest is tried first; no two formats may have the same."""
    example: ClassVar[Mapping[str, Any]]
    """A row of this format that can be read."""

    @property
    def shape(self) -> str:
        """The columns that it needs, as messages list them."""
        return " + ".join(self.needs)

    def matches(self, columns: Mapping[str, Any]) -> bool:
        """Whether a row with these ``columns`` (none of them null) is of this format."""
        return all(name in columns for name in self.needs)

    @abstractmethod
    def messages(self, columns: Mapping[str, Any]) -> list[Message]:
        """The turns of a row that matches, whatever they are; the caller checks how they end.

        Raises:
            UnreadableRow: a column holds something else than it should.
        """


class OneTurn(Format):
    """One question and one answer as two columns of text, after an optional history."""

    context: ClassVar[str] = ""
    """A column whose text, where there is any, belongs to the question."""
    reads = ("history",)

    def messages(self, columns: Mapping[str, Any]) -> list[Message]:
        """Earlier questions and answers, the question with what belongs to it, the answer."""
        earlier = columns.get("history")
        turns = [] if is_empty(earlier) else pairs(earlier, "history")
        asked, answered = self.needs
        names = [name for name in (asked, self.context) if name in columns]
        parts = [as_text(columns[name], name) for name in names]
        question = "\n\n".join(part for part in parts if part.strip())
        return [
            *turns,
            Message("user", question),
            Message("assistant", as_text(columns[answered], answered)),
        ]
