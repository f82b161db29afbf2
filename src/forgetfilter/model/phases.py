"""What the stage of a training phase, or of a restoration, holds beside the last adapter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from forgetfilter.model.state import ModelState

TRAINING_FILE = "training.json"
RESTORING_FILE = "restoring.json"
CHECKPOINTS = "checkpoints"
EARLY = "early"


def level_epochs(state: ModelState) -> int | None:
    """After how many epochs the training that made ``state`` wound up, if it found out."""
    if state.adapter is None:
        return None
    report = json.loads((Path(state.adapter).parent / TRAINING_FILE).read_text())
    return report["level_epochs"]


def restored_on(restored: ModelState) -> list[int]:
    """Which safe rows (`EncodedRow.row`) a restoration was computed on, ascending."""
    if restored.adapter is None:
        raise ValueError(f"{restored} was not restored")
    course = json.loads((Path(restored.adapter).parent / RESTORING_FILE).read_text())
    return [int(row) for row in course["rows_used"]]


def forgotten_on(forgotten: ModelState, batch_size: int, available: int) -> int:
    """How many safe rows a forgetting run has met; it meets all before any a second time."""
    if forgotten.adapter is None:
        raise ValueError(f"{forgotten} was not trained")
    report = json.loads((Path(forgotten.adapter).parent / TRAINING_FILE).read_text())
    return min(available, batch_size * int(report["steps"]))


def early(learned: ModelState) -> ModelState:
    """The learn phase after its first passes: what it generalises, before it learns by heart.

    ``learned`` itself, where that phase ended before.
    """
    folder = Path(learned.adapter or "").parent / EARLY
    if learned.adapter is None or not folder.is_dir():
        return learned
    return ModelState("early", fingerprint=f"{learned.fingerprint}:early", adapter=str(folder))


def checkpoints(state: ModelState) -> dict[int, ModelState]:
    """The states on the way to ``state`` that `Workbench.kept_steps` asked for; it comes last.

    By optimizer step. They are states of that one run: its learning rate is what it was there.
    """
    if state.adapter is None:
        return {0: state}
    folder = Path(state.adapter).parent
    last = int(json.loads((folder / TRAINING_FILE).read_text())["steps"])
    names = sorted(path.name for path in (folder / CHECKPOINTS).glob("*"))
    found = {
        int(name): replace(
            state,
            fingerprint=f"{state.fingerprint}:{name}",
            adapter=str(folder / CHECKPOINTS / name),
        )
        for name in names
    }
    return {**found, last: state}
