"""All that a run knows of one row: scores, decisions, evidence and the row itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np

from forgetfilter.data.records import Row
from forgetfilter.errors import DataError
from forgetfilter.runs.columns import column_names
from forgetfilter.runs.decisions import Decision, Journal, decisions_on, input_rows
from forgetfilter.runs.file_names import (
    DECISIONS_FILE,
    EVIDENCE_FILE,
    READINGS_FILE,
)
from forgetfilter.runs.harms import as_json, safe_rows_of
from forgetfilter.runs.reading import ScoreTable, read_by_row, read_scores, read_summary
from forgetfilter.runs.schema import EVIDENCE_COLUMNS, Summary
from forgetfilter.text import printable

_TURNS = frozenset(
    {"messages", "prompt", "completion", "instruction", "input", "output", "conversations", "text"}
)
"""Keys that hold a row's texts; the others are told as its columns."""


class RunRows:
    """The rows of a finished run, read once, to be told one by one.

    Raises:
        DataError: a file of the run is missing or damaged.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.summary: Summary = read_summary(run)
        self.table: ScoreTable = read_scores(run, self.summary)
        self.rows = input_rows(run)
        judged = self.table.is_learned | (not self.summary.needs_learned)
        score = self.table.cut_by
        self.judged_score = np.where(judged, score, np.nan)
        """What the rule cuts; NaN where a row wasn't scored, or can't be judged."""
        order = np.argsort(-self.judged_score, kind="stable")
        ranked = order[: int(np.sum(~np.isnan(self.judged_score)))]
        self.rank = np.zeros(len(self.table.row), dtype=np.int64)
        """From 1, the most forgotten row; 0 for rows that can't be judged."""
        self.rank[ranked] = np.arange(1, len(ranked) + 1)

    def number_of(self, example_id: str) -> int:
        """The row with an id.

        Raises:
            DataError: none has it.
        """
        found = self.table.example_id.places_of(example_id)
        if not found:
            raise DataError(
                f"No row has the id {printable(example_id, 100)!r}. Expected an `example_id` of "
                "scores.parquet. Check it, or name the row by --row."
            )
        return int(found[0])

    def tell(self, row: int, journal: Sequence[Decision]) -> dict[str, Any]:
        """All that is known of a row, as JSON. Texts are as they are in the file.

        Raises:
            DataError: there is no such row.
        """
        if not 0 <= row < len(self.rows):
            raise DataError(
                f"There is no row {row}. Expected 0 to {len(self.rows) - 1}, as in the column "
                "`row` of scores.parquet. Name it by --id instead."
            )
        table, at = self.table, self.rows.rows[row]
        history = [
            one
            for one in journal
            if one.row_sha256 == self.rows.digest(row)
            and row in decisions_on(self.rows, [one], self.run / DECISIONS_FILE).versions
        ]
        readings = read_by_row(self.run / READINGS_FILE, _columns(self.run / READINGS_FILE), {row})
        said = read_by_row(self.run / EVIDENCE_FILE, EVIDENCE_COLUMNS[1:], {row})
        judged = int(np.count_nonzero(self.rank))
        return {
            "row": row,
            "line": at.line,
            "file": None if table.source is None else str(table.source[row]),
            "example_id": at.example_id,
            "decision": str(table.decision[row]),
            "reason": str(table.reason[row]),
            "decided_by": str(table.decided_by[row]),
            "rule_decision": str(table.rule_decision[row]),
            "threshold": self.summary.threshold.as_json(),
            "signal": self.summary.signal,
            "unit": self.summary.unit,
            **{name: _number(values[row]) for name, values in table.quantities.items()},
            "learned": bool(table.is_learned[row]),
            "harm": None if table.harm is None else str(table.harm[row]) or None,
            "safe_rows": as_json(safe_rows_of(self.run, {row}).get(row, ())),
            "unscored": "" if table.unscored is None else str(table.unscored[row]),
            "rank": int(self.rank[row]) or None,
            "ranked": judged,
            **self._opinion(),
            **self._described(),
            "decisions": [asdict(one) for one in history],
            "readings": {name: _number(value) for name, value in readings.get(row, {}).items()},
            "evidence": said.get(row, {}),
            "messages": [
                {"role": turn.role, "content": turn.content}
                for turn in (at.messages if isinstance(at, Row) else ())
            ],
            "columns": columns_of(at.raw),
            "raw": at.raw.decode("utf-8", "backslashreplace"),
        }

    def _opinion(self) -> dict[str, Any]:
        """Who gave the second opinion, and what it counts; empty where there is none."""
        given = self.summary.second_opinion
        if given is None:
            return {}
        named = {"classifier": given.classifier, "label": given.label, "above": given.above}
        return {"opinion_of": {**named, "cut": given.cut, "joint": self.summary.joint}}

    def _described(self) -> dict[str, Any]:
        """The harm that was named in words; empty where none was."""
        given = self.summary.described_harm
        return {} if given is None else {"harm_described": given.text}


def tell_row(run: Path, row: int | None, example_id: str | None = None) -> dict[str, Any]:
    """All that is known of the row with a number or an id; see `RunRows.tell`.

    Raises:
        DataError: the run isn't finished or is damaged, or there is no such row.
    """
    rows = RunRows(run)
    number = rows.number_of(example_id or "") if row is None else row
    return rows.tell(number, Journal(run).read())


def columns_of(raw: bytes) -> dict[str, Any]:
    """What a row holds beside its texts; empty where it isn't one JSON object."""
    try:
        found: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    record = cast(dict[str, Any], found)
    return {name: value for name, value in record.items() if name not in _TURNS}


def describe_row(told: Mapping[str, Any]) -> str:
    """The same for a terminal; no text of the row can steer it."""
    score = told["forgetting_score"]
    rank = f", rank {told['rank']:,} of {told['ranked']:,}" if told["rank"] else ""
    cut = told["threshold"].get("value")
    lines = [
        f"row {told['row']} ({printable(told['example_id'], 80)}), line {told['line']} of "
        + (printable(told["file"], 200) if told["file"] else "the file"),
        f"  {told['decision']} by {told['decided_by']}: {printable(told['reason'], 200)}"
        + (
            f" (the rule alone: {told['rule_decision']})"
            if told["rule_decision"] != told["decision"]
            else ""
        ),
        f"  forgetting score {_shown(score)}{rank}; threshold {_shown(cut)} "
        f"({printable(told['threshold']['rule'], 60)}, {printable(told['signal'], 60)}, "
        f"{told['unit']})",
        *_opinion_lines(told),
        *_described_lines(told),
        f"  base {_shown(told['base'])}, learned {_shown(told['before'])}, "
        f"forgotten {_shown(told['after'])}; {'learned' if told['learned'] else 'not learned'}",
    ]
    if told["harm"]:
        lines.append(f"  pulls against: {printable(told['harm'], 100)}, by the nearest safe rows:")
        lines += [
            f"    safe row {near['row']}: {printable(near.get('text', ''), 170)}"
            for near in told["safe_rows"]
        ]
    if told["unscored"]:
        lines.append(f"  not read, because the template leaves it out: {told['unscored']}")
    for one in told["decisions"]:
        said = f": {printable(one['reason'], 200)}" if one["reason"] else ""
        choice = one["decision"] or "withdrawn"
        lines.append(f"  {one['time']} {printable(one['reviewer'], 60)}: {choice}{said}")
    for name, value in told["columns"].items():
        shown = value if isinstance(value, str) else json.dumps(value)
        lines.append(f"  {printable(name, 60)}: {printable(shown, 200)}")
    for turn in told["messages"]:
        lines += [f"{printable(turn['role'], 60)}:", *_lines(turn["content"])]
    if not told["messages"]:
        lines += ["as it is in the file:", *_lines(told["raw"])]
    for name, title in (
        ("learned_text", "the model, once it had learned the file"),
        ("forgotten_text", "the model, once it was turned back"),
    ):
        if told["evidence"].get(name):
            lines += [f"{title}:", *_lines(str(told["evidence"][name]))]
    return "\n".join(lines)


def _opinion_lines(told: Mapping[str, Any]) -> list[str]:
    """What a second opinion says of a row, and who of the two suspects it; empty without one."""
    given, value, score = (
        told.get(n) for n in ("opinion_of", "second_opinion", "forgetting_score")
    )
    if not given or value is None:
        return []
    theirs = value > given["above"]
    ours = score is not None and given["cut"] is not None and score > given["cut"]
    who = {
        (True, True): "both suspect it",
        (True, False): "the forgetting score alone suspects it",
        (False, True): "the second opinion alone suspects it",
    }.get((ours, theirs), "neither suspects it")
    joint = told.get("joint_score")
    return [
        f"  second opinion {_shown(value)} ({printable(given['classifier'], 200)}, "
        f"{printable(given['label'], 60)}): {who}"
        + (f"; joint score {_shown(joint)}" if joint is not None else "")
    ]


def _described_lines(told: Mapping[str, Any]) -> list[str]:
    """How far a row goes the way of the harm that was named in words; empty where none was."""
    if "harm_described" not in told or told.get("described_harm") is None:
        return []
    said = printable(told["harm_described"], 200)
    return [f"  described harm {_shown(told['described_harm'])} ({said}); it decides nothing"]


def _lines(text: str, most: int = 40) -> list[str]:
    found = text.split("\n")
    shown = [f"  {printable(line, 500)}" for line in found[:most]]
    return [*shown, f"  … {len(found) - most} more lines"] if len(found) > most else shown


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _number(value: Any) -> Any:
    """A cell of a table as JSON; NaN and infinity are None."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _columns(path: Path) -> tuple[str, ...]:
    return tuple(name for name in column_names(path) if name not in ("row", "example_id"))
