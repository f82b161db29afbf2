"""Check a safe set before a screen: what it covers, what it repeats, which rows look unsafe.

No model, no network, a few seconds. What is said of coverage is read off words; what a screen can
judge is measured by the screen itself (`forgetfilter.screening.checks.coverage`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from forgetfilter.config import PACKAGED_SAFE
from forgetfilter.data import read_rows
from forgetfilter.data.reading import OTHER, category_of
from forgetfilter.data.records import Row, RowFile
from forgetfilter.errors import DataError
from forgetfilter.files import write_json_atomic
from forgetfilter.safe import safe_name, safe_path
from forgetfilter.safe.harms import (
    NONE,
    HarmClassifier,
    Trust,
    cross_validate,
    packaged_reference,
    request_of,
)
from forgetfilter.safe.redundancy import Redundancy, measure_redundancy
from forgetfilter.safe.suspects import SuspectFinder, Suspicions
from forgetfilter.text import printable

LEAST_ROWS = 16
"""Rows of a harm from which on it counts as covered; as many as a screen's own coverage check
reads of each (`forgetfilter.screening.checks.coverage`)."""
_TIMES_CHANCE = 2.0
"""And at least so many times what the classifier calls so by mistake."""
_LEAST_REFERENCE = 5
_MOST_REFERENCE = 200
"""Reference rows read of one category."""
_MOST_CATEGORIES = 50
_BLOCK = 1000
"""Rows classified and scored at once: bounds memory."""
_MOST_CHARACTERS = 10_000
"""Characters of a conversation that are compared with others."""

Verdict = Literal["covered", "too few rows", "not covered"]


@dataclass(frozen=True)
class HarmRows:
    """How many rows of a safe set are about one harm."""

    category: str
    rows: int
    """Rows counted: those that name the category themselves, and by words those that name none."""
    by_words: int
    """Rows that the classifier calls so, whatever they name."""
    named: int
    """Rows whose own ``category`` says so."""
    expected_by_mistake: float
    """How many rows about other harms, or about none, would be called so: what is called each other
    category, times the share of its reference rows that are called so when held out."""
    recall: float
    """Share of reference rows of this harm, not shown in training, that are called so; higher is
    better."""

    @property
    def verdict(self) -> Verdict:
        """Whether there are enough rows, beyond what is called so by mistake."""
        if self.rows >= max(LEAST_ROWS, _TIMES_CHANCE * self.expected_by_mistake):
            return "covered"
        return "not covered" if self.rows <= self.expected_by_mistake else "too few rows"


@dataclass(frozen=True)
class SafeCheck:
    """All that is found out about a safe set; lists are in the order of ``file.rows``."""

    file: RowFile
    categories: tuple[str, ...]
    """What each row is about: its own category where the reference knows it, else by its words."""
    by_words: tuple[str, ...]
    harms: tuple[HarmRows, ...]
    """One for each category of the reference."""
    redundancy: Redundancy
    suspicions: Suspicions
    reference: str
    """Which reference rows the classifier was trained on, in words."""
    seed: int

    @property
    def suspects(self) -> list[int]:
        """Rows (places in ``file.rows``) that look unsafe, the most suspect first."""
        shown = [i for i, suspect in enumerate(self.suspicions.is_suspect) if suspect]
        return sorted(shown, key=lambda i: (-float(self.suspicions.score[i]), i))

    @property
    def repeated(self) -> int:
        """Rows that say word for word what an earlier row says."""
        return sum(len(group) - 1 for group in self.redundancy.exact)

    def as_dict(self) -> dict[str, Any]:
        """The whole result as plain values; rows are named by their line in the file."""
        lines = [row.line for row in self.file.rows]
        found = self.redundancy
        return {
            "file": self.file.path,
            "fingerprint": self.file.fingerprint,
            "reference": self.reference,
            "seed": self.seed,
            "rows": len(self.file),
            "harms": [{**asdict(harm), "verdict": harm.verdict} for harm in self.harms],
            "rows_of_no_harm": sum(name == NONE for name in self.categories),
            "redundancy": {
                "exact": [[lines[i] for i in group] for group in found.exact],
                "near": [
                    {"lines": [lines[i], lines[j]], "jaccard": value} for i, j, value in found.near
                ],
                "near_count": found.near_count,
                "rows_compared": found.compared,
                "vendi_score": found.effective,
                "vendi_rows": found.sampled,
            },
            "suspects": [lines[i] for i in self.suspects],
            "is_of_unsafe_rows": self.suspicions.is_of_unsafe_rows,
            "readable": [self._row(i) for i in range(len(lines))],
            "rejected": [
                {"row": row.row, "line": row.line, "id": row.example_id, "reason": row.reason}
                for row in self.file.rejected
            ],
        }

    def _row(self, i: int) -> dict[str, Any]:
        row = self.file.rows[i]
        own = category_of(row)
        return {
            "row": row.row,
            "line": row.line,
            "id": row.example_id,
            "category": self.categories[i],
            "by_words": self.by_words[i],
            "named": None if own == OTHER else own,
            "toxicity": float(self.suspicions.toxicity[i]),
            "helps_with_harm": float(self.suspicions.helping[i]),
            "words_known": bool(self.suspicions.is_known[i]),
            "suspect": self.suspicions.reason(i) or None,
        }


def check_safe(
    safe_data: str | Path, reference_data: str | Path | None = None, seed: int = 0
) -> SafeCheck:
    """Look at a safe set: coverage by words, redundancy, and rows that look unsafe.

    Args:
        safe_data: a file of rows in any of the formats of `read_rows`, or ``packaged:general``.
        reference_data: rows with a ``category`` that say which harms to look for; by default the
            packaged ones.
        seed: which rows are drawn where there are too many to compare them all.

    Raises:
        DataError: a file can't be read, has no readable row, or the reference names no categories.
    """
    file = read_rows(safe_path(str(safe_data)))
    if not file.rows:
        first = file.rejected[0]
        raise DataError(
            f"None of the {len(file):,} rows of {printable(str(safe_data))!r} can be read (line "
            f"{first.line}: {first.reason}). Expected messages, prompt + completion, or "
            "instruction + output. Convert the rows and try again."
        )
    model, trust = _learn(str(reference_data or PACKAGED_SAFE))
    finder = SuspectFinder.packaged()
    by_words: list[str] = []
    parts: list[Suspicions] = []
    for start in range(0, len(file.rows), _BLOCK):
        block = file.rows[start : start + _BLOCK]
        by_words += model.classify([request_of(row.messages) for row in block])
        parts.append(finder.look(block))
    own = [category_of(row) for row in file.rows]
    harms = [name for name in model.categories if name != NONE]
    return SafeCheck(
        file=file,
        categories=tuple(
            mine if mine in harms else words for mine, words in zip(own, by_words, strict=True)
        ),
        by_words=tuple(by_words),
        harms=tuple(_count(name, own, by_words, harms, trust) for name in harms),
        redundancy=measure_redundancy([_conversation(row) for row in file.rows], seed),
        suspicions=Suspicions.joined(parts),
        reference=safe_name(str(reference_data or PACKAGED_SAFE)),
        seed=seed,
    )


def write_check(check: SafeCheck, path: Path) -> None:
    """Write the whole result as JSON.

    Raises:
        DataError: the file can't be written.
    """
    try:
        write_json_atomic(path, check.as_dict())
    except OSError as error:
        raise DataError(
            f"Can't write {printable(str(path), 300)!r}: {error.strerror}. Expected a path for a "
            "file. Check --json, its folder and permissions."
        ) from None


def _count(
    name: str, own: Sequence[str], by_words: Sequence[str], harms: Sequence[str], trust: Trust
) -> HarmRows:
    """How many rows are about the harm ``name``."""
    # Only rows that don't say themselves what they are about are counted by their words.
    unnamed = [words for mine, words in zip(own, by_words, strict=True) if mine not in harms]
    guessed = sum(words == name for words in unnamed)
    named = sum(mine == name for mine in own)
    return HarmRows(
        category=name,
        rows=named + guessed,
        by_words=sum(words == name for words in by_words),
        named=named,
        expected_by_mistake=sum(
            rows * trust.called[other][name]
            for other, rows in Counter(unnamed).items()
            if other != name
        ),
        recall=trust.recall[name],
    )


def _learn(reference_data: str) -> tuple[HarmClassifier, Trust]:
    """The classifier of some reference rows, and how far it is right."""
    if reference_data == PACKAGED_SAFE:
        return _learn_packaged()
    requests, names = _reference(reference_data)
    return HarmClassifier.train(requests, names), cross_validate(requests, names)


@cache
def _learn_packaged() -> tuple[HarmClassifier, Trust]:
    requests, names = packaged_reference()
    return HarmClassifier.train(requests, names), cross_validate(requests, names)


def _reference(reference_data: str) -> tuple[list[str], list[str]]:
    """Requests and categories of the reference rows; rows without a category are left out."""
    shown = printable(safe_name(reference_data))
    requests: list[str] = []
    names: list[str] = []
    seen: Counter[str] = Counter()
    for row in read_rows(safe_path(reference_data)).rows:
        name = category_of(row)
        if name in (OTHER, NONE) or seen[name] >= _MOST_REFERENCE:
            continue
        seen[name] += 1
        requests.append(request_of(row.messages))
        names.append(name)
    if len(seen) > _MOST_CATEGORIES:
        raise DataError(
            f"The reference rows of {shown} name {len(seen):,} categories; expected at most "
            f"{_MOST_CATEGORIES}. Check that their category says which harm a row is about."
        )
    few = [name for name, count in seen.items() if count < _LEAST_REFERENCE]
    if not seen or few:
        found = f"only {seen[few[0]]} of {few[0]!r}" if few else "none with a category of its own"
        raise DataError(
            f"The reference rows of {shown} can't be learned from: {found}. Expected at least "
            f"{_LEAST_REFERENCE} rows of each harm, with the harm's name as category. Add rows, or "
            "leave out --reference-data for the packaged ones."
        )
    return requests, names


def _conversation(row: Row) -> str:
    """What is compared with other rows: all turns."""
    return "\n".join(turn.content for turn in row.messages)[:_MOST_CHARACTERS]
