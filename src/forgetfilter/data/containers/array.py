"""One JSON array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forgetfilter.data.containers.base import (
    BOM,
    Container,
    Record,
    as_line,
    too_long,
    with_columns,
)
from forgetfilter.data.formats.bounded_json import whole_number
from forgetfilter.data.formats.values import MalformedRow, kind_of, parse_object
from forgetfilter.errors import DataError

_DECODER = json.JSONDecoder(parse_int=whole_number)
_BLANK = " \t\r\n"


class BrokenJson(Exception):
    """Where and why a text is not the JSON that it starts as."""

    def __init__(self, text: str, position: int, reason: str) -> None:
        self.line = text.count("\n", 0, position) + 1
        self.column = position - (text.rfind("\n", 0, position) + 1) + 1
        super().__init__(f"line {self.line}, character {self.column}: {reason}")


@dataclass(frozen=True, slots=True)
class Element:
    """One value of an array and where it stands in the text."""

    value: Any
    start: int
    stop: int


class Array(Container):
    """The objects of one array, each as it was written."""

    name = "json"
    suffix = ".json"

    def records(self, data: bytes, limit: int) -> Iterator[Record]:
        """Every element of the array."""
        text = _text(data)
        line, known = 1, 0
        for element in _elements(text):
            line += text.count("\n", known, element.start)
            known = element.start
            raw = text[element.start : element.stop].encode("utf-8")
            value = element.value
            if len(raw) > limit:
                yield Record(line, raw, None, too_long(len(raw), limit))
            elif isinstance(value, dict):
                try:
                    columns = parse_object(text[element.start : element.stop])
                except MalformedRow as error:
                    yield Record(line, raw, None, str(error))
                    continue
                yield Record(line, as_line(value) if b"\n" in raw else raw, columns)
            else:
                yield Record(line, raw, None, f"not a JSON object but {kind_of(value)}")

    def subset(self, data: bytes, wanted: Sequence[int]) -> Iterable[bytes]:
        """The array with fewer elements, each with what stood before it."""
        return self._some(data, wanted, {})

    def extended(
        self, data: bytes, wanted: Sequence[int], columns: Mapping[str, Sequence[Any]]
    ) -> Iterable[bytes]:
        """The same with more keys at the end of each object."""
        return self._some(data, wanted, columns)

    def _some(
        self, data: bytes, wanted: Sequence[int], columns: Mapping[str, Sequence[Any]]
    ) -> Iterable[bytes]:
        text = _text(data)
        elements = _elements(text)
        mark = BOM if data.startswith(BOM) else b""
        if not wanted:
            return [mark + b"[]\n"]
        head, tail = text[: elements[0].start], text[elements[-1].stop :]
        pieces = [mark + head.encode("utf-8")]
        for at, number in enumerate(wanted):
            before = text[elements[number - 1].stop : elements[number].start] if at else ""
            element = text[elements[number].start : elements[number].stop]
            raw = element.encode("utf-8")
            if columns:
                raw = with_columns(raw, {name: values[at] for name, values in columns.items()})
            pieces.append(before.encode("utf-8") + raw)
        return [*pieces, tail.encode("utf-8")]


def broken_array(text: str) -> BrokenJson | None:
    """What is wrong with a text that starts as an array; None where nothing is."""
    try:
        _elements(text)
    except BrokenJson as error:
        return error
    return None


def _text(data: bytes) -> str:
    try:
        return data.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:  # refused before, when the file was recognised
        raise DataError(f"The JSON array is not UTF-8: {error.reason}. Save it as UTF-8.") from None


def _elements(text: str) -> list[Element]:
    """The values of the array that is the text.

    Raises:
        BrokenJson: it is none.
    """
    at = _skip(text, 0)
    if text[at : at + 1] != "[":
        raise BrokenJson(text, at, "expected [")
    found: list[Element] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]" or found:
        try:
            value, stop = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            said = error.msg[:1].lower() + error.msg[1:]
            said = "a comma before the end" if text[at : at + 1] == "]" else said
            raise BrokenJson(text, error.pos, said) from None
        except RecursionError:
            raise BrokenJson(text, at, "nested too deeply") from None
        found.append(Element(value, at, stop))
        at = _skip(text, stop)
        if text[at : at + 1] == "]":
            break
        if text[at : at + 1] != ",":
            said = "the array isn't closed" if at == len(text) else "expected a comma or ]"
            raise BrokenJson(text, at, said)
        at = _skip(text, at + 1)
    end = _skip(text, at + 1)
    if end != len(text):
        raise BrokenJson(text, end, "something follows the array")
    return found


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at
