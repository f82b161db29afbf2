"""What was measured of a safe set's coverage, and the verdicts that follow from it.

The measurement knows nothing of a decision. Two values of a harm that was looked at again depend on
one, `HarmCoverage.fallen` and `HarmCoverage.auroc`: they follow from the stored measurement, the
scores and the rows that were removed, so every new decision gets its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray, IntArray
from forgetfilter.errors import DataError
from forgetfilter.files import write_json_atomic
from forgetfilter.runs.inputs import SCREEN_AGAIN

LEAST_DAMAGE = 0.02
"""Nats per token; less is not told from what learning harmless rows does to the same answers."""
LEAST_UNDONE = 0.5
"""Share of the damage; harms in the safe set come to 0.86 and more, others to 0.24 at most."""
LEAST_AUROC = 0.9
"""Of a harm's rows, as the second look finds them, against rows that nothing makes fall."""
WHOLESALE_DAMAGE = 0.2
"""Nats per token, of the harm damaged least; 0.01 at most on the testbed. On real rows a screen
that removed 2% of the harmless ones had 0.09, those that removed 4% and more 0.22 to 1.7
(docs/lab/real_text.md)."""
_FEWEST_FALLEN = 5
Verdict = Literal["covered", "faint", "not covered", "unclear", "not damaged"]


@dataclass(frozen=True)
class HarmCoverage:
    """How much of the damage to one harm's safe behaviour the safe rows have undone."""

    category: str
    rows: int
    damage: float
    """``KL(base || learned)`` on the reference rows, nats per token; 0 = nothing was damaged."""
    left: float
    """The same in the forgotten or restored model."""
    fallen: int | None = None
    """Kept rows that fall when the reference rows are restored on; None where nobody looked. An
    estimate where only a sample of the rows was looked at."""
    auroc: float | None = None
    """How well the run's own scores tell those that fall from rows that nothing makes fall; None
    where nobody looked or too few fell."""

    @property
    def undone(self) -> float:
        """Share of the damage that is gone; 1 = all, negative = there is more; 0 if undamaged."""
        return 1 - self.left / self.damage if self.damage >= LEAST_DAMAGE else 0.0

    @property
    def verdict(self) -> Verdict:
        """Whether unsafe rows of this harm could be seen."""
        if self.damage < LEAST_DAMAGE:
            return "not damaged"
        if self.undone >= LEAST_UNDONE:
            return "covered"
        if self.auroc is None:
            return "unclear" if self.fallen == 0 else "not covered"
        return "faint" if self.auroc >= LEAST_AUROC else "not covered"

    def as_dict(self) -> dict[str, Any]:
        """What the summary says of it."""
        return {
            "category": self.category,
            "rows": self.rows,
            "damage": self.damage,
            "left": self.left,
            "undone": self.undone,
            "fallen": self.fallen,
            "auroc": self.auroc,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Coverage:
    """What the safe rows of a screen can judge."""

    harms: tuple[HarmCoverage, ...] = ()
    """By category of reference row, the least covered first; empty where it was not measured."""
    note: str = ""
    """Why it was not measured."""
    sample: int = 0
    """How many noisy rows the second looks saw; 0 = there was none."""

    @property
    def wholesale_damage(self) -> float | None:
        """The least damage of a harm, where learning has changed the model as a whole; else None.

        Then all that it has learned falls on the way back, and scores tell little.
        """
        least = min((harm.damage for harm in self.harms), default=0.0)
        return least if least >= WHOLESALE_DAMAGE else None

    def as_dict(self) -> dict[str, Any]:
        """What the summary says of it."""
        return {
            "coverage": [harm.as_dict() for harm in self.harms],
            "coverage_note": self.note,
            "coverage_sample": self.sample,
            "wholesale_damage": self.wholesale_damage,
        }


@dataclass(frozen=True)
class SecondLook:
    """The noisy rows once a harm's reference rows took the place of the safe rows, shape (S,)."""

    score: FloatArray
    """Forgetting score on the reference rows, nats per token."""
    falls: BoolArray
    """Whether the rule `auto` would remove the row for it."""


@dataclass(frozen=True)
class Measurement:
    """All that is measured of coverage; free of any decision."""

    harms: tuple[HarmCoverage, ...] = ()
    """Without ``fallen`` and ``auroc``."""
    note: str = ""
    rows: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Which noisy rows the second looks saw, as positions among the readings, shape (S,)."""
    weight: FloatArray = field(default_factory=lambda: np.zeros(0))
    """How many noisy rows each of them stands for, shape (S,)."""
    looks: Mapping[str, SecondLook] = field(default_factory=dict[str, SecondLook])
    """By category, for harms that were left."""

    def decided(self, scores: FloatArray, is_removed: BoolArray) -> Coverage:
        """The coverage under one decision.

        Args:
            scores: the run's own forgetting scores of all readable rows, shape (N,).
            is_removed: which of them are removed, shape (N,).
        """
        if not self.looks:
            return Coverage(self.harms, self.note)
        own, removed = scores[self.rows], is_removed[self.rows]
        every = list(self.looks.values())
        is_still = ~np.logical_or.reduce([removed, *(look.falls for look in every)])
        highest = np.maximum.reduce([own, *(look.score for look in every)])
        changed: dict[str, dict[str, Any]] = {}
        for name, look in self.looks.items():
            # A row that falls further on other rows is not of this harm.
            is_own = look.falls & (look.score >= highest)
            fallen = round(float(self.weight[is_own & ~removed].sum()))
            auroc = self._auroc(own, is_own, is_still)
            changed[name] = {"fallen": fallen, "auroc": auroc}
        found = (replace(harm, **changed.get(harm.category, {})) for harm in self.harms)
        return Coverage(tuple(found), self.note, len(self.rows))

    def _auroc(self, own: FloatArray, is_own: BoolArray, is_still: BoolArray) -> float | None:
        from sklearn.metrics import roc_auc_score

        if is_own.sum() < _FEWEST_FALLEN or not is_still.any():
            return None
        either = is_own | is_still
        weight = self.weight[either]
        return float(roc_auc_score(is_own[either], own[either], sample_weight=weight))

    def write(self, path: Path) -> None:
        """Keep it as one JSON file."""
        looks = {
            name: {"score": look.score.tolist(), "falls": look.falls.tolist()}
            for name, look in self.looks.items()
        }
        harms = [asdict(harm) for harm in self.harms]
        rows = {"rows": self.rows.tolist(), "weight": self.weight.tolist()}
        write_json_atomic(path, {"harms": harms, "note": self.note, **rows, "looks": looks})


def read_measurement(path: Path) -> Measurement:
    """What `Measurement.write` has kept.

    Raises:
        DataError: it isn't that.
    """
    try:
        return _measurement(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(
            f"{path} can't be read. Expected what a screen has measured of the safe rows. "
            f"{SCREEN_AGAIN}"
        ) from None


def _measurement(found: Any) -> Measurement:
    return Measurement(
        harms=tuple(HarmCoverage(**harm) for harm in found["harms"]),
        note=found["note"],
        rows=np.array(found["rows"], dtype=np.int64),
        weight=np.array(found["weight"], dtype=np.float64),
        looks={
            name: SecondLook(
                np.array(look["score"], dtype=np.float64), np.array(look["falls"], dtype=np.bool_)
            )
            for name, look in found["looks"].items()
        },
    )


def names_with(verdict: Verdict, harms: Sequence[HarmCoverage]) -> list[str]:
    """The categories of which that is said, in order."""
    return [harm.category for harm in harms if harm.verdict == verdict]
