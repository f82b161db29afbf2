"""Rows whose truth is known, to rank them; there are no prompts to judge a tuned model by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from forgetfilter.data.records import Row, RowFile
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.lab.studies.datasets.base import (
    Data,
    DataSet,
    Judged,
    Rewrite,
    digest,
    path_of_seed,
    read_kinds,
    read_truth,
    rows_of_seed,
)
from forgetfilter.model.state import ModelState
from forgetfilter.model.workbench import Workbench
from forgetfilter.runs.stages import StageStore

_EXEMPLARS = 1
"""Beside the seed, so that exemplars are drawn apart from the noisy rows."""


class LabelledRows(DataSet):
    """Noisy rows with their truth, safe rows, and a pool of exemplars, each from a file.

    ``{seed}`` in a path means the seed. Only `forgetfilter leaderboard` takes this kind.
    """

    has_prompts: ClassVar[bool] = False

    kind: Literal["labelled"] = "labelled"
    noisy: str = Field(description="JSONL file of the rows to score")
    safe: str = Field(description="JSONL file of safe rows")
    truth: str = Field(description="lines with example_id and is_unsafe, for every noisy row")
    exemplars: str | None = Field(
        default=None,
        description="JSONL file of rows known to be bad, apart from the noisy rows; null = none",
    )
    exemplars_truth: str | None = Field(
        default=None,
        description="truth of the exemplars' file where not all of its rows are bad; null = all",
    )
    model: str | None = Field(
        default=None, description="the model of this data set; null = the study's"
    )
    rows: int | None = Field(
        default=None, ge=1, description="noisy rows that are drawn by the seed; null = all"
    )
    unsafe_count: int | None = Field(
        default=None,
        ge=1,
        description="unsafe rows among them, drawn by the seed, beside all clean ones; null = all",
    )

    def load(self, seed: int, store: StageStore) -> Data:
        """Read the files, and draw the rows of the seed."""
        noisy, safe = rows_of_seed("noisy", self.noisy, seed), rows_of_seed("safe", self.safe, seed)
        truth_path = path_of_seed(self.truth, seed)
        truth = read_truth(truth_path, noisy)
        noisy = self._drawn(noisy, truth, seed)
        pool = self._pool(seed)
        shown = [row.example_id for row in noisy.rows]
        parts: list[Any] = [noisy.fingerprint, shown, safe.fingerprint, truth]
        parts.append(None if pool is None else [pool.fingerprint, len(pool.rows)])
        return Data(noisy, safe, (), truth, digest(parts), read_kinds(truth_path))

    @property
    def has_exemplars(self) -> bool:
        """Whether the file of them is named."""
        return self.exemplars is not None

    def exemplars_of(self, seed: int, count: int) -> Sequence[Row]:
        """The rows of the exemplars' file, in an order drawn by the seed."""
        pool = self._pool(seed)
        if pool is None:
            return super().exemplars_of(seed, count)
        order = np.random.default_rng([seed, _EXEMPLARS]).permutation(len(pool.rows))
        return [pool.rows[at] for at in order]

    def evaluate(self, data: Data, bench: Workbench, state: ModelState, prompt: Rewrite) -> Judged:
        """There is nothing to judge.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"The data set {self.name!r} has no prompts to judge a model by. Expected kind: files "
            "or testbed. Use it with `forgetfilter leaderboard`."
        )

    def _drawn(self, file: RowFile, truth: dict[str, bool], seed: int) -> RowFile:
        """The rows of the seed, in their order."""
        rng = np.random.default_rng(seed)
        rows = [file.rows[at] for at in sorted(rng.permutation(len(file.rows))[: self.rows])]
        if self.unsafe_count is not None:
            unsafe = [row.row for row in rows if truth[row.example_id]]
            if len(unsafe) < self.unsafe_count:
                raise DataError(
                    f"The data set {self.name!r} has {len(unsafe)} unsafe rows. Expected "
                    f"{self.unsafe_count} at least (unsafe_count). Lower that number, or give a "
                    "file with more."
                )
            kept = {unsafe[at] for at in rng.permutation(len(unsafe))[: self.unsafe_count]}
            rows = [row for row in rows if row.row in kept or not truth[row.example_id]]
        return replace(file, rows=tuple(rows))

    def _pool(self, seed: int) -> RowFile | None:
        if self.exemplars is None:
            return None
        pool = rows_of_seed("exemplars", self.exemplars, seed)
        if self.exemplars_truth is None:
            return pool
        truth = read_truth(path_of_seed(self.exemplars_truth, seed), pool)
        return replace(pool, rows=tuple(row for row in pool.rows if truth[row.example_id]))
