"""What goes out is what came in: lines byte for byte, tables without invention."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forgetfilter.data import read_rows, to_dataset, write_lines, write_records, write_rejected
from forgetfilter.data.records import RejectedRow, Row
from forgetfilter.files import encode_json, is_temporary, write_json_atomic

quick = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def rows_of(folder: Path, *records: Any) -> tuple[Row, ...]:
    path = folder / "rows.jsonl"
    path.write_bytes(b"\n".join(json.dumps(record).encode() for record in records))
    return read_rows(path).rows


@quick
@given(st.lists(st.binary().filter(lambda raw: b"\n" not in raw)))
def test_lines_are_written_byte_for_byte(tmp_path: Path, raws: list[bytes]) -> None:
    path = tmp_path / "kept.jsonl"
    write_lines(path, raws)
    assert path.read_bytes().split(b"\n") == [*raws, b""]


@quick
@given(st.lists(st.tuples(st.binary(), st.text(st.characters()))))
def test_rejected_rows_can_be_recovered(tmp_path: Path, pairs: list[tuple[bytes, str]]) -> None:
    path = tmp_path / "rejected.jsonl"
    rejected = [
        RejectedRow(row, row + 1, f"row-{row}", raw, reason)
        for row, (raw, reason) in enumerate(pairs)
    ]
    write_rejected(path, rejected)
    # Read the naive way, by which any separator that is left unescaped would break a line.
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(records) == len(rejected)
    for record, row in zip(records, rejected, strict=True):
        raw = record.get("raw")
        assert row.raw == (
            base64.b64decode(record["raw_base64"]) if raw is None else raw.encode("utf-8")
        )
        assert set(record) == {
            "row",
            "line",
            "reason",
            "raw_base64" if raw is None else "raw",
        }
        assert (record["row"], record["line"]) == (row.row, row.line)
        # JSON itself joins two halves of a surrogate pair; all else comes back as it was.
        assert record["reason"] == json.loads(json.dumps(row.reason))


def test_written_json_is_readable_and_harmless() -> None:
    text = "naïve 日本 \u2028\u202e\x1b\x9b\ud800"
    written = encode_json({"text": text})
    assert "naïve 日本".encode() in written
    assert written.decode().isprintable()
    assert json.loads(written) == {"text": text}
    with pytest.raises(ValueError):
        encode_json({"loss": float("nan")})


def test_records_written_are_rows_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "noisy.jsonl"
    write_records(path, [{"prompt": "q\n\u2028", "completion": answer} for answer in ("é", "b")])
    assert [(row.messages[0].content, row.target) for row in read_rows(path).rows] == [
        ("q\n\u2028", "é"),
        ("q\n\u2028", "b"),
    ]


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kept.jsonl"
    write_lines(path, [b"old"])

    def broken():
        yield b"new"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_lines(path, broken())
    with pytest.raises(TypeError):
        write_json_atomic(path, {"set": set[int]()})
    assert path.read_bytes() == b"old\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["kept.jsonl"]


def test_a_very_long_file_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_lines(path, [b"line"])
    assert path.read_bytes() == b"line\n"
    assert not is_temporary(path.name)


def test_a_dataset_has_the_rows_own_columns(tmp_path: Path) -> None:
    records = [
        {"prompt": "q", "completion": "a", "source": "web"},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    ]
    dataset = to_dataset(rows_of(tmp_path, *records))
    assert dataset.column_names == ["prompt", "completion", "source", "messages"]
    assert dataset[0] == {**records[0], "messages": None}
    assert dataset[1] == {**dict.fromkeys(records[0]), **records[1]}


@pytest.mark.parametrize(
    "values",
    [
        [{"extra": 1}, {"extra": "one"}],
        [{"extra": [1]}, {"extra": {"a": 1}}],
        [{"extra": 2**70}, {}],
        [{"extra": "\ud800"}, {}],
        [{"\ud800": 1}, {}],
        [{str(n): n for n in range(1001)}, {}],
    ],
    ids=["mixed", "nested", "huge", "surrogate", "column", "many"],
)
def test_columns_that_fit_no_table_give_the_common_ones(
    tmp_path: Path, values: list[dict[str, Any]]
) -> None:
    base = {"id": "own", "prompt": "q", "completion": "a"}
    rows = rows_of(tmp_path, {**base, **values[0]}, {**base, "id": "two", **values[1]})
    dataset = to_dataset(rows)
    assert dataset.column_names == ["row", "example_id", "messages", "raw"]
    assert dataset["example_id"][:] == ["own", "two"]
    assert [raw.encode() for raw in dataset["raw"]] == [row.raw for row in rows]
    assert [turn["content"] for turn in dataset[0]["messages"]] == ["q", "a"]


def test_no_rows_make_an_empty_dataset() -> None:
    assert len(to_dataset([])) == 0
