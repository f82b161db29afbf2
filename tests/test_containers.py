"""Every container comes back as it was: kept, removed and rejected rows are all of the input."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from forgetfilter.data import read_rows, write_lines
from forgetfilter.data.containers import CONTAINERS
from forgetfilter.data.containers.delimited import Delimited
from forgetfilter.data.formats import Reading, formats
from forgetfilter.data.records import RowFile
from forgetfilter.data.sources import open_sources
from forgetfilter.errors import DataError
from forgetfilter.files import write_chunks_atomic
from forgetfilter.runs.inputs import has_input, read_input, store_input, write_containers
from made_files import LAYOUTS, write

quick = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

CHAT = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here,\nthere"}]
ROWS: dict[str, dict[str, Any]] = {each.name: dict(each.example) for each in formats()} | {
    "chat": {"messages": CHAT},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Hi"}]
    },
    "prompt_completion": {"prompt": 'Say "x"', "completion": "x, y"},
    "alpaca": {"instruction": "Add", "input": "1 2", "output": "3", "history": [["q", "a"]]},
    "dolly": {"instruction": "Add", "context": "1 2", "response": "3"},
    "prompt_response": {"prompt": "Where?", "response": "Here\r\nand there", "is_safe": True},
    "question_answer": {"question": "Wo?", "answer": "Hier; dort\tüberall"},
    "query_response": {"query": "Where?", "response": "Here", "system": "Be kind."},
    "preference": {"prompt": "Where?", "chosen": "Here", "rejected": "No"},
    "text": {"text": "### Human: Where?\n### Assistant: Here"},
}


def rows_of(format_: str) -> list[dict[str, Any]]:
    return [{"id": f"r{n}", **ROWS[format_]} for n in range(4)]


def run_of(folder: Path, where: Any, reading: Reading | None = None) -> tuple[Path, RowFile]:
    """A run folder with the input in it, and its rows as they are read back from there."""
    reading = reading or Reading()
    run = folder / "run"
    run.mkdir()
    store_input(run, run, open_sources(where), reading, write_chunks_atomic)
    assert has_input(run)
    return run, read_input(run)


def decided(run: Path, file: RowFile, removed: Sequence[int] = (1,)) -> dict[str, str]:
    bad = {row.row for row in file.rejected}
    return write_containers(
        run,
        file,
        [
            "rejected" if n in bad else "removed" if n in removed else "kept"
            for n in range(len(file))
        ],
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("format_", ROWS)
def test_every_format_in_every_container_comes_back(tmp_path: Path, layout: str, format_: str):
    path = write(tmp_path, layout, rows_of(format_))
    run, file = run_of(tmp_path, path)
    assert [row.own_id for row in file.rows] == ["r0", "r1", "r2", "r3"], file.rejected
    plain = read_rows(write(tmp_path, "jsonl", rows_of(format_)))
    assert [row.messages for row in file.rows] == [row.messages for row in plain.rows]
    names = decided(run, file)
    write_lines(run / "kept.jsonl", (file.rows[row].raw for row in (0, 2, 3)))
    write_lines(run / "removed.jsonl", (file.rows[row].raw for row in (1,)))
    suffix = "" if layout == "folder" else "." + layout.split(".")[0]
    assert names["kept"] == f"kept{suffix}"
    kept = read_rows(run / names["kept"])
    assert [row.own_id for row in kept.rows] == ["r0", "r2", "r3"]
    assert [row.own_id for row in read_rows(run / names["removed"]).rows] == ["r1"]
    assert file.fingerprint == read_rows(path).fingerprint


@pytest.mark.parametrize("layout", ["csv", "tsv", "json", "parquet", "arrow", "folder"])
def test_a_decision_that_keeps_all_gives_the_same_file_and_one_that_keeps_none_the_same_shape(
    tmp_path: Path, layout: str
):
    path = write(tmp_path, layout, rows_of("alpaca"))
    run, file = run_of(tmp_path, path)
    kept = run / decided(run, file, removed=())["kept"]
    if layout in ("csv", "tsv", "json"):
        assert kept.read_bytes() == path.read_bytes()
    elif layout == "parquet":
        assert parquet.read_schema(kept).equals(parquet.read_schema(path), check_metadata=True)
        assert parquet.read_table(kept).equals(parquet.read_table(path))
    elif layout == "folder":
        assert load_from_disk(str(kept)).to_list() == load_from_disk(str(path)).to_list()
        assert load_from_disk(str(kept)).features == load_from_disk(str(path)).features
    removed = run / decided(run, file, removed=())["removed"]
    if layout == "json":
        assert json.loads(removed.read_bytes()) == []
    elif layout in ("csv", "tsv"):
        assert removed.read_bytes().splitlines() == path.read_bytes().splitlines()[:1]
    elif layout == "parquet":
        assert parquet.read_table(removed).num_rows == 0
        assert parquet.read_schema(removed).names == parquet.read_schema(path).names


def test_text_that_is_json_stays_text(tmp_path: Path):
    answer = '[{"role": "admin", "name": "x"}]'
    chat = json.dumps(CHAT)
    rows = [{"prompt": chat, "completion": answer}, {"prompt": "q", "completion": chat}]
    file = read_rows(write(tmp_path, "jsonl", rows))
    assert [row.target for row in file.rows] == [answer, chat]
    # A table without nested columns has no other way to hold turns.
    file = read_rows(write(tmp_path, "csv", rows))
    assert [row.target for row in file.rows] == [answer, "Here,\nthere"]


def test_reading_writes_nothing_beside_the_data(tmp_path: Path):
    saved = tmp_path / "saved"
    Dataset.from_list(rows_of("chat")).shuffle(seed=1).save_to_disk(str(saved))
    before = sorted(path.name for path in saved.rglob("*"))
    read_rows(saved)
    assert sorted(path.name for path in saved.rglob("*")) == before


def test_a_json_array_named_jsonl_is_read_as_what_it_is(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + json.dumps(rows_of("chat")).encode())
        assert [row.line for row in read_rows(path).rows] == [1, 1, 1, 1]
        assert CONTAINERS["json"] is open_sources(path)[0].container


def test_line_numbers_of_arrays_and_tables_are_those_of_the_file(tmp_path: Path):
    file = read_rows(write(tmp_path, "json", rows_of("prompt_completion")))
    text = (tmp_path / "rows.json").read_text().splitlines()
    assert all(text[row.line - 1].strip() == "{" for row in file.rows)
    file = read_rows(write(tmp_path, "csv", rows_of("chat")))
    assert [row.line for row in file.rows] == [2, 3, 4, 5]
    (tmp_path / "rows.csv").write_text('prompt,completion\n"a\nb",c\n\nd,e\n')
    assert [row.line for row in read_rows(tmp_path / "rows.csv").rows] == [2, 5]


def test_tables_of_other_programs(tmp_path: Path):
    path = tmp_path / "rows.csv"
    expected = [("q;1", "ä"), ("q2", "b")]
    for text in (
        'prompt;completion\r\n"q;1";ä\r\nq2;b\r\n',
        "\ufeffprompt,completion\nq;1,ä\nq2,b",
        "prompt|completion|\nq;1|ä|\nq2|b|\n",
        "prompt\tcompletion\nq;1\tä\nq2\tb\n",
        "prompt,completion\rq;1,ä\rq2,b\r",
    ):
        path.write_bytes(text.encode())
        file = read_rows(path)
        assert [(row.messages[0].content, row.target) for row in file.rows] == expected, text
        path.with_suffix(".txt").write_bytes(text.encode())
        if not text.startswith("\ufeff"):
            assert len(read_rows(path.with_suffix(".txt")).rows) == 2
    long = "x" * 200_000
    path.write_text(f"prompt,completion\nq,{long}\nr,b\n")
    assert read_rows(path).rows[0].target == long
    assert csv.field_size_limit() == 131_072
    records = iter(Delimited("csv").records(path.read_bytes(), 2**30))
    next(records)  # left before its end
    assert csv.field_size_limit() == 131_072


def test_bad_records_of_a_table_cost_themselves_alone_and_come_back_byte_for_byte(tmp_path: Path):
    path = tmp_path / "rows.csv"
    data = (
        b'prompt,completion\nq1,a1\nq2\nq3,a3,x\ncaf\xe9,a4\nq5,\nq6,"a"6\nq7,a7\n'
        b'q8,"never closed\nq9,a9\n'
    )
    path.write_bytes(data)
    run, file = run_of(tmp_path, path)
    assert [(row.line, row.target) for row in file.rows] == [(2, "a1"), (8, "a7")]
    assert [(row.line, row.reason.split(":")[0]) for row in file.rejected] == [
        (3, "1 fields; the header has 2"),
        (4, "3 fields; the header has 2"),
        (5, "not UTF-8"),
        (6, "no known format"),
        (7, "a quote inside a quoted field; write it twice"),
        (9, "a quote that is never closed takes in lines 9 to 10"),
    ]
    assert file.malformed == 5
    names = decided(run, file, removed=[6])
    pieces = [(run / names[name]).read_bytes() for name in ("kept", "removed", "rejected")]
    header = b"prompt,completion\n"
    assert all(piece.startswith(header) for piece in pieces)
    body = sorted(line for piece in pieces for line in piece[len(header) :].splitlines())
    assert body == sorted(data[len(header) :].splitlines())


csv_fields = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@quick
@given(
    st.lists(st.tuples(csv_fields, csv_fields), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(",;\t"),
    st.data(),
)
def test_any_table_is_split_and_joined_without_loss(
    tmp_path: Path, pairs: list[tuple[str, str]], end: str, mark: str, data: st.DataObject
):
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=mark, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "completion"), *pairs])
    stored = buffer.getvalue().encode()
    container = CONTAINERS["csv"]
    found = list(container.records(stored, 10**6))
    assert [record.columns for record in found] == [
        {"prompt": a or None, "completion": b or None} for a, b in pairs
    ]
    assert b"".join(container.subset(stored, range(len(found)))) == stored
    wanted = sorted(data.draw(st.sets(st.sampled_from(range(len(found))))))
    part = b"".join(container.subset(stored, wanted))
    assert [one.columns for one in container.records(part, 10**6)] == [
        found[number].columns for number in wanted
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@quick
@given(
    st.lists(json_values, min_size=1, max_size=6),
    st.sampled_from([None, 0, 2]),
    st.sampled_from([", ", ","]),
    st.booleans(),
    st.data(),
)
def test_any_array_is_split_and_joined_without_loss(
    values: list[Any], indent: int | None, comma: str, is_ascii: bool, data: st.DataObject
):
    text = json.dumps(values, indent=indent, separators=(comma, ": "), ensure_ascii=is_ascii)
    try:
        stored = text.encode()
    except UnicodeEncodeError:
        return
    container = CONTAINERS["json"]
    found = list(container.records(stored, 10**6))
    assert [isinstance(value, dict) for value in values] == [r.columns is not None for r in found]
    assert b"".join(container.subset(stored, range(len(found)))) == stored
    wanted = sorted(data.draw(st.sets(st.sampled_from(range(len(found))))))
    part = json.loads(b"".join(container.subset(stored, wanted)))
    assert part == [values[number] for number in wanted]
    for record, value in zip(found, values, strict=True):
        assert b"\n" not in record.raw or record.columns is None
        if record.columns is not None:
            assert json.loads(record.raw) == value


def test_several_files_keep_the_source_of_each_row(tmp_path: Path):
    first = write(tmp_path, "jsonl", rows_of("chat"))
    (tmp_path / "more").mkdir()
    second = write(tmp_path / "more", "jsonl", rows_of("alpaca"))
    run, file = run_of(tmp_path, [first, second])
    assert file.source_names().tolist() == [str(first)] * 4 + [str(second)] * 4
    assert [row.line for row in file.rows] == [1, 2, 3, 4] * 2
    names = decided(run, file, removed=[0, 7])
    assert names == {"kept": "kept.jsonl", "removed": "removed.jsonl", "rejected": "rejected.jsonl"}
    lines = [*first.read_bytes().splitlines(), *second.read_bytes().splitlines()]
    assert [row.raw for row in file.rows] == lines
    assert [row.own_id for row in read_rows(str(tmp_path / "**/*.jsonl")).rows] != []
    with pytest.raises(DataError, match="No file matches"):
        read_rows(str(tmp_path / "*.nothing"))


def test_files_of_different_containers_come_back_each_in_its_own(tmp_path: Path):
    paths = [
        write(tmp_path, layout, rows_of("prompt_completion")) for layout in ("csv", "json", "jsonl")
    ]
    run, file = run_of(tmp_path, paths)
    names = decided(run, file, removed=[0, 4, 5])
    kept = run / names["kept"]
    assert sorted(path.name for path in kept.iterdir()) == ["rows.csv", "rows.json", "rows.jsonl"]
    counts = {path.name: len(read_rows(path)) for path in kept.iterdir()}
    assert counts == {"rows.csv": 3, "rows.json": 2, "rows.jsonl": 4}
    # Another decision leaves nothing of this one.
    write_containers(run, file, ["undecided"] * len(file))
    assert not kept.exists()
    assert len(read_rows(run / "undecided" / "rows.json")) == 4


def test_a_saved_data_set_of_splits_asks_for_one(tmp_path: Path):
    rows = Dataset.from_list(rows_of("chat"))
    DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(DataError, match=r"holds the splits test, train.*Name it"):
        read_rows(tmp_path / "both")
    assert len(read_rows(tmp_path / "both" / "train")) == 4
    DatasetDict(train=rows).save_to_disk(str(tmp_path / "one"))
    assert len(read_rows(tmp_path / "one")) == 4
    (tmp_path / "files").mkdir()
    write(tmp_path / "files", "csv", rows_of("chat"))
    with pytest.raises(DataError, match=r"is a folder.*\*\.csv"):
        read_rows(tmp_path / "files")


def test_a_hub_name_is_loaded_with_subset_revision_and_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The loading is real, of a folder that stands for the Hub; its arguments are looked at."""
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, "jsonl", rows_of("chat"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = read_rows(f"hub:{folder}:train[:2]")
    assert [row.own_id for row in file.rows] == ["r0", "r1"]
    assert file.sources[0].container.name == "parquet"
    with pytest.raises(DataError, match=r"can't be loaded.*Check the name and the connection"):
        read_rows(f"hub:{folder}:nothing")
    import datasets

    called: list[Any] = []

    def load(*names: Any, **named: Any) -> Any:
        called.append((names, named))
        return Dataset.from_list(rows_of("chat"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    read_rows("hub:owner/name/subset@abc:test")
    assert called == [(("owner/name", "subset"), {"split": "test", "revision": "abc"})]
    with pytest.raises(DataError, match="names no data set"):
        read_rows("hub:")


@pytest.mark.parametrize(
    "make", [list, pd.DataFrame, Dataset.from_list, lambda r: Dataset.from_list(r).select([3, 1])]
)
def test_rows_in_python_are_read_like_files(tmp_path: Path, make: Callable[[Any], Any]):
    rows = [dict(row) for row in rows_of("sharegpt")]
    run, file = run_of(tmp_path, make(rows))
    assert {row.messages for row in file.rows} == {
        row.messages for row in read_rows(write(tmp_path, "jsonl", rows)).rows
    }
    assert open_sources(make(rows))[0].name.startswith("<")
    decided(run, file)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "is empty"),
        (DatasetDict(), "Choose a split"),
        ({"a": 1}, "Rows were given as dict"),
        (7, "Rows were given as int"),
        ([1], "Rows were given as list"),
    ],
)
def test_other_things_in_python_are_refused(data: Any, says: str):
    with pytest.raises(DataError, match=says):
        read_rows(data)


def test_a_row_is_found_by_what_its_file_calls_it(tmp_path: Path):
    names = [
        ({"id": 7}, "7"),
        ({"id": "7"}, "7"),
        ({"uuid": "u-1"}, "u-1"),
        ({"_id": {"$oid": "64"}}, "64"),
        ({"id": 3.0}, "3.0"),
        ({"conversation_id": "c"}, "c"),
        ({"example_id": "e"}, "e"),
        ({"ID": "i"}, "i"),
        ({"id": None, "uid": "x"}, "x"),
        ({"id": True}, ""),
        ({}, ""),
    ]
    rows = [{**own, "prompt": "q", "completion": "a"} for own, _ in names]
    file = read_rows(write(tmp_path, "jsonl", rows))
    assert [row.own_id for row in file.rows] == [name for _, name in names]
    assert [row.example_id for row in file.rows] == [
        *("row-0", "row-1", "u-1", "64", "3.0", "c", "e", "i", "x", "row-9", "row-10")
    ]
