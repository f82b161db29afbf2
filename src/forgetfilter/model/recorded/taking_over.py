"""The learn phase as somebody's own trainer has done it: checked, and taken over as a stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import DataError, ModelError
from forgetfilter.runs.recording import ADAPTER_FOLDER, EARLY_FOLDER, LOSSES_FILE, Recording
from forgetfilter.text import printable

if TYPE_CHECKING:
    import pandas as pd

    from forgetfilter.model.workbench import Workbench

_WAY_OUT = (
    "Screen the files that were trained on, or train on training_dataset(FILE, MODEL) of "
    "forgetfilter.integrations.trl_callback, which gives the trainer the tokens that a screen "
    "reads, with max_length=None."
)


def check_recording(
    bench: Workbench,
    recording: Recording,
    rows: Sequence[EncodedRow],
    rejected: int | None = None,
    name_of: Callable[[int], str] = "row {}".format,
) -> None:
    """See that a recording is of these rows, this model and this tokenizer; loads no weights.

    Args:
        bench: has the model of the screen.
        recording: of the training.
        rows: all that are to be scored.
        rejected: how many others the file has, which can't be scored but may have been trained on;
            None: rows that were trained on need not be among these.
        name_of: what messages call a row, by its number.

    Raises:
        DataError: the rows differ, or a file of the recording is not what was recorded.
        ModelError: model or tokenizer differ.
    """
    from forgetfilter.model.recorded.identity import tokens_digest, vocabulary_digest

    recording.check_files()
    record = recording.record
    if record.vocabulary != vocabulary_digest(bench.tokenizer):
        raise ModelError(
            f"The tokenizer of {printable(bench.source, 200)!r} has other tokens than that of the "
            f"recorded training ({printable(record.model, 200)!r}). Expected the same. Name the "
            "model that was trained, or train again with this one."
        )
    if record.model_fingerprint != bench.base.fingerprint:
        raise ModelError(
            f"The model {printable(bench.source, 200)!r} is not the one of the recorded training: "
            f"its files differ from those of {printable(record.model, 200)!r} then. Expected the "
            "base model that was trained, under the name that the training had for it. Name that, "
            "or train again with this one."
        )
    trained = recording.rows()
    masks = dict(zip(trained["tokens"], trained["carries_loss"], strict=True))
    own: set[str] = set()
    missing: list[EncodedRow] = []
    unlearned: list[EncodedRow] = []
    for row in rows:
        digest = tokens_digest(row.input_ids)
        own.add(digest)
        if digest not in masks:
            missing.append(row)
            continue
        packed = np.frombuffer(masks[digest], dtype=np.uint8)
        carried = np.unpackbits(packed, count=len(row.input_ids)).astype(bool)
        if (row.is_target & ~carried)[1:].any():
            unlearned.append(row)
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(rows):,} rows were not trained on as a screen reads them; "
            f"the first is {name_of(missing[0].row)}, of {len(missing[0].input_ids)} tokens. "
            f"Expected every row among the {record.rows:,} of the recorded training, token by "
            f"token. {_WAY_OUT}"
        )
    if unlearned:
        raise DataError(
            f"The recorded training learned only parts of the answers of {len(unlearned):,} rows; "
            f"the first is {name_of(unlearned[0].row)}. Expected all tokens of the answers that "
            "are scored to carry loss. Train with completion_only_loss=False, with "
            "assistant_only_loss=True, or on training_dataset(FILE, MODEL)."
        )
    others = sum(digest not in own for digest in masks)
    if rejected is not None and others > rejected:
        raise DataError(
            f"The recorded training had {others:,} rows that are not in noisy_data, which has "
            f"{len(rows):,} that can be scored. Expected the rows of the training, all of them. "
            f"{_WAY_OUT}"
        )


def take_over(
    bench: Workbench, recording: Recording, rows: Sequence[EncodedRow], folder: Path
) -> dict[str, object]:
    """Fill the stage of the learn phase from a recording; what its report says.

    Raises:
        DataError: the recording is not there, or of other rows.
        ModelError: it is of another model.
    """
    from forgetfilter.model.processes.joining import refuse_parts
    from forgetfilter.model.recorded.identity import is_same_sample, weights_sample

    check_recording(bench, recording, rows)
    record = recording.record
    refuse_parts()
    if not is_same_sample(record.weights, weights_sample(bench.model.in_state(bench.base))):
        raise ModelError(
            f"The weights of {printable(bench.source, 200)!r} are not those that the recorded "
            "training had in memory: they were changed after they were loaded. Expected the base "
            "model as its files have it. Save the changed model to a folder of its own, and train "
            "and screen with that."
        )
    for name in (ADAPTER_FOLDER, EARLY_FOLDER):
        if (recording.folder / name).is_dir():
            shutil.copytree(recording.folder / name, folder / name)
    _row_losses(recording, rows).to_parquet(folder / LOSSES_FILE)
    return {
        "phase": "learn",
        "steps": record.steps,
        "rows": len(rows),
        "target_tokens": sum(row.target_tokens for row in rows),
        "final_loss": record.final_loss,
        "level_epochs": None,
        "learned_shares": [],
        "exact_shares": [],
        "adapter_sha256": record.adapter_sha256,
        "learning_rate": record.learn.learning_rate,
        "recorded": json.loads(record.model_dump_json(include={"model", "date", "not_repeated"})),
    }


def _row_losses(recording: Recording, rows: Sequence[EncodedRow]) -> pd.DataFrame:
    """Losses of the training's passes with the numbers of the rows, of equal rows all."""
    import pandas as pd

    from forgetfilter.model.recorded.identity import tokens_digest

    known = recording.rows()
    at = dict(zip(known["tokens"], range(len(known)), strict=True))
    numbers = pd.DataFrame(
        {
            "row": [row.row for row in rows],
            "at": [at[tokens_digest(row.input_ids)] for row in rows],
        }
    )
    joined = numbers.merge(recording.row_losses(), on="at").drop(columns="at")
    return joined.sort_values(["step", "row"], ignore_index=True)
