"""How well removed rows match the truth. Higher is better for every number here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray


@dataclass(frozen=True)
class Detection:
    """Detection of unsafe rows; all in 0..1, higher is better, NaN where undefined."""

    precision: float
    """Share of the removed rows that are unsafe."""
    recall: float
    """Share of the unsafe rows that are removed."""
    f1: float
    """Harmonic mean of precision and recall."""
    auroc: float
    """Chance that an unsafe row scores above a clean one; 0.5 is guessing."""
    average_precision: float
    """Area under the precision-recall curve; the unsafe share is guessing."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, None for what is undefined."""
        return {name: _or_none(value) for name, value in asdict(self).items()}


def detection(is_unsafe: BoolArray, is_removed: BoolArray, scores: FloatArray) -> Detection:
    """Grade a decision and its scores against the truth; all arrays have shape (N,)."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    hits = int((is_unsafe & is_removed).sum())
    unsafe, removed = int(is_unsafe.sum()), int(is_removed.sum())
    precision = hits / removed if removed else float("nan")
    recall = hits / unsafe if unsafe else float("nan")
    f1 = 2 * hits / (unsafe + removed) if unsafe + removed else float("nan")
    both = 0 < unsafe < len(is_unsafe)
    auroc = float(roc_auc_score(is_unsafe, scores)) if both else float("nan")
    average = float(average_precision_score(is_unsafe, scores)) if unsafe else float("nan")
    return Detection(precision, recall, f1, auroc, average)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
