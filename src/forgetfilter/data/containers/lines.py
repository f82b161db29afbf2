"""JSON Lines: one object on each line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from forgetfilter.data.containers.base import BOM, Container, Record, not_utf8, too_long
from forgetfilter.data.formats import MalformedRow, parse_object


class Lines(Container):
    """Lines end at a line feed and nowhere else; lines of white space are not rows."""

    name = "jsonl"
    suffix = ".jsonl"

    def records(self, data: bytes, limit: int) -> Iterator[Record]:
        """Every line that isn't blank."""
        for number, raw in enumerate(data.split(b"\n"), start=1):
            if raw.strip():
                yield parse_line(number, raw, limit)

    def subset(self, data: bytes, wanted: Sequence[int]) -> Iterable[bytes]:
        """The lines byte for byte, each with a line feed."""
        chosen = set(wanted)
        lines = (raw for raw in data.split(b"\n") if raw.strip())
        return (raw + b"\n" for number, raw in enumerate(lines) if number in chosen)


def parse_line(number: int, raw: bytes, limit: int) -> Record:
    """One line as a record; whatever is wrong with it becomes its reason."""
    if len(raw) > limit:
        return Record(number, raw, None, too_long(len(raw), limit))
    try:
        text = (raw.removeprefix(BOM) if number == 1 else raw).decode("utf-8")
        return Record(number, raw, parse_object(text))
    except UnicodeDecodeError as error:
        return Record(number, raw, None, not_utf8(raw, error))
    except MalformedRow as error:
        return Record(number, raw, None, str(error))
