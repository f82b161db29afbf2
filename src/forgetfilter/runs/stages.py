"""Stages on disk: folders named by what they are made from, whole or absent.

Nothing here cleans up when a process dies, because nothing has to: a folder gets its name by a
rename once it is whole, or is recognised as unfinished.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from forgetfilter.errors import ModelError
from forgetfilter.files import (
    PART_SUFFIX,
    fsync_folder,
    fsync_tree,
    remove,
    sha256_once,
    write_json_atomic,
)
from forgetfilter.runs.file_names import LOCKS_FOLDER
from forgetfilter.runs.locking import locked
from forgetfilter.runs.unfinished import UNFINISHED, empty_for_building, files_of, seconds_before

STAGE_FILE = "stage.json"
"""In every stage's folder: what the stage was made from, and in how many seconds."""

_log = logging.getLogger(__name__)


class StageStore:
    """Stage folders below ``root``, each named by what it is made from.

    Whoever writes holds the lock of the run folder around it. A stage is also made under a lock of
    its own, so that several processes of one run never make the same.
    """

    def __init__(self, root: Path, on_reuse: Callable[[str], None] | None = None) -> None:
        """``on_reuse`` is called with a stage's name when it is there already."""
        self.root = root
        self._on_reuse = on_reuse
        self._touched: dict[Path, tuple[str, float]] = {}
        self._handed_out: set[str] = set()
        self._known_whole: set[Path] = set()
        self._builds_under_way = 0
        self._is_counting = True
        self._elsewhere = 0.0
        """Seconds that counted stages took so far, for one that asks for them while it is built."""

    def folder_of(self, name: str, key: Mapping[str, Any]) -> Path:
        """Where the stage lies, or will once it is built."""
        return self.root / f"{name}-{_digest({'name': name, 'key': key})[:16]}"

    def stage(self, name: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """The whole folder of a stage, built now if it is not there yet.

        Args:
            name: lower-case letters, digits, ``_`` and ``-``; several stages may share one.
            key: all that the result depends on, as JSON; another key is another folder.
            build: fills the folder that it is given, which is renamed when it returns. The folder
                is empty, unless an earlier attempt was killed that had written `UnfinishedWork`
                there: then ``build`` has to ask for it, and goes on from there. If it raises, the
                unfinished folder stays until the next attempt.
        """
        if not re.fullmatch(r"[a-z0-9_-]+", name):
            raise ValueError(f"A stage can't be named {name!r}.")
        folder = self.folder_of(name, key)
        start, elsewhere = time.perf_counter(), self._elsewhere
        record = self._read(folder)
        if record is not None:
            _log.info("stage %s: reused", name)
            if self._on_reuse is not None:
                self._on_reuse(name)
        else:
            locks = self.root / LOCKS_FOLDER
            locks.mkdir(parents=True, exist_ok=True)
            with locked(locks / folder.name, waits=True):
                # Another process may have made it while we waited.
                record = self._read(folder) or self._build(folder, name, key, build)
        if not self._builds_under_way:
            self._handed_out.add(folder.name)
        if self._is_counting:
            self._touched[folder] = (name, float(record["seconds"]))
            self._elsewhere = elsewhere + time.perf_counter() - start
        return folder

    @contextmanager
    def uncounted(self) -> Generator[None]:
        """Leave stages that are asked for inside it out of `seconds`.

        For what only sees to equal conditions: a strategy is not charged for it.
        """
        was_counting, self._is_counting = self._is_counting, False
        try:
            yield
        finally:
            self._is_counting = was_counting

    def handed_out(self) -> list[str]:
        """Names of the folders of all stages that were asked for, sorted.

        A stage that was made for another one, and is held by that, is not among them.
        """
        return sorted(self._handed_out)

    def seconds(self) -> dict[str, float]:
        """Seconds that building took, by stage name, for the stages that were asked for.

        A stage that was reused counts with what it took when it was built.
        """
        total: dict[str, float] = {}
        for name, seconds in self._touched.values():
            total[name] = total.get(name, 0.0) + seconds
        return total

    def counted(self) -> list[Path]:
        """The folders of the stages that `seconds` counts."""
        return list(self._touched)

    def _read(self, folder: Path) -> dict[str, Any] | None:
        """A stage's record, or None where it is absent or its files are not those recorded."""
        record = _read_stage(folder, is_known=folder in self._known_whole)
        if record is not None:
            self._known_whole.add(folder)
        return record

    def _build(
        self, folder: Path, name: str, key: Mapping[str, Any], build: Callable[[Path], None]
    ) -> dict[str, Any]:
        part = folder.with_name(folder.name + PART_SUFFIX)
        remove(folder)  # there only if damaged from outside, and no more whole for being half gone
        # Killed when all was made and before it got its name, it isn't made again.
        is_made = (part / UNFINISHED).is_dir()
        record = _read_stage(part, is_known=False) if is_made else None
        if record is None:
            record = self._make(part, name, key, build)
        remove(part / UNFINISHED)
        os.replace(part, folder)
        fsync_folder(self.root)
        self._known_whole.add(folder)
        return record

    def _make(
        self, part: Path, name: str, key: Mapping[str, Any], build: Callable[[Path], None]
    ) -> dict[str, Any]:
        """Fill the folder of a stage, all that it is to hold but its name."""
        empty_for_building(part)
        (part / STAGE_FILE).unlink(missing_ok=True)
        start, elsewhere = time.perf_counter(), self._elsewhere
        self._builds_under_way += 1
        try:
            build(part)
        except ModelError:  # as a diverged training; the next attempt would end in the same
            remove(part / UNFINISHED)
            raise
        finally:
            self._builds_under_way -= 1
        # What stages that were asked for meanwhile have taken is counted as theirs.
        seconds = time.perf_counter() - start - (self._elsewhere - elsewhere) + seconds_before(part)
        record: dict[str, Any] = {
            "name": name,
            "key": key,
            "seconds": round(seconds, 3),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": {path: (part / path).stat().st_size for path in files_of(part)},
            "sha256": {path: sha256_once(part / path) for path in files_of(part)},
        }
        write_json_atomic(part / STAGE_FILE, record)
        fsync_tree(part)
        return record


def _digest(value: Any) -> str:
    """The sha256 of a value's canonical JSON; refuses what is not JSON, so that no key is vague."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _read_stage(folder: Path, *, is_known: bool) -> dict[str, Any] | None:
    """A stage's record, or None where the stage is absent or its files have changed since.

    Contents are read once, unless ``is_known`` says that they have been. Stages of versions that
    recorded no contents are known by the sizes of their files alone.
    """
    try:
        record: Any = json.loads((folder / STAGE_FILE).read_bytes())
        sizes = cast(dict[str, int], record["files"])
        float(record["seconds"])
        is_whole = all((folder / path).stat().st_size == size for path, size in sizes.items())
        if is_whole and not is_known:
            digests = cast(dict[str, str], record.get("sha256", {}))
            is_whole = all(sha256_once(folder / path) == own for path, own in digests.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not is_whole:
        _log.warning("stage %s: its files are not those that were made; made again", folder.name)
    return record if is_whole else None
