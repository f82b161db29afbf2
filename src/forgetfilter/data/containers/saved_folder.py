"""The files of a folder that `Dataset.save_to_disk` has written, before they are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forgetfilter.data.containers.table_bounds import check_table, most_of, too_large
from forgetfilter.errors import DataError
from forgetfilter.text import printable


def check_saved(path: Path, shown: str) -> None:
    """See that the tables of a saved data set lie in its folder and expand within bounds.

    Raises:
        DataError: one doesn't, is damaged, or is named so often that all together do not.
    """
    try:
        state: Any = json.loads((path / "state.json").read_bytes())
        names = [str(one["filename"]) for one in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(shown, error) from None
    if outside := next((name for name in names if Path(name).name != name), None):
        raise DataError(
            f"{shown} names a table outside of it ({printable(outside, 150)!r}). Expected what "
            "Dataset.save_to_disk writes. Save it again."
        )
    try:
        tables = {name: _contents(path / name) for name in dict.fromkeys(names)}
    except (OSError, ValueError) as error:
        raise _unreadable(shown, error) from None
    weights = {name: check_table(data, _kind(data)) for name, data in tables.items()}
    size = sum(map(len, tables.values()))
    if sum(weights[name] for name in names) > most_of(size):
        raise too_large(f"The saved data set {shown}", size, most_of(size))


def _contents(path: Path) -> bytes:
    """A file that has an end: one of a device, which a link may lead to, has none."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path.name} is no plain file")
    return path.read_bytes()


def _unreadable(shown: str, error: Exception) -> DataError:
    said = printable(f"{type(error).__name__}: {error}", 150)
    return DataError(
        f"{shown} can't be read as a saved data set ({said}). Expected what "
        "Dataset.save_to_disk writes. Save it again."
    )


def _kind(data: bytes) -> str:
    return "file" if data.startswith(b"ARROW1") else "stream"
