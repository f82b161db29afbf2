"""Whether the safe rows may stand for safe behaviour: said before anything is trained.

A safe row that is toxic itself, or that also stands in the file to be screened, teaches the way
back what it should undo. Both are read off the rows, without the model. `forgetfilter check-safe`
looks further (coverage by words, repetition).

Where most of a file stands in both, or most safe rows are unsafe, nothing that follows means
anything: that is severe, and only `force` goes on.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Literal

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.config import PACKAGED_SAFE
from forgetfilter.data.records import Message, Row
from forgetfilter.runs.schema import Finding
from forgetfilter.safe import safe_name
from forgetfilter.safe.suspects import (
    LEAST_SUSPECTS,
    LEAST_TOXIC,
    UNSAFE_SHARE,
    SuspectFinder,
)
from forgetfilter.text import printable

_NAMED = 10
"""Rows that a message names; the value of the finding counts all."""
SEVERE_SHARE = 0.5
"""Share of the rows to be screened that are among the safe ones, and share of the safe rows that
look unsafe, from which on a screen is refused."""


def check_safe_rows(safe_data: str, safe: Sequence[Row], noisy: Sequence[Row]) -> list[Finding]:
    """Findings on the safe rows as they were read.

    Args:
        safe_data: setting that named them.
        safe: the readable safe rows.
        noisy: the readable rows to be screened.
    """
    return [*_unsafe(safe_data, safe), *_in_both(safe_data, safe, noisy)]


def _unsafe(safe_data: str, safe: Sequence[Row]) -> list[Finding]:
    if safe_data == PACKAGED_SAFE or not safe:
        return []
    found = SuspectFinder.packaged().look(safe)
    check = f"`forgetfilter check-safe {shlex.quote(printable(safe_data))}`"
    findings: list[Finding] = []
    is_toxic = found.toxicity >= LEAST_TOXIC
    if is_toxic.any():
        findings.append(
            Finding(
                name="safe_rows_toxic",
                severity=_severity(is_toxic),
                message=f"{_rows(int(is_toxic.sum()), 'safe row')} may be unsafe: a word-based "
                f"score calls the answer toxic: {_worst(safe, found.toxicity, is_toxic)}. Expected "
                f"below {LEAST_TOXIC:g} in rows that stand for safe behaviour. Read them, take out "
                f"what is not safe and screen again; {check} looks further.",
                value=float(is_toxic.sum()),
            )
        )
    suspect = found.is_suspect
    if found.is_of_unsafe_rows and (suspect & ~is_toxic).any():  # not only what was said already
        findings.append(
            Finding(
                name="safe_rows_unsafe",
                severity=_severity(suspect),
                message=f"{suspect.mean():.0%} of the {_rows(len(safe), 'safe row')} look unsafe "
                "by their words (a toxic answer, or help with a harmful request): "
                f"{_worst(safe, found.score, suspect)}. Expected below {UNSAFE_SHARE:.0%} in a set "
                "that stands for safe behaviour. Check that it is the file you meant, take out "
                f"what is not safe and screen again; {check} names all of them.",
                value=float(suspect.mean()),
            )
        )
    return findings


def _severity(is_suspect: BoolArray) -> Literal["warning", "severe"]:
    """How much it means that these of the safe rows look unsafe."""
    many = is_suspect.sum() >= LEAST_SUSPECTS and is_suspect.mean() >= SEVERE_SHARE
    return "severe" if many else "warning"


def _worst(safe: Sequence[Row], scores: FloatArray, is_listed: BoolArray) -> str:
    """The lines of some safe rows with their scores, the highest first."""
    order = [int(at) for at in np.argsort(-scores, kind="stable") if is_listed[at]]
    return _listed([f"line {safe[at].line} ({scores[at]:.2f})" for at in order])


def _in_both(safe_data: str, safe: Sequence[Row], noisy: Sequence[Row]) -> list[Finding]:
    where: dict[tuple[str, ...], Row] = {}
    for row in safe:
        where.setdefault(_said(row.messages), row)
    pairs = [(where[said].line, row.row) for row in noisy if (said := _said(row.messages)) in where]
    if not pairs:
        return []
    listed = _listed([f"row {row} is line {line} of the safe rows" for line, row in pairs])
    is_most = len(pairs) >= SEVERE_SHARE * len(noisy)
    return [
        Finding(
            name="safe_rows_in_the_file",
            severity="severe" if is_most else "warning",
            message=f"{_rows(len(pairs), 'row')} to be screened of {len(noisy):,} also found "
            f"among the safe rows of {printable(safe_name(safe_data))}, word for word: {listed}. "
            "Expected safe rows from elsewhere: what stands in both is not judged but taken for "
            "safe. Take it out of one of the files and screen again.",
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
