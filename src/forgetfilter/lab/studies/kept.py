"""Finished cells kept as parquet files, so that a long study can be run in parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from forgetfilter.errors import DataError
from forgetfilter.lab.studies.course import ResultRow
from forgetfilter.lab.studies.curve_tables import CURVE_COLUMNS
from forgetfilter.lab.studies.results import FAILED
from forgetfilter.text import printable

Kept = Mapping[str, Sequence[ResultRow]]
"""The rows of each finished cell, by its fingerprint."""

_OF_CELL = frozenset({"dataset", "seed", "cell"})
_MISSING = ("x", "value", "low", "high")
"""Columns in which a number may be absent: NaN in the file, None in a result."""


def read_kept(paths: Sequence[str | Path]) -> Kept:
    """The cells of one or several results files of `forgetfilter curves`.

    Failed cells are left out, so that they are tried again. Where two files hold the same cell the
    first one's counts.

    Raises:
        DataError: a file can't be read, or is no such file.
    """
    kept: dict[str, list[ResultRow]] = {}
    for path in map(Path, paths):
        found: dict[str, list[ResultRow]] = {}
        for record in _records(path):
            if record["metric"] != FAILED and record["cell"] not in kept:
                row = {name: record[name] for name in CURVE_COLUMNS if name not in _OF_CELL}
                row |= {name: _or_none(row[name]) for name in _MISSING}
                found.setdefault(str(record["cell"]), []).append({**row, "n": int(row["n"])})
        kept |= found
    return kept


def _records(path: Path) -> list[dict[str, Any]]:
    shown = repr(printable(str(path), 300))
    expected = "Expected the results.parquet of `forgetfilter curves`. Check the path."
    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # what can be wrong with a file has no common class
        reason = printable(str(error).strip() or type(error).__name__, 200)
        raise DataError(f"Can't read {shown}: {reason}. {expected}") from None
    absent = [name for name in CURVE_COLUMNS if name not in frame.columns]
    if absent:
        raise DataError(f"{shown} has no column {', '.join(absent)}. {expected}")
    are_numbers = all(pd.api.types.is_numeric_dtype(frame[name]) for name in _MISSING)
    if not are_numbers or not pd.api.types.is_integer_dtype(frame["n"]):
        raise DataError(f"{shown} has text where numbers belong. {expected}")
    return cast(list[dict[str, Any]], frame.to_dict(orient="records"))


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
