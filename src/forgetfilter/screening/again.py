"""A screen of a folder that has been screened before: what the command changes, and what it may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from forgetfilter.config import ScreenConfig
from forgetfilter.errors import DataError, RunExistsError
from forgetfilter.progress import Progress
from forgetfilter.runs.changes import Changes, changes_of_screen
from forgetfilter.runs.folder import CONFIG_FILE, RunFolder, as_recorded
from forgetfilter.runs.intact import changed_outputs, refuse_damage
from forgetfilter.screening.deciding.decide import (
    decide_as_before,
    finish_decision,
    read_summary,
)
from forgetfilter.screening.deciding.edits import edited_files, refuse_edits
from forgetfilter.text import printable

_SHOWN_DIFFERENCES = 8


def changes_of(run: RunFolder, config: ScreenConfig, inputs: dict[str, str]) -> Changes:
    """What the command changes of a run that has been decided."""
    try:
        recorded = run.config()
    except DataError:
        return Changes(learning=(f"{CONFIG_FILE} can't be read",))
    known = run.provenance().get("inputs", {})
    return changes_of_screen(recorded, as_recorded(config.model_dump()), known, inputs)


def with_formulas(changes: Changes, lines: Mapping[str, str]) -> Changes:
    """The same with what `changed_formulas` says of a finished run."""
    signal = (lines["signal"],) if "signal" in lines else ()
    rule = (lines["rule"],) if "rule" in lines else ()
    return replace(
        changes, scoring=(*changes.scoring, *signal), threshold=(*changes.threshold, *rule)
    )


def differs(run: RunFolder, changes: Changes) -> RunExistsError:
    """The refusal of a command that would replace a decision made from something else."""
    listed = "".join(f"\n  {line}" for line in changes.learning[:_SHOWN_DIFFERENCES])
    more = len(changes.learning) - _SHOWN_DIFFERENCES
    return RunExistsError(
        f"{printable(str(run.path), 300)!r} holds a decision that was made differently:{listed}"
        + (f"\n  and {more} more" if more > 0 else "")
        + "\nExpected the same rows, model, seed and settings of the learn phase; signal and "
        "threshold may differ. Use --overwrite to replace its outputs (finished stages stay), or "
        "another --output-dir."
    )


def refuse_other_kind(run: RunFolder) -> None:
    """Raise if the folder is that of a study, which has another kind of settings."""
    try:
        recorded = run.config()
    except DataError:
        return
    if "noisy_data" not in recorded:
        raise RunExistsError(
            f"{printable(str(run.path), 300)!r} holds a run of another command: its {CONFIG_FILE} "
            "has no noisy_data. Expected a new or empty folder, or that of an earlier screen. "
            "Choose another --output-dir."
        )


def is_outdated(run: Path, config: ScreenConfig) -> bool:
    """Whether the present decision, or what goes with it, is not what the screen would write."""
    summary = read_summary(run)
    return (
        summary["decided_by"] != "screen"
        or "stages" not in summary
        or any(made != summary["decision"] for made in summary["made_from"].values())
        or summary["generation"] != config.generation.model_dump()  # by which evidence is made
    )


def finished_or_told(run: Path, progress: Progress) -> None:
    """Complete a decision that was cut short; where it can't be, say why and let it be replaced."""
    try:
        finish_decision(run)
    except DataError as error:
        progress.say(f"{error} This command does so now.")


def is_intact(run: Path, progress: Progress) -> bool:
    """Whether a finished run can be decided again; says what has changed where it can't.

    Raises:
        DataError: it can't, and a file of kept or removed rows was edited by hand, which making
            them anew would undo.
    """
    summary = read_summary(run)
    try:
        refuse_damage(run, summary)
    except DataError as error:
        if names := edited_files(run, summary):
            raise DataError(
                f"{error} {' and '.join(names)} there changed too. Expected no edits that would be "
                "lost. Move what you want to keep of it out of the run folder, then repeat."
            ) from None
        progress.say(f"{error} This command does so now.")
        return False
    refuse_edits(run, summary)
    return True


def restore_outputs(run: Path, progress: Progress) -> bool:
    """Write again what a decision wrote and has changed since; its lock must be held.

    Returns:
        Whether anything had.
    """
    summary = read_summary(run)
    changed = changed_outputs(run, summary)
    if changed:
        shown = ", ".join(printable(name, 60) for name in changed[:_SHOWN_DIFFERENCES])
        progress.say(f"Changed since they were written, and written again as decided: {shown}.")
        decide_as_before(run, summary)
    return bool(changed)
