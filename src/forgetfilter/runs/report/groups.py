"""Decisions by where the rows are from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forgetfilter.arrays import BoolArray
from forgetfilter.runs.report.row_data import labels_of
from forgetfilter.runs.report.row_texts import RowTexts

_UNNAMED = ""


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


def groups_of(texts: RowTexts, name: str, is_judged: BoolArray) -> list[Group]:
    """Counts by ``source`` or ``category``, the worst first; empty where there is one at most.

    Args:
        texts: of all rows.
        name: of the label.
        is_judged: which rows could be judged, shape (N,).
    """
    decision = texts.table.decision
    labels = [label or _UNNAMED for label in labels_of(texts, name, np.arange(len(decision)))]
    if len(set(labels) - {_UNNAMED}) < 2:
        return []
    column = np.array(labels, dtype=object)
    found = [
        Group(
            label,
            int(own.sum()),
            int((own & is_judged).sum()),
            int((own & (decision == "removed")).sum()),
            int((own & (decision == "rejected")).sum()),
        )
        for label in sorted(set(labels))
        for own in (column == label,)
    ]
    return sorted(found, key=lambda group: -(group.removed_share or 0.0))
