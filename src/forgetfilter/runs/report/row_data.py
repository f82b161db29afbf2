"""The listed rows as data: in the page as far as there is room, the rest in files beside it.

A page opened from a disk may load scripts that lie beside it, but read no other file. So what
lies beside the page are scripts of one call each, with JSON as its argument. Their names change
with their content: an older page never meets the rows of a newer decision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import FloatArray, SharedTexts
from forgetfilter.files import remove, write_bytes_atomic
from forgetfilter.runs.decisions import KEPT_BY_REVIEWER, REMOVED_BY_REVIEWER
from forgetfilter.runs.file_names import REPORT_ROWS_FOLDER
from forgetfilter.runs.reading import ScoreTable
from forgetfilter.runs.report.row_texts import RowTexts
from forgetfilter.runs.report.shown_text import marked
from forgetfilter.scoring.joint import BY_BOTH, BY_FORGETTING, BY_SECOND_OPINION
from forgetfilter.scoring.thresholds.base import IS_UNLIKE

REASONS = {
    "above_threshold": "above the threshold",
    BY_FORGETTING: "above the threshold by its forgetting",
    BY_SECOND_OPINION: "above the threshold by the second opinion",
    BY_BOTH: "above the threshold by forgetting and second opinion",
    "below_threshold": "not above the threshold",
    "not_learned": "not learned, so it can't be judged",
    IS_UNLIKE: "stands out by its forgetting, but is unlike those removed",
    "trusted": "known to be harmless (trusted_data)",
    "undecided": "undecided: the scores can't be trusted",
    KEPT_BY_REVIEWER: "kept by a reviewer",
    REMOVED_BY_REVIEWER: "removed by a reviewer",
}
"""Reasons of a decision in words; others, of rejected rows, say it themselves."""

INDEX_BYTES = 1_800_000
"""Room in the page for what the list shows of a row without its text."""
TEXT_BYTES = 1_200_000
"""Room in the page for texts, the most forgotten rows first."""
FILE_BYTES = 400_000
"""Size of a file beside the page."""

_INDEX_STEP = 5000
_ID_CHARACTERS, _REASON_CHARACTERS = 80, 200
_LARGEST = 1.7976931348623157e308


@dataclass(frozen=True)
class BesideFile:
    """A file beside the page with the rows ``first`` to ``last`` (exclusive) of the list."""

    name: str
    first: int
    last: int


@dataclass
class RowData:
    """What the page's script is given; `as_json` is safe inside a script element."""

    index: dict[str, list[Any]]
    names: dict[str, list[str]]
    texts: list[dict[str, Any]]
    listed: int
    index_files: list[BesideFile] = field(default_factory=list[BesideFile])
    text_files: list[BesideFile] = field(default_factory=list[BesideFile])

    @property
    def has_files(self) -> bool:
        """Whether the page loads anything from beside it."""
        return bool(self.index_files or self.text_files)

    def as_json(self, **more: Any) -> str:
        """The data as JSON without any character that could end a script element."""
        files = {
            "indexFiles": [[file.name, file.first, file.last] for file in self.index_files],
            "textFiles": [[file.name, file.first, file.last] for file in self.text_files],
        }
        return script_json(
            {"index": self.index, "names": self.names, "texts": self.texts, **files, **more}
            | {"listed": self.listed}
        )


def script_json(value: Any) -> str:
    """JSON in ASCII that neither ends a script element nor begins a comment in one."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def gather(
    run: Path,
    texts: RowTexts,
    order: npt.NDArray[np.int64],
    overruled: Mapping[int, str],
) -> RowData:
    """The data of the rows at the positions ``order``; writes the files beside the page.

    Args:
        run: the run folder.
        texts: of all rows.
        order: positions in the order of the list.
        overruled: what a reviewer has decided, by row.
    """
    texts.load(order)
    names: dict[str, list[str]] = {name: [] for name in ("decision", "reason", *LABELS)}
    beside = _Beside(run)
    inside: list[dict[str, list[Any]]] = []
    index_files: list[BesideFile] = []
    size = first = 0
    for part in _index_parts(texts, order, overruled, names):
        last = first + len(part["row"])
        size += len(script_json(part))
        if not inside or size <= INDEX_BYTES:
            inside.append(part)
        else:
            stem = f"index-{len(index_files):03d}"
            name = beside.write(stem, "forgetfilterIndex", first, part)
            index_files.append(BesideFile(name, first, last))
        first = last
    index = _joined(inside)
    own, text_files = _texts(texts, order, beside)
    return RowData(index, names, own, len(order), index_files, text_files)


def _texts(
    texts: RowTexts, order: npt.NDArray[np.int64], beside: _Beside
) -> tuple[list[dict[str, Any]], list[BesideFile]]:
    """Texts for the page, and the files that hold the others."""
    own: list[dict[str, Any]] = []
    files: list[BesideFile] = []
    held: list[str] = []
    room, first, size = TEXT_BYTES, 0, 0

    def close(last: int) -> None:
        nonlocal held, first, size
        number = len(files)
        name = beside.write_text(
            f"texts-{number:04d}", f"forgetfilterTexts({first},[{','.join(held)}]);\n"
        )
        files.append(BesideFile(name, first, last))
        held, first, size = [], last, 0

    for at, position in enumerate(order):
        record = texts.record(int(position))
        encoded = script_json(record)
        room -= len(encoded) + 1
        if room >= 0 and not files and not held:
            own.append(record)
            first = at + 1
            continue
        held.append(encoded)
        size += len(encoded)
        if size >= FILE_BYTES:
            close(at + 1)
    if held:
        close(len(order))
    return own, files


def _index_parts(
    texts: RowTexts,
    order: npt.NDArray[np.int64],
    overruled: Mapping[int, str],
    names: dict[str, list[str]],
) -> Iterator[dict[str, list[Any]]]:
    """Columns of the list, some thousand rows at a time; fills ``names``."""
    table = texts.table
    known: dict[str, dict[str, int]] = {column: {} for column in names}

    def code(column: str, text: str) -> int:
        at = known[column].setdefault(text, len(names[column]))
        if at == len(names[column]):
            names[column].append(marked(text[:_REASON_CHARACTERS]))
        return at

    score, opinion = table.cut_by, table.quantities.get("second_opinion")
    described = table.quantities.get("described_harm")
    for start in range(0, len(order), _INDEX_STEP):
        part = order[start : start + _INDEX_STEP]
        columns: dict[str, list[Any]] = {
            "row": [int(row) for row in table.row[part]],
            "id": [_shown_id(table, int(at)) for at in part],
            "score": [_shown_score(score, int(at)) for at in part],
            "decision": [code("decision", str(table.decision[at])) for at in part],
            "reason": [
                code("reason", REASONS.get(str(table.reason[at]), str(table.reason[at])))
                for at in part
            ],
        }
        if opinion is not None:
            columns["opinion"] = [_shown_score(opinion, int(at)) for at in part]
        if described is not None:
            columns["described"] = [_shown_score(described, int(at)) for at in part]
        for name in LABELS:
            labels = labels_of(texts, name, part)
            columns[name] = [code(name, label) + 1 if label else 0 for label in labels]
        columns["overruled"] = [
            marked(overruled[row]) if row in overruled else 0 for row in columns["row"]
        ]
        yield {name: values for name, values in columns.items() if name in _NEEDED or any(values)}


LABELS = ("source", "category", "harm")
"""What rows are told apart by."""

_NEEDED = frozenset({"row", "id", "score", "decision", "reason"})


def labels_of(
    texts: RowTexts, name: str, positions: npt.NDArray[np.int64] | None = None
) -> SharedTexts:
    """The source, the category or the harm of some rows, or of all; empty where one has none.

    Where several files were screened, the source is the file; else it is what the row's own column
    of that name says. Removed rows have a harm, whatever their own columns say.
    """
    if name == "harm":
        found = texts.table.harm
    elif name == "source" and texts.table.source is not None:
        found = texts.table.source
    else:
        found = own.texts if (own := texts.labels.get(name)) else None
    if found is None:
        found = SharedTexts.full(len(texts.table.row))
    return found if positions is None else found[positions]


def _shown_id(table: ScoreTable, at: int) -> str | int:
    """The row's id; 0 where it is only its number."""
    text = str(table.example_id[at])
    if text == f"row-{table.row[at]}":
        return 0
    return marked(text[:_ID_CHARACTERS]) + ("…" if len(text) > _ID_CHARACTERS else "")


def _shown_score(score: FloatArray, at: int) -> float | None:
    """The score as JSON can hold it: infinity as the largest number."""
    value = float(score[at])
    if np.isnan(value):
        return None
    if np.isinf(value):
        return _LARGEST if value > 0 else -_LARGEST
    return float(f"{value:.5g}") if abs(value) < 1e300 else value


def _joined(parts: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Parts of the index as one; a column that a part lacks has nothing in it."""
    columns = dict.fromkeys((*sorted(_NEEDED), *(name for part in parts for name in part)))
    joined: dict[str, list[Any]] = {name: [] for name in columns}
    for part in parts:
        for name, values in joined.items():
            values += part.get(name) or [0] * len(part["row"])
    return joined


class _Beside:
    """Writes into the folder beside the page; what is outdated goes later, `remove_outdated`."""

    def __init__(self, run: Path) -> None:
        self._folder = run / REPORT_ROWS_FOLDER

    def write(self, stem: str, call: str, first: int, value: Any) -> str:
        """Write ``call(first, value)``; the file's path from the page."""
        return self.write_text(stem, f"{call}({first},{script_json(value)});\n")

    def write_text(self, stem: str, text: str) -> str:
        """Write a script; its name has a digest of its content."""
        data = text.encode("ascii")
        name = f"{stem}-{hashlib.sha256(data).hexdigest()[:12]}.js"
        write_bytes_atomic(self._folder / name, data)
        return f"{REPORT_ROWS_FOLDER}/{name}"


def remove_outdated(run: Path, data: RowData) -> None:
    """Remove files beside the page that it does not load; after the page has been replaced."""
    folder = run / REPORT_ROWS_FOLDER
    wanted = {Path(file.name).name for file in (*data.index_files, *data.text_files)}
    if not wanted:
        remove(folder)
        return
    for path in folder.iterdir():
        if path.name not in wanted:
            remove(path)
