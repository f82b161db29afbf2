"""A training run that was recorded elsewhere, so that a screen need not learn the rows again.

`model.recorded.recorder` writes the folder while somebody's own trainer runs; a screen reads it.
The file `RECORD_FILE` is written last: a folder that has it is whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from forgetfilter.config import LearnSettings, LoraSettings
from forgetfilter.errors import DataError
from forgetfilter.files import sha256_file
from forgetfilter.settings import Settings
from forgetfilter.text import printable

if TYPE_CHECKING:
    import pandas as pd

RECORD_FILE = "recorded.json"
ROWS_FILE = "rows.parquet"
"""One line for each different row, as tokens: ``tokens`` (their sha256), ``length``,
``carries_loss`` (a bit for each token, packed), ``passes`` (how often it was trained on)."""
LOSSES_FILE = "row_losses.parquet"
"""One line for each time that a row was trained on: ``at`` (its line in `ROWS_FILE`), ``step`` (the
optimizer steps taken before), ``loss_sum`` (nats) over ``loss_tokens`` tokens."""
UNFINISHED_FILE = "unfinished.json"
"""Marks the folder of a training that has not come to its end; what is in it may be replaced."""
ADAPTER_FOLDER = "adapter"
EARLY_FOLDER = "early"
"""The adapter after the first passes; absent where training ended before."""


class Record(Settings):
    """What was trained, on what, and how."""

    version: Literal[1] = 1
    model: str
    """As the training named it."""
    model_fingerprint: str
    vocabulary: str
    """sha256 of the tokenizer's tokens and their ids."""
    weights: dict[str, list[float]]
    """A few numbers of some weights of the base model as it was in memory, by name."""
    date: str
    """When training was set up, which a chat template may have been told."""
    rows: int
    """How many different rows, as tokens."""
    steps: int
    final_loss: float
    """Mean training loss over the last tenth of the passes, nats per token."""
    adapter_sha256: str
    """Over the trained parameters."""
    seed: int
    learn: LearnSettings
    """The training's settings, as near as a learn phase has them."""
    lora: LoraSettings
    not_repeated: list[str]
    """What of the training ``learn`` and ``lora`` can't say."""
    files: dict[str, str]
    """The sha256 of every other file of the recording, by path."""
    environment: dict[str, object]


@dataclass(frozen=True)
class Recording:
    """The folder of a recorded training run.

    Args:
        folder: where it is.
        known: its fingerprint, where that was recorded before; the folder may be gone since.
    """

    folder: Path
    known: str | None = None

    @property
    def is_there(self) -> bool:
        """Whether there is such a folder, and it is whole."""
        return (self.folder / RECORD_FILE).is_file()

    @cached_property
    def fingerprint(self) -> str:
        """What identifies all that was recorded.

        Raises:
            DataError: there is no such recording, and its fingerprint isn't known.
        """
        if not self.is_there and self.known is not None:
            return self.known
        _ = self.record
        return sha256_file(self.folder / RECORD_FILE)

    @cached_property
    def record(self) -> Record:
        """What was recorded.

        Raises:
            DataError: there is no such recording, or it isn't whole.
        """
        path = self.folder / RECORD_FILE
        shown = printable(str(self.folder), 300)
        try:
            return Record.model_validate(json.loads(path.read_bytes()))
        except OSError:
            raise DataError(
                f"There is no recorded training in {shown!r}: it has no {RECORD_FILE}. Expected "
                "the folder that the callback record_training wrote, whose training came to its "
                "end. Check learned_from, or train again with the callback."
            ) from None
        except (ValueError, RecursionError, ValidationError) as error:
            first = printable(str(error).splitlines()[0], 200)
            raise DataError(
                f"{RECORD_FILE} in {shown!r} can't be read: {first}. Expected what the callback "
                "record_training of this version writes. Train again with the callback."
            ) from None

    def check_files(self) -> None:
        """See that adapters, rows and losses are those that were recorded.

        Raises:
            DataError: a file is not.
        """
        for name, digest in self.record.files.items():
            path = self.folder / name
            found = sha256_file(path) if path.is_file() else None
            if found != digest:
                is_what = "is missing" if found is None else "is not the file that was recorded"
                raise DataError(
                    f"{printable(name, 80)} in {printable(str(self.folder), 300)!r} {is_what}. "
                    "Expected the recording as the training left it. Copy the whole folder again, "
                    "or train again with the callback."
                )

    def rows(self) -> pd.DataFrame:
        """The rows that were trained on; see `ROWS_FILE` for the columns."""
        import pandas as pd

        return pd.read_parquet(self.folder / ROWS_FILE)

    def row_losses(self) -> pd.DataFrame:
        """The loss of every row in every pass over it; see `LOSSES_FILE` for the columns."""
        import pandas as pd

        return pd.read_parquet(self.folder / LOSSES_FILE)
