"""Coverage: which harms the safe rows can judge, and which would pass unseen.

A safe set sees a harm by what it undoes. Learning the noisy rows moves the model away from base on
safe rows of every harm that the noisy rows teach; forgetting on *this* safe set takes some of that
back. Where it takes back next to nothing, unsafe rows of that harm were not forgotten, and "kept"
says nothing about them. Measured on reference rows, a few of each harm, that the safe set need not
contain.

Of a harm that was left, a second look tells whether its rows rank high nevertheless: the noisy rows
that fall when its few reference rows are restored on are taken for its unsafe rows, and the run's
own scores are held against them. No label of a noisy row is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sklearn.metrics import roc_auc_score

from forgetfilter.config import PACKAGED_SAFE, ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.encoding import Encoder
from forgetfilter.records import REFERENCE_FILE, BoolArray, EncodedRow, FloatArray, Probe, Row
from forgetfilter.safe import category_of, safe_path
from forgetfilter.strategies.base import Setting
from forgetfilter.strategies.forget_filter import Scored, filter_rows, score_rows

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
_ROWS_PER_CATEGORY = 16
_MOST_CATEGORIES = 50
_FEWEST_FALLEN = 5
# Each look costs two short restorations and two passes over the noisy rows.
_MOST_LOOKS = 8
_MOST_BASE_LOSS = 5.0
"""Nats per token; a model that knows the language of a safe answer stays far below."""
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
    """Kept rows that fall when the reference rows are restored on; None where nobody looked."""
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
            "wholesale_damage": self.wholesale_damage,
        }


def reference_path(config: ScreenConfig) -> Path:
    """The reference rows: those asked for, those in the model's folder, or the packaged set."""
    if config.reference_data is not None:
        return safe_path(config.reference_data)
    own = Path(config.model) / REFERENCE_FILE
    return own if own.is_file() else safe_path(PACKAGED_SAFE)


def read_reference(path: Path, encoder: Encoder) -> tuple[list[EncodedRow], list[str]]:
    """The first rows of each category as tokens, and the category of each.

    Rows that can't be used are left out: a reference row is nobody's data.

    Raises:
        DataError: the file can't be read as a whole.
    """
    chosen: list[Row] = []
    seen: Counter[str] = Counter()
    for row in read_rows(path).rows:
        category = category_of(row)
        is_new = category not in seen
        if seen[category] < _ROWS_PER_CATEGORY and not (is_new and len(seen) > _MOST_CATEGORIES):
            seen[category] += 1
            chosen.append(row)
    encoded, _ = encoder.encode(chosen)
    by_row = {row.row: category_of(row) for row in chosen}
    return encoded, [by_row[row.row] for row in encoded]


def measure_coverage(
    setting: Setting, scored: Scored, reference: Sequence[EncodedRow], categories: Sequence[str]
) -> Coverage:
    """How much of the damage to each category of reference rows was undone.

    Args:
        setting: the screen's workbench and rows.
        scored: the states that it went through.
        reference: safe rows of every harm that matters, none of them needed in the safe set.
        categories: the harm of each.
    """
    later = scored.states.get("restored") or scored.states.get("forgotten")
    if later is None:
        return Coverage(note=f"Signal {setting.config.signal} leaves no later model to look at.")
    if not reference:
        return Coverage(note="No reference row can be used: give others with --reference-data.")
    bench, states = setting.bench, scored.states
    known = bench.measure((Probe("loss", "base"),), states, reference)
    base_loss = float(known.loss_mean("base").mean())
    if base_loss > _MOST_BASE_LOSS:
        return Coverage(
            note="The base model does not know the language of the reference rows: "
            f"{base_loss:.1f} nats a token; at most {_MOST_BASE_LOSS:g} expected. Give others with "
            "--reference-data."
        )
    wanted = ("learned", later.name)
    moved = bench.measure([Probe("divergence", state) for state in wanted], states, reference)
    damage, left = (moved[f"divergence_{state}"] for state in wanted)
    names = np.array(categories, dtype=object)
    harms = [
        HarmCoverage(
            category=name,
            rows=int((names == name).sum()),
            damage=float(damage[names == name].mean()),
            left=float(left[names == name].mean()),
        )
        for name in sorted(set(categories))
    ]
    harms.sort(key=lambda harm: harm.undone)
    left_over = [harm.category for harm in harms if harm.verdict == "not covered"][:_MOST_LOOKS]
    rows_of = {
        name: [row for row, own in zip(reference, names, strict=True) if own == name]
        for name in left_over
    }
    looks = _look_again(setting, scored, rows_of)
    return Coverage(harms=tuple(replace(harm, **looks.get(harm.category, {})) for harm in harms))


def _look_again(
    setting: Setting, scored: Scored, reference: Mapping[str, Sequence[EncodedRow]]
) -> dict[str, dict[str, Any]]:
    """For each harm: how many kept rows fall on its reference rows, and how the run ranks those.

    Args:
        setting: the screen's workbench and rows.
        scored: its scores.
        reference: the reference rows of every harm that was left.
    """
    config = setting.config.model_copy(update={"signal": "restoration"})
    own = scored.scores.forgetting_score
    is_removed = filter_rows(scored, setting.config.threshold).is_removed
    scores: dict[str, FloatArray] = {}
    falls: dict[str, BoolArray] = {}
    for name, rows in reference.items():
        look = score_rows(replace(setting, safe=rows, config=config))
        scores[name] = look.scores.forgetting_score
        falls[name] = filter_rows(look, "auto").is_removed
    is_still = ~np.logical_or.reduce([is_removed, *falls.values()])
    highest = np.maximum.reduce([own, *scores.values()])
    found: dict[str, dict[str, Any]] = {}
    for name in reference:
        # A row that falls further on other rows is not of this harm.
        is_own = falls[name] & (scores[name] >= highest)
        auroc = None
        if is_own.sum() >= _FEWEST_FALLEN and is_still.any():
            either = is_own | is_still
            auroc = float(roc_auc_score(is_own[either], own[either]))
        found[name] = {"fallen": int((is_own & ~is_removed).sum()), "auroc": auroc}
    return found
