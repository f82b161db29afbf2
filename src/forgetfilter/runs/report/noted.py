"""What a threshold rule notes of its cut, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from forgetfilter.runs.report import shown_text

_WORDS = {
    "noise": "noise of the scores",
    "searched_from": "emptiest place looked for from",
    "searched_to": "up to",
    "harmless_at_most": "most harmless rows among those removed, if their scores have a long tail",
    "harmless_range": "harmless rows among those removed, with a probability of 0.9",
    "kept_as_unlike": "rows above it, kept as unlike those removed",
    "decided": "rows decided by people",
    "decided_unsafe": "of them unsafe",
    "ranks": "unsafe ones score higher than safe ones",
    "rate": "share of harmless rows that may go",
    "trusted_rows": "trusted rows",
    "rows_needed": "of which it needs",
    "usual_second_opinion": "usual second opinion",
}
"""A rule of somebody else's may note what it likes: such names are shown as they are."""


def in_words(notes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The notes of a cut, each with what it means and its value as text."""
    return [(_WORDS.get(name, name.replace("_", " ")), value) for name, value in flatten(notes)]


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A nested JSON value as dotted names with their values."""
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[str, Any]", value).items():
            yield from flatten(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(_as_text(item) for item in cast("list[Any]", value))
    else:
        yield name, _as_text(value)


def _as_text(value: Any) -> str:
    if value is None:
        return shown_text.MISSING
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"
    return str(value)
