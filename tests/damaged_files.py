"""Ways in which files of a run get damaged, and a run folder that has every kind of file."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from conftest import contents


def cut(path: Path, elsewhere: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path, elsewhere: Path) -> None:
    path.write_bytes(b"")


def random_bytes(path: Path, elsewhere: Path) -> None:
    path.write_bytes(random.Random(path.name).randbytes(max(1, path.stat().st_size)))


def random_inside(path: Path, elsewhere: Path) -> None:
    """The first and last bytes stay, by which the kind of a file is known."""
    data = bytearray(path.read_bytes())
    made = random.Random(path.name)
    for _ in range(9):
        if len(data) > 16:
            data[made.randrange(8, len(data) - 8)] = made.randrange(256)
    path.write_bytes(data)


def deleted(path: Path, elsewhere: Path) -> None:
    path.unlink()


def folder_instead(path: Path, elsewhere: Path) -> None:
    path.unlink()
    path.mkdir()


def broken_link(path: Path, elsewhere: Path) -> None:
    path.unlink()
    path.symlink_to(elsewhere / "nothing")


def link_to_another(path: Path, elsewhere: Path) -> None:
    path.unlink()
    other = elsewhere / f"theirs-{path.name}"
    other.write_bytes(b"not ours\n")
    path.symlink_to(other)


def link_to_itself(path: Path, elsewhere: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def other_json(path: Path, elsewhere: Path) -> None:
    path.write_bytes(b'[{"row": null, "inputs": 3, "files": [1]}]\n')


def null(path: Path, elsewhere: Path) -> None:
    path.write_bytes(b"null\n")


def deep(path: Path, elsewhere: Path) -> None:
    path.write_bytes(b"[" * 200_000)


def not_utf8(path: Path, elsewhere: Path) -> None:
    path.write_bytes(b'\xff\xfe{"row": "\xed\xa0\x80"}\n')


def other_values(path: Path, elsewhere: Path) -> None:
    """JSON of the same keys whose values are of other types."""
    told = _parsed(path)
    if isinstance(told, dict):
        path.write_text(json.dumps({name: _other(value) for name, value in told.items()}))
    else:
        null(path, elsewhere)


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def _other(value: Any) -> Any:
    return {"a": [1]} if isinstance(value, str | int | float | list) else "x"


FAULTS: tuple[Callable[[Path, Path], None], ...] = (
    cut,
    emptied,
    random_bytes,
    random_inside,
    deleted,
    folder_instead,
    broken_link,
    link_to_another,
    link_to_itself,
    other_json,
    null,
    deep,
    not_utf8,
    other_values,
)


def without_column(table: Any) -> Iterator[Any]:
    for name in table.column_names:
        yield table.drop_columns([name])


def of_another_type(table: Any) -> Iterator[Any]:
    for at, name in enumerate(table.column_names):
        is_text = pa.types.is_string(table.schema.field(at).type)
        values = range(len(table)) if is_text else [f"x{n}" for n in range(len(table))]
        yield table.set_column(at, name, pa.array(list(values)))


def of_nothing(table: Any) -> Iterator[Any]:
    for at, name in enumerate(table.column_names):
        yield table.set_column(at, name, pa.nulls(len(table)))


def of_other_rows(table: Any) -> Iterator[Any]:
    """Rows that are missing, there twice, or beyond the input's."""
    yield table.slice(1)
    yield table.slice(0, 0)
    yield pa.concat_tables([table, table])
    if "row" in table.column_names:
        at = table.column_names.index("row")
        for first in (-5, 10**6):
            rows = pa.array([first + n for n in range(len(table))], type=pa.int64())
            yield table.set_column(at, "row", rows)


TABLE_FAULTS = (without_column, of_another_type, of_nothing, of_other_rows)


def tables_like(path: Path) -> Iterator[tuple[str, Any]]:
    """Tables that can be read and say something else, each with what is wrong with it."""
    table = pq.read_table(path)
    for fault in TABLE_FAULTS:
        for number, other in enumerate(fault(table)):
            yield f"{fault.__name__}-{number}", other


def forget_digests(run: Path) -> None:
    """What a version before digests has recorded of its files: nothing."""
    for name, keys in (("provenance.json", ("files",)), ("summary.json", ("written",))):
        told = json.loads((run / name).read_text(encoding="utf-8"))
        for key in keys:
            told.pop(key, None)
        (run / name).write_text(json.dumps(told), encoding="utf-8")


def outputs_of(run: Path) -> dict[str, bytes]:
    """Every file of a run but for locks."""
    return {name: data for name, data in contents(run).items() if not name.endswith("lock")}


def restore(run: Path, whole: Path) -> None:
    """The run as it was before any damage."""
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole, run)
