"""Whether the files of a finished run are those that were written, by their sha256.

What a screen measured is recorded in ``provenance.json`` together with the input; what a decision
writes is recorded in ``summary.json``. Nothing is decided, and nothing is replaced, on the ground
of files that have changed since.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from forgetfilter.errors import DataError
from forgetfilter.files import list_files, sha256_once, write_json_atomic
from forgetfilter.runs.columns import read_columns
from forgetfilter.runs.file_names import (
    COVERAGE_FILE,
    EVIDENCE_FILE,
    HARMS_FILE,
    MASKS_FILE,
    PROVENANCE_FILE,
    READINGS_FILE,
    REJECTED_FILE,
    REPORT_FILE,
    SAFE_ROWS_FILE,
    SCORES_FILE,
    SUMMARY_FILE,
    TOKENS_FILE,
    UNDECIDED_FILE,
)
from forgetfilter.runs.harms import harm_of_each, safe_rows_of
from forgetfilter.runs.inputs import SCREEN_AGAIN, input_fingerprint
from forgetfilter.runs.reading import read_evaluation, read_json, read_scores
from forgetfilter.runs.schema import Summary
from forgetfilter.text import printable

MEASURED = (
    READINGS_FILE,
    EVIDENCE_FILE,
    COVERAGE_FILE,
    HARMS_FILE,
    SAFE_ROWS_FILE,
    TOKENS_FILE,
)
"""What only a screen writes; every decision is made from it."""
_FILES = "files"
_END_OF_PAGE = b"</html>"


def record_measured(run: Path, part: Path) -> None:
    """Add the sha256 of what a screen has prepared in ``part`` to the provenance prepared there."""
    made = {name: sha256_once(part / name) for name in MEASURED if (part / name).is_file()}
    if made:
        known = _provenance(part) or _provenance(run) or {}
        write_json_atomic(part / PROVENANCE_FILE, {**known, _FILES: made})


def refuse_damage(run: Path, summary: Mapping[str, Any]) -> None:
    """Raise where a run can't be decided again, because what it is decided from has changed.

    Args:
        run: folder of the run.
        summary: what ``summary.json`` says. One of an earlier version says nothing of the scores.

    Raises:
        DataError: input, readings, scores or another file that a screen made is not what it was.
    """
    refuse_changed_measurements(run)
    read_evaluation(run)  # which the report tells, and no digest knows
    written = cast(Mapping[str, str], summary.get("written") or {})
    refuse_changed(run, summary, SCORES_FILE)
    if SCORES_FILE in written and _FILES in (_provenance(run) or {}):
        return
    _require_tables(run, Summary.model_validate(summary))


def refuse_changed_measurements(run: Path) -> None:
    """The same without the scores, which a decision that was cut short may have replaced.

    Raises:
        DataError: the input or a file that a screen measured is not what it was.
    """
    provenance = _provenance(run)
    if provenance is None:
        raise DataError(
            f"{PROVENANCE_FILE} in {_shown(run)} can't be read. Expected what a screen has "
            "written, because it says which rows were scored. Put the file back, or repeat the "
            "`forgetfilter screen` command that made the run with --overwrite; finished stages "
            "stay."
        )
    input_fingerprint(run)
    known = provenance.get(_FILES)
    if isinstance(known, dict):
        _compare(run, cast(dict[str, str], known), PROVENANCE_FILE)


def digests(run: Path, names: Iterable[str]) -> dict[str, str]:
    """The sha256 of the files that are there, and of those in the folders among ``names``."""
    paths = [
        f"{name}/{within}" if within else name
        for name in names
        if name
        for within in (list_files(run / name) if (run / name).is_dir() else [""])
    ]
    return {path: sha256_once(run / path) for path in paths if (run / path).is_file()}


def written_by_decision(run: Path, outputs: Mapping[str, str], action_file: str) -> dict[str, str]:
    """The sha256 of what a decision wrote, but for the files of kept and of removed rows.

    Args:
        run: folder of the run.
        outputs: the file, or folder, of each decision in the input's own container.
        action_file: what ``action`` asked for; may be empty.
    """
    others = [outputs.get(name, "") for name in ("undecided", "rejected")]
    masks = [MASKS_FILE] if action_file else []
    names = (SCORES_FILE, REJECTED_FILE, UNDECIDED_FILE, *others, action_file, *masks)
    return digests(run, dict.fromkeys(names))


def changed_outputs(run: Path, summary: Mapping[str, Any]) -> list[str]:
    """Which files a decision wrote that have changed since, but for kept and removed rows.

    Deciding again by the same rule writes them as they were.
    """
    written = cast(Mapping[str, str], summary.get("written") or {})
    now = digests(run, written)
    changed = [name for name, digest in written.items() if now.get(name) != digest]
    return changed if _is_page(run / REPORT_FILE) else [*changed, REPORT_FILE]


def _is_page(path: Path) -> bool:
    """Whether a report has an end."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 64))
        return file.read().rstrip().endswith(_END_OF_PAGE)


def refuse_changed(run: Path, summary: Mapping[str, Any], name: str) -> None:
    """Raise where a file that a decision wrote is not what it was.

    Raises:
        DataError: it is gone, can't be read, or has changed.
    """
    written = cast(Mapping[str, str], summary.get("written") or {})
    _compare(run, {name: written[name]} if name in written else {}, SUMMARY_FILE)


def _compare(run: Path, known: Mapping[str, str], record: str) -> None:
    for name, digest in known.items():
        try:
            found = "has changed since it was written" if sha256_once(run / name) != digest else ""
        except OSError as error:
            found = f"can't be read: {error.strerror}"
        if found:
            raise DataError(
                f"{printable(name, 100)} in {_shown(run)} {found}. Expected the file whose sha256 "
                f"is in {record}. {SCREEN_AGAIN}"
            )


def _require_tables(run: Path, summary: Summary) -> None:
    """Raise where tables of a version that recorded no contents are not what one decides from.

    They are read as whoever uses them would, since nothing else tells damage from a table.
    """
    table = read_scores(run, summary)
    readings = read_columns(run / READINGS_FILE)
    empty = [name for name, column in readings.items() if column.null_count == len(column) > 0]
    if empty:
        raise DataError(
            f"{READINGS_FILE} in {_shown(run)} holds nothing in the column "
            f"{printable(empty[0], 60)}. Expected a number of each scored row. {SCREEN_AGAIN}"
        )
    numbers = readings.get("row")
    is_scored = table.decision != "rejected"
    scored = table.row[is_scored]
    if not np.isfinite(table.quantities["forgetting_score"][is_scored]).all():
        raise DataError(
            f"{SCORES_FILE} in {_shown(run)} has no forgetting_score of some scored rows. Expected "
            f"one of each. {SCREEN_AGAIN}"
        )
    if numbers is None or not np.array_equal(np.sort(numbers.to_numpy()), scored):
        raise DataError(
            f"{READINGS_FILE} in {_shown(run)} doesn't have each scored row once. Expected what a "
            f"screen has written. {SCREEN_AGAIN}"
        )
    harm_of_each(run, len(table.row))
    safe_rows_of(run, set(table.row.tolist()))
    if (run / EVIDENCE_FILE).exists() and "row" not in read_columns(run / EVIDENCE_FILE):
        raise DataError(
            f"{EVIDENCE_FILE} in {_shown(run)} has no column row. Expected what a screen has "
            f"written. {SCREEN_AGAIN}"
        )
    if (run / COVERAGE_FILE).exists():
        read_json(run / COVERAGE_FILE)


def _provenance(folder: Path) -> dict[str, Any] | None:
    """What ``provenance.json`` says, or None where it isn't there or isn't that."""
    try:
        value: Any = json.loads((folder / PROVENANCE_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    is_ours = isinstance(value, dict) and isinstance(value.get("inputs"), dict)  # pyright: ignore
    return cast(dict[str, Any], value) if is_ours else None


def _shown(run: Path) -> str:
    return repr(printable(str(run), 300))
