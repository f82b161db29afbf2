"""Parquet and Arrow files that stand for more than they are: refused before they are decoded."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forgetfilter.data import read_rows
from forgetfilter.data.containers import compression, table_bounds, table_process
from forgetfilter.data.containers.tables import stream_of
from forgetfilter.errors import DataError

ROWS = 40_000


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can reach."""
    monkeypatch.setattr(compression, "LEAST_BYTES", 2**22)


def _rows(column: Any) -> Any:
    return pa.table({"prompt": pa.array(["q"] * len(column)), "completion": column})


def _file_of(table: Any, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _parquet_of(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    return sink.getvalue().to_pybytes()


def dictionary() -> bytes:
    """Each row has the same long text, which is stored once."""
    taken = pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), ["x" * 9_000])
    return _file_of(_rows(taken))


def dictionary_in_parquet() -> bytes:
    return _parquet_of(_rows(pa.array(["x" * 9_000] * 4_000)))


def run_of_one_value() -> bytes:
    return _parquet_of(_rows(pa.array([[7] * 400_000], pa.list_(pa.int64()))))


def compressed_buffers() -> bytes:
    return _file_of(_rows(pa.array(["x" * 2**23])), compression="zstd")


def nulls_without_a_byte() -> bytes:
    offsets = pa.array([0, 2**30], pa.int32())
    return stream_of(_rows(pa.ListArray.from_arrays(offsets, pa.nulls(2**30))))


def runs() -> bytes:
    ends, values = pa.array([ROWS * 9], pa.int32()), pa.array(["x" * 50])
    column = pa.RunEndEncodedArray.from_arrays(ends, values)
    return stream_of(pa.table({"completion": column}))


BOMBS = [
    dictionary,
    dictionary_in_parquet,
    run_of_one_value,
    compressed_buffers,
    nulls_without_a_byte,
    runs,
]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_small_table_that_stands_for_much_is_refused_before_it_is_decoded(
    tmp_path: Path, bomb: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "rows.parquet"
    path.write_bytes(bomb())
    monkeypatch.setattr(pq, "read_table", None)  # nothing of it is decoded in this process
    monkeypatch.setattr(pa.ipc, "open_file", None)
    with pytest.raises(DataError, match=r"expands to more than .*Expected at most 200 times"):
        read_rows(path)


@pytest.mark.usefixtures("small")
def test_what_is_decoded_at_once_is_limited_by_the_system():
    """One value of a gigabyte, which no counting between batches could stop."""
    if sys.platform != "linux":
        pytest.skip("only Linux limits the memory of a process")
    sink = pa.BufferOutputStream()
    kind = pa.schema([("prompt", pa.large_string())])
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, kind, options=options) as writer:
        text = pa.array([b"\0" * 2**29], pa.large_binary()).cast(pa.large_string())
        writer.write_table(pa.table({"prompt": text}))
    data = sink.getvalue().to_pybytes()
    assert len(data) < 10**5
    with pytest.raises(DataError, match="expands to more than"):
        table_bounds.check_table(data, "stream")


def test_what_crashes_the_library_is_damage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    crashing = tmp_path / "worker.py"
    crashing.write_text("import os, sys; sys.stdin.buffer.readline(); os.abort()")
    table_process._stop()
    with monkeypatch.context() as patched:
        patched.setattr(table_process, "WORKER", crashing)
        for _ in range(2):
            with pytest.raises(DataError, match=r"the library .* crashes.*Copy or download it"):
                table_bounds.check_table(b"PAR1" + bytes(2**17), "parquet")
    assert table_bounds.check_table(stream_of(_rows(pa.array(["a"]))), "stream") > 0


def test_a_forked_process_asks_a_worker_of_its_own():
    """Replies to two processes on one pipe would be mixed up."""
    table_bounds.check_table(stream_of(_rows(pa.array(["a"]))), "stream")
    before = table_process._process
    with multiprocessing.get_context("fork").Pool(1) as pool:
        data = [stream_of(_rows(pa.array([f"b{n}"]))) for n in range(3)]
        assert all(pool.starmap(table_bounds.check_table, [(one, "stream") for one in data]))
    assert table_process._process is before
    assert table_bounds.check_table(stream_of(_rows(pa.array(["c"]))), "stream") > 0


def test_types_nested_without_end_are_refused(tmp_path: Path):
    kind: Any = pa.string()
    for _ in range(60):
        kind = pa.list_(kind)
    path = tmp_path / "rows.arrow"
    path.write_bytes(stream_of(_rows(pa.array([None], kind))))
    with pytest.raises(DataError, match=r"nested more than 32 deep\. Expected .*JSON Lines"):
        read_rows(path)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_tables_within_the_bounds_are_read_and_checked_once(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
):
    answer = {"role": "assistant", "content": "a"}
    turns = [[{"role": "user", "content": f"q{i}"}, answer] for i in range(999)]
    more = pa.array([[("k", 1)]] * 999, pa.map_(pa.string(), pa.int64()))
    table = pa.table({"messages": turns, "n": list(range(999)), "more": more})
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(_parquet_of(table) if suffix == "parquet" else _file_of(table))
    known = table_bounds._known.copy()
    assert len(read_rows(path).rows) == 999
    assert len(table_bounds._known) == len(known) + 1
    monkeypatch.setattr(table_bounds, "ask", None)
    assert len(read_rows(path).rows) == 999


def test_a_value_that_python_cannot_hold_costs_its_own_row(tmp_path: Path):
    times = pa.array([0, 2**62, 1], pa.int64()).cast(pa.timestamp("s"))
    table = _rows(pa.array(["a", "b", "c"])).append_column("when", times)
    path = tmp_path / "rows.arrow"
    path.write_bytes(stream_of(table))
    file = read_rows(path)
    assert [row.row for row in file.rows] == [0, 2]
    assert "can't be read" in file.rejected[0].reason


@pytest.mark.usefixtures("small")
def test_a_saved_data_set_that_names_one_table_often_is_refused(tmp_path: Path):
    from datasets import Dataset

    folder = tmp_path / "saved"
    Dataset.from_list([{"prompt": "q" * 900, "completion": "a"}] * 100).save_to_disk(str(folder))
    assert len(read_rows(folder).rows) == 100
    state = json.loads((folder / "state.json").read_text())
    (one,) = state["_data_files"]
    (folder / "state.json").write_text(json.dumps({**state, "_data_files": [one] * 9_999}))
    with pytest.raises(DataError, match="expands to more than"):
        read_rows(folder)
    (tmp_path / "other.arrow").write_bytes((folder / one["filename"]).read_bytes())
    outside = {"filename": "../other.arrow"}
    (folder / "state.json").write_text(json.dumps({**state, "_data_files": [outside]}))
    with pytest.raises(DataError, match="outside of it"):
        read_rows(folder)


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_saved_data_set_that_names_what_has_no_end_is_refused(tmp_path: Path, is_linked: bool):
    """Whoever opens a pipe that nobody writes into waits for ever; a device may never end."""
    folder = tmp_path / "saved"
    folder.mkdir()
    os.mkfifo(tmp_path / "endless")
    name = "data.arrow" if is_linked else str(tmp_path / "endless")
    if is_linked:
        (folder / name).symlink_to(tmp_path / "endless")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match="no plain file" if is_linked else "outside of it"):
        read_rows(folder)
