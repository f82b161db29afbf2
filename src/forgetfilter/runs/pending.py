"""Several files that are replaced together: prepared aside, then moved into place.

No rename can replace several files at once. So the new files and a record of what is to be done
are prepared in a folder aside, and one rename commits it. Whoever finds a committed folder moves
its files into place, which can be repeated, and does what the record says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetfilter.files import PART_SUFFIX, fsync_folder, fsync_tree, remove, write_json_atomic

_FOLDER = ".deciding"
_RECORD = "decision.json"


def prepare(run: Path) -> Path:
    """A new empty folder for the files that will replace those of the run."""
    part = run / f"{_FOLDER}{PART_SUFFIX}"
    remove(part)
    part.mkdir()
    return part


def commit(run: Path, record: Mapping[str, Any]) -> None:
    """Decide that the prepared files and ``record`` hold; from here on there is no way back."""
    part = run / f"{_FOLDER}{PART_SUFFIX}"
    write_json_atomic(part / _RECORD, dict(record))
    fsync_tree(part)
    remove(run / _FOLDER)  # left by one that was closed half way
    os.replace(part, run / _FOLDER)
    fsync_folder(run)


def committed(run: Path) -> dict[str, Any] | None:
    """The record of what is committed and not closed yet; None where there is nothing to do."""
    try:
        return json.loads((run / _FOLDER / _RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def move_into_place(run: Path) -> None:
    """Let the committed files replace those of the run; repeating it does no harm."""
    for path in sorted((run / _FOLDER).iterdir()):
        if path.name != _RECORD:
            os.replace(path, run / path.name)
    fsync_folder(run)


def close(run: Path) -> None:
    """Forget the record, once all that it says is done, and whatever was only prepared."""
    remove(run / _FOLDER / _RECORD)
    remove(run / _FOLDER)
    remove(run / f"{_FOLDER}{PART_SUFFIX}")
    fsync_folder(run)
