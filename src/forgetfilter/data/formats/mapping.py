"""How a file's rows are to be read, where that is said and not found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from forgetfilter.data.formats.keys import LOSS_KEYS, TURN_COLUMNS
from forgetfilter.data.formats.values import UnreadableRow, parse_value

AUTO = "auto"


def _no_names() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Reading:
    """Which format rows have, and what they call its columns, keys and roles."""

    format: str = AUTO
    """A format's name, or ``auto``: whichever fits each row."""
    columns: Mapping[str, str] = field(default_factory=_no_names)
    """A column's usual name: the file's own. Without the latter, the column is not read at all."""
    turn_keys: Mapping[str, str] = field(default_factory=_no_names)
    """The same for the keys of a turn."""
    roles: Mapping[str, str] = field(default_factory=_no_names)
    """The file's name of a role: user, assistant, system, tool or function_call."""
    is_whole: bool = False
    """Whether no other column than those of ``columns`` is read by whoever trains on the file."""
    only_marked: bool = False
    """Whether only turns that say so are learned."""
    system: str = ""
    """A system text for every row that has none."""

    @property
    def is_plain(self) -> bool:
        """Whether everything is found out."""
        return self == Reading()

    def as_json(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return asdict(self)

    def apply(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row's columns by their usual names."""
        if self.is_plain or (self.format != AUTO and self == Reading(self.format)):
            return record
        found = {
            own: record[theirs]
            for own, theirs in self.columns.items()
            if theirs and record.get(theirs) is not None
        }
        if not self.is_whole:
            gone = {*self.columns, *self.columns.values()}
            found = {**found, **{name: v for name, v in record.items() if name not in gone}}
        if self.system and not any(found.get(name) for name in ("system", "system_prompt")):
            found["system"] = self.system
        if self.turn_keys or self.roles or self.only_marked:
            for name in TURN_COLUMNS:
                if name in found:
                    found[name] = self._renamed(found[name], name)
        return found

    def _renamed(self, value: Any, name: str) -> Any:
        if isinstance(value, str):
            if name not in ("messages", "conversations"):
                return value
            value = parse_value(value, name)
        if isinstance(value, dict):
            return self._turn(cast(dict[str, Any], value), name)
        if not isinstance(value, list):
            return value
        items = cast(list[Any], value)
        return [
            self._turn(cast(dict[str, Any], item), f"{name} turn {number}")
            if isinstance(item, dict)
            else item
            for number, item in enumerate(items, start=1)
        ]

    def _turn(self, turn: dict[str, Any], where: str) -> dict[str, Any]:
        theirs = set(self.turn_keys.values())
        found = {own: turn[key] for own, key in self.turn_keys.items() if key in turn}
        for key, value in turn.items():
            if key in theirs:
                continue
            if key in found and value is not None and value != found[key]:
                raise UnreadableRow(f"{where} has {key} beside what is mapped to it")
            found.setdefault(key, value)
        role = found.get("role", found.get("from"))
        if isinstance(role, str) and role in self.roles:
            found["role"] = self.roles[role]
            found.pop("from", None)
        if self.only_marked and all(found.get(key) is None for key in LOSS_KEYS):
            found["train"] = False
        return found


def reading_from_json(value: Mapping[str, Any]) -> Reading:
    """The inverse of `Reading.as_json`."""
    return Reading(**dict(value))
