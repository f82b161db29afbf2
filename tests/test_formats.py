"""What every row format has to show; found by the folder that they are in."""

from __future__ import annotations

import pkgutil
from itertools import combinations
from typing import Any

import pytest

from forgetfilter.data import formats as package
from forgetfilter.data.formats import Reading, UnreadableRow, formats, parse_messages, parse_row

FORMATS = {each.name: each for each in formats()}
HELPERS = {"base", "bounded_json", "calls", "keys", "mapping", "turns", "values"}


def test_every_file_of_the_folder_is_a_format():
    files = {found.name for found in pkgutil.iter_modules(package.__path__)} - HELPERS
    assert {type(each).__module__.rpartition(".")[2] for each in formats()} == files
    assert files == set(FORMATS)
    assert len(FORMATS) >= 12


def test_the_formats_say_in_which_order_they_are_tried():
    priorities = [each.priority for each in formats()]
    assert priorities == sorted(set(priorities))


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_reads_its_example_and_nothing_less(name: str):
    each, example = FORMATS[name], dict(FORMATS[name].example)
    assert each.__doc__
    found = parse_messages(example)
    assert found == tuple(each.messages(example))
    assert (found[0].role, found[-1].role) == ("user", "assistant")
    matching = [other.name for other in formats() if other.matches(example)]
    assert matching[0] == name
    assert parse_messages({**example, "source": "web", "label": None}) == found
    forced = Reading(format=name)
    assert parse_row(example, forced).messages == found
    for column in each.needs:
        rest = {key: value for key, value in example.items() if key != column}
        assert not each.matches(rest)
        with pytest.raises(UnreadableRow, match=f"expected .*{each.needs[0]}"):
            parse_row({**rest, column: None}, forced)


@pytest.mark.parametrize(("first", "second"), combinations(FORMATS, 2))
def test_of_two_formats_the_first_reads_the_row_or_the_other_is_named(first: str, second: str):
    """The answers are the same; with another one beside it, the row is not read at all."""
    example = {**FORMATS[second].example, **FORMATS[first].example}
    found, reason = None, ""
    try:
        found = parse_messages(example)
    except UnreadableRow as error:
        reason = str(error)
    assert "is not read beside" in reason or (
        found is not None and found[-1] == parse_messages(FORMATS[first].example)[-1]
    )
    answer = next(name for name in reversed(FORMATS[second].needs))
    if answer in FORMATS[first].needs or FORMATS[first].needs[-1] in FORMATS[second].needs:
        return
    others: dict[str, Any] = {
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "bad"}],
        "conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "bad"}],
    }
    bad = {**FORMATS[first].example, answer: others.get(answer, "Something else.")}
    if answer not in FORMATS[first].reads:
        with pytest.raises(UnreadableRow, match=r"column '\w+' is not read beside"):
            parse_messages(bad)


QUESTION = {"role": "user", "content": "Where is the lamp?"}
ANSWER = {"role": "assistant", "content": "On the table."}


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversations": [{"from": "user", "value": "q"}, {"from": "chatgpt", "value": "a"}]},
        {"conversations": [{"role": "user", "content": "q"}, {"role": "model", "content": "a"}]},
        {"messages": [{"role": "Human", "content": "q"}, {"role": "GPT", "content": "a"}]},
        {"messages": [{"role": "prompter", "text": "q"}, {"role": "assistant", "text": "a"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
                {"role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
            ]
        },
        {"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'},
        {"messages": "[{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'a'}]"},
        {"prompt": "q", "response": "a", "is_safe": False, "category": {"violence": True}},
        {"instruction": "q", "context": "", "response": "a", "category": "open_qa"},
        {"question": "q", "answer": "a"},
        {"query": "q", "response": "a"},
        {"input": "q", "output": "a"},
        {"question": "q", "response": "a", "system_prompt": ""},
        {"problem": "q", "solution": "a"},
        {"inputs": "q", "targets": "a"},
        {"Question": "q", "Answer ": "a", "Source": "web"},
        {"ID": 7, "System Prompt": "", "Instruction": "q", "Output": "a"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
        },
        {"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"},
        {"text": "<s>[INST] q [/INST] a </s>"},
        {"text": "### Instruction:\nq\n\n### Response:\na"},
        {"text": "### Human: q\n### Assistant: a"},
        {"text": "\n\nHuman: q\n\nAssistant: a"},
        {
            "prompt": "q",
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
            "score_chosen": 8.0,
        },
        {"instruction": "q", "input": "", "output": "a", "text": "Below …\n### q\n\n### R:\na"},
    ],
    ids=lambda row: "-".join(row)[:30],
)
def test_other_names_for_the_same_are_read_as_the_same(row: dict[str, Any]):
    found = [(turn.role, turn.content.strip()) for turn in parse_messages(row)]
    assert found == [("user", "q"), ("assistant", "a")]


def test_the_rendering_beside_alpacas_columns_has_to_be_one():
    row = {"instruction": "Add the numbers.", "input": "2 and 2", "output": "4"}
    head = "Below is an instruction.\n\n### Instruction:\nAdd the numbers.\n\n"
    text = head + "### Input:\n2 and 2\n\n### Response:\n4"
    assert parse_messages({**row, "text": text}) == parse_messages(row)
    for other in (text.replace("4", "five"), text + "x" * 2000, "Something else."):
        with pytest.raises(UnreadableRow, match="column 'text' is not read"):
            parse_messages({**row, "text": other})


def test_a_text_without_marks_has_no_answer():
    for text in ("Once there was an inn.", "### Notes\nnothing", "<|im_start|>user\nq<|im_end|>x"):
        with pytest.raises(UnreadableRow):
            parse_messages({"text": text})


@pytest.mark.parametrize(
    ("key", "value"),
    [("weight", 0), ("weight", 0.0), ("train", False), ("training", False), ("loss", False)],
)
def test_a_turn_that_is_not_learned_carries_no_loss(key: str, value: Any):
    row = {"messages": [QUESTION, {**ANSWER, key: value}, QUESTION, {**ANSWER, key: 1 - value}]}
    assert [turn.carries_loss for turn in parse_messages(row)] == [True, False, True, True]
    with pytest.raises(UnreadableRow, match="nothing to learn from it"):
        parse_messages({"messages": [QUESTION, {**ANSWER, key: value}]})
    # An earlier answer that is learned is what such a row is scored by.
    row = {"messages": [QUESTION, ANSWER, QUESTION, {**ANSWER, key: value}]}
    assert [turn.carries_loss for turn in parse_messages(row)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"weight": 0.5}, "weight is 0.5; a turn is learned"),
        ({"weight": True}, "weight is True; a turn is learned"),
        ({"weight": "0"}, "weight is '0'; a turn is learned"),
        ({"train": "yes"}, "train is 'yes'"),
        ({"weight": 1, "train": False}, "weight and train say different things"),
        ({"train_detail": [{"begin": 0}]}, "a key that is not read: 'train_detail'"),
        ({"refusal": "I can't."}, "a key that is not read: 'refusal'"),
        ({"prefix": True}, "a key that is not read: 'prefix'"),
        ({"audio": {"id": "x"}}, "a key that is not read: 'audio'"),
        ({"reasoning_content": "x", "thinking": "y"}, "different texts as reasoning_content and"),
        ({"reasoning_content": 1}, "reasoning_content is a number; expected text"),
        ({"value": "other"}, "has text twice, as content and as value"),
        ({"from": "human"}, "has two roles"),
        ({"tool_calls": [{"type": "custom"}]}, "only functions can be read"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "is text that is no JS"),
        ({"tool_calls": [{"function": {"arguments": {}}}]}, "name is null or absent"),
        ({"tool_calls": [{"function": {"name": "f"}, "weight": 1}]}, "key that is not read: 'we"),
        ({"tool_calls": ["f"]}, "is text; expected name and arguments"),
        ({"function_call": {"name": "f", "arguments": "[1]"}}, "arguments are a list"),
    ],
)
def test_a_key_of_a_turn_is_used_or_costs_the_row_by_name(turn: dict[str, Any], reason: str):
    with pytest.raises(UnreadableRow) as caught:
        parse_messages({"messages": [QUESTION, {**ANSWER, **turn}]})
    assert reason in str(caught.value)
    assert "messages turn 2" in str(caught.value)


def test_what_no_trainer_reads_of_a_turn_costs_nothing():
    plain = parse_messages({"messages": [QUESTION, ANSWER]})
    turn = {"id": "7", "timestamp": 12.5, "model": "m", "refusal": None, "tool_calls": [], "x": ""}
    assert parse_messages({"messages": [QUESTION, {**ANSWER, **turn}]}) == plain
    with pytest.raises(UnreadableRow, match="asks to learn what the user says"):
        parse_messages({"messages": [{**QUESTION, "train": True}, ANSWER]})
    with pytest.raises(UnreadableRow, match="has reasoning, but it is the user's"):
        parse_messages({"messages": [{**QUESTION, "thinking": "x"}, ANSWER]})


CALL = '[{"type": "function", "function": {"name": "find", "arguments": {"what": "lamp"}}}]'


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": CALL},
        {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "find", "arguments": '{"what": "lamp"}'}}],
        },
        {"role": "assistant", "function_call": {"name": "find", "arguments": {"what": "lamp"}}},
        {"from": "function_call", "value": '{"name": "find", "arguments": {"what": "lamp"}}'},
    ],
)
def test_tool_calls_are_kept_as_templates_expect_them(turn: dict[str, Any]):
    tool = {"role": "tool", "content": "On the table.", "tool_call_id": "c1", "name": "find"}
    tools = [{"name": "find", "parameters": {}}]
    for more in ([], [tool, ANSWER]):
        found = parse_row({"messages": [QUESTION, turn, *more], "tools": tools})
        assert (found.messages[1].role, found.messages[1].content) == ("assistant", "")
        assert found.messages[1].tool_calls == CALL
        assert found.tools == (
            '[{"type": "function", "function": {"name": "find", "parameters": {}}}]'
        )
    assert (found.messages[2].tool_call_id, found.messages[2].name) == ("c1", "find")


def test_reasoning_is_part_of_the_answer():
    for key in ("reasoning_content", "thinking", "reasoning"):
        found = parse_messages({"messages": [QUESTION, {**ANSWER, key: "I recall it."}]})
        assert found[-1].reasoning == "I recall it."
        only = {"role": "assistant", "content": "", key: "I recall it."}
        assert parse_messages({"messages": [QUESTION, only]})[-1].reasoning == "I recall it."


def test_system_and_history_of_a_row_are_used():
    row = {
        "system": "Be brief.",
        "history": [["Who?", "The innkeeper."]],
        "instruction": "Where?",
        "input": "",
        "output": "At the inn.",
    }
    found = parse_messages(row)
    assert [turn.content for turn in found] == [
        "Be brief.",
        "Who?",
        "The innkeeper.",
        "Where?",
        "At the inn.",
    ]
    assert all(turn.carries_loss for turn in found)  # as LLaMA-Factory trains on them
    chat = {"messages": [QUESTION, ANSWER], "system": "Be brief."}
    assert parse_messages(chat)[0].content == "Be brief."
    twice = {"messages": [{"role": "developer", "content": "Be kind."}, QUESTION, ANSWER]}
    assert parse_messages(twice)[0].role == "system"
    with pytest.raises(UnreadableRow, match="two system texts: system and a system turn"):
        parse_messages({**twice, "system": "Be brief."})
    with pytest.raises(UnreadableRow, match="history 1 is no pair"):
        parse_messages({**row, "history": [["only a question"]]})


@pytest.mark.parametrize(
    "column",
    ["rejected", "chosen", "response_2", "output_2", "response", "answers", "best_answer"],
)
def test_a_second_answer_of_a_row_costs_it_by_name(column: str):
    row = {"prompt": "q", "completion": "a", column: "Something else."}
    with pytest.raises(UnreadableRow, match=f"column '{column}' is not read beside"):
        parse_messages(row)
    # The same text once more, or a number, is nothing that would be missed.
    for same in ("a", " a\n", None, "", 0.5, True):
        assert parse_messages({**row, column: same})[-1].content == "a"
    dropped = Reading(columns={column: ""})
    assert parse_row(row, dropped).messages[-1].content == "a"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("history", [["q", "a"]]),
        ("images", ["a.png"]),
        ("input_ids", [1, 2]),
        ("chat_template_kwargs", {"enable_thinking": True}),
        ("conversations", [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]),
    ],
)
def test_a_column_that_changes_what_is_learned_costs_the_row(column: str, value: Any):
    with pytest.raises(UnreadableRow, match=f"column '{column}' is not read"):
        parse_messages({"messages": [QUESTION, ANSWER], column: value})


def test_columns_that_only_describe_a_row_are_ignored():
    said = {"id": 7, "source": "web", "label": "safe", "score": 0.5, "tags": ["a"], "lang": "en"}
    row = {"messages": [QUESTION, ANSWER]}
    assert parse_messages({**row, **said}) == parse_messages(row)


def test_the_document_names_every_format_and_every_container():
    from pathlib import Path

    from forgetfilter.data.containers import CONTAINERS

    text = Path(__file__).parent.parent.joinpath("docs", "formats.md").read_text(encoding="utf-8")
    assert [name for name in (*FORMATS, *CONTAINERS) if f"`{name}`" not in text] == []
