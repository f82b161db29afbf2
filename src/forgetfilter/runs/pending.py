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
from typing import Any, cast

from forgetfilter.errors import DataError
from forgetfilter.files import PART_SUFFIX, fsync_folder, fsync_tree, remove, write_json_atomic
from forgetfilter.runs.file_names import PENDING_FOLDER
from forgetfilter.text import printable

_RECORD = "decision.json"


def prepare(run: Path) -> Path:
    """A new empty folder for the files that will replace those of the run."""
    part = prepared(run)
    remove(part)
    part.mkdir()
    return part


def prepared(run: Path) -> Path:
    """The folder that `prepare` has made."""
    return run / f"{PENDING_FOLDER}{PART_SUFFIX}"


def commit(run: Path, record: Mapping[str, Any]) -> None:
    """Decide that the prepared files and ``record`` hold; from here on there is no way back."""
    part = prepared(run)
    write_json_atomic(part / _RECORD, dict(record))
    fsync_tree(part)
    remove(run / PENDING_FOLDER)  # left by one that was closed half way
    os.replace(part, run / PENDING_FOLDER)
    fsync_folder(run)


def committed(run: Path) -> dict[str, Any] | None:
    """The record of what is committed and not closed yet; None where there is nothing to do.

    Raises:
        DataError: it can't be read.
    """
    path = run / PENDING_FOLDER / _RECORD
    try:
        found: Any = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return cast(dict[str, Any], found)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        pass
    raise DataError(
        f"{printable(str(path), 300)!r}, the record of a decision that is not finished, can't be "
        "read. Expected what was written there. Repeat the `forgetfilter screen` command that made "
        "the run: it decides anew from the finished stages."
    )


def move_into_place(run: Path) -> None:
    """Let the committed files replace those of the run; repeating it does no harm."""
    for path in sorted((run / PENDING_FOLDER).iterdir()):
        if path.name != _RECORD:
            os.replace(path, run / path.name)
    fsync_folder(run)


def close(run: Path) -> None:
    """Forget the record, once all that it says is done, and whatever was only prepared."""
    remove(run / PENDING_FOLDER / _RECORD)
    remove(run / PENDING_FOLDER)
    remove(prepared(run))
    fsync_folder(run)
