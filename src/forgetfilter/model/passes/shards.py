"""Readings of rows, written down in shards as they come, so that a killed pass goes on.

A shard holds what was read since the last one, by row. The pass goes on with the batches that hold
a row of no shard; batches are cut as before, so that the readings are the same in the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.arrays import BoolArray
from forgetfilter.progress import Progress
from forgetfilter.runs.unfinished import UnfinishedWork

_VERSION = 1
_FILE = "readings.npz"
_ROWS = "rows"

Column = np.ndarray[Any, Any] | list[str | None]
"""A value for each row: rows are the first axis. Texts are None until they are there."""


class Shards:
    """What one pass over rows keeps on its way; without a stage it keeps nothing.

    Args:
        stage: the folder in which the readings' stage is made.
        label: names the pass in what is said.
        minutes: between two shards; 0 writes none. Earlier ones are used all the same.
        progress: is told where the pass goes on.
    """

    def __init__(
        self,
        stage: Path | None = None,
        label: str = "",
        minutes: float = 0,
        progress: Progress | None = None,
    ) -> None:
        self._label, self._progress = label, progress
        self.folder = stage
        self._work: UnfinishedWork | None = None
        if stage is not None:
            made_with = {"shards": _VERSION}
            self._work = UnfinishedWork(stage, "row", made_with, minutes, self._say)
        self._columns: Mapping[str, Column] = {}
        self._is_done: BoolArray = np.zeros(0, dtype=np.bool_)
        self._is_kept: BoolArray = np.zeros(0, dtype=np.bool_)
        """Which rows are in a shard."""
        self._written = 0
        """The largest number of a shard."""

    def begin(self, rows: int, columns: Mapping[str, Column]) -> BoolArray:
        """Fill ``columns``, in place, with what earlier attempts have read.

        Args:
            rows: how many there are.
            columns: what the pass fills, by name; each ``rows`` long.

        Returns:
            Which rows have their values, shape (rows,); `add` changes it.
        """
        self._columns, self._is_done = columns, np.zeros(rows, dtype=np.bool_)
        if self._work is None:
            return self._is_done
        entries = list(self._work.entries())
        self._work.resume(entries[0] if entries else None)
        for entry in entries:
            with np.load(entry.folder / _FILE, allow_pickle=False) as found:
                indices = found[_ROWS]
                for name, column in columns.items():
                    if isinstance(column, list):
                        for index, text in zip(indices, _texts_of(found[name]), strict=True):
                            column[index] = text
                    else:
                        column[indices] = found[name]
            self._is_done[indices] = True
            self._written = max(self._written, entry.number)
        self._is_kept = self._is_done.copy()
        if done := int(self._is_done.sum()):
            self._say(f"goes on from row {done:,} of {rows:,}")
        return self._is_done

    def add(self, indices: Sequence[int]) -> None:
        """Say that the columns hold the values of these rows now; writes a shard if one is due."""
        self._is_done[indices] = True
        if self._work is None or not self._work.is_due or self._is_done.all():
            return
        new = np.flatnonzero(self._is_done & ~self._is_kept)
        found: dict[str, np.ndarray[Any, Any]] = {_ROWS: new}
        for name, column in self._columns.items():
            is_text = isinstance(column, list)
            found[name] = _bytes_of([column[i] for i in new.tolist()]) if is_text else column[new]

        def fill(folder: Path) -> None:
            np.savez(folder / _FILE, **found)  # pyright: ignore[reportArgumentType]

        number = self._written + len(new)
        if self._work.write(number, {}, fill, most=0):
            self._written = number
            self._is_kept[new] = True

    def _say(self, what: str) -> None:
        if self._progress is not None:
            self._progress.say(f"{self._label}: {what}")


def _bytes_of(texts: Sequence[str | None]) -> np.ndarray[Any, Any]:
    """Texts as JSON: arrays of texts would lose zeros at their ends."""
    return np.frombuffer(json.dumps(texts).encode("ascii"), dtype=np.uint8)


def _texts_of(raw: np.ndarray[Any, Any]) -> list[str]:
    return json.loads(raw.tobytes())
