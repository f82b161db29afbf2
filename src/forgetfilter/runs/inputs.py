"""A run's own copy of its input, how that is read, and the files of a decision cut from it.

One file of JSON Lines is copied as ``input.jsonl``. Whatever else was screened is copied beside
``inputs.json``, which says what it was and how its rows are read. The rows of a decision are
written as JSON Lines, and in the input's own container where that is another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.arrays import SharedTexts
from forgetfilter.data.containers import CONTAINERS
from forgetfilter.data.formats.mapping import Reading, reading_from_json
from forgetfilter.data.reading import fingerprint_of, read_sources
from forgetfilter.data.records import RowFile
from forgetfilter.data.sources import Source, open_file, quoted
from forgetfilter.errors import DataError
from forgetfilter.files import encode_json, remove, sha256_once, write_bytes_atomic
from forgetfilter.runs.file_names import INPUT_FILE, INPUTS_FILE, PROVENANCE_FILE
from forgetfilter.text import printable

Write = Callable[[Path, Iterable[bytes]], None]

SCREEN_AGAIN = (
    "Put the file back, or repeat the `forgetfilter screen` command that made the run: it writes "
    "such a file anew from your rows and the finished stages."
)
"""What to do about a file of a run that was measured, or copied, and has changed since."""

_DECISIONS = ("kept", "removed", "undecided", "rejected")
_SUFFIXES = "|".join(sorted({re.escape(one.suffix) for one in CONTAINERS.values()} - {""}))
_WRITTEN = re.compile(rf"(?:{'|'.join(_DECISIONS)})(?:{_SUFFIXES})?|input(?:-\d+)?(?:{_SUFFIXES})")
"""Names that rows of a decision, and the copies of an input, are written under."""


def is_plain(sources: Sequence[Source], reading: Reading) -> bool:
    """Whether the input is one file of JSON Lines whose formats are found out."""
    return len(sources) == 1 and sources[0].container.name == "jsonl" and reading.is_plain


def store_input(
    run: Path, part: Path, sources: Sequence[Source], reading: Reading, write: Write
) -> Path:
    """Copy the input into ``part``, unless the run has it already; where it lies then.

    Raises:
        DataError: a file changed since it was opened.
    """
    if is_plain(sources, reading):
        if (run / INPUT_FILE).is_file() and not (run / INPUTS_FILE).exists():
            stored = open_file(run / INPUT_FILE, "jsonl")
            if stored.fingerprint == sources[0].fingerprint:
                return run
        names = [INPUT_FILE]
    else:
        suffixes = [source.container.suffix or ".arrow" for source in sources]
        names = [f"input-{number}{suffix}" for number, suffix in enumerate(suffixes, start=1)]
    for name, source in zip(names, sources, strict=True):
        write(part / name, source.chunks())
        if open_file(part / name, source.container.name).fingerprint != source.fingerprint:
            (part / name).unlink()
            raise DataError(
                f"noisy_data {source.name!r} changed while it was read. Expected a file that "
                "stays as it is. Repeat the command once it is written."
            )
    if not is_plain(sources, reading) or (run / INPUTS_FILE).exists():
        said = [
            {
                "file": name,
                "name": source.name,
                "container": source.container.name,
                "sha256": source.fingerprint,
            }
            for name, source in zip(names, sources, strict=True)
        ]
        manifest = {"sources": said, "reading": reading.as_json()}
        write_bytes_atomic(part / INPUTS_FILE, encode_json(manifest, indent=2) + b"\n")
    return part


def has_input(run: Path) -> bool:
    """Whether the run's copy of its input is there, whole."""
    return all(path.is_file() for path in _stored(run)[0])


def read_input(run: Path) -> RowFile:
    """The rows of a run's input, as they were read when it was screened.

    Raises:
        DataError: the copy can't be read, or is not what was screened.
    """
    return read_sources(*_opened(run), folder=run)


def input_fingerprint(run: Path) -> str:
    """What identifies the rows of a run.

    Raises:
        DataError: the copy can't be read, or is not what was screened.
    """
    return fingerprint_of(*_opened(run))


def files_called(stem: str) -> set[str]:
    """The names of a file of rows in all containers."""
    return {f"{stem}{container.suffix}" for container in CONTAINERS.values()} - {stem}


def stored_reading(run: Path) -> Reading:
    """How the rows of a run are read, also those in its own files."""
    manifest = _stored(run)[1]
    return reading_from_json(manifest["reading"]) if manifest else Reading()


def write_containers(run: Path, file: RowFile, decisions: Sequence[str]) -> dict[str, str]:
    """Write the rows of each decision in the input's container, in the original order.

    JSON Lines are written elsewhere, for every run. Files of an earlier decision are removed.

    Returns:
        The name of the file, or folder, that holds the rows of each decision.
    """
    wanted = ("undecided",) if "undecided" in decisions else ("kept", "removed")
    names = {decision: _name_of(decision, file.sources) for decision in (*wanted, "rejected")}
    for decision, name in names.items():
        if name.endswith(".jsonl"):
            continue
        if len(file.sources) == 1:
            rows = np.flatnonzero(SharedTexts.of(decisions) == decision).tolist()
            source = file.sources[0]
            source.container.write(source.data(), rows, run / name)
        else:
            _write_folder(run / name, file, decisions, decision)
    _remove_others(run, {*names.values(), *(path.name for path in _stored(run)[0])})
    return names


def _name_of(decision: str, sources: Sequence[Source]) -> str:
    kinds = {source.container.name for source in sources}
    if kinds == {"jsonl"}:
        return f"{decision}.jsonl"
    return f"{decision}{sources[0].container.suffix}" if len(sources) == 1 else decision


def _write_folder(folder: Path, file: RowFile, decisions: Sequence[str], decision: str) -> None:
    remove(folder)
    taken: set[str] = set()
    for number, (source, rows) in enumerate(_by_source(file, decisions, decision), start=1):
        stem = Path(source.name).name.partition(".")[0] or "rows"
        name = f"{stem}{source.container.suffix}"
        name = name if name not in taken else f"{stem}-{number}{source.container.suffix}"
        taken.add(name)
        source.container.write(source.data(), rows, folder / name)


def _by_source(
    file: RowFile, decisions: Sequence[str], decision: str
) -> Iterable[tuple[Source, list[int]]]:
    starts = [0, *accumulate(file.counts)]
    for number, source in enumerate(file.sources):
        own = SharedTexts.of(decisions[starts[number] : starts[number + 1]])
        yield source, np.flatnonzero(own == decision).tolist()


def _remove_others(run: Path, names: set[str]) -> None:
    """Remove what earlier decisions, or an earlier input, have left; files of others stay."""
    for path in run.iterdir():
        is_lines = path.name in {f"{decision}.jsonl" for decision in _DECISIONS}
        if _WRITTEN.fullmatch(path.name) and not is_lines and path.name not in names:
            remove(path)


def _stored(run: Path) -> tuple[list[Path], dict[str, Any]]:
    """The copies, and what the manifest says of them; nothing where there is none."""
    path = run / INPUTS_FILE
    if not path.is_file():
        return [run / INPUT_FILE], {}
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        reading_from_json(manifest["reading"])
        for one in manifest["sources"]:
            _ = one["name"], CONTAINERS[str(one["container"])]
        return [run / str(source["file"]) for source in manifest["sources"]], manifest
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(
            f"{path} can't be read. Expected what a screen has written there. Screen the file "
            "again, with --overwrite."
        ) from None


def _opened(run: Path) -> tuple[list[Source], Reading]:
    """The copies, whose contents are those that were screened, and how they are read."""
    paths, manifest = _stored(run)
    told: list[dict[str, Any]] = (
        manifest["sources"] if manifest else [{"name": str(paths[0]), "container": "jsonl"}]
    )
    reading = reading_from_json(manifest["reading"]) if manifest else Reading()
    sources: list[Source] = []
    for path, one in zip(paths, told, strict=True):
        digest = _digest(path)
        if digest != one.get("sha256", digest):
            raise _changed(run, path.name, INPUTS_FILE)
        sources.append(Source(str(one["name"]), digest, CONTAINERS[str(one["container"])], path))
    screened = _screened(run)
    if screened is not None and screened != fingerprint_of(sources, reading):
        raise _changed(run, ", ".join(path.name for path in paths), PROVENANCE_FILE)
    return sources, reading


def _screened(run: Path) -> str | None:
    """What identifies the rows that were screened; None where nothing is recorded yet."""
    try:
        told: Any = json.loads((run / PROVENANCE_FILE).read_bytes())
        return str(told["inputs"]["noisy_data"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _digest(path: Path) -> str:
    try:
        return sha256_once(path)
    except OSError as error:
        raise DataError(
            f"{quoted(path)} can't be read: {error.strerror}. Expected the run's copy of what was "
            f"screened. {SCREEN_AGAIN}"
        ) from None


def _changed(run: Path, name: str, record: str) -> DataError:
    return DataError(
        f"{printable(name, 200)} in {quoted(run)} is not what was screened: its sha256 is not the "
        f"one in {record}. Expected the run's copy as it was written, because scores belong to "
        f"rows by their place in it. {SCREEN_AGAIN}"
    )
