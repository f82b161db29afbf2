"""One cell of a comparison: its folder, its result, and its error."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from forgetfilter.files import remove, write_bytes_atomic, write_json_atomic
from forgetfilter.lab.studies.datasets.base import digest

RESULT_FILE = "result.json"
ERROR_FILE = "error.txt"
CELLS_FOLDER = "cells"


@dataclass(frozen=True)
class Cell:
    """A strategy on one seed of a data set, in a folder named by all that decides the result."""

    strategy: str
    dataset: str
    seed: int
    folder: Path
    fingerprint: str
    """Identifies all that decides the result; the run folder is no part of it."""

    def result(self) -> dict[str, Any] | None:
        """What the finished cell holds, or None where it is not finished."""
        try:
            found: Any = json.loads((self.folder / RESULT_FILE).read_bytes())
        except (OSError, ValueError):
            return None
        return cast(dict[str, Any], found) if isinstance(found, dict) else None

    def error(self) -> str | None:
        """Why the cell failed when it was last tried, or None where it did not."""
        try:
            return (self.folder / ERROR_FILE).read_text(encoding="utf-8")
        except OSError:
            return None

    def forget_error(self) -> None:
        """The cell is to be tried again."""
        remove(self.folder / ERROR_FILE)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result, which ends the cell."""
        named = {"strategy": self.strategy, "dataset": self.dataset, "seed": self.seed}
        write_json_atomic(self.folder / RESULT_FILE, {**named, **result})
        self.forget_error()

    def fail(self, message: str) -> None:
        """Write down why there is no result; the next run of the grid tries again."""
        text = message + "\n"
        write_bytes_atomic(self.folder / ERROR_FILE, text.encode("utf-8", "backslashreplace"))


def cell_of(run: Path, strategy: str, dataset: str, seed: int, key: Mapping[str, Any]) -> Cell:
    """The cell of a grid below ``run``; another ``key`` is another folder."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", strategy).strip("-.")[:60]
    own = digest({"strategy": strategy, "seed": seed, **key})
    folder = run / CELLS_FOLDER / dataset / f"seed-{seed}" / f"{name}-{own[:12]}"
    return Cell(strategy, dataset, seed, folder, own)
