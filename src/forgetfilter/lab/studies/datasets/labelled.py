"""Rows whose truth is known, to rank them; there are no prompts to judge a tuned model by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from forgetfilter.data.records import RowFile
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.lab.studies.datasets.base import (
    Data,
    Judged,
    Rewrite,
    digest,
    path_of_seed,
    read_kinds,
    read_truth,
    rows_of_seed,
)
from forgetfilter.lab.studies.datasets.exemplars import FileExemplars
from forgetfilter.model.state import ModelState
from forgetfilter.model.workbench import Workbench
from forgetfilter.runs.stages import StageStore


class LabelledRows(FileExemplars):
    """Noisy rows with their truth, safe rows, and a pool of exemplars, each from a file.

    ``{seed}`` in a path means the seed. Only `forgetfilter leaderboard` takes this kind.
    """

    has_prompts: ClassVar[bool] = False

    kind: Literal["labelled"] = "labelled"
    noisy: str = Field(description="JSONL file of the rows to score")
    safe: str = Field(description="JSONL file of safe rows")
    truth: str = Field(description="lines with example_id and is_unsafe, for every noisy row")
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
        pool = self.exemplar_file(seed)
        shown = [row.example_id for row in noisy.rows]
        parts: list[Any] = [noisy.fingerprint, shown, safe.fingerprint, truth]
        parts.append(None if pool is None else [pool.fingerprint, len(pool.rows)])
        return Data(noisy, safe, (), truth, digest(parts), read_kinds(truth_path))

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
