"""Models of drawn worlds, each built once for a user and then found again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from forgetfilter.places import require_writable_folder
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore

from .building import Effort, build_world
from .drawing import GENERATOR_VERSION, draw_world

CACHE_VARIABLE = "FORGETFILTER_CACHE"
"""The environment variable that names the cache folder."""


def cache_folder() -> Path:
    """`$FORGETFILTER_CACHE`, or else ``forgetfilter`` in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "forgetfilter"


def world_path(seed: int, effort: Effort | None = None) -> Path:
    """Where the model of one world lies, or will once `world_folder` has built it."""
    return _store().folder_of(*_name_and_key(seed, effort))


def world_folder(seed: int, progress: Progress | None = None, effort: Effort | None = None) -> Path:
    """The model of one world, built now if the cache doesn't have it.

    A folder is whole or absent, and two processes that ask for the same world build it once. It is
    named by the number and by a hash of the generator's version.

    Raises:
        RunExistsError: the cache folder can't be written to.
        ModelError: training diverged.
    """
    store = _store()
    name, key = _name_and_key(seed, effort)
    if not store.folder_of(name, key).is_dir():
        require_writable_folder(store.root, f"folder with ${CACHE_VARIABLE}")
        (progress or Progress()).say(f"{draw_world(seed).name}: building its model, once")

    def build(folder: Path) -> None:
        build_world(seed, folder, progress, effort)

    return store.stage(name, key, build)


def _store() -> StageStore:
    return StageStore(cache_folder() / "worlds")


def _name_and_key(seed: int, effort: Effort | None) -> tuple[str, dict[str, Any]]:
    key: dict[str, Any] = {"generator": GENERATOR_VERSION, "world": seed}
    if effort is not None and effort != Effort():
        key["effort"] = vars(effort)
    return f"world-{seed}", key
