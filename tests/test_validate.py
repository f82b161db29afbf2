"""`forgetfilter validate`: every rule with its line, the same as JSON, in little memory."""

from __future__ import annotations

import ast
import gzip
import json
import re
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from forgetfilter import lab
from forgetfilter.cli import main
from forgetfilter.data import read_rows
from forgetfilter.data.containers.base import MAX_LINE_BYTES
from forgetfilter.data.many_rows import line_files
from forgetfilter.data.validation.rules import OTHER, RULES, rule_of
from forgetfilter.data.validation.seen_ids import SeenIds
from forgetfilter.data.validation.streaming import stream_file
from forgetfilter.data.validation.text import describe
from forgetfilter.errors import DataError
from forgetfilter.screening.inputs.validating import Against, show_row, validate_files
from forgetfilter.text import HIDDEN

MODEL = str(Path(lab.__file__).parent / "testbed" / "files")
GOOD = {"prompt": "q", "completion": "a"}
Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CALL = {"function": {"name": "f", "arguments": {}}}


def chat(*turns: Any, **columns: Any) -> dict[str, Any]:
    return {"messages": list(turns), **columns}


def calls(value: Any) -> dict[str, Any]:
    return chat(Q, {"role": "assistant", "content": "", "tool_calls": value})


HOSTILE = "\x1b[2J\u202e<script>alert(1)</script>\u200b\r\n"

BAD: list[tuple[str, Any, str, str, str]] = [
    # rule, row (bytes: the line itself), field, what is found, what to do
    ("malformed_json", b'{"prompt": "q", oops}', "", "oops", "Mend the line"),
    ("malformed_json", b"[" * 100_000, "", "[[[", "Mend the line"),
    ("not_an_object", b'"only text"', "", '"only text"', "one object on each line"),
    ("not_utf8", b'{"prompt": "caf\xe9", "completion": "a"}', "", "caf\\xe9", "UTF-8"),
    ("no_known_format", {"frage": "q", "antwort": "a"}, "", "columns frage, antwort", "column-map"),
    (
        "column_not_read",
        {**GOOD, "response_2": "other"},
        "response_2",
        '"other"',
        "--column-map response_2=",
    ),
    ("two_system_texts", {**GOOD, "system": "x", "system_prompt": "y"}, "system", '"x"', "one of"),
    (
        "tools_differ",
        chat(Q, A, tools=[{"name": "f"}], functions=[{"name": "g"}]),
        "tools",
        '[{"name": "f"}]',
        "Leave one",
    ),
    ("no_turns", chat(), "messages", "[]", "Take the row out"),
    ("last_turn_not_assistant", chat(A, Q), "messages turn 2", '"user"', "end in an answer"),
    ("empty_answer", {"prompt": "q", "completion": " "}, "completion", '" "', "Give it an answer"),
    ("empty_answer", chat(Q, {**A, "content": ""}), "messages turn 2", "assistant", "an answer"),
    ("nothing_to_answer", chat(A), "messages turn 1", "assistant", "before the answer"),
    ("nothing_learned", chat(Q, {**A, "weight": 0}), "messages turn 2", '"weight": 0', "weight 1"),
    ("text_without_marks", {"text": "only a text"}, "text", '"only a text"', "as columns"),
    ("text_without_marks", {"text": "<|im_start|>x\nq"}, "text turn 1", "", "as columns"),
    ("key_not_read", chat(Q, {**A, "mood": "sad"}), "messages turn 2: mood", '"sad"', "key out"),
    ("key_not_read", calls([{**CALL, "more": 1}]), "messages turn 2: tool_calls 1: more", "1", "k"),
    (
        "unknown_role",
        chat({**Q, "role": "narrator"}, A),
        "messages turn 1: role",
        "narrator",
        "Use",
    ),
    (
        "unknown_role",
        {"conversations": [{"from": 3, "value": "q"}, A]},
        "conversations turn 1: from",
        "3",
        "Use system",
    ),
    (
        "role_twice",
        chat({**Q, "from": "gpt"}, A),
        "messages turn 1",
        '"from": "gpt"',
        "one of them",
    ),
    ("text_twice", chat({**Q, "text": "p"}, A), "messages turn 1: content", '"q"', "one of them"),
    (
        "text_twice",
        chat(Q, {**A, "reasoning": "x", "thinking": "y"}),
        "messages turn 2: reasoning",
        '"x"',
        "one of them",
    ),
    (
        "weight_not_0_or_1",
        chat(Q, {**A, "weight": 0.5}),
        "messages turn 2: weight",
        "0.5",
        "0 or 1",
    ),
    (
        "weights_differ",
        chat(Q, {**A, "weight": 1, "train": False}),
        "messages turn 2",
        "",
        "one of",
    ),
    ("loss_on_other_role", chat({**Q, "train": True}, A), "messages turn 1: train", "true", "0"),
    (
        "part_not_text",
        chat({"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}, A),
        "messages turn 1, part 1",
        "image_url",
        "Only text",
    ),
    ("not_encodable", b'{"prompt": "\\ud83d", "completion": "a"}', "prompt", "\\ud83d", "in pairs"),
    ("not_json_in_text", calls("f(x)"), "messages turn 2: tool_calls", '"f(x)"', "as JSON"),
    ("not_json_in_text", calls([{"name": "f", "arguments": {"x": float("nan")}}]), "m", "NaN", "J"),
    ("tool_call_not_readable", calls([{"type": "code", **CALL}]), "messages turn 2", "code", "Op"),
    ("tool_call_not_readable", chat({**Q, "tool_calls": [CALL]}, A), "messages turn 1", "", "Open"),
    ("tool_call_not_readable", calls([{"function": 3}]), "messages turn 2: tool_calls 1", "3", "O"),
    ("tool_call_not_readable", chat(Q, A, tools=[{"x": 1}]), "tools 1", '{"x": 1}', "OpenAI"),
    ("wrong_type", {"prompt": 3, "completion": "a"}, "prompt", "3", "what is expected"),
    ("wrong_type", chat({"role": "user"}, A), "messages turn 1: content", "(absent)", "expected"),
    ("wrong_type", {"messages": "hello"}, "messages", '"hello"', "expected"),
    (
        "not_a_pair",
        {"instruction": "q", "output": "a", "history": [["only"]]},
        "history",
        '[["only"]]',
        "[question, answer]",
    ),
]


def as_line(row: Any) -> bytes:
    return row if isinstance(row, bytes) else json.dumps(row).encode()


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_bytes(b"".join(as_line(row) + b"\n" for row in rows))
    return path


def looked_at(*where: Path | str, **settings: Any) -> dict[str, Any]:
    return validate_files([str(one) for one in where], {}, **settings)


@pytest.mark.parametrize(("rule", "row", "field", "found", "fix"), BAD)
def test_a_problem_is_told_with_its_place_and_what_to_do(
    tmp_path: Path, rule: str, row: Any, field: str, found: str, fix: str
):
    path = write(tmp_path / "rows.jsonl", [GOOD, b"", row, GOOD])
    told = looked_at(path)
    (problem,) = told["problems"]
    assert (problem["rule"], problem["line"], problem["row"]) == (rule, 3, 1)
    assert problem["file"] == str(path)
    assert problem["field"].startswith(field)
    assert bool(problem["field"]) == bool(field)
    assert found in problem["found"]
    assert fix in problem["fix"]
    assert problem["severity"] == "rejected"
    # The reader's own reason, and no other.
    (rejected,) = read_rows(path).rejected
    assert problem["reason"] == rejected.reason
    assert (told["status"], told["rows"], told["readable"], told["rejected"]) == (1, 3, 2, 1)
    assert [(one["rule"], one["rows"], one["first_line"]) for one in told["by_rule"]] == [
        (rule, 1, 3)
    ]


def test_every_rule_of_readers_is_tried():
    of_a_model = {
        *("longer_than_context", "control_token", "template_refuses", "template_hides_text"),
        *("template_mixes_turns", "no_place_in_blocks", "template_hides_parts"),
    }
    elsewhere = {"line_too_long", "fields_do_not_fit_header", "broken_quotes", "mapped_key_twice"}
    elsewhere |= {"no_such_format"}  # refused before a row is read
    tried = {rule for rule, *_ in BAD}
    assert tried == {rule.name for rule in RULES} - of_a_model - elsewhere


SAMPLES = {
    "where": "messages turn 1",
    "owner.turn + 1": "2",
    "problem": "puts x",
    "name.replace('_', ' ')": "tool calls",
    "' and '.join(found)": "x and y",
    "' and '.join(said)": "x and y",
    "' and '.join(texts)": "x and y",
    "name": "name",
}


def sentences() -> list[str]:
    """Every reason for which something in the package rejects a row, with samples put in."""
    package = Path(lab.__file__).parent.parent / "data"
    found: list[str] = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id not in ("UnreadableRow", "MalformedRow", "UnrenderableError"):
                continue
            (said,) = node.args
            parts = said.values if isinstance(said, ast.JoinedStr) else [said]
            text = ""
            for part in parts:
                if isinstance(part, ast.Constant):
                    text += str(part.value)
                elif isinstance(part, ast.FormattedValue):
                    name = ast.unparse(part.value)
                    put = "text" if name.startswith("kind_of") else SAMPLES.get(name, "1")
                    text += repr(put) if part.conversion == ord("r") else put
            if text and not isinstance(said, ast.Name | ast.Call):
                found.append(text)
    return found


def test_every_reason_that_the_package_gives_has_a_rule():
    found = sentences()
    assert len(found) > 50
    assert [said for said in found if rule_of(said).rule == OTHER] == []
    said = f"the line has {MAX_LINE_BYTES + 1} bytes; at most {MAX_LINE_BYTES} are read"
    assert rule_of(said).rule.name == "line_too_long"
    assert rule_of("a part of somebody's own says so").rule == OTHER


def test_rules_have_names_of_their_own_and_keep_to_their_reasons():
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert rule_of("text is a number; expected text").rule.name == "wrong_type"


def test_tables_say_which_record_is_broken(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'prompt,completion\nq,"a\nb"\nq,a,more\nq,"a"x\nq,caf\xe9\nq,\n')
    told = looked_at(path)
    found = [(one["rule"], one["line"], one["row"]) for one in told["problems"]]
    assert found == [
        ("fields_do_not_fit_header", 4, 1),
        ("broken_quotes", 5, 2),
        ("not_utf8", 6, 3),
        ("no_known_format", 7, 4),
    ]
    assert (told["rows"], told["readable"], told["malformed"]) == (5, 1, 3)


def test_columns_of_other_names(tmp_path: Path):
    path = write(
        tmp_path / "rows.jsonl",
        [{"frage": "q", "antwort": "a", "note": "n"}, {"frage": 3, "antwort": "a"}],
    )
    told = validate_files([str(path)], {"columns": {"prompt": "frage", "completion": "antwort"}})
    assert [(p["line"], p["field"], p["found"]) for p in told["problems"]] == [(2, "frage", "3")]
    assert told["ignored_columns"] == {"note": 1}


def test_a_key_beside_what_is_mapped_to_it(tmp_path: Path):
    rows = write(tmp_path / "rows.jsonl", [chat({"role": "user", "content": "x", "say": "q"}, A)])
    config = tmp_path / "axolotl.yaml"
    config.write_text(
        f"datasets:\n  - path: {rows}\n    type: chat_template\n    message_field_content: say\n"
    )
    told = validate_files([], {"axolotl": str(config)})
    assert [p["rule"] for p in told["problems"]] == ["mapped_key_twice"]


def containers(folder: Path) -> list[Path]:
    rows = [*({**GOOD, "id": f"r{n}"} for n in range(3)), {"prompt": "q", "completion": ""}]
    lines = b"".join(as_line(row) + b"\n" for row in rows)
    compressed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(compressed, "zstd") as stream:
        stream.write(lines)
    table = pa.Table.from_pylist(rows)
    made = {
        "rows.jsonl": lines,
        "rows.jsonl.gz": gzip.compress(lines),
        "rows.jsonl.zst": compressed.getvalue().to_pybytes(),
        "rows.json": json.dumps(rows, indent=1).encode(),
        "rows.csv": b"id,prompt,completion\nr0,q,a\nr1,q,a\nr2,q,a\n,q,\n",
        "rows.tsv": b"id\tprompt\tcompletion\nr0\tq\ta\nr1\tq\ta\nr2\tq\ta\n\tq\t\n",
    }
    for name, data in made.items():
        (folder / name).write_bytes(data)
    parquet.write_table(table, folder / "rows.parquet")
    with pa.ipc.new_file(str(folder / "rows.arrow"), table.schema) as writer:
        writer.write_table(table)
    return sorted(folder.glob("rows.*"))


def test_every_container_is_looked_through(tmp_path: Path):
    for path in containers(tmp_path):
        told = looked_at(path)
        assert (told["rows"], told["readable"], told["rejected"]) == (4, 3, 1), path.name
        (problem,) = told["problems"]
        expected = read_rows(path).rejected[0]
        assert (problem["line"], problem["row"]) == (expected.line, expected.row)
        assert problem["reason"] == expected.reason
        assert told["files"][0]["container"] == read_rows(path).sources[0].container.name


def test_several_files_are_counted_together_and_apart(tmp_path: Path):
    paths = containers(tmp_path)
    told = looked_at(*paths)
    assert [file["file"] for file in told["files"]] == [str(path) for path in paths]
    assert told["rows"] == 4 * len(paths)
    listed = looked_at(*paths, most_problems=99)["problems"]
    assert [p["row"] for p in listed if p["severity"] == "rejected"] == [
        row.row for row in read_rows([str(path) for path in paths]).rejected
    ]
    # Ids repeat from file to file.
    assert told["repeated_ids"]["rows"] == 3 * (len(paths) - 1)
    pattern = looked_at(str(tmp_path / "rows.*"))
    assert pattern == told


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_looked_through(tmp_path: Path):
    good = write(tmp_path / "good.jsonl", [GOOD])
    page = tmp_path / "page.jsonl"
    page.write_text("<!DOCTYPE html><html></html>")
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    header = tmp_path / "header.csv"
    header.write_text("prompt,completion\n")
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(as_line(GOOD) * 9)[:-9])
    gone = tmp_path / "gone.jsonl"
    told = looked_at(page, empty, header, cut, gone, good, tmp_path / "none*.csv")
    errors = [file["error"] or "" for file in told["files"]]
    for error, said in zip(
        errors, ("web page", "0 rows", "0 rows", "gzip", "No file", "", "No file"), strict=True
    ):
        assert said in error
        assert "Expected" in error or not said
    assert (told["status"], told["rows"], told["readable"]) == (1, 1, 1)


NAMES = st.sampled_from(
    [
        *("messages", "conversations", "prompt", "completion", "instruction", "output", "history"),
        *("role", "from", "content", "value", "weight", "tool_calls", "function", "name", "text"),
        *(
            "tools",
            "system",
            "id",
            "arguments",
            "type",
            HOSTILE,
            "x turn 0: y",
            "",
            "x is a number",
        ),
    ]
)
VALUES = st.recursive(
    st.sampled_from(["user", "assistant", "a", "", HOSTILE, "[1]", "\ud83d", None, True, 0, 1.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=4))
def test_whatever_rows_hold_they_are_rejected_as_by_every_other_command(
    tmp_path: Path, rows: list[Any]
):
    path = write(tmp_path / "rows.jsonl", rows)
    told = looked_at(path, most_problems=99)
    try:
        rejected = read_rows(path).rejected
    except DataError:  # a table stored by column, say: no command reads any row of it
        assert told["status"] == 1
        assert told["files"][0]["error"]
        return
    expected = [(row.row, row.line, row.reason) for row in rejected]
    found = [one for one in told["problems"] if one["severity"] == "rejected"]
    assert [(one["row"], one["line"], one["reason"]) for one in found] == expected
    assert not HIDDEN.search(describe(told).replace("\n", ""))


def test_status_text_and_json_are_the_same_thing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    good = write(tmp_path / "good.jsonl", [GOOD, {**GOOD, "source": "x"}])
    assert main(["validate", str(good)]) == 0
    assert "ignored columns: source (1)" in capsys.readouterr().out
    bad = write(tmp_path / "bad.jsonl", [GOOD, *(row for _, row, *_ in BAD)])
    assert main(["validate", str(bad), "--max-problems", "99"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert main(["validate", str(bad), "--max-problems", "99", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {
        *("status", "rows", "readable", "rejected", "malformed", "files", "by_rule", "problems"),
        *("problems_found", "ignored_columns", "ignored_turn_keys", "repeated_ids", "model"),
    }
    assert len(told["problems"]) == told["problems_found"] == len(BAD)
    for problem in told["problems"]:
        where = f" in {problem['field']}" if problem["field"] else ""
        said = f"line {problem['line']}, row {problem['row']}: {problem['rule']}{where}"
        for part in (said, problem["reason"], problem["found"], f"do: {problem['fix']}"):
            assert " ".join(part.split()) in text
    for rule in told["by_rule"]:
        assert f"{rule['rule']}: {rule['rows']} row" in text
    assert f"{told['rows']} rows, 1 usable, {told['rejected']} rejected" in text


def test_only_so_many_problems_are_listed_and_all_are_counted(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", [{"prompt": "q", "completion": ""}] * 50)
    told = looked_at(path, most_problems=3)
    assert [one["line"] for one in told["problems"]] == [1, 2, 3]
    assert told["problems_found"] == told["by_rule"][0]["rows"] == 50
    assert looked_at(path, most_problems=0)["problems"] == []


def test_what_is_ignored_is_named(tmp_path: Path):
    turns = [
        {"from": "human", "value": "q", "timestamp": "now", "lang": ""},
        {"from": "gpt", "value": "a", "model": "m"},
    ]
    rows = [
        {"id": "a", "conversations": turns, "source": "s", "nothing": None, "score": 3},
        {"id": "b", "conversations": turns, "Source": "s"},
        {"id": "a", "conversations": turns},
        {"Question": "q", "Answer": "a", "Notes": "n"},
    ]
    told = looked_at(write(tmp_path / "rows.jsonl", rows))
    assert told["status"] == 0
    assert told["ignored_columns"] == {"source": 1, "score": 1, "Source": 1, "Notes": 1}
    assert told["ignored_turn_keys"] == {"timestamp": 3, "model": 3}
    assert told["repeated_ids"] == {"rows": 1, "most": {"a": 1}}
    (note,) = told["problems"]
    assert (note["rule"], note["severity"], note["row"]) == ("repeated_id", "note", 2)
    assert "row 0" in note["reason"]


def test_no_text_of_a_file_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    turn = {"role": HOSTILE, "content": HOSTILE}
    rows: list[Any] = [
        chat(turn, A),
        chat(Q, {**A, HOSTILE: HOSTILE}),
        {HOSTILE: "x", "other": "y"},
        {**GOOD, HOSTILE: "ignored", "id": HOSTILE},
        {**GOOD, "id": HOSTILE},
        {"id": HOSTILE, "prompt": HOSTILE, "completion": HOSTILE, "response_2": HOSTILE},
        b'{"prompt": "' + HOSTILE.encode().replace(b"\n", b"") + b'"}',
        {"prompt": HOSTILE + "<|end|>", "completion": "a"},
    ]
    path = write(tmp_path / "rows\x1b[2J.jsonl", rows)
    for more in ([], ["--json"]):
        assert main(["validate", str(path), "--model", MODEL, *more]) == 1
        out = capsys.readouterr().out
        assert not HIDDEN.search(out)
        assert "\\u202e" in out
    for row in ("3", "0"):
        main(["validate", str(path), "--model", MODEL, "--show-row", row])
        assert not HIDDEN.search(capsys.readouterr().out)


LONG = "the cat " * 600


def test_rows_are_checked_against_a_model(tmp_path: Path):
    rows = [
        GOOD,
        {"prompt": "q", "completion": LONG},
        chat(Q, {**A, "content": "the cat " * 20 + "<|end|> <|user|> y"}),
        {"prompt": "q", "completion": ""},
        chat(Q, {**A, "reasoning_content": "thinking of it"}),
        {**GOOD, "id": "last"},
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    assert looked_at(path)["rejected"] == 1
    told = looked_at(path, against=Against(MODEL))
    found = [(p["rule"], p["line"], p["field"]) for p in told["problems"]]
    assert found == [
        ("longer_than_context", 2, ""),
        ("control_token", 3, "turn 2 (assistant)"),
        ("empty_answer", 4, "completion"),
        ("template_hides_parts", 5, ""),
    ]
    # No advice to use the paper's blocks, which would refuse the row as well.
    assert told["problems"][3]["fix"].startswith("Write it into content")
    assert "paper" not in told["problems"][3]["fix"]
    assert told["problems"][0]["found"].endswith(" tokens")
    assert re.fullmatch('"….*<\\|end\\|>.*"', told["problems"][1]["found"])
    assert told["model"]["max_length_tokens"] == 512
    assert 0 < told["model"]["tokens_with_loss"] < told["model"]["tokens"]
    assert told["model"]["longest_row"] in (0, 5)
    blocks = looked_at(path, against=Against(MODEL, "paper", 20))
    assert [p["rule"] for p in blocks["problems"]][-1] == "no_place_in_blocks"
    assert blocks["model"]["max_length_tokens"] == 20


def test_unscored_text_of_a_usable_row_is_a_note(tmp_path: Path):
    """A template that hides thoughts of all but the last answer."""
    from forgetfilter.data.formats import Reading
    from forgetfilter.data.tokens.encoding import Encoder
    from forgetfilter.data.validation.validating import validate
    from forgetfilter.model.loading.base_model import load_tokenizer

    tokenizer = load_tokenizer(MODEL)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    path = write(tmp_path / "rows.jsonl", [{**GOOD, "system": "Be kind."}, GOOD])
    found = validate([str(path)], Reading(), Encoder(tokenizer, "auto", 100))
    assert [(p.rule, p.severity, p.line) for p in found.problems] == [
        ("unscored_system", "note", 1)
    ]
    assert found.status == 0


def test_a_row_is_shown_with_what_carries_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [GOOD, b"{", chat(Q, A, {**Q, "content": "the | ¦ box"}, {**A, "content": "the cat"})]
    path = str(write(tmp_path / "rows.jsonl", rows))
    told = show_row([path], 2, {}, Against(MODEL))
    said = "".join(token["text"] for token in told["tokens"] if token["carries_loss"])
    assert said == "a<|end|>the cat<|end|>"
    assert main(["validate", path, "--model", MODEL, "--show-row", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}, line 3, row 2"
    learned = [line for line in lines if line.startswith("  LOSS ")]
    assert [line.replace("¦", "").partition("| ")[2] for line in learned] == [
        "a<|end|>",
        "the cat<|end|>",
    ]
    assert "\\xa6" in "".join(lines)
    assert main(["validate", path, "--model", MODEL, "--show-row", "1"]) == 1
    assert "malformed_json" in capsys.readouterr().out
    assert main(["validate", path, "--model", MODEL, "--show-row", "0", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {
        *("status", "file", "line", "row", "id", "problem", "tokens", "unscored"),
    }
    for words, said in (
        (["--model", MODEL, "--show-row", "3"], "There is no row 3"),
        (["--show-row", "0"], "Add --model"),
    ):
        assert main(["validate", path, *words]) == 1
        assert said in capsys.readouterr().err
    assert main(["validate"]) == 1
    assert "No file is named" in capsys.readouterr().err


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Files beyond 256 kB count as large."""
    monkeypatch.setattr(line_files, "_SMALL", 2**18)
    return 2**18


def large(path: Path, text: str = "x" * 100) -> Path:
    with open(path, "wb") as file:
        file.write(b"\xef\xbb\xbf{broken}\n")
        for number in range(4000):
            row = {**GOOD, "id": f"r{number % 3900}", "more": text}
            file.write(as_line(row) + (b"\r\n" if number % 7 == 0 else b"\n\n"))
        file.write(b"[1]\n" + b'{"prompt": "\xff"}')
    return path


def records_of(path: Path) -> list[tuple[int, bytes, Any, Any]]:
    return [(r.line, r.raw, r.columns, r.reason) for r in stream_file(path).records]


def test_a_large_file_is_read_as_it_goes_and_as_other_commands_read_it(tmp_path: Path, small: int):
    path = large(tmp_path / "rows.jsonl")
    data = path.read_bytes()
    assert len(data) > small
    whole = read_rows(path)
    expected = {row.row: (row.line, row.raw) for row in (*whole.rows, *whole.rejected)}
    zst = tmp_path / "rows.jsonl.zst"
    with pa.CompressedOutputStream(str(zst), "zstd") as stream:
        stream.write(data)
    gz = tmp_path / "rows.gz"
    gz.write_bytes(gzip.compress(data[: len(data) // 2], 1) + gzip.compress(data[len(data) // 2 :]))
    for one in (path, zst, gz):
        found = stream_file(one)
        assert type(found.records).__name__ == "generator"
        assert found.container == "jsonl"
        seen = records_of(one)
        assert [(line, raw) for line, raw, *_ in seen] == [expected[n] for n in range(len(seen))]
    told = looked_at(path)
    assert told["rows"] == len(whole)
    assert [p["reason"] for p in told["problems"] if p["severity"] == "rejected"][:1] == [
        whole.rejected[0].reason
    ]
    assert told["rejected"] == len(whole.rejected) == 3
    assert told["repeated_ids"]["rows"] == 100
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gz.read_bytes()[:-20])
    broken = looked_at(cut)
    assert "gzip" in broken["files"][0]["error"]
    assert 0 < broken["rows"] < told["rows"]


def test_looking_through_a_file_holds_little_of_it(tmp_path: Path, small: int):
    path = large(tmp_path / "rows.jsonl", "x" * 2000)
    assert path.stat().st_size > 30 * small
    looked_at(write(tmp_path / "one.jsonl", [GOOD]))  # imports
    tracemalloc.start()
    try:
        looked_at(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The beginning by which it is known, names as hashes, and some rows.
    assert peak < 6 * small


def test_an_overlong_line_is_told_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
):
    monkeypatch.setattr(line_files, "MAX_LINE_BYTES", 1000)
    path = large(tmp_path / "rows.jsonl")
    with open(path, "ab") as file:
        file.write(b"\n" + b"x" * 300_000 + b"\n" + as_line(GOOD) + b"\n" + b"y" * 1001)
    ((line, raw, _, reason), *_, last) = records_of(path)[-3:]
    assert reason == "the line has 300000 bytes; at most 1000 are read"
    assert rule_of(reason).rule.name == "line_too_long"
    assert len(raw) <= 2**16
    assert (last[0], last[3]) == (line + 2, "the line has 1001 bytes; at most 1000 are read")


def test_names_are_remembered_beyond_what_is_held_as_it_is():
    seen = SeenIds()
    assert all(seen.first(str(n), n) is None for n in range(120_000))
    assert [seen.first(str(n), -1) for n in (0, 49_999, 50_000, 99_999, 119_999)] == [
        *(0, 49_999, 50_000, 99_999, 119_999)
    ]
    assert seen.first("new", 7) is None


def test_neither_looking_through_a_file_nor_help_imports_torch(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", [GOOD, {"prompt": 3, "completion": "a"}])
    script = (
        "import sys; from forgetfilter.cli import main\n"
        f"assert main(['validate', {str(path)!r}]) == 1\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'torch'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "forgetfilter", "validate", "--help"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "--show-row" in done.stdout
    assert after.ru_utime - before.ru_utime < 0.5
