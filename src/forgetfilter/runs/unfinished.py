"""What an unfinished stage has written down, from which the same command goes on.

Each entry is a folder that is written under another name and renamed once it is whole. Its list
names the stage that it belongs to, what it was made with, and the sha256 of every file that it
needs, its own and those that the stage had made by then. An entry for which any of that doesn't
hold is set aside, and said.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from forgetfilter.files import (
    PART_SUFFIX,
    fsync_folder,
    fsync_tree,
    list_files,
    remove,
    sha256_once,
    write_json_atomic,
)
from forgetfilter.text import printable

UNFINISHED = "unfinished"
"""The folder of the entries, in the folder of an unfinished stage; a finished stage has none."""

_LIST = "entry.json"
_SPENT = "spent.json"
_DAMAGED = ".damaged"


@dataclass(frozen=True)
class Entry:
    """A whole entry."""

    folder: Path
    number: int
    """How far the stage was, such as the number of its steps."""
    facts: Mapping[str, Any]
    """What its writer noted beside its files, as JSON."""


class UnfinishedWork:
    """The entries of one stage: written every few minutes, read by the next attempt.

    Args:
        stage: the folder in which the stage is made.
        unit: what the entries are counted in, such as ``step``; part of what is said.
        made_with: all on which it depends whether an entry can be used, beside the stage; JSON.
        minutes: between two entries; 0 writes none.
        say: is told which entries can't be used, or written.
    """

    def __init__(
        self,
        stage: Path,
        unit: str,
        made_with: Mapping[str, Any],
        minutes: float,
        say: Callable[[str], None],
    ) -> None:
        self._stage, self._unit, self._made_with = stage, unit, dict(made_with)
        self._minutes, self._say = minutes, say
        self._root = stage / UNFINISHED
        self._begun = self._last = time.monotonic()
        self._spent = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next entry."""
        return 0 < self._minutes * 60 <= time.monotonic() - self._last

    def entries(self) -> Iterator[Entry]:
        """The entries that can be used, the last one first; the others are set aside, and said.

        Each is checked when it is asked for.
        """
        for folder in sorted(self._root.glob("[0-9]*"), reverse=True):
            if folder.name.endswith(PART_SUFFIX):  # killed while it was written
                remove(folder)
            elif folder.name.isdigit():
                listed = _read_json(folder / _LIST)
                wrong = self._wrong_with(folder, listed)
                if wrong is None:
                    yield Entry(folder, int(listed["number"]), listed["facts"])
                    continue
                kept_at = f"{self._unit} {int(folder.name):,}"
                self._say(f"what was kept at {kept_at} isn't used: {wrong}")
                aside = folder.with_name(folder.name + _DAMAGED)
                remove(aside)
                os.replace(folder, aside)

    def resume(self, entry: Entry | None) -> None:
        """Go on from an entry, or from the start: files of the stage that are later are removed.

        What the stage has made since the entry is made again.
        """
        kept: set[str] = set()
        if entry is not None:
            listed = _read_json(entry.folder / _LIST)
            kept = set(listed["beside"])
            self._spent = float(listed["seconds"])
            write_json_atomic(self._root / _SPENT, {"seconds": self._spent})
        for name in files_of(self._stage):
            if name not in kept:
                remove(self._stage / name)

    def write(
        self, number: int, facts: Mapping[str, Any], fill: Callable[[Path], None], *, most: int
    ) -> bool:
        """Write an entry; whether that went well.

        A full disk is no reason to end what has run for hours, so that a failure is only said.

        Args:
            number: how far the stage is; later entries have larger numbers.
            facts: what the next attempt needs beside files, as JSON without NaN.
            fill: writes the entry's files into the empty folder that it is given.
            most: so many entries are there at a time, the new one among them; older ones are
                deleted before it is written. 0: none is deleted.
        """
        target = self._root / f"{number:012d}"
        part = target.with_name(target.name + PART_SUFFIX)
        try:
            if most:
                self._delete_all_but(most - 1)
            remove(part)
            part.mkdir(parents=True)
            fill(part)
            beside = files_of(self._stage)
            for name in beside:
                _fsync_file(self._stage / name)
            listed = {
                "stage": self._stage.name,
                "made_with": self._made_with,
                "number": number,
                "seconds": round(self._spent + time.monotonic() - self._begun, 3),
                "facts": facts,
                "files": {name: sha256_once(part / name) for name in list_files(part)},
                "beside": {name: sha256_once(self._stage / name) for name in beside},
            }
            write_json_atomic(part / _LIST, listed)
            fsync_tree(part)
            remove(target)
            os.replace(part, target)
            fsync_folder(self._root)
        except (OSError, RuntimeError) as error:  # torch has errors of its own for a full disk
            self._say(
                f"nothing could be kept at {self._unit} {number:,}, and a killed command would "
                f"begin earlier: {printable(str(error), 200)}"
            )
            remove(part)
            return False
        finally:
            self._last = time.monotonic()
        return True

    def _wrong_with(self, folder: Path, listed: Any) -> str | None:
        """Why an entry can't be used; None if it can."""
        try:
            if listed["stage"] != self._stage.name:
                return "it belongs to another stage"
            if listed["made_with"] != self._made_with:
                return f"it was made with {listed['made_with']}, and this is {self._made_with}"
            if f"{int(listed['number']):012d}" != folder.name:
                return "its number isn't that of its folder"
            own = cast(dict[str, str], listed["files"])
            if set(own) != {*list_files(folder)} - {_LIST}:
                return "its files are not those that were written"
            if not isinstance(listed["facts"], dict) or float(listed["seconds"]) < 0:
                return "its list is not one that was written"
            for root, digests in ((folder, own), (self._stage, listed["beside"])):
                for name, digest in cast(dict[str, str], digests).items():
                    if sha256_once(root / name) != digest:
                        return f"{name} is not as it was written"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return "it is incomplete"
        return None

    def _delete_all_but(self, most: int) -> None:
        """Delete all entries but the last ``most``, and those that were set aside."""
        whole = sorted(path for path in self._root.glob("[0-9]*") if path.name.isdigit())
        for folder in self._root.glob("[0-9]*"):
            if folder not in whole[len(whole) - most :]:
                remove(folder)


def empty_for_building(part: Path) -> None:
    """Make the folder in which a stage is made, empty but for what it can go on from."""
    if part.is_symlink() or (part / UNFINISHED).is_symlink() or not (part / UNFINISHED).is_dir():
        remove(part)
    part.mkdir(parents=True, exist_ok=True)
    (part / UNFINISHED / _SPENT).unlink(missing_ok=True)


def files_of(part: Path) -> list[str]:
    """The files that a stage has made so far, as paths relative to its folder."""
    return [name for name in list_files(part) if not name.startswith(f"{UNFINISHED}/")]


def seconds_before(part: Path) -> float:
    """Seconds that earlier attempts brought to what a stage has gone on from."""
    spent = _read_json(part / UNFINISHED / _SPENT)
    try:
        return float(spent["seconds"])
    except (KeyError, TypeError, ValueError):
        return 0.0


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _fsync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
