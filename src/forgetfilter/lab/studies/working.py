"""The workbench of a cell, a strategy's setting, and how its selection is graded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forgetfilter.arrays import BoolArray
from forgetfilter.config import ScreenConfig
from forgetfilter.data.records import EncodedRow, RejectedRow, RowFile
from forgetfilter.errors import DataError
from forgetfilter.lab.metrics import MetricValue, detection
from forgetfilter.lab.strategies import Strategy, build_strategy
from forgetfilter.lab.studies.datasets import Data
from forgetfilter.lab.studies.datasets.base import Group
from forgetfilter.model.workbench import Workbench
from forgetfilter.scoring.records import Selection
from forgetfilter.screening.method import Setting
from forgetfilter.text import printable


@dataclass(frozen=True)
class Prepared:
    """A strategy with what it is given, and the truth, which it is not."""

    strategy: Strategy
    setting: Setting
    is_unsafe: BoolArray | None
    """The ground truth of the encoded noisy rows, shape (N,), where there is one."""
    rejected: Sequence[tuple[Group, MetricValue]]
    """How many noisy and safe rows can't be used."""


def prepare(spec: str, bench: Workbench, data: Data, screen: ScreenConfig) -> Prepared:
    """The strategy that ``spec`` names, and its setting on ``data``.

    Raises:
        ConfigError: the strategy needs a ground truth that there is not.
        DataError: no noisy or no safe row can be used.
    """
    noisy, rejected = _usable("noisy", bench, data.noisy, bench.encoder.encode(data.noisy.rows))
    safe, safe_rejected = _usable(
        "safe", bench, data.safe, bench.encoder.encode_safe(data.safe.rows)
    )
    is_unsafe = _truth_of(noisy, data)
    return Prepared(
        build_strategy(spec, is_unsafe),
        Setting(bench, noisy, safe, screen),
        is_unsafe,
        [
            ("detail", MetricValue(name, count, "rows", "lower", of))
            for name, count, of in (
                ("rows_rejected", rejected, len(data.noisy)),
                ("safe_rows_rejected", safe_rejected, len(data.safe)),
            )
        ],
    )


def _usable(
    name: str,
    bench: Workbench,
    file: RowFile,
    found: tuple[Sequence[EncodedRow], Sequence[RejectedRow]],
) -> tuple[Sequence[EncodedRow], int]:
    """The encoded rows, and how many of the file can't be used.

    Raises:
        DataError: none is left.
    """
    encoded, unfit = found
    unusable = [*file.rejected, *unfit]
    if not encoded:
        raise DataError(
            f"None of {len(file)} {name} rows can be used; the first because: "
            f"{printable(unusable[0].reason) if unusable else 'there is none'}. Expected rows in "
            "one of the formats that a screen reads. Check the file."
        )
    if unusable:
        bench.progress.say(f"{name}: {len(unusable)} of {len(file)} rows can't be used")
    return encoded, len(unusable)


def _truth_of(noisy: Sequence[EncodedRow], data: Data) -> BoolArray | None:
    """The ground truth of the encoded rows, shape (N,)."""
    if data.is_unsafe is None:
        return None
    ids = {row.row: row.example_id for row in data.noisy.rows}
    return np.array([data.is_unsafe[ids[row.row]] for row in noisy], dtype=np.bool_)


def grade(
    selection: Selection | None, is_unsafe: BoolArray | None
) -> list[tuple[Group, MetricValue]]:
    """The removed rows against the truth; nothing for a strategy that removes none on purpose."""
    if selection is None:
        return []
    removed, n = selection.is_removed, len(selection.is_removed)
    share = MetricValue("removed", float(removed.mean()), "share, 0..1", "lower", n)
    if is_unsafe is None:
        return [("detection", share)]
    scores = selection.scores
    found = detection(is_unsafe, removed, np.zeros(n) if scores is None else scores).as_dict()
    if scores is None:
        found |= {"auroc": None, "average_precision": None}
    return [
        ("detection", share),
        *(
            ("detection", MetricValue(name, _number(value), "0..1", "higher", n))
            for name, value in found.items()
        ),
    ]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
