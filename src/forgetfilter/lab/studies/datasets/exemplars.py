"""Data sets whose rows known to be bad, apart from the noisy rows, come from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from forgetfilter.data.records import Row, RowFile
from forgetfilter.lab.studies.datasets.base import DataSet, path_of_seed, read_truth, rows_of_seed

_EXEMPLARS = 1
"""Beside the seed, so that exemplars are drawn apart from the noisy rows."""


class FileExemplars(DataSet):
    """Base of the kinds that name such a file."""

    exemplars: str | None = Field(
        default=None,
        description="JSONL file of rows known to be bad, apart from the noisy rows; null = none",
    )
    exemplars_truth: str | None = Field(
        default=None,
        description="truth of the exemplars' file where not all of its rows are bad; null = all",
    )

    @property
    def has_exemplars(self) -> bool:
        """Whether the file of them is named."""
        return self.exemplars is not None

    def exemplars_of(self, seed: int, count: int) -> Sequence[Row]:
        """The rows of the exemplars' file, in an order drawn by the seed."""
        pool = self.exemplar_file(seed)
        if pool is None:
            return super().exemplars_of(seed, count)
        order = np.random.default_rng([seed, _EXEMPLARS]).permutation(len(pool.rows))
        return [pool.rows[at] for at in order]

    def exemplar_file(self, seed: int) -> RowFile | None:
        """The bad rows of the exemplars' file of one seed, or None where no file is named.

        Raises:
            DataError: the file, or its truth, can't be used.
        """
        if self.exemplars is None:
            return None
        pool = rows_of_seed("exemplars", self.exemplars, seed)
        if self.exemplars_truth is None:
            return pool
        truth = read_truth(path_of_seed(self.exemplars_truth, seed), pool)
        return replace(pool, rows=tuple(row for row in pool.rows if truth[row.example_id]))
