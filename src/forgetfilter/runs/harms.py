"""What removed rows pull against: the nearest safe rows, and the harm that they are about."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import SharedTexts
from forgetfilter.errors import DataError
from forgetfilter.runs.columns import column_names, read_shared_texts, read_values
from forgetfilter.runs.file_names import HARMS_FILE, SAFE_ROWS_FILE
from forgetfilter.runs.inputs import SCREEN_AGAIN
from forgetfilter.runs.reading import read_json
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


def harm_of_each(run: Path, rows: int) -> SharedTexts | None:
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
    names = column_names(path)
    is_whole = HARM_COLUMN in names and "row" in names
    numbers = np.zeros(0, dtype=np.int64)
    if is_whole:
        numbers = read_values(path, "row", 0, np.int64)
        is_known = (numbers >= 0) & (numbers < rows)
        is_told = np.zeros(rows, dtype=np.bool_)
        is_told[numbers[is_known]] = True
        is_whole = int(is_told.sum()) == len(numbers)  # each is known, and there once
    if not is_whole:
        raise DataError(
            f"{path} is damaged. Expected the harm of each of {rows} rows at most. {SCREEN_AGAIN}"
        )
    harms = SharedTexts.full(rows)
    harms.put_all(numbers, read_shared_texts(path, HARM_COLUMN))
    return harms


class NearestSafeRows(Mapping[int, Sequence[SafeRow]]):
    """By row, the safe rows nearest to it, nearest first: of each only their numbers are held."""

    def __init__(
        self,
        rows: npt.NDArray[np.int64],
        near: npt.NDArray[np.int32],
        known: Mapping[int, SafeRow],
    ) -> None:
        """``rows``, shape (R,), ascending, and the numbers of their safe rows, shape (R, K)."""
        self._rows, self._near, self._known = rows, near, known

    def __getitem__(self, row: int) -> list[SafeRow]:
        at = int(np.searchsorted(self._rows, row))
        if at == len(self._rows) or self._rows[at] != row:
            raise KeyError(row)
        return [self._known[number] for number in dict.fromkeys(self._near[at].tolist())]

    def __iter__(self) -> Iterator[int]:
        return map(int, self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def safe_rows_of(
    run: Path, rows: Collection[int] | npt.NDArray[np.int64]
) -> Mapping[int, Sequence[SafeRow]]:
    """The safe rows nearest to each of some rows, nearest first; empty where not measured.

    Raises:
        DataError: a file is damaged.
    """
    path = run / HARMS_FILE
    if not path.exists():
        return {}
    asked = np.fromiter(rows, np.int64, len(rows))
    if "row" not in column_names(path):
        raise DataError(f"{path} has no column row. Expected one of numbers. {SCREEN_AGAIN}")
    numbers = read_values(path, "row", 0, np.int64)
    at = np.flatnonzero(np.isin(numbers, asked))
    at = at[np.argsort(numbers[at], kind="stable")]
    if not len(at):
        return {}
    names = [name for name in SAFE_NEIGHBOUR_COLUMNS if name in column_names(path)]
    near = np.zeros((len(at), len(names)), dtype=np.int32)
    said = cast(dict[str, dict[str, Any]], read_json(run / SAFE_ROWS_FILE))
    try:
        known = {
            int(row): SafeRow(int(row), str(own["category"]), str(own["text"]))
            for row, own in said.items()
        }
        for column, name in enumerate(names):  # one after the other: each is as long as the file
            near[:, column] = read_values(path, name, -1, np.int32)[at]
        if missing := set(np.unique(near).tolist()) - set(known):
            raise KeyError(min(missing))
        return NearestSafeRows(numbers[at], near, known)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{run / SAFE_ROWS_FILE} is damaged. Expected what each safe row of {HARMS_FILE} says. "
            "Repeat the `forgetfilter screen` command with --overwrite; nothing is trained again."
        ) from None


def as_json(near: Sequence[SafeRow]) -> list[dict[str, Any]]:
    """The same for report.json and `show`; without what is empty."""
    return [{name: value for name, value in vars(row).items() if value != ""} for row in near]
