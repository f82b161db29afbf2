"""Free the stages of a run that its present decision does not use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetfilter.errors import DataError
from forgetfilter.files import PART_SUFFIX, list_files, remove
from forgetfilter.runs.file_names import LOCKS_FOLDER
from forgetfilter.runs.folder import RunFolder
from forgetfilter.screening.deciding.decide import finished_run, read_summary


@dataclass(frozen=True)
class Freed:
    """What was freed, or would be."""

    names: tuple[str, ...]
    """Folder names of stages, unfinished ones too."""
    size: int
    """Bytes that they take or took."""
    used: int
    """How many stages stay."""


def free_stages(path: str | Path, *, is_dry_run: bool = False) -> Freed:
    """Delete the stages that a finished run's decision, and what was trained on it, don't use.

    Every stage that is deleted can be computed again. Repeating it frees nothing more.

    Raises:
        DataError: the run is not finished, or does not say which stages it uses.
        RunExistsError: the run is in use.
    """
    with finished_run(path) as folder:
        used = _stages_in_use(folder)
        root = folder.stages
        found = sorted(root.iterdir()) if root.is_dir() else []
        stages = [entry for entry in found if entry.is_dir() and entry.name != LOCKS_FOLDER]
        free = [entry for entry in stages if entry.name not in used]
        size = sum((entry / name).stat().st_size for entry in free for name in list_files(entry))
        if not is_dry_run:
            for entry in free:
                _delete(entry)
                remove(root / LOCKS_FOLDER / entry.name)
    return Freed(tuple(entry.name for entry in free), size, len(stages) - len(free))


def _stages_in_use(folder: RunFolder) -> frozenset[str]:
    """Names of the stages behind the present decision, its fine-tune and its evaluation."""
    summary: Mapping[str, Any] = read_summary(folder.path)
    if "stages" not in summary:
        raise DataError(
            f"The run in {folder.path} does not say which stages it uses; another version made it. "
            f"Expected a list of them in its summary. Repeat the screen with --config "
            f"{folder.path}/config.yaml --overwrite, which trains nothing again."
        )
    trained: Mapping[str, Any] = folder.provenance().get("trained", {})
    is_current = trained.get("decision") == summary.get("decision")
    return frozenset([*summary["stages"], *(trained["stages"] if is_current else [])])


def _delete(stage: Path) -> None:
    """Delete a stage's folder; killed half way, what is left is recognised as unfinished."""
    if not stage.name.endswith(PART_SUFFIX):
        part = stage.with_name(stage.name + PART_SUFFIX)
        remove(part)
        os.replace(stage, part)
        stage = part
    remove(stage)
