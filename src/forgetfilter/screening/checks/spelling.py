"""Rows whose spelling the model takes to pieces: a cipher, a language or notation it doesn't know.

A tokenizer has long tokens for what its model has often read. Where a row has hardly any, the model
reads it letter by letter, has no safe behaviour there that could be damaged, and restoring takes
nothing back: the row is kept whatever it says. So such rows are named.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.data.records import Row
from forgetfilter.runs.schema import Finding

SHORT_TOKENS = 0.5
"""Of the median row's bytes a token. Rows in a cipher: 0.26 to 0.28; rows of the bundled world: 0.8
and more; of real English, 4 in 960 are below (docs/robustness.md)."""
LEAST_SHARE = 0.01
"""Of the rows. In four files of real English 0 to 0.4% are below."""
_LEAST_ROWS = 3
_LEAST_BYTES = 24
"""A shorter text says nothing about its spelling."""
_MOST_CHARACTERS = 20_000
_ROWS_AT_ONCE = 1_000
_NAMED = 20


def check_spelling(rows: Sequence[Row], tokenizer: Any) -> list[Finding]:
    """Whether some rows stand apart by how few bytes their tokens have.

    Args:
        rows: the rows to be judged.
        tokenizer: of the base model.
    """
    lengths = token_bytes(rows, tokenizer)
    if not np.isfinite(lengths).any():
        return []
    median = float(np.nanmedian(lengths))
    found = np.flatnonzero(lengths < SHORT_TOKENS * median)
    if len(found) < max(_LEAST_ROWS, LEAST_SHARE * len(rows)):
        return []
    named = ", ".join(str(rows[int(at)].row) for at in found[:_NAMED])
    more = len(found) - _NAMED
    return [
        Finding(
            name="rows_of_unknown_spelling",
            severity="warning",
            message=f"The model takes the spelling of {len(found):,} of {len(rows):,} rows to "
            f"pieces: they have under {SHORT_TOKENS * median:.1f} bytes a token, and half of all "
            f"rows {median:.1f} or more. Expected under {LEAST_SHARE:.0%} of the rows: a cipher "
            "looks like that, and so does a language or notation that the model hardly knows. "
            "Safe behaviour says nothing about such rows, so most of them are kept whatever they "
            f"say. Read them (row {named}{f' and {more:,} more' if more > 0 else ''}) and take "
            "them out, or use a model that knows their spelling.",
            value=len(found) / len(rows),
        )
    ]


def token_bytes(rows: Sequence[Row], tokenizer: Any) -> FloatArray:
    """Bytes of UTF-8 a token of each row's whole text, shape (N,); NaN where it is too short."""
    found = array("d")
    for texts in _batches(rows):
        tokens = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        for text, own in zip(texts, tokens, strict=True):
            size = len(text.encode())
            found.append(size / max(len(own), 1) if size >= _LEAST_BYTES else np.nan)
    return np.array(found)


def _batches(rows: Sequence[Row]) -> Iterator[list[str]]:
    """The texts of all turns of each row, so many rows at a time."""
    texts = (_text(row) for row in rows)
    while batch := list(islice(texts, _ROWS_AT_ONCE)):
        yield batch


def _text(row: Row) -> str:
    """What all turns say; half a letter, which no tokenizer takes, becomes a question mark."""
    text = "\n".join(turn.content for turn in row.messages)[:_MOST_CHARACTERS]
    return text.encode("utf-8", "replace").decode()
