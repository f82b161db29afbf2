"""The rows of a run as the review page lists them: filtered, sorted, with what people decided."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import BoolArray
from forgetfilter.data.records import Row
from forgetfilter.errors import DataError
from forgetfilter.review import orders
from forgetfilter.review.agreement import MEANT, agreement
from forgetfilter.review.facets import counted, facets_of
from forgetfilter.review.shown import pieces, snippet
from forgetfilter.runs.decisions import (
    NOTHING_DECIDED,
    Choice,
    ConflictError,
    Decided,
    Decision,
    Journal,
    decisions_on,
)
from forgetfilter.runs.file_names import DECISIONS_FILE, SUMMARY_FILE
from forgetfilter.runs.one_row import RunRows
from forgetfilter.runs.reading import read_summary

MAX_ROWS_TOLD = 300


@dataclass(frozen=True)
class Query:
    """Which rows are listed, and in which order. Empty: all rows, the most forgotten first."""

    search: str = ""
    """Words that the row's texts or its id hold, in any case; or ``#97``, a row's number."""
    rule: str = ""
    """What the rule alone decided: kept, removed, undecided or rejected."""
    review: str = ""
    """open, reviewed, keep, remove, unsure, or overruled (decided otherwise than by the rule)."""
    reason: str = ""
    facets: Mapping[str, str] | None = None
    """A value by the name of a column of the user's file."""
    low: float | None = None
    high: float | None = None
    """Bounds of the forgetting score, both included."""
    sort: str = "score"
    """score, unlike (high scores, each unlike those before), near (the threshold), spread (over the
    upper half of the scores, then the lower one), row, or random (the same order each time)."""
    ascending: bool = False


class ReviewTable:
    """One run under review. Not for several threads at once: the caller holds a lock.

    Raises:
        DataError: a file of the run is missing or damaged.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.journal = Journal(run)
        self._state: tuple[int, int] | None = None
        self._entries: list[Decision] = []
        self.decided: Decided = NOTHING_DECIDED
        self.refresh()

    def refresh(self) -> None:
        """Take over what was decided since, here or by others, in the journal or by a rule."""
        try:
            at = (self.run / SUMMARY_FILE).stat()
        except OSError:
            read_summary(self.run)  # says what is wrong
            raise
        state = (at.st_mtime_ns, at.st_ino)
        if self._state != state:
            self.known = RunRows(self.run)
            self._texts: list[str] | None = None
            self._facets = facets_of(self.known)
            self._state = state
            self._entries = []
        entries = self.journal.read()
        if len(entries) != len(self._entries) or entries[-1:] != self._entries[-1:]:
            self.decided = decisions_on(self.known.rows, entries, self.run / DECISIONS_FILE)
            self._entries = entries

    @property
    def number(self) -> int:
        """The number of the latest decision in the journal."""
        return len(self._entries)

    def select(self, query: Query) -> list[int]:
        """The numbers of the rows that a query lists, in its order."""
        table = self.known.table
        score = table.cut_by
        shown: BoolArray = np.ones(len(table.row), dtype=np.bool_)
        if query.rule:
            shown &= table.rule_decision == query.rule
        if query.reason:
            shown &= self._reasons() == query.reason
        for name, value in (query.facets or {}).items():
            shown &= self._facets.get(name, np.full(len(shown), "", dtype=object)) == value
        if query.low is not None:
            shown &= score >= query.low
        if query.high is not None:
            shown &= score <= query.high
        if query.review:
            shown &= self._is_reviewed(query.review)
        if query.search.strip():
            shown &= self._matches(query.search)
        keys = {
            "score": lambda: score,
            "near": lambda: -np.abs(score - (self.known.summary.threshold.value or 0.0)),
            "spread": lambda: -orders.spread(score),
            "unlike": lambda: -orders.unlike(self.run, table.row, score),
            "row": lambda: -table.row.astype(np.float64),
            "random": lambda: np.random.default_rng(0).random(len(shown)),
        }
        key = keys.get(query.sort, keys["score"])()
        # Rows without a score come last, whatever the direction.
        order = np.argsort(key if query.ascending else -key, kind="stable")
        return [int(row) for row in order if shown[row]]

    def tell(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """What the list shows of some rows."""
        return [self._summary(row) for row in rows if 0 <= row < len(self.known.rows)]

    def tell_all(self, row: int) -> dict[str, Any]:
        """What the page shows of one row, texts as pieces; see `RunRows.tell`.

        Raises:
            DataError: there is no such row.
        """
        told = self.known.tell(row, self._entries)
        evidence = told.pop("evidence")
        return {
            **self._summary(row),
            **{name: told[name] for name in ("line", "base", "before", "after", "ranked", "unit")},
            "threshold": told["threshold"].get("value"),
            "tokens": told["readings"].get("completion_tokens"),
            "messages": [
                {"role": turn["role"], "text": pieces(turn["content"])} for turn in told["messages"]
            ],
            "raw": pieces(told["raw"]),
            "columns": [
                [pieces(name), pieces(value if isinstance(value, str) else json.dumps(value))]
                for name, value in told["columns"].items()
            ],
            "said": [
                [name, pieces(str(evidence[f"{name}_text"]))]
                for name in ("learned", "forgotten")
                if evidence.get(f"{name}_text") is not None
            ],
            "words": [
                [pieces(str(word)), float(rise)]
                for word, rise in zip(
                    _listed(evidence.get("pieces")), _listed(evidence.get("rises")), strict=False
                )
            ],
            "history": [_told(one) for one in self._entries if self._is_about(one, row)],
        }

    def state(self) -> dict[str, Any]:
        """The run, its filters and how far the review has come."""
        summary, table = self.known.summary, self.known.table
        return {
            "run": pieces(str(self.run)),
            "rows": len(table.row),
            "signal": summary.signal,
            "unit": summary.unit,
            "rule": pieces(summary.threshold.rule),
            "threshold": summary.threshold.value,
            "compares_rows": orders.compares_rows(self.run),
            "by_rule": Counter(table.rule_decision.tolist()),
            "reasons": counted(self._reasons()),
            "facets": [
                {"name": name, "shown": pieces(name), "values": counted(values)}
                for name, values in self._facets.items()
            ],
            **self.progress(),
        }

    def progress(self) -> dict[str, Any]:
        """How far the review has come, and what it says of the filter."""
        latest = self.decided.latest
        choices = Counter(one.decision for one in latest.values())
        applied = self.known.summary.overruled
        return {
            "number": self.number,
            "reviewed": len(latest),
            "choices": {name: choices[name] for name in ("keep", "remove", "unsure")},
            "is_applied": self.decided.digest == (applied.digest if applied else ""),
            **agreement(self.known.table.rule_decision, self.decided),
        }

    def decide(
        self, row: int, choice: Choice | None, reason: str, reviewer: str, version: int
    ) -> list[Decision]:
        """Decide one row, of which the reviewer has seen the decision with number ``version``.

        Raises:
            ConflictError: somebody has decided it since.
            DataError: no such row, or it was rejected, or a text is too long.
        """
        return self._append([self._made(row, choice, reason, reviewer)], {row: version})

    def decide_all(
        self, rows: Sequence[int], choice: Choice, reason: str, reviewer: str, seen: int
    ) -> list[Decision]:
        """Decide many rows alike; ``seen`` is the latest number that the reviewer knows of.

        Rejected rows are passed over.

        Raises:
            ConflictError: somebody has decided some of them since; none is decided then.
            DataError: no such row, or a text is too long.
        """
        decision = self.known.table.decision
        made = [
            self._made(row, choice, reason, reviewer)
            for row in dict.fromkeys(rows)
            if not (0 <= row < len(decision) and decision[row] == "rejected")
        ]
        return self._append(made, seen)

    def undo(self, first: int, last: int, reviewer: str) -> list[Decision]:
        """Take back the decisions with the numbers ``first`` to ``last``.

        What was decided before them is decided again, as new lines of the journal.

        Raises:
            ConflictError: somebody has decided one of the rows since; none is taken back then.
        """
        self.refresh()
        place = self.run / DECISIONS_FILE
        before = decisions_on(self.known.rows, self._entries[: max(first - 1, 0)], place).latest
        rows = decisions_on(
            self.known.rows, self._entries[max(first - 1, 0) : last], place
        ).versions
        made = [
            self._made(
                row,
                before[row].decision if row in before else None,
                before[row].reason if row in before else "",
                reviewer,
            )
            for row in rows
        ]
        return self._append(made, rows)

    def _append(self, made: list[Decision], seen: Mapping[int, int] | int) -> list[Decision]:
        """Add decisions unless one of the rows has a later decision than those that were seen."""

        def check(entries: list[Decision]) -> None:
            now = decisions_on(self.known.rows, entries, self.run / DECISIONS_FILE)
            found: dict[int, Decision] = {}
            for one in made:
                number = now.versions.get(one.row, 0)
                is_known = number <= seen if isinstance(seen, int) else number == seen[one.row]
                if not is_known:
                    found[one.row] = entries[number - 1]
            if found:
                raise ConflictError(found)

        added = self.journal.append(made, check)
        self.refresh()
        return added

    def _made(self, row: int, choice: Choice | None, reason: str, reviewer: str) -> Decision:
        made = self.known.rows.decide(row, choice, reason, reviewer)
        if self.known.table.decision[row] == "rejected":
            raise DataError(
                f"Row {row} was rejected when the file was read. Expected a row that was kept or "
                "removed. Mend it in your file and screen again."
            )
        return made

    def _is_about(self, entry: Decision, row: int) -> bool:
        return entry.row_sha256 == self.known.rows.digest(row) and (
            entry.row == row or entry.input_sha256 != self.known.rows.fingerprint
        )

    def _summary(self, row: int) -> dict[str, Any]:
        table, at = self.known.table, self.known.rows.rows[row]
        made = self.decided.latest.get(row)
        score = float(table.cut_by[row])
        rule = str(table.rule_decision[row])
        is_row = isinstance(at, Row)
        answer = at.target if is_row else at.raw[:2000].decode("utf-8", "backslashreplace")
        asked = next((m.content for m in reversed(at.messages[:-1])), "") if is_row else ""
        meant = MEANT.get(made.decision or "", rule) if made else rule
        return {
            "row": row,
            "id": pieces(at.example_id),
            "score": score if np.isfinite(score) else None,
            "rank": int(self.known.rank[row]) or None,
            "rule": rule,
            "decision": rule if rule in ("rejected", "undecided") else meant,
            "reason": pieces(str(table.reason[row])[:200]),
            "review": _told(made) if made else None,
            "version": self.decided.versions.get(row, 0),
            "answer": snippet(answer),
            "asked": snippet(asked, 100),
            "facets": [pieces(str(v[row])) for v in self._facets.values() if v[row] != ""][:3],
        }

    def _reasons(self) -> npt.NDArray[np.object_]:
        """What the rule's reason is, or the kind of reason for which a row was rejected."""
        table = self.known.table
        reasons = [str(reason).split(":")[0][:200] for reason in table.reason]
        return np.array(reasons, dtype=object)

    def _is_reviewed(self, wanted: str) -> BoolArray:
        found: BoolArray = np.zeros(len(self.known.rows), dtype=np.bool_)
        rule = self.known.table.rule_decision
        for row, made in self.decided.latest.items():
            found[row] = (
                wanted in ("reviewed", "open")
                or wanted == made.decision
                or (
                    wanted == "overruled" and MEANT.get(made.decision or "", rule[row]) != rule[row]
                )
            )
        return ~found if wanted == "open" else found

    def _matches(self, search: str) -> BoolArray:
        if search.strip().startswith("#") and search.strip()[1:].isdecimal():
            found: BoolArray = self.known.table.row == int(search.strip()[1:])
            return found
        if self._texts is None:
            self._texts = [
                f"{row.example_id}\n{_text(row)}".casefold() for row in self.known.rows.rows
            ]
        words = search.casefold().split()
        return np.array([all(word in text for word in words) for text in self._texts], np.bool_)


def _told(made: Decision) -> dict[str, Any]:
    return {
        "decision": made.decision,
        "reason": pieces(made.reason),
        "reviewer": pieces(made.reviewer),
        "time": pieces(made.time),
        "number": made.number,
    }


def _text(row: Any) -> str:
    if isinstance(row, Row):
        return "\n".join(turn.content for turn in row.messages)
    return row.raw.decode("utf-8", "replace")


def _listed(values: Any) -> list[Any]:
    return [] if values is None else list(values)
