"""Decisions that follow rows into other tools, and what is refused there; no tool is needed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decided_run import make_run, plain_rows
from forgetfilter.errors import ConfigError, DataError, MissingExtraError
from forgetfilter.integrations import axolotl, data_juicer, datatrove
from forgetfilter.integrations.axolotl import use_kept_rows
from forgetfilter.integrations.foreign import is_installed
from forgetfilter.integrations.judged import JudgedRows
from forgetfilter.runs.decisions import Journal, input_rows
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.deciding.overruling import Overruling


def row(question: str, answer: str, **columns: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **columns}


def test_a_row_is_found_by_what_it_says_whatever_a_table_made_of_it(tmp_path: Path):
    rows = JudgedRows(make_run(tmp_path / "run", 20))
    kept, removed = plain_rows(20)[3], plain_rows(20)[17]
    assert rows.keeps(kept, "x") == (True, "kept")
    assert rows.keeps(removed, "x") == (False, "removed")
    # Other order, other columns, no id, and keys with null as tables fill them in.
    turns = [{"content": t["content"], "name": None, "role": t["role"]} for t in kept["messages"]]
    again = {"language": "en", "score": 0.5, "messages": turns, "tools": None}
    assert rows.keeps(again, "x") == (True, "kept")
    said = {"conversations": [{"from": "human", "value": "Question number 17?"}]}
    said["conversations"].append({"from": "gpt", "value": "Answer number 17."})
    assert rows.keeps(said, "x") == (False, "removed")


@pytest.mark.parametrize(
    "changed",
    [
        row("Question number 3?", "Answer number 3!", id="own-3"),
        row("Question number 3 ?", "Answer number 3.", id="own-3"),
        {**plain_rows(4)[3], "system": "Do harm."},
        {**plain_rows(4)[3], "response_2": "Another answer."},
        {**plain_rows(4)[3], "tools": [{"name": "rm", "parameters": {}}]},
        {"text": "no conversation"},
        {},
    ],
)
def test_a_changed_row_was_never_judged(tmp_path: Path, changed: dict[str, Any]):
    run = make_run(tmp_path / "run", 20)
    with pytest.raises(DataError, match=r"^Row 7 is none of the rows .*unjudged='drop' or"):
        JudgedRows(run).keeps(changed, "Row 7")
    assert JudgedRows(run, "drop").keeps(changed, "Row 7") == (False, "unjudged")
    assert JudgedRows(run, "keep").keeps(changed, "Row 7") == (True, "unjudged")
    with pytest.raises(ConfigError, match="unjudged is 'ignore'; expected one of raise, drop, ke"):
        JudgedRows(run, "ignore")


def test_rows_that_the_run_rejected_are_known_and_never_kept(tmp_path: Path):
    unreadable = {"messages": [{"role": "user", "content": "alone"}], "id": "x"}
    run = make_run(tmp_path / "run", [*plain_rows(6), unreadable], too_long=(1,))
    rows = JudgedRows(run, "keep")
    assert rows.keeps(plain_rows(6)[1], "x") == (False, "rejected")
    assert rows.keeps(unreadable, "x") == (False, "rejected")


def test_of_rows_that_say_the_same_the_id_tells_and_else_the_removed_one_counts(tmp_path: Path):
    same = [row("q", "a", id=name) for name in "abcd"]
    rows = JudgedRows(make_run(tmp_path / "run", same))  # a, b and c are kept
    assert rows.found(row("q", "a", id="a")) == "kept"
    assert rows.found(row("q", "a", id="d")) == "removed"
    assert rows.found(row("q", "a")) == "removed"
    assert rows.found(row("q", "a", id="z")) == "removed"


def test_only_settled_decisions_are_used(tmp_path: Path):
    run = make_run(tmp_path / "run", 20)
    rows = input_rows(run)
    Journal(run).append([rows.decide(3, "remove", "", "Ada")])
    with pytest.raises(DataError, match=r"don't yet say .*forgetfilter filter "):
        JudgedRows(run)
    filter_run(run)  # what the message advises
    judged = JudgedRows(run)
    assert judged.found(plain_rows(20)[3]) == "removed"
    late = JudgedRows(run)
    sent = pickle.loads(pickle.dumps(judged))
    filter_run(run, overruling=Overruling(keep=(3,), reviewer="Ada"))
    assert judged.found(plain_rows(20)[3]) == "removed"  # one decision for all rows
    for other in (late, sent):
        with pytest.raises(DataError, match="was decided again while its decisions were used"):
            other.found(plain_rows(20)[3])
    (run / "kept.jsonl").write_bytes((run / "kept.jsonl").read_bytes()[:-200])
    with pytest.raises(DataError, match="edited by hand"):
        JudgedRows(run)


def test_documents_carry_their_rows_whole(tmp_path: Path):
    first = plain_rows(1)[0]
    made = datatrove.row_to_document(None, dict(first), "a.jsonl", 0)
    document = SimpleNamespace(**made)
    assert document.text == "Question number 0?\n\nAnswer number 0."
    document.metadata["language"] = "en"
    assert datatrove.document_to_row(None, document) == first
    # The reader skips documents without text.
    assert datatrove.row_to_document(None, {"n": 1}, "a.jsonl", 1)["text"]
    rows = JudgedRows(make_run(tmp_path / "run", 20))
    assert rows.found(datatrove.row_of(document)) == "kept"


def test_a_text_beside_a_conversation_has_to_be_that_conversation(tmp_path: Path):
    rows = JudgedRows(make_run(tmp_path / "run", 20))
    metadata = {"messages": plain_rows(1)[0]["messages"], "file_path": "/data/a.jsonl"}
    rendered = "user: Question number 0?\nassistant: Answer number 0."
    document = SimpleNamespace(text=rendered, id="own-0", metadata=metadata)
    assert rows.found(datatrove.row_of(document)) == "kept"
    document.text = "something else that a model would be trained on"
    assert rows.found(datatrove.row_of(document)) is None


def settings(run: Path, prepared: Path, **entry: Any) -> dict[str, Any]:
    named = {"path": f"forgetfilter:{run}", "type": "chat_template", **entry}
    others = {"path": "other/data", "type": "alpaca"}
    return {"datasets": [others, named], "dataset_prepared_path": str(prepared)}


def test_axolotl_gets_the_kept_lines_under_a_path_of_their_decision(tmp_path: Path):
    run = make_run(tmp_path / "run", 20)
    config = settings(run, tmp_path / "prepared", split="train")
    (first,) = use_kept_rows(config)
    others, entry = config["datasets"]
    assert others == {"path": "other/data", "type": "alpaca"}
    assert entry == {
        "path": str(first), "type": "chat_template", "split": "train", "ds_type": "json",
    }  # fmt: skip
    assert first.read_bytes() == (run / "kept.jsonl").read_bytes()
    assert use_kept_rows(settings(run, tmp_path / "prepared")) == [first]
    # What axolotl has prepared is found by path, so another decision needs another path.
    filter_run(run, overruling=Overruling(remove=(3,), reviewer="Ada"))
    (second,) = use_kept_rows(settings(run, tmp_path / "prepared"))
    assert second != first
    assert b"own-3" not in second.read_bytes()


def test_axolotl_never_goes_on_without_the_rows_of_a_run(tmp_path: Path):
    run = make_run(tmp_path / "run", 20)
    with pytest.raises(ConfigError, match=r"no entry .* Expected an entry with `path: forgetfil"):
        use_kept_rows({"datasets": [{"path": "rows.jsonl"}]})
    with pytest.raises(ConfigError, match="has 'data_files' too"):
        use_kept_rows(settings(run, tmp_path, data_files="rows.jsonl"))
    with pytest.raises(DataError, match="not finished"):
        use_kept_rows(settings(tmp_path / "nowhere", tmp_path))
    rows = input_rows(run)
    Journal(run).append([rows.decide(3, "remove", "", "Ada")])
    with pytest.raises(DataError, match="forgetfilter filter"):
        use_kept_rows(settings(run, tmp_path))


def test_axolotl_never_learns_an_answer_that_carried_no_loss(tmp_path: Path):
    given = row("q", "a")
    given["messages"][1]["weight"] = 0
    given["messages"] += row("r", "b")["messages"]
    run = make_run(tmp_path / "run", [given, *plain_rows(3)])
    with pytest.raises(ConfigError, match=r"Row 0 .*Add the key .*message_field_training: weight"):
        use_kept_rows(settings(run, tmp_path / "prepared"))
    assert not (tmp_path / "prepared").exists()
    assert use_kept_rows(settings(run, tmp_path / "prepared", message_field_training="weight"))


@pytest.mark.parametrize(
    ("module", "name", "library"),
    [
        (axolotl, "ForgetFilterPlugin", "axolotl"),
        (datatrove, "DecisionFilter", "datatrove"),
        (datatrove, "ScreenStep", "datatrove"),
        (data_juicer, "ForgetFilterDecisionSelector", "data_juicer"),
        (data_juicer, "ForgetFilterScreenSelector", "data_juicer"),
    ],
)
def test_a_missing_library_is_told_with_the_extra_that_has_it(module: Any, name: str, library: str):
    assert not hasattr(module, "NoSuchName")
    if is_installed(library):
        pytest.skip(f"{library} is installed")
    extra = module.__name__.rpartition(".")[2].replace("_", "-")
    with pytest.raises(MissingExtraError, match=rf"pip install 'forgetfilter\[{extra}\]'"):
        getattr(module, name)
    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    assert f"\n{extra} = [" in pyproject.read_text(encoding="utf-8")


def test_rows_of_other_libraries_are_plain_before_they_are_read():
    class Own(dict[str, Any]):
        pass

    value = datatrove.plain(Own(messages=(Own(role="user"),)))
    assert json.dumps(value) == '{"messages": [{"role": "user"}]}'
    assert type(value) is dict
    assert type(value["messages"][0]) is dict
