"""Kept rows written for trainers: nothing lost, nothing learned that wasn't judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from decided_run import make_run, plain_rows
from forgetfilter.cli import main
from forgetfilter.data import read_rows
from forgetfilter.data.records import Message
from forgetfilter.data.trainers import axolotl as axolotl_reading
from forgetfilter.data.trainers import llama_factory as llama_factory_reading
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.integrations import axolotl, llama_factory
from forgetfilter.runs.decisions import Journal, input_rows
from forgetfilter.runs.inputs import read_input

CALL = [{"type": "function", "function": {"name": "add", "arguments": {"x": 2}}}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def chat(*turns: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {"messages": list(turns), **columns}


QA = (turn("user", "Two and two?"), turn("assistant", "Four."))


def run_of(folder: Path, kept: list[Any]) -> Path:
    """A run that keeps ``kept`` (the first half) and removes plain rows."""
    return make_run(folder / "run", [*kept, *plain_rows(len(kept) - 1)])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def said(path: Path, flag: Any, place: str) -> list[tuple[Message, ...]]:
    """The conversations of an export, as its entry says that a trainer reads them."""
    reading, where = flag(place)
    assert [Path(one).resolve() for one in where] == [path.resolve()]
    file = read_rows(where[0], reading)
    assert file.rejected == ()
    return [row.messages for row in file.rows]


def judged(run: Path, rows: int) -> list[tuple[Message, ...]]:
    return [row.messages for row in read_input(run).rows[:rows]]


ROWS: list[dict[str, Any]] = [
    chat(*QA, id="a"),
    chat(turn("system", "Be brief."), *QA, id="ü"),
    {"instruction": "Add.", "input": "2 and 2", "output": "4", "history": [["Hi", "Hello"]]},
    {"prompt": "Three?", "response": "3.\nReally \u2028 3."},
    chat(turn("user", "Add 2."), turn("assistant", "", tool_calls=CALL), tools=[TOOL]),
    chat(
        turn("user", "Add 2."),
        turn("assistant", "", tool_calls=CALL),
        turn("tool", "4"),
        turn("assistant", "4."),
    ),
]


def test_llama_factory_reads_what_was_judged(tmp_path: Path):
    run = run_of(tmp_path, ROWS)
    done = llama_factory.export(run, tmp_path / "data", "mine")
    assert (done.rows, done.left_out, done.notes) == (len(ROWS), 0, ())
    place = f"{tmp_path}/data/dataset_info.json:mine"
    assert said(done.data, llama_factory_reading, place) == judged(run, len(ROWS))
    written = lines(done.data)
    assert [row["id"] for row in written] == ["a", "ü", "row-2", "row-3", "row-4", "row-5"]
    # One type for each key, so that the loader of tables takes all rows.
    assert all(row.keys() == {"id", "conversations", "tools"} for row in written)
    assert {type(row["tools"]) for row in written} == {str}
    keys = {tuple(one) for row in written for one in row["conversations"]}
    assert keys == {("from", "value")}


def test_axolotl_reads_what_was_judged(tmp_path: Path):
    thought = chat(turn("user", "q"), turn("assistant", "a", reasoning_content="Hm."))
    masked = chat(*QA[:1], turn("assistant", "No.", weight=0), *QA, turn("user", "?"), QA[1])
    rows = [*ROWS, thought, masked]
    run = run_of(tmp_path, rows)
    done = axolotl.export(run, tmp_path / "out")
    assert (done.rows, done.name) == (len(rows), "run-source_kept")
    assert said(done.data, axolotl_reading, str(done.entry)) == judged(run, len(rows))
    entry = yaml.safe_load(done.entry.read_text())["datasets"][0]
    assert entry["message_field_training"] == "train"
    assert {type(row["messages"]) for row in lines(done.data)} == {str}


def test_plain_turns_stay_lists_for_axolotl(tmp_path: Path):
    done = axolotl.export(run_of(tmp_path, ROWS[:3]), tmp_path / "out", "mine")
    assert lines(done.data)[0] == {"id": "a", "messages": list(QA)}
    entry = yaml.safe_load(done.entry.read_text())["datasets"][0]
    assert not entry.keys() & {"message_field_training", "field_tools"}


def test_other_entries_of_dataset_info_stay(tmp_path: Path):
    info = tmp_path / "data" / "dataset_info.json"
    info.parent.mkdir()
    others = {"z": {"file_name": "z.json", "new_key": [1, None]}, "a": {"hf_hub_url": "x/ÿ"}}
    info.write_text(json.dumps(others), encoding="utf-8")
    run = run_of(tmp_path, ROWS[:2])
    llama_factory.export(run, info.parent, "mine")
    found = json.loads(info.read_bytes())
    assert list(found) == ["z", "a", "mine"]
    assert {name: found[name] for name in others} == others
    llama_factory.export(run, info.parent, "more")
    assert list(json.loads(info.read_bytes())) == ["z", "a", "mine", "more"]


@pytest.mark.parametrize("text", ['{"a": {}, "a": {"file_name": "x"}}', "[]", '{"a": ', "\xff"])
def test_a_dataset_info_that_would_lose_something_is_left_alone(tmp_path: Path, text: str):
    info = tmp_path / "data" / "dataset_info.json"
    info.parent.mkdir()
    info.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"Expected a JSON object of entries.*Mend the file"):
        llama_factory.export(run_of(tmp_path, ROWS[:2]), info.parent, "mine")
    assert info.read_bytes() == text.encode("latin-1")
    assert [path.name for path in info.parent.iterdir()] == [info.name]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat(*QA, turn("user", "q"), turn("user", "r"), QA[1]), "two turns of one side"),
        (chat(turn("assistant", "Hello."), *QA), "begins with an answer"),
        (chat(*QA, turn("system", "s"), *QA), "a system turn after its first turn"),
        (chat(turn("user", "q"), turn("assistant", "a", reasoning_content="Hm.")), "reasoning"),
        (chat(QA[0], turn("assistant", "I call.", tool_calls=CALL)), "both answers and calls"),
        (
            chat(QA[0], turn("assistant", "a", weight=0), *QA, turn("user", "q"), QA[1]),
            "answers that are not learned",
        ),
    ],
)
def test_what_llama_factory_would_drop_or_learn_otherwise_is_left_out_and_told(
    tmp_path: Path, row: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
):
    run = run_of(tmp_path, [row, chat(*QA, *QA, id="two answers")])
    arguments = ["export", str(run), "--to", "llama-factory", "--output-dir", str(tmp_path / "d")]
    assert main([*arguments, "--name", "mine"]) == 0
    listed = lines(tmp_path / "d" / "mine_left_out.jsonl")
    assert [one["row"] for one in listed] == [0]
    assert reason in listed[0]["reason"]
    assert [one["id"] for one in lines(tmp_path / "d" / "mine.jsonl")] == ["two answers"]
    told = capsys.readouterr().out
    assert "1 kept row: " in told
    assert "Left out, because the trainer has no shape for them: 1 (" in told


def test_only_last_answers_are_exported_with_the_setting_that_learns_only_those(tmp_path: Path):
    last = {"prompt": [QA[0], QA[1], turn("user", "And three?")], "completion": "Six."}
    done = llama_factory.export(run_of(tmp_path, [last, chat(*QA)]), tmp_path / "d", "mine")
    assert (done.rows, done.left_out) == (2, 0)
    assert len(done.notes) == 1
    assert "mask_history: true" in done.notes[0]


def test_an_export_is_replaced_by_its_own_run_alone(tmp_path: Path):
    run, other = run_of(tmp_path, ROWS[:2]), run_of(tmp_path / "other", ROWS[2:4])
    for export in (llama_factory.export, axolotl.export):
        folder = tmp_path / export.__module__
        assert export(run, folder, "mine").rows == 2
        assert export(run, folder, "mine").rows == 2
        before = (folder / "mine.jsonl").read_bytes()
        with pytest.raises(ConfigError, match=r"already.*Choose another --name, or add --overw"):
            export(other, folder, "mine")
        assert (folder / "mine.jsonl").read_bytes() == before
        export(other, folder, "mine", overwrite=True)
        assert (folder / "mine.jsonl").read_bytes() != before
        (folder / "user.jsonl").write_text("a file of the user's")
        with pytest.raises(ConfigError, match="is there already"):
            export(run, folder, "user")


def test_what_people_decided_since_is_exported(tmp_path: Path):
    run = run_of(tmp_path, ROWS[:2])
    rows = input_rows(run)
    Journal(run).append([rows.decide(0, "remove", "", "Ada"), rows.decide(2, "keep", "", "Ada")])
    done = llama_factory.export(run, tmp_path / "d", "mine")
    assert [row["id"] for row in lines(done.data)] == ["ü", "own-0"]


def test_pairs_and_names_that_trainers_cannot_take_are_refused(tmp_path: Path):
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    run = run_of(tmp_path, [pair, chat(*QA)])
    for export in (llama_factory.export, axolotl.export):
        with pytest.raises(DataError, match=r"Row 0 is a pair.*kept.jsonl as it is"):
            export(run, tmp_path / "d", "mine")
        for name in ("a,b", "../x", "-x", "a b"):
            with pytest.raises(ConfigError, match="--name is"):
                export(run_of(tmp_path / "fine", ROWS[:2]), tmp_path / "d", name)
    assert not (tmp_path / "d").exists()


def test_of_other_containers_too(tmp_path: Path):
    source = tmp_path / "Kunden, März.csv"
    source.write_text(
        "question;answer\n" + "".join(f'q{i};"a ""{i}"""\n' for i in range(6)), encoding="utf-8"
    )
    run = make_run(tmp_path / "run", source)
    done = llama_factory.export(run, tmp_path / "d")
    assert [row["conversations"][1]["value"] for row in lines(done.data)] == [
        f'a "{i}"' for i in range(4)
    ]
    assert done.name == "run_kept"
