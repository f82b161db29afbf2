"""Decisions by where the rows are from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from forgetfilter.arrays import BoolArray
from forgetfilter.runs.report.row_data import labels_of
from forgetfilter.runs.report.row_texts import RowTexts

_UNNAMED = ""
_HARMS_TOLD, _SOURCES_TOLD = 20, 5


@dataclass(frozen=True, slots=True)
class Group:
    """Counts of the rows with one label."""

    name: str
    """Empty for rows that name none."""
    rows: int
    judged: int
    removed: int
    rejected: int

    @property
    def is_named(self) -> bool:
        """Whether the rows name what they are grouped by."""
        return bool(self.name)

    @property
    def removed_share(self) -> float | None:
        """Removed rows of those that could be judged."""
        return self.removed / self.judged if self.judged else None


@dataclass(frozen=True, slots=True)
class Harm:
    """Removed rows that pull against the same safe rows."""

    name: str
    removed: int
    share: float
    """Of all removed rows."""
    sources: dict[str, int]
    """Of them by source, the most first; empty where rows name none."""


def harms_of(texts: RowTexts) -> list[Harm]:
    """Counts of the removed rows by harm, the most first; empty where none was measured.

    Where the safe file names no categories, the text of a row stands for a harm, and those with few
    rows are counted together.
    """
    table = texts.table
    if table.harm is None:
        return []
    is_removed = table.decision == "removed"
    removed = int(is_removed.sum())
    counts = _named(table.harm[is_removed].counts())
    source = labels_of(texts, "source")
    found = [
        Harm(
            name,
            count,
            count / removed,
            dict(
                _named(source[is_removed & (table.harm == name)].counts()).most_common(
                    _SOURCES_TOLD
                )
            ),
        )
        for name, count in counts.most_common(_HARMS_TOLD)
    ]
    rest = counts.total() - sum(harm.removed for harm in found)
    return [*found, Harm(_UNNAMED, rest, rest / removed, {})] if rest else found


def _named(counts: Counter[str]) -> Counter[str]:
    """Counts without what has no name."""
    del counts[_UNNAMED]
    return counts


def groups_of(texts: RowTexts, name: str, is_judged: BoolArray) -> list[Group]:
    """Counts by ``source`` or ``category``, the worst first; empty where there is one at most.

    Args:
        texts: of all rows.
        name: of the label.
        is_judged: which rows could be judged, shape (N,).
    """
    decision = texts.table.decision
    labels = labels_of(texts, name)
    different = labels.counts().keys()
    if len(different - {_UNNAMED}) < 2:
        return []
    found = [
        Group(
            label,
            int(own.sum()),
            int((own & is_judged).sum()),
            int((own & (decision == "removed")).sum()),
            int((own & (decision == "rejected")).sum()),
        )
        for label in sorted(different)
        for own in (labels == label,)
    ]
    return sorted(found, key=lambda group: -(group.removed_share or 0.0))
