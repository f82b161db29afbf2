"""JSON, and what Python prints, from strangers' rows: within bounds of depth and of memory."""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any, cast

MAX_DEPTH = 64
"""How deeply a row may be nested. What comes after goes through rows by recursion."""
_MOST_DIGITS = 4000
"""Python converts 4,300 digits at most; a longer whole number is read as a rounded one."""
_MOST_TOKENS = 100_000
"""Names, numbers, strings and marks of a text in Python: its tree has hundreds of bytes for each,
so that two megabytes of ``1,1,1`` would take more than a gigabyte."""
_TOKEN = re.compile(
    r"'(?:[^'\\\n]++|\\.)*+(?:'|\\?(?=\n)|\\?\Z)"
    r'|"(?:[^"\\\n]++|\\.)*+(?:"|\\?(?=\n)|\\?\Z)'
    r"|[\w.]++|[^\s\w]",
    re.DOTALL,
)
_FORMATTED = frozenset({"f", "fr", "rf"})


class TooDeepError(ValueError):
    """Nested more deeply than is read."""

    def __init__(self) -> None:
        super().__init__("nested too deeply")


class RepeatedKeyError(ValueError):
    """An object has a key twice, of which some programs take the first and others the last."""

    def __init__(self, key: str) -> None:
        super().__init__(f"a key stands twice in one object: {key}")
        self.key = key


def parse_json(text: str) -> Any:
    """What a JSON text says; NaN and Infinity, which Python's own writer makes, too.

    Raises:
        JSONDecodeError: it is no JSON.
        TooDeepError, RepeatedKeyError: it is JSON that is not read.
    """
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise TooDeepError from None
    may_be_deep = text.count("[") + text.count("{") > MAX_DEPTH
    if may_be_deep and is_deeper(value, MAX_DEPTH):
        raise TooDeepError
    return value


def is_deeper(value: Any, most: int) -> bool:
    """Whether lists and objects in a value are nested more than ``most`` deep."""
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    for _ in range(most):
        level = [
            item
            for one in level
            for item in (cast(dict[str, Any], one).values() if isinstance(one, dict) else one)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def literal(text: str) -> Any:
    """What Python has printed: lists, dictionaries, texts, numbers.

    Raises:
        ValueError, SyntaxError, TypeError, MemoryError, RecursionError: it is something else, or
            takes too much memory to be found out.
    """
    before, end = "", -1
    for number, found in enumerate(_TOKEN.finditer(text)):
        if number == _MOST_TOKENS:
            raise ValueError("too long")
        if found[0][0] in "'\"" and found.start() == end and before.lower() in _FORMATTED:
            raise ValueError("a text with expressions in it")
        before, end = found[0], found.end()
    with warnings.catch_warnings():  # of odd escapes in somebody else's text
        warnings.simplefilter("ignore")
        return ast.literal_eval(text)


def whole_number(digits: str) -> int | float:
    """A whole number of JSON; one too long to convert, as a float."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        raise RepeatedKeyError(next(k for k, _ in pairs if k in seen or seen.add(k)))
    return found


_DECODER = json.JSONDecoder(parse_int=whole_number, object_pairs_hook=_once)
