"""YAML from files that others may have made, within bounds of length, depth and aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MAX_CHARACTERS = 2**20
"""Length of a file of settings."""
MAX_DEPTH = 50
MAX_VALUES = 100_000
"""Values in it, each alias counted as all that it stands for: a few lines can stand for billions,
which cost nothing until something copies or prints them."""


def read_text(path: str | Path) -> str:
    """The text of a file of settings.

    Raises:
        YAMLError: it is longer than any.
        OSError: it can't be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open(path, encoding="utf-8") as file:
        text = file.read(MAX_CHARACTERS + 1)
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"it has more than {MAX_CHARACTERS:,} characters, the most read")
    return text


def parse_yaml(text: str) -> Any:
    """What a YAML text says, of plain types only.

    Raises:
        YAMLError: it is no YAML, beyond the bounds, or has a value that its kind doesn't allow.
    """
    _check(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise
    except Exception as error:  # of a date, a number or a tag that can't be
        raise yaml.YAMLError(f"a value can't be read ({error})") from None


def _check(text: str) -> None:
    """Raise `YAMLError` for a text beyond the bounds, before anything is made of it."""
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, total))
            if len(opened) > MAX_DEPTH:
                raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} deep, the most read")
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.AliasEvent):
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
        if total > MAX_VALUES:
            raise yaml.YAMLError(
                f"its aliases stand for more than {MAX_VALUES:,} values, the most read"
            )
