"""What was measured of each row, by column, of which those of many rows are read when needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from forgetfilter.data.records import EncodedRow
from forgetfilter.runs.parquet_parts import Column, LazyColumns


class MeasuredColumns(LazyColumns):
    """Columns of shape (N,), in the order in which they were added.

    The sizes of rows are held, and what is the same for all rows is one number; all else lies in
    the stages that it was measured in.

    Args:
        rows: what is measured.
        guessing: what guessing at random costs, nats a token.
    """

    def __init__(self, rows: Sequence[EncodedRow], guessing: float) -> None:
        self._rows = rows
        prompt, completion = (np.zeros(len(rows), dtype=np.int32) for _ in range(2))
        scale = np.zeros(len(rows))
        for at, row in enumerate(rows):
            prompt[at], completion[at] = row.prompt_length, row.target_tokens
            scale[at] = np.linalg.norm(row.leading_weights)
        makers: dict[str, Callable[[], Column]] = {
            "target": lambda: np.array([row.target for row in rows], dtype=object),
            "prompt_tokens": lambda: prompt.astype(np.int64),
            "completion_tokens": lambda: completion.astype(np.int64),
        }
        super().__init__(makers)
        self.add_constant("guessing", guessing)
        self._makers["leading_scale"] = lambda: scale

    def add_constant(self, name: str, value: float) -> None:
        """A column that has the same value for all rows."""
        self._makers[name] = lambda: np.full(len(self._rows), value)

    def add(self, found: Mapping[str, Column]) -> None:
        """All columns of ``found``, which stays the place where they are."""
        self._makers |= {name: lambda name=name: found[name] for name in found}
