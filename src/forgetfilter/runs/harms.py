"""What removed rows pull against: the nearest safe rows, and the harm that they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from forgetfilter.errors import DataError
from forgetfilter.runs.columns import read_columns
from forgetfilter.runs.file_names import HARMS_FILE, SAFE_ROWS_FILE
from forgetfilter.runs.inputs import SCREEN_AGAIN
from forgetfilter.runs.reading import read_by_row, read_json
from forgetfilter.runs.schema import HARM_COLUMN, SAFE_NEIGHBOUR_COLUMNS

TEXT_CHARACTERS = 160
"""Of a safe row's prompt, at most."""


@dataclass(frozen=True)
class SafeRow:
    """One row of the safe file, as a reader is shown it."""

    row: int
    category: str
    """What the safe file says it is about; empty where it says nothing."""
    text: str
    """The start of what is asked."""


def harm_of_each(run: Path, rows: int) -> npt.NDArray[np.object_] | None:
    """The harm that each row's nearest safe rows are about, shape (N,); None where not measured.

    Args:
        run: the run folder.
        rows: how many the input has; rows that were not read have an empty one.

    Raises:
        DataError: the table is damaged, or that of another input.
    """
    path = run / HARMS_FILE
    if not path.exists():
        return None
    table = read_columns(path, ("row", HARM_COLUMN))
    numbers = table["row"].to_numpy() if "row" in table else np.zeros(0, dtype=np.int64)
    is_known = len(numbers) == len(np.unique(numbers)) and np.isin(numbers, np.arange(rows)).all()
    if HARM_COLUMN not in table or "row" not in table or not is_known:
        raise DataError(
            f"{path} is damaged. Expected the harm of each of {rows} rows at most. {SCREEN_AGAIN}"
        )
    harms = np.full(rows, "", dtype=object)
    harms[numbers] = table[HARM_COLUMN].fill_null("").to_numpy(zero_copy_only=False)
    return harms


def safe_rows_of(run: Path, rows: set[int]) -> dict[int, list[SafeRow]]:
    """The safe rows nearest to each of some rows, nearest first; empty where not measured.

    Raises:
        DataError: a file is damaged.
    """
    near = read_by_row(run / HARMS_FILE, SAFE_NEIGHBOUR_COLUMNS, rows)
    if not near:
        return {}
    said = cast(dict[str, dict[str, Any]], read_json(run / SAFE_ROWS_FILE))
    try:
        known = {
            int(row): SafeRow(int(row), str(own["category"]), str(own["text"]))
            for row, own in said.items()
        }
        return {
            row: [known[number] for number in dict.fromkeys(own.values())]
            for row, own in near.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{run / SAFE_ROWS_FILE} is damaged. Expected what each safe row of {HARMS_FILE} says. "
            "Repeat the `forgetfilter screen` command with --overwrite; nothing is trained again."
        ) from None


def as_json(near: Sequence[SafeRow]) -> list[dict[str, Any]]:
    """The same for report.json and `show`; without what is empty."""
    return [{name: value for name, value in vars(row).items() if value != ""} for row in near]
