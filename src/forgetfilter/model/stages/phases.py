"""The phases that change a model: how the stage of each is made, and what it holds.

The stage of a training phase, or of a restoration, holds the last adapter, the adapters on the way
there that were asked for, and a report. What needs torch or pandas is imported when a stage is
made, so that a command's help loads neither.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.config import LearnSettings, PhaseSettings, RestoreSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import ModelError
from forgetfilter.model.stages.keys import CODE_VERSION, RESTORE_VERSION, rows_digest
from forgetfilter.model.state import ModelState, phase_seed
from forgetfilter.model.training.plan import TrainPlan, early_step, total_steps
from forgetfilter.runs.recording import Recording
from forgetfilter.scoring.records import HALVES, StateName

if TYPE_CHECKING:
    from forgetfilter.model.training.checkpoints import PhaseCheckpoints
    from forgetfilter.model.training.step_method import StepMethod
    from forgetfilter.model.workbench import Workbench
    from forgetfilter.runs.parquet_parts import Column

TRAINING_FILE = "training.json"
RESTORING_FILE = "restoring.json"
SEEN_FILE = "seen.parquet"
"""In the stage of the learn phase: the losses of its rows that it has kept."""
CHECKPOINTS = "checkpoints"
LEARN_PHASES = ("learn", "learn_half_a", "learn_half_b")
"""Phases that keep an early adapter too."""
EARLY = "early"


def train_stage(
    bench: Workbench,
    name: StateName,
    rows: Sequence[EncodedRow],
    settings: PhaseSettings,
    start: ModelState,
    phase: str,
    level_epochs: int | None = None,
    method: StepMethod | None = None,
) -> ModelState:
    """Fine-tune ``start`` on ``rows``; see `Workbench.train`."""
    if phase == "learn" and bench.recording is not None:
        return _recorded_stage(bench, bench.recording, name, rows, start)
    settings = bench.completed(settings)
    key: dict[str, Any] = {
        "code": CODE_VERSION,
        "start": start.fingerprint,
        "lora": bench.lora.model_dump(),
        # Which rows are drawn stands in their digest, where the phase is given a sample.
        "settings": settings.model_dump(exclude={"max_rows", "keep_losses"}),
        "seed": bench.seed,
        "rows": rows_digest(rows),
        "level_epochs": level_epochs,
        "dtype": str(bench.placement.dtype),
    }
    if bench.settings.bits is not None:
        key["bits"] = bench.settings.bits
    kept = bench.kept_steps.get(phase)
    if kept is not None:
        key["kept_steps"] = list(kept)
    if keeps := _keeps_losses(bench, phase, settings, method):
        key["losses"] = "kept"
    is_paired = phase == "retrain"  # fine-tunes that are held against each other
    if is_paired:
        key["order"] = "paired"
    if method is not None:
        key["method"] = method.key
    limits = (bench.max_batch_tokens, level_epochs, is_paired, method)
    checkpointed = bench.settings.gradient_checkpointing
    plan = TrainPlan(phase, rows, settings, bench.seed, *limits, checkpointed)
    early_at = None
    if phase in LEARN_PHASES and isinstance(settings, LearnSettings):
        early_at = early_step(plan, settings.early_epochs)

    def build(folder: Path) -> None:
        import pandas as pd

        from forgetfilter.model.loading import adapters
        from forgetfilter.model.team.leading import all_doing
        from forgetfilter.model.team.serving import train_too
        from forgetfilter.model.training.fine_tuning import train
        from forgetfilter.model.training.seen_losses import SeenLosses
        from forgetfilter.runs.parquet_parts import write_parquet

        checkpoints = _checkpoints(bench, folder, phase, total_steps(plan))

        def keep(model: Any, step: int, is_epoch_end: bool) -> None:
            names: list[str] = []
            if step == early_at and not is_epoch_end:
                names.append(EARLY)
            if kept is not None and (step in kept if kept else is_epoch_end):
                names.append(f"{CHECKPOINTS}/{step:08d}")
            for name in names:
                adapters.save_adapter(model, folder / name)

        model = bench.model.trainable(start, phase)
        before = adapters.trainable_checksum(model)
        seen = SeenLosses(rows) if keeps else None
        with all_doing(bench, train_too, start, plan, is_of_all=method is None):
            more = (keep, checkpoints, seen)
            outcome = train(model, bench.tokenizer, plan, bench.progress, *more)
        after = adapters.trainable_checksum(model)
        if before == after:
            raise ModelError(
                f"The {phase} phase changed no weight in {outcome.steps} steps. A trainable "
                "adapter is expected; check lora.targets and the learning rate."
            )
        adapters.save_adapter(model, folder / "adapter")
        report = {"phase": phase, **vars(outcome), "adapter_sha256": after}
        report["learning_rate"] = settings.learning_rate
        (folder / TRAINING_FILE).write_text(json.dumps(report, indent=2, allow_nan=False))
        if seen is not None and seen.is_whole:
            write_parquet(folder / SEEN_FILE, pd.DataFrame(seen.columns(phase), copy=False))
        elif seen is not None:
            why = "not every row's loss was seen twice"
            bench.progress.say(f"learn: keeps no losses, because {why}; all rows are read after it")
        bench.model.release()

    folder = bench.store.stage(phase, key, build)
    return ModelState(name, fingerprint=folder.name, adapter=str(folder / "adapter"))


def _keeps_losses(
    bench: Workbench, phase: str, settings: PhaseSettings, method: StepMethod | None
) -> bool:
    """Whether a phase takes note of the losses of its rows; where it can't, that is said.

    Several processes see parts of the rows each, and a loss on all tokens is not that of answers.
    """
    from forgetfilter.model.processes.joining import joined

    if not (isinstance(settings, LearnSettings) and settings.keeps_losses and phase == "learn"):
        return False
    why = ""
    if joined() is not None:
        why = "several processes train"
    elif settings.loss_on == "all":
        why = "learn.loss_on is all, and scores are about answers alone"
    if why:
        bench.progress.say(f"learn: keeps no losses, because {why}; all rows are read after it")
    return not why and method is None


def kept_losses(learned: ModelState) -> Mapping[str, Column]:
    """Columns of the readings ``loss`` in ``base`` and in ``learned`` that the learn phase kept.

    Those of its own rows, in their order; none where it was not asked to (``learn.keep_losses``),
    or was too short to train on each row twice.
    """
    from forgetfilter.runs.parquet_parts import columns_of

    path = Path(learned.adapter or "").parent / SEEN_FILE
    return columns_of(path) if learned.adapter is not None and path.is_file() else {}


def _recorded_stage(
    bench: Workbench,
    recording: Recording,
    name: StateName,
    rows: Sequence[EncodedRow],
    start: ModelState,
) -> ModelState:
    """The learn phase as it was recorded in somebody's own training run."""
    key = {
        "code": CODE_VERSION,
        "start": start.fingerprint,
        "recording": recording.fingerprint,
        "rows": rows_digest(rows),
    }

    def build(folder: Path) -> None:
        from forgetfilter.model.recorded.taking_over import take_over

        report = take_over(bench, recording, rows, folder)
        (folder / TRAINING_FILE).write_text(json.dumps(report, indent=2, allow_nan=False))

    folder = bench.store.stage("learn", key, build)
    return ModelState(name, fingerprint=folder.name, adapter=str(folder / "adapter"))


def restore_stage(
    bench: Workbench,
    name: StateName,
    safe: Sequence[EncodedRow],
    settings: RestoreSettings,
    start: ModelState,
) -> ModelState:
    """Bring ``start`` back to base on the safe rows; see `Workbench.restore`."""
    key = {
        "code": CODE_VERSION,
        "draw": RESTORE_VERSION,
        "start": start.fingerprint,
        "settings": settings.model_dump(exclude={"set_aside"}),
        "seed": bench.seed,
        "safe": rows_digest(safe),
        "categories": [row.category for row in safe],
        **bench.numerics(),
    }
    if not bench.placement.is_exact:
        key["rounding"] = "taken off"

    def build(folder: Path) -> None:
        from forgetfilter.model.loading.adapters import save_adapter
        from forgetfilter.model.team.leading import all_doing
        from forgetfilter.model.team.serving import restore_too
        from forgetfilter.model.training.restoring import RestorePlan, restore

        seed = phase_seed(bench.seed, "restore")
        plan = RestorePlan(safe, settings, seed, bench.max_batch_tokens)
        model = bench.model.trainable(start, "restore").eval()
        checkpoints = _checkpoints(bench, folder, "restore", settings.steps)
        with all_doing(bench, restore_too, start, plan):
            outcome = restore(model, plan, bench.progress, checkpoints)
        save_adapter(model, folder / "adapter")
        course = json.dumps(vars(outcome), indent=2, allow_nan=False)
        (folder / RESTORING_FILE).write_text(course)

    folder = bench.store.stage("restore", key, build)
    return ModelState(name, fingerprint=folder.name, adapter=str(folder / "adapter"))


def _checkpoints(bench: Workbench, folder: Path, phase: str, steps: int) -> PhaseCheckpoints | None:
    """The checkpoints of a phase whose stage is made in ``folder``.

    None where several processes train together: they would all have to go on from the same step.
    """
    from forgetfilter.model.processes.joining import joined
    from forgetfilter.model.training.checkpoints import PhaseCheckpoints

    if joined() is not None:
        return None
    how = (bench.checkpoint_minutes, bench.placement.device, bench.progress)
    return PhaseCheckpoints(folder, phase, steps, *how)


def level_epochs(state: ModelState) -> int | None:
    """After how many epochs of the phase that made ``state`` its learning rate began to fall.

    None where the phase did not measure it.
    """
    if state.adapter is None:
        return None
    report = json.loads((Path(state.adapter).parent / TRAINING_FILE).read_text())
    return report["level_epochs"]


def row_passes(stages: Iterable[Path]) -> float:
    """Forward and backward passes, each over one row, of the training phases among ``stages``.

    NaN where one was made by a version that did not count them.
    """
    reports = [folder / TRAINING_FILE for folder in stages]
    found = [json.loads(path.read_text()) for path in reports if path.is_file()]
    return float(sum(report.get("row_passes", math.nan) for report in found))


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
    names: dict[StateName, StateName] = {own[0]: own[1] for own in HALVES}
    name = names.get(learned.name, "early")
    return ModelState(name, fingerprint=f"{learned.fingerprint}:early", adapter=str(folder))


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
