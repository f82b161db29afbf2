"""Files that are read as a trainer's own configuration says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetfilter.cli import build_parser
from forgetfilter.cli.screening import screen_layers
from forgetfilter.config import ScreenConfig, layered, resolve
from forgetfilter.data.formats import Reading, UnreadableRow, parse_row
from forgetfilter.data.formats.mapping import reading_from_json
from forgetfilter.data.trainers import axolotl, llama_factory
from forgetfilter.errors import ConfigError
from forgetfilter.screening.inputs.opening import noisy_data_of, reading_of

QA = [("user", "q"), ("assistant", "a")]


def said(row: dict[str, Any], reading: Reading) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in parse_row(row, reading).messages]


def info(folder: Path, **entries: Any) -> Path:
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def test_columns_under_other_names():
    reading = Reading(columns={"prompt": "frage", "completion": "antwort"})
    assert said({"frage": "q", "antwort": "a", "quelle": "web"}, reading) == QA
    assert said({"frage": "q", "antwort": "a", "system": "s"}, reading) == [("system", "s"), *QA]
    with pytest.raises(UnreadableRow, match="column 'response' is not read beside"):
        said({"frage": "q", "antwort": "a", "response": "b"}, reading)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.booleans())
def test_a_reading_comes_back_from_json(columns: dict[str, str], flag: bool):
    reading = Reading("chat", columns, {"role": "from"}, {"x": "user"}, flag, not flag, "s")
    assert reading_from_json(json.loads(json.dumps(reading.as_json()))) == reading
    assert not reading.is_plain


@pytest.mark.parametrize(
    ("entry", "row", "expected"),
    [
        ({}, {"instruction": "q", "output": "a"}, QA),
        (
            {"columns": {"prompt": "f", "response": "w", "system": "s", "history": "h"}},
            {"f": "q", "w": "a", "s": "Be kind.", "h": [["q0", "a0"]], "output": "unread"},
            [("system", "Be kind."), ("user", "q0"), ("assistant", "a0"), *QA],
        ),
        (
            {"formatting": "sharegpt"},
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            QA,
        ),
        (
            {
                "formatting": "sharegpt",
                "columns": {"messages": "dialog"},
                "tags": {
                    "role_tag": "who",
                    "content_tag": "what",
                    "user_tag": "guest",
                    "assistant_tag": "host",
                },
            },
            {"dialog": [{"who": "guest", "what": "q"}, {"who": "host", "what": "a"}]},
            QA,
        ),
        (
            {"ranking": True, "columns": {"prompt": "p", "chosen": "good", "rejected": "bad"}},
            {"p": "q", "good": "a", "bad": "b"},
            QA,
        ),
        (
            {
                "formatting": "sharegpt",
                "ranking": True,
                "columns": {"chosen": "chosen", "rejected": "rejected"},
            },
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "a"},
                "rejected": {"from": "gpt", "value": "b"},
            },
            QA,
        ),
    ],
)
def test_an_entry_of_llama_factory_is_a_map(
    tmp_path: Path, entry: dict[str, Any], row: dict[str, Any], expected: list[tuple[str, str]]
):
    path = info(tmp_path, mine={"file_name": "rows.json", **entry})
    reading, places = llama_factory(f"{path}:mine")
    assert said(row, reading) == expected
    assert places == [str(tmp_path / "rows.json")]


def test_an_entry_of_the_hub_names_it(tmp_path: Path):
    path = info(tmp_path, mine={"hf_hub_url": "o/n", "subset": "s", "split": "test"})
    assert llama_factory(f"{path}:mine")[1] == ["hub:o/n/s:test"]


@pytest.mark.parametrize(
    ("entry", "row", "expected"),
    [
        (
            {"type": "chat_template"},
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            QA,
        ),
        (
            {
                "type": "chat_template",
                "field_messages": "dialog",
                "message_property_mappings": {"role": "who", "content": "what"},
                "roles": {"user": ["guest"], "assistant": ["host"]},
            },
            {"dialog": [{"who": "guest", "what": "q"}, {"who": "host", "what": "a"}]},
            QA,
        ),
        (
            {"type": "sharegpt"},
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            QA,
        ),
        ({"type": "alpaca"}, {"instruction": "q", "input": "", "output": "a"}, QA),
        ({"type": "alpaca_chat.load_qa"}, {"question": "q", "answer": "a"}, QA),
        (
            {
                "type": {
                    "field_instruction": "f",
                    "field_output": "w",
                    "system_prompt": "Be kind.",
                }
            },
            {"f": "q", "w": "a"},
            [("system", "Be kind."), *QA],
        ),
    ],
)
def test_an_entry_of_axolotl_is_a_map(
    tmp_path: Path, entry: dict[str, Any], row: dict[str, Any], expected: list[tuple[str, str]]
):
    path = tmp_path / "axolotl.yml"
    first = {"path": "o/n", "type": "alpaca", "split": "test"}
    path.write_text(yaml.safe_dump({"datasets": [first, {"path": str(tmp_path), **entry}]}))
    reading, places = axolotl(f"{path}:1")
    assert said(row, reading) == expected
    assert places == [str(tmp_path)]
    assert axolotl(str(path))[1] == ["hub:o/n:test"]


def test_only_marked_turns_are_learned_where_axolotl_trains_no_role(tmp_path: Path):
    path = tmp_path / "axolotl.yml"
    entry = {"path": "x", "roles_to_train": [], "message_field_training": "learn"}
    path.write_text(yaml.safe_dump({"datasets": [entry]}))
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "draft"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "learn": True},
    ]
    found = parse_row({"messages": turns}, axolotl(str(path))[0]).messages
    assert [turn.carries_loss for turn in found if turn.role == "assistant"] == [False, True]


@pytest.mark.parametrize(
    ("flag", "text", "place", "says"),
    [
        ("info", "{", "x.json:mine", "x.json': expecting"),
        ("info", "[]", "x.json:mine", "holds list where names with values"),
        ("info", '{"other": {}}', "x.json:mine", "expected a NAME of other"),
        ("info", '{"mine": {"formatting": "xml"}}', "x.json:mine", "alpaca, sharegpt or openai"),
        ("axolotl", "{}", "x.yml", "entries below datasets"),
        ("axolotl", "datasets: [{path: x}]", "x.yml:3", "entries below datasets"),
        ("axolotl", "datasets: [{path: x, type: oasst}]", "x.yml", "use --column-map"),
        ("axolotl", "datasets: [{path: x, roles_to_train: [user]}]", "x.yml", "assistant alone"),
        ("axolotl", None, "none.yml", "No such file"),
    ],
)
def test_an_entry_that_cannot_be_used_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flag: str,
    text: str | None,
    place: str,
    says: str,
):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(place.partition(":")[0]).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        (llama_factory if flag == "info" else axolotl)(place)
    assert says.lower() in str(caught.value).lower()


def test_the_command_line_says_how_rows_are_read(tmp_path: Path, capsys: Any):
    words = ["screen", "a.jsonl", "b.csv", "--model", "m", "--output-dir", "run"]
    words += ["--column-map", "prompt=frage,completion=antwort", "--column-map", "rejected="]
    config = configured(words)
    assert config.noisy_data == ["a.jsonl", "b.csv"]
    assert config.reading.columns == {"prompt": "frage", "completion": "antwort", "rejected": ""}
    assert reading_of(config.reading).columns == config.reading.columns
    path = info(tmp_path, mine={"file_name": "rows.json", "formatting": "sharegpt"})
    config = configured(["screen", "--dataset-info", f"{path}:mine", *words[3:7]])
    assert config.noisy_data == str(tmp_path / "rows.json")
    assert reading_of(config.reading).format == "sharegpt"
    # A file that is named is screened in place of the entry's own.
    config = configured(["screen", "c.json", "--dataset-info", f"{path}:mine", *words[3:7]])
    assert config.noisy_data == "c.json"
    with pytest.raises(ConfigError, match="are both given"):
        configured(["screen", "--dataset-info", "x:y", "--axolotl", "z", *words[3:7]])
    with pytest.raises(SystemExit):
        configured([*words, "--column-map", "frage"])
    assert "'frage' is not NAME=COLUMN" in capsys.readouterr().err


def configured(words: list[str]) -> ScreenConfig:
    layers = screen_layers(build_parser(has_lab=False).parse_args(words))
    return resolve(ScreenConfig, *layers, noisy_data_of(layered(*layers)))
