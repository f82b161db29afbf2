"""Rows that are made to stop a command: each costs itself alone, in little time and memory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forgetfilter.data import read_rows
from forgetfilter.data.containers.convert import convert_file
from forgetfilter.data.containers.tables import stream_of
from forgetfilter.data.formats.bounded_json import MAX_DEPTH, literal
from forgetfilter.data.records import RowFile
from forgetfilter.data.tokens.control_tokens import texts_of
from forgetfilter.data.tokens.conversations import SHAPES, conversation
from forgetfilter.data.tokens.encoding import MOST_TURNS, Encoder
from forgetfilter.data.tokens.spans import MARK, Around, opening
from forgetfilter.data.validation.rules import rule_of
from forgetfilter.errors import DataError

GOOD = '{"prompt": "q", "completion": "a"}'
ASKED, ANSWERED = '{"role": "user", "content": "q"}', '{"role": "assistant", "content": "a"}'


@contextmanager
def within_seconds(seconds: float) -> Iterator[None]:
    """Raise where this takes more of the processor."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def read(folder: Path, *lines: str, name: str = "rows.jsonl") -> RowFile:
    """The rows of some lines and of a good one at the end."""
    path = folder / name
    path.write_text("\n".join([*lines, GOOD]) + "\n", encoding="utf-8")
    return read_rows(path)


def lists(depth: int) -> str:
    return "[" * depth + '"x"' + "]" * depth


def objects(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def called(arguments: str) -> str:
    call = f'{{"name": "f", "arguments": {arguments}}}'
    answer = f'{{"role": "assistant", "content": "", "tool_calls": [{call}]}}'
    return f'{{"messages": [{ASKED}, {answer}]}}'


def beside(column: str, value: str) -> str:
    return f'{{"messages": [{ASKED}, {ANSWERED}], "{column}": {value}}}'


def tool(schema: str) -> str:
    return f'[{{"name": "f", "parameters": {schema}}}]'


NESTED: dict[str, Callable[[int], str]] = {
    "tools": lambda n: beside("tools", tool(objects(n))),
    "tools as text": lambda n: beside("tools", json.dumps(tool(objects(n)))),
    "a call": lambda n: called(objects(n)),
    "a call as text": lambda n: called(json.dumps(objects(n))),
    "text in a call": lambda n: called(json.dumps({"q": lists(n)})),
    "brackets in a call": lambda n: called(json.dumps({"q": "[" * n})),
    "a column that is learned": lambda n: beside("responses", lists(n)),
    "a column that is not": lambda n: beside("meta", objects(n)),
    "an id": lambda n: beside("id", objects(n)),
    "turns": lambda n: f'{{"messages": {lists(n)}}}',
    "turns as text": lambda n: f'{{"messages": {json.dumps(lists(n))}}}',
}


@pytest.mark.parametrize("where", NESTED)
def test_a_row_nested_deeply_costs_itself_alone(tmp_path: Path, where: str):
    depths = (10, MAX_DEPTH - 1, MAX_DEPTH, 300, 600, 900, 970, 5000, 200_000)
    file = read(tmp_path, *(NESTED[where](depth) for depth in depths))
    assert len(file) == len(depths) + 1
    for row in file.rows:  # whatever is read goes through all that comes after
        assert texts_of(row.messages, row.tools)
        for shape in SHAPES:
            json.dumps(conversation(row.messages, row.tools, shape).task())
    assert file.rows[-1].target == "a"
    for row in file.rejected:
        assert rule_of(row.reason).rule.name != "other", row.reason


def test_json_within_json_within_json_is_looked_through(tmp_path: Path):
    text = "<|end|>"
    for _ in range(14):
        text = json.dumps([[[[[text]]]]])
    (row, _) = read(tmp_path, called(json.dumps({"q": text}))).rows
    assert "<|end|>" in texts_of(row.messages, row.tools)


@pytest.mark.parametrize("container", ["jsonl", "json"])
def test_a_key_that_stands_twice_costs_the_row(tmp_path: Path, container: str):
    """What keeps the line may be read by a program that takes the other value."""
    rows = [
        '{"prompt": "q", "completion": "harm", "completion": "a"}',
        '{"messages": [' + ASKED + ', {"role": "assistant", "content": "harm", "content": "a"}]}',
    ]
    path = tmp_path / f"rows.{container}"
    lines = [*rows, GOOD]
    path.write_text("\n".join(lines) if container == "jsonl" else f"[{', '.join(lines)}]")
    file = read_rows(path)
    assert [row.row for row in file.rows] == [2]
    assert [rule_of(row.reason).rule.name for row in file.rejected] == ["malformed_json"] * 2
    assert all("stands twice" in row.reason for row in file.rejected)


@pytest.mark.parametrize("container", ["arrow", "parquet"])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, container: str):
    columns = [pa.array(["q"]), pa.array(["harm"]), pa.array(["a"])]
    table = pa.Table.from_arrays(columns, names=["prompt", "completion", "completion"])
    path = tmp_path / f"rows.{container}"
    if container == "arrow":
        path.write_bytes(stream_of(table))
    else:
        pq.write_table(table, path)
    with pytest.raises(DataError, match=r"names the column 'completion' twice\. Expected"):
        read_rows(path)


def test_what_follows_the_end_of_a_table_is_not_passed_over(tmp_path: Path):
    path = tmp_path / "rows.arrow"
    whole = stream_of(pa.table({"prompt": ["q"], "completion": ["a"]}))
    path.write_bytes(whole)
    assert len(read_rows(path)) == 1
    path.write_bytes(whole + whole)
    with pytest.raises(DataError, match="bytes follow the end of its table"):
        read_rows(path)


def test_a_key_that_stands_twice_in_arguments_as_text_costs_the_row(tmp_path: Path):
    file = read(tmp_path, called(json.dumps('{"q": "harm", "q": "a"}')))
    assert [row.row for row in file.rows] == [1]


SLOW = {
    "blanks before the end": "### Human: q\n### Assistant: a" + " " * 200_000 + "x",
    "blanks in an answer": "[INST]q[/INST]a" + " " * 200_000 + "x",
    "marks that open": "[INST]" * 100_000,
    "marks, one of them closed": "[INST]q[/INST]" + "[INST]" * 100_000 + "[/INST]a",
    "beginnings": "<s>" + " " * 50_000 + "[INST]q[/INST]a" + "<s> " * 50_000,
    "chat marks": "<|im_start|>user\n" * 20_000,
    "headings": "###" + " A" * 100_000,
}


@pytest.mark.parametrize("text", SLOW)
def test_a_text_with_marks_is_read_in_time_by_its_length(tmp_path: Path, text: str):
    with within_seconds(3):
        assert len(read(tmp_path, json.dumps({"text": SLOW[text]}))) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[INST]q[/INST]a", ["q", "a"]),
        ("<s>[INST] q [/INST] a </s><s>[INST] r [/INST] b </s>", ["q", "a", "r", "b"]),
        ("[INST] <<SYS>> s <</SYS>> q [/INST] a", ["s", "q", "a"]),
        ("[INST]q [INST] r[/INST]a[/INST]b</s>", ["q [INST] r", "a[/INST]b"]),
    ],
)
def test_turns_between_marks(tmp_path: Path, text: str, said: list[str]):
    row = read(tmp_path, json.dumps({"text": text})).rows[0]
    assert [turn.content for turn in row.messages] == said


def test_what_follows_a_mark_that_is_never_closed_is_not_passed_over(tmp_path: Path):
    file = read(tmp_path, json.dumps({"text": "[INST]q[/INST]a[INST]harm that nobody reads"}))
    assert [row.row for row in file.rows] == [1]
    assert rule_of(file.rejected[0].reason).rule.name == "text_without_marks"


TELLING_MEMORY = """
import re, resource, sys
from pathlib import Path
from forgetfilter.data import read_rows
from forgetfilter.errors import DataError
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30,) * 2)
for path in sys.argv[1:]:
    try:
        print(len(read_rows(Path(path))))
    except DataError as error:
        print(error)
# The peak since this program began; that of getrusage may be the one of who started it.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by Linux alone")
def test_what_looks_like_python_takes_memory_by_its_length(tmp_path: Path):
    """A tree of Python's own has 800 bytes for each of ``1,1,1``."""
    text = "[" + "1," * 400_000 + "}"
    rows, whole = tmp_path / "rows.jsonl", tmp_path / "whole.jsonl"
    rows.write_text(f"{json.dumps({'messages': text})}\n{GOOD}\n", encoding="utf-8")
    whole.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", TELLING_MEMORY, str(rows), str(whole)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
    of_rows, of_whole, kilobytes = done.stdout.splitlines()
    assert of_rows == "2"
    assert "Expected" in of_whole
    assert int(kilobytes) < 350_000


@pytest.mark.parametrize(
    "text",
    [
        "[{'role': 'user', 'content': 'it\\'s f\\'(x)'}]",
        '[{"a": "of the f", \'b\': None, "c": (1, 2.5), "d": -1}]',
    ],
)
def test_what_python_prints_is_read(text: str):
    assert literal(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" + "1," * 200_000 + "]",
        "[#'\n" + "1," * 200_000 + "]",
        "[f'{" + "1," * 200_000 + "}']",
        "[rF'{" + "1," * 200_000 + "}']",
        "['''" + "'," * 200_000 + "]",
    ],
)
def test_a_long_tree_of_python_is_never_made(text: str):
    with within_seconds(2), pytest.raises((ValueError, SyntaxError)):
        literal(text)


@pytest.mark.parametrize("name", ["screen", "convert"])
@pytest.mark.parametrize("start", ["[", '{"a":\n"', '["', "[{'a': '"])
def test_a_broken_file_is_told_in_time_by_its_length(tmp_path: Path, name: str, start: str):
    """Each quote of it could begin a string that is never closed."""
    path = tmp_path / "rows.json"
    path.write_text(start + '\\"' * 200_000, encoding="utf-8")
    with within_seconds(3):
        if name == "convert":
            with pytest.raises(DataError):
                convert_file(path, tmp_path / "new")
        else:
            with suppress(DataError):  # or all of its lines are rejected
                assert not read_rows(path).rows


@pytest.mark.parametrize("text", ["[{(1, 2): 3}]", '{"a":' * 990 + "1" + "}" * 990 + "\n{}"])
def test_convert_says_what_json_has_no_word_for(tmp_path: Path, text: str):
    path = tmp_path / "rows.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="No rows"):
        convert_file(path, tmp_path / "new")


def test_a_row_of_very_many_turns_costs_itself_alone(
    tmp_path: Path, tiny_tokenizer: Callable[..., Any]
):
    """What templates put around turns is found by renderings of all their beginnings."""
    turns = ", ".join([ASKED, ANSWERED] * 8000)
    file = read(tmp_path, f'{{"messages": [{turns}]}}')
    with within_seconds(4):
        encoded, rejected = Encoder(tiny_tokenizer(), "auto", 512).encode(file.rows)
    assert [row.row for row in encoded] == [1]
    assert rule_of(rejected[0].reason).rule.name == "too_many_turns"
    assert f"{MOST_TURNS:,}" in rejected[0].reason


def test_what_a_template_renders_is_looked_through_in_time_by_its_length():
    """A template is a stranger's too, and its limits don't hold where its text is read."""
    long = "a " * 100_000
    with within_seconds(3):
        assert MARK.findall(" " * 200_000 + "[INST]") == ["[INST]"]
        assert opening("b" + long, 1, Around("b" + long, "b", None)) == ""
    assert opening("b<think>x", 8, Around("b<think>\n", "b", None)) == "\n"
