"""Whether the safe rows may stand for safe behaviour: said before anything is trained.

A safe row that is toxic itself, or that also stands in the file to be screened, teaches the way
back what it should undo. Both are read off the rows, without the model. `forgetfilter check-safe`
looks further (help with harmful requests, coverage by words, repetition).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np

from forgetfilter.config import PACKAGED_SAFE
from forgetfilter.data.records import Message, Row
from forgetfilter.runs.schema import Finding
from forgetfilter.safe import safe_name
from forgetfilter.safe.linear_toxicity import LinearScorer
from forgetfilter.safe.suspects import LEAST_TOXIC
from forgetfilter.text import printable

_NAMED = 10
"""Rows that a message names; the value of the finding counts all."""
_MOST_CHARACTERS = 10_000


def check_safe_rows(safe_data: str, safe: Sequence[Row], noisy: Sequence[Row]) -> list[Finding]:
    """Findings on the safe rows as they were read.

    Args:
        safe_data: setting that named them.
        safe: the readable safe rows.
        noisy: the readable rows to be screened.
    """
    return [*_toxic(safe_data, safe), *_in_both(safe_data, safe, noisy)]


def _toxic(safe_data: str, safe: Sequence[Row]) -> list[Finding]:
    if safe_data == PACKAGED_SAFE or not safe:
        return []
    scores = LinearScorer().score([row.target[:_MOST_CHARACTERS] for row in safe])
    found = [int(at) for at in np.argsort(-scores, kind="stable") if scores[at] >= LEAST_TOXIC]
    if not found:
        return []
    lines = _listed([f"line {safe[at].line} ({scores[at]:.2f})" for at in found])
    return [
        Finding(
            name="safe_rows_toxic",
            severity="warning",
            message=f"{_rows(len(found), 'safe row')} may be unsafe: a word-based score calls "
            f"the answer toxic: {lines}. Expected below {LEAST_TOXIC:g} in rows that stand for "
            "safe behaviour. Read them, take out what is not safe and screen again; "
            f"`forgetfilter check-safe {shlex.quote(printable(safe_data))}` looks further.",
            value=float(len(found)),
        )
    ]


def _in_both(safe_data: str, safe: Sequence[Row], noisy: Sequence[Row]) -> list[Finding]:
    where: dict[tuple[str, ...], Row] = {}
    for row in safe:
        where.setdefault(_said(row.messages), row)
    pairs = [(where[said], row) for row in noisy if (said := _said(row.messages)) in where]
    if not pairs:
        return []
    listed = _listed([f"row {row.row} is line {own.line} of the safe rows" for own, row in pairs])
    return [
        Finding(
            name="safe_rows_in_the_file",
            severity="warning",
            message=f"{_rows(len(pairs), 'row')} to be screened also found among the safe rows of "
            f"{printable(safe_name(safe_data))}, word for word: {listed}. Expected safe rows from "
            "elsewhere: what stands in both is not judged but taken for safe. Take it out of one "
            "of the files and screen again.",
            value=float(len(pairs)),
        )
    ]


def _said(messages: Sequence[Message]) -> tuple[str, ...]:
    """A conversation by which copies are found: roles and words, whatever the white space."""
    return tuple(f"{turn.role} {' '.join(turn.content.split()).casefold()}" for turn in messages)


def _rows(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _listed(found: Sequence[str]) -> str:
    more = len(found) - _NAMED
    return ", ".join(found[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
