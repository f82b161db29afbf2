"""What a row format is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.records import Message


class Format(ABC):
    """One shape of row: a file of this package that holds it as ``FORMAT`` is found by itself.

    A row may have the columns of several formats; the one with the lowest `priority` reads it. All
    columns that the format doesn't know are ignored.
    """

    needs: ClassVar[tuple[str, ...]]
    """The columns without which a row is not of this format."""
    priority: ClassVar[int]
    """The lowest is tried first; no two formats may have the same."""
    example: ClassVar[Mapping[str, Any]]
    """A row of this format that can be read."""

    @property
    def name(self) -> str:
        """What messages call it."""
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
