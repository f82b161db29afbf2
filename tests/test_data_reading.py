"""Any bytes become rows that are readable or rejected, and nothing is lost or made up."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forgetfilter.data import read_rows
from forgetfilter.data.many_rows import line_files
from forgetfilter.data.records import Message
from forgetfilter.errors import DataError
from forgetfilter.text import printable

quick = settings(
    deadline=None, max_examples=75, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

GOOD = b'{"prompt": "Hello?", "completion": "Hi."}'


def read(folder: Path, data: bytes, name: str = "rows.jsonl"):
    path = folder / name
    path.write_bytes(data)
    return read_rows(path)


def read_one(folder: Path, record: Any):
    """The messages of a file's only row, or the reason for which it was rejected."""
    data = record if isinstance(record, bytes) else json.dumps(record).encode()
    file = read(folder, data + b"\n" + GOOD)  # a good row beside it: never a whole-file error
    assert len(file) == 2
    assert file.rows[-1].raw == GOOD
    if file.rejected:
        assert (file.rejected[0].row, file.rejected[0].line, file.rejected[0].raw) == (0, 1, data)
        return file.rejected[0].reason
    assert file.rows[0].raw == data
    return file.rows[0].messages


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
answers = texts.filter(str.strip)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
columns = ["id", "messages", "prompt", "completion", "instruction", "input", "output", "extra"]
columns += ["conversations", "chosen", "rejected", "text", "tools", "system", "history", "answer"]
turn_keys = ["role", "from", "content", "value", "weight", "train", "thinking", "tool_calls"]
turn_keys += ["function_call", "name", "type", "function", "arguments", "x"]
parts = st.dictionaries(
    st.sampled_from(turn_keys),
    json_values
    | st.sampled_from(["user", "assistant", "gpt", "tool", "function_call", "a", "{", "[[1]]"])
    | st.lists(st.dictionaries(st.sampled_from(turn_keys), json_values | st.just("f"))),
)
near_rows = st.dictionaries(
    st.sampled_from(columns),
    json_values
    | st.lists(parts, max_size=4)
    | st.lists(parts, max_size=4).map(json.dumps)
    | st.lists(parts, max_size=4).map(repr)
    | st.sampled_from(
        ["<|im_start|>user\nq", "### Human: q\n### Assistant: a", "{1: {2}}", "[b'x']"]
    ),
).map(lambda record: json.dumps(record).encode())
good_rows = st.builds(
    lambda own, answer: json.dumps({"id": own, "prompt": "p", "completion": answer}).encode(),
    st.sampled_from(["a", "b", "row-0", "row-1", "row-1-2", "", 1, "1", None, True]),
    answers,
)
lines = st.binary(max_size=30) | near_rows | good_rows | st.sampled_from([b"", b" \t\r", GOOD])


@quick
@given(st.lists(lines, max_size=12).map(b"\n".join))
def test_every_line_of_any_file_is_a_row_or_blank(tmp_path: Path, data: bytes) -> None:
    try:
        file = read(tmp_path, data)
    except DataError:
        return
    originals = [(n, raw) for n, raw in enumerate(data.split(b"\n"), 1) if raw.strip()]
    everything = sorted([*file.rows, *file.rejected], key=lambda row: row.row)
    assert [(row.line, row.raw) for row in everything] == originals
    assert [row.row for row in everything] == list(range(len(originals)))
    assert len({row.example_id for row in everything}) == len(originals)
    assert file.fingerprint == hashlib.sha256(data).hexdigest()
    for row in file.rows:
        assert row.messages[-1].role == "assistant"
        assert row.target.strip()
        assert all(message.content.encode() is not None for message in row.messages)
    for row in file.rejected:
        assert row.reason
        assert row.reason.isprintable()
        assert len(row.reason) < 500


turns = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), texts), max_size=5)


@quick
@given(turns, answers, st.booleans())
def test_messages_come_back_as_written(
    tmp_path: Path, before: list[tuple[str, str]], answer: str, is_ascii: bool
) -> None:
    before = [("user", "question"), *before]
    record = [{"role": role, "content": text} for role, text in [*before, ("assistant", answer)]]
    data = json.dumps({"messages": record}, ensure_ascii=is_ascii).encode()
    (row,) = read(tmp_path, data).rows
    assert [(turn.role, turn.content) for turn in row.messages] == [*before, ("assistant", answer)]
    assert row.target == answer


U, A, S = (
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "a"},
    {"role": "system", "content": "s"},
)
QA = (Message("user", "q"), Message("assistant", "a"))


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [U, A]},
        {"messages": [U, A], "prompt": "another", "completion": "a"},
        {"messages": [], "prompt": "q", "completion": "a"},
        {"messages": None, "prompt": "q", "completion": "a"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, A]},
        {"messages": [U, {"role": "assistant", "content": "a", "name": "x"}], "score": [1, {}]},
        {"prompt": "q", "completion": "a"},
        {"prompt": [U], "completion": [A]},
        {"prompt": [U], "completion": "a"},
        {"prompt": "q", "completion": [A]},
        {"instruction": "q", "output": "a"},
        {"instruction": "q", "input": "", "output": "a"},
        {"instruction": "q", "input": None, "output": "a", "prompt": "rendered"},
        b'{"prompt": "q", "completion": "wrong", "completion": "a"}',
        b'{"prompt": "q", "completion": "a", "x": NaN}',
        b'{"prompt": "q", "completion": "a", "x": -Infinity}',
        b'{"prompt": "q", "completion": "a", "x": ' + b"9" * 5000 + b"}",
        b'{"prompt": "q", "completion": "a"}\r',
        b'\xef\xbb\xbf{"prompt": "q", "completion": "a"}',
    ],
)
def test_every_format_reads_as_the_same_conversation(tmp_path: Path, record: Any) -> None:
    assert read_one(tmp_path, record) == QA


def test_system_turns_input_and_text_parts(tmp_path: Path) -> None:
    assert read_one(tmp_path, {"messages": [S, U, A, U, A]}) == (
        Message("system", "s"),
        *QA,
        *QA,
    )
    alpaca = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert read_one(tmp_path, alpaca) == (
        Message("user", "Add.\n\n1 2"),
        Message("assistant", "3"),
    )
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    messages = read_one(tmp_path, {"prompt": "q", "completion": [{**A, "content": parts}]})
    assert messages[-1] == Message("assistant", "one two")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"prompt": "q", "completion": "a"', "malformed JSON at character 34: expecting ','"),
        (b'{"prompt": "q"} {"completion": "a"}', "malformed JSON at character 17: extra data"),
        (b'{"prompt": "q\x01", "completion": "a"}', "malformed JSON at character 14"),
        (b'{"prompt": "q", "completion": NaN}', "completion is a number; expected a list of"),
        (b'{"x": ' + b"9" * 5000 + b"}", "no known format: found columns x"),
        (b'{"x": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": "caf\xe9", "completion": "a"}', "not UTF-8: byte 0xe9 at position 16"),
        (b"\xff\xfe broken", "not UTF-8: byte 0xff at position 1"),
        (b"[1, 2]", "not a JSON object but a list"),
        (b"null", "not a JSON object but null"),
        ({}, "no known format: found no columns"),
        ({"texts": "t", "chosen": None}, "found columns texts, chosen (null); expected one of me"),
        ({"text": "t", "chosen": None}, "text has no mark that tells an answer from its prompt"),
        ({str(n): n for n in range(20)}, "5, 6, 7 and 12 more"),
        ({"prompt": "q", "completion": None}, "found columns prompt, completion (null)"),
        ({"messages": []}, "no turns"),
        ({"messages": "hello"}, "messages is text; expected a list of turns"),
        ({"messages": [U, "a"]}, "messages turn 2 is text; expected role and content"),
        ({"messages": [U]}, "the last turn is the user's"),
        ({"messages": [A]}, "no turn before the answer"),
        ({"messages": [{"role": "judge", "content": "x"}, A]}, "role is 'judge'; expected one of"),
        ({"messages": [{"role": ["user"], "content": "x"}, A]}, "role is a list"),
        ({"messages": [{"whom": "human", "value": "x"}, A]}, "role is null or absent"),
        ({"messages": [U, {**A, "content": None}]}, "turn 2: content is null or absent"),
        ({"messages": [{**U, "content": [{"type": "image_url"}]}, A]}, "part 1 is not text"),
        ({"messages": [{**U, "content": ["q"]}, A]}, "part 1 is not text"),
        ({"messages": [U, {**A, "content": " \n"}]}, "empty completion"),
        ({"prompt": "q", "completion": ""}, "empty completion"),
        ({"prompt": "q", "completion": 7}, "completion is a number; expected a list of turns"),
        ({"prompt": [], "completion": "a"}, "no turn before the answer"),
        ({"instruction": "q", "output": ["a"]}, "output is a list; expected text"),
        ({"instruction": "q", "output": " "}, "empty completion"),
        ({"prompt": "q\ud800", "completion": "a"}, "half a surrogate pair"),
    ],
)
def test_bad_rows_are_rejected_with_the_reason(tmp_path: Path, record: Any, reason: str) -> None:
    assert reason in read_one(tmp_path, record)


def test_reasons_carry_no_control_characters_and_no_walls_of_text(tmp_path: Path) -> None:
    hostile = "\x1b[2J\u202e\x07" + "x" * 10_000
    for record in (
        {hostile: 1},
        {"messages": [{"role": hostile, "content": "q"}, A]},
        {"messages": [{**U, "content": hostile + "\udfff"}, A]},
    ):
        reason = read_one(tmp_path, record)
        assert reason.isprintable()
        assert len(reason) < 200


def test_a_line_beyond_the_limit_is_rejected_unparsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = json.dumps({"id": "own", "prompt": "q", "completion": "x" * 100_000}).encode()
    assert read(tmp_path, long).rows[0].target == "x" * 100_000
    monkeypatch.setattr(line_files, "MAX_LINE_BYTES", 1000)
    file = read(tmp_path, long + b"\n" + GOOD)
    assert "at most 1000 are read" in file.rejected[0].reason
    assert file.rejected[0].raw == long


def test_blank_lines_count_as_lines_but_not_as_rows(tmp_path: Path) -> None:
    file = read(tmp_path, b"\n \t\r\n" + GOOD + b"\r\n\n{oops\n" + GOOD + b"\n\n")
    assert [(row.row, row.line) for row in file.rows] == [(0, 3), (2, 6)]
    assert [(row.row, row.line) for row in file.rejected] == [(1, 5)]
    assert file.rows[0].raw == GOOD + b"\r"


def test_an_awkward_file_is_read_whole(tmp_path: Path) -> None:
    """The file of the contract: 1,500 rows, among them three that can't be used."""
    lines = [
        json.dumps(
            {"id": str(n // 2), "prompt": f"q{n}", "completion": "a", f"x{n % 9}": n}
        ).encode()
        for n in range(1500)
    ]
    lines[100] = b'{"prompt": "broken'
    lines[200] = b'{"prompt": "q", "completion": ""}'
    lines[300] = b'{"prompt": "\xff\xfe", "completion": "a"}'
    lines[400] = json.dumps({"prompt": "q", "completion": "x" * 100_000}).encode()
    file = read(tmp_path, b"\n\n".join(lines) + b"\n")
    assert [row.row for row in file.rejected] == [100, 200, 300]
    assert [row.reason.split(":")[0] for row in file.rejected] == [
        "malformed JSON at character 12",
        "empty completion",
        "not UTF-8",
    ]
    assert len(file) == 1500
    assert all(row.raw == lines[row.row] for row in [*file.rows, *file.rejected])
    # Twins share an id, so neither has it; who lost a twin among the four replaced lines keeps it.
    own = {row.row: row.example_id for row in file.rows if not row.example_id.startswith("row-")}
    assert own == {101: "50", 201: "100", 301: "150", 401: "200"}


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    text = "one\u2028two\x85three"
    record = json.dumps({"prompt": text, "completion": text}, ensure_ascii=False).encode()
    assert read(tmp_path, record).rows[0].target == text


def test_own_ids_are_used_only_where_they_name_one_row(tmp_path: Path) -> None:
    own = ["a", "twice", "twice", 7, "7", "", None, True, "x" * 201, "row-1", "\x1b[0m", "\ud800"]
    records = [{"id": value, "prompt": "q", "completion": "a"} for value in own]
    records.append({"id": "rejected", "prompt": "q"})
    records.append({"id": "a" * 200, "prompt": "q"})
    records.append({"id": 12, "prompt": "q"})
    file = read(tmp_path, b"\n".join(json.dumps(record).encode() for record in records))
    assert [row.example_id for row in file.rows] == [
        "a",
        "row-1-2",  # row 9 calls itself row-1
        *(f"row-{row}" for row in range(2, 9)),
        "row-1",
        "\x1b[0m",  # an id is data and stays as it is
        "row-11",
    ]
    assert [row.example_id for row in file.rejected] == ["rejected", "a" * 200, "12"]


def test_gzip_is_recognised_by_its_bytes(tmp_path: Path) -> None:
    stored = gzip.compress(GOOD + b"\n")
    file = read(tmp_path, stored, "rows.jsonl")
    assert file.rows[0].raw == GOOD
    assert file.fingerprint == hashlib.sha256(stored).hexdigest()
    for damaged in (stored[:-9], stored[:12] + b"\xff" * 20):
        with pytest.raises(DataError, match="can't be decompressed"):
            read(tmp_path, damaged)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("empty.jsonl", b"", "has 0 rows"),
        ("blank.jsonl", b"\n \r\n", "has 0 rows"),
        ("rows.parquet", b"PAR1\x15\x04\x15", "whole Parquet file"),
        ("rows.arrow", b"ARROW1\0\0\xff", "whole Arrow file"),
        ("rows.zst", b"\x28\xb5\x2f\xfd\x00", "whole zstd file"),
    ],
)
def test_other_files_are_refused_with_the_way_to_convert_them(
    tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, data, name)
    assert says in str(caught.value)
    assert "Expected" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "first"),
    [("rows.csv", GOOD), ("rows.parquet", GOOD), ("rows.jsonl", b"[1]"), ("a.jsonl", b"{")],
)
def test_a_likeness_does_not_turn_away_json_lines(tmp_path: Path, name: str, first: bytes) -> None:
    assert len(read(tmp_path, first + b"\n" + GOOD, name)) == 2


@pytest.mark.parametrize(
    ("path", "says"),
    [("absent.jsonl", "No file at"), ("", "is a folder"), ("nul\0", "can't be read")],
)
def test_unreadable_paths_are_explained(tmp_path: Path, path: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_rows(tmp_path / path)


def test_a_hostile_path_is_escaped_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / "\x1b]0;owned\x07\n")
    assert str(caught.value).isprintable()


@given(st.text(max_size=30), st.integers(1, 40))
def test_printable_is_one_safe_line_within_its_limit(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    if text.isprintable() and len(text) <= limit:
        assert shown == text
