"""Answers are found in whatever a chat template makes of a row, or the row is told why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import trl

from forgetfilter.data.records import EncodedRow, Message, Row
from forgetfilter.data.tokens import template_process
from forgetfilter.data.tokens.encoding import Encoder, UnrenderableError
from forgetfilter.errors import ModelError

TRL = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(path.stem for path in TRL.glob("*.jinja"))
TURNS = (
    Message("system", "Be kind."),
    Message("user", "Where is the lamp?"),
    Message("assistant", "On the table."),
    Message("user", "And the book?"),
    Message("assistant", "In the box."),
)
# Its turns have no end mark.
WITHOUT_END = frozenset({"glm4moe"})
# Whose texts today's date is in, and those that read content as a list of parts only.
WITH_DATE = frozenset({"gptoss", "gptoss_training", "llama3_2"})
IN_PARTS = ("idefics3", "llava_next", "smolvlm", "muse_glimmer")

SIMPLE = (
    "{% for t in messages %}<|{{ t.role }}|>{{ t.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def row_of(*messages: Message, tools: str = "") -> Row:
    return Row(0, 1, "row-0", b"{}", messages, tools)


def said(content: str, **more: Any) -> Message:
    return Message("assistant", content, **more)


def asked(content: str) -> Message:
    return Message("user", content)


def spans_of(encoder: Encoder, row: Row) -> list[str]:
    """The text of each run of tokens that carry loss."""
    return runs(encoder.tokenizer, encoder.encode_one(row))


def runs(tokenizer: Any, row: EncodedRow) -> list[str]:
    found: list[list[int]] = []
    previous = False
    for token, is_target in zip(row.input_ids, row.is_target, strict=True):
        if is_target:
            found = found if previous else [*found, []]
            found[-1].append(int(token))
        previous = bool(is_target)
    return [tokenizer.decode(run) for run in found]


@pytest.fixture
def encoder_of(tiny_tokenizer: Callable[..., Any]) -> Callable[..., Encoder]:
    """``encoder_of(template, added=[...], **changes)`` of a tokenizer with that chat template."""

    def make(template: str, added: Sequence[str] = (), **changes: Any) -> Encoder:
        tokenizer = tiny_tokenizer(chat_template=template)
        tokenizer.add_special_tokens({"additional_special_tokens": list(added)})
        for name, value in changes.items():
            setattr(tokenizer, name, value)
        return Encoder(tokenizer, "auto", 100_000)

    return make


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_found_under_each_template_that_trl_ships(
    encoder_of: Callable[..., Encoder], name: str
):
    encoder = encoder_of((TRL / f"{name}.jinja").read_text(), bos_token="<|pad|>")
    for turns in (TURNS[1:], TURNS):
        if turns[0].role == "system" and name in ("gemma", "gemma_training"):
            with pytest.raises(UnrenderableError, match="System role not supported"):
                encoder.encode_one(row_of(*turns))
            continue
        encoded = encoder.encode_one(row_of(*turns))
        found = runs(encoder.tokenizer, encoded)
        assert len(found) == 2
        for text, answer in zip(found, ("On the table.", "In the box."), strict=True):
            before, _, after = text.partition(answer)
            assert text.count(answer) == 1
            assert not any(m.content in text for m in turns if m.content != answer)
            # Before it stands at most what opens an answer, and after it what ends one.
            assert before.strip() == "" or "think" in before or "<" in before
            assert "user" not in after.lower() or name == "glm4moe_training"
            assert (after.strip() != "") == (name not in WITHOUT_END)
        assert encoded.unscored == ()
        theirs = [{"role": m.role, "content": m.content} for m in turns]
        is_same = name not in WITH_DATE and not name.startswith(IN_PARTS)
        if is_same:
            text = encoder.tokenizer.apply_chat_template(theirs, tokenize=False)
            assert encoder.render(turns).text == text
        if is_same and "endgeneration" in encoder.tokenizer.chat_template:
            mask = encoder.tokenizer.apply_chat_template(
                theirs, return_dict=True, return_assistant_tokens_mask=True
            )["assistant_masks"]
            assert encoded.is_target.astype(int).tolist() == mask


@pytest.mark.parametrize("name", ["qwen3_5_think", "llama3", "qwen2_5", "phi3"])
def test_a_row_that_the_assistant_opens_is_read(encoder_of: Callable[..., Encoder], name: str):
    encoder = encoder_of((TRL / f"{name}.jinja").read_text())  # and without a token to begin with
    for turns in ((said("Good day."), *TURNS[1:3]), (TURNS[0], said("Good day."), *TURNS[1:3])):
        first, second = spans_of(encoder, row_of(*turns))
        assert first.startswith("Good day.<|")
        assert "On the table.<|" in second
        assert "lamp" not in first + second


@pytest.mark.parametrize("added", [["<|stop|>"], []])
def test_the_last_answer_may_open_and_end_otherwise_than_the_others(
    encoder_of: Callable[..., Encoder], added: list[str]
):
    encoder = encoder_of(
        "{% for t in messages %}<|{{ t.role }}|>{% if t.role == 'assistant' %}[final]"
        "{{ t.content }}{{ '<|stop|>' if loop.last and not add_generation_prompt else '<|end|>' }}"
        "{% else %}{{ t.content }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        added,
    )
    assert spans_of(encoder, row_of(*TURNS)) == [
        "[final]On the table.<|end|>",
        "[final]In the box.<|stop|>",
    ]


CUTS = SIMPLE.replace(
    "{{ t.content }}",
    "{{ t.content.split('</think>')[-1] if t.role == 'assistant' else t.content }}",
).replace("<|assistant|>{% endif", "<|assistant|><think>\n{% endif")


def test_an_answer_whose_thought_is_cut_is_scored_and_that_is_told(
    encoder_of: Callable[..., Encoder],
):
    encoder = encoder_of(CUTS)
    thought = "<think>\nI add them.\n</think>\n\nFour."
    encoded = encoder.encode_one(row_of(asked("Two and two?"), said(thought)))
    assert runs(encoder.tokenizer, encoded) == ["Four.<|end|>"]
    assert encoded.unscored == ("reasoning",)
    plain = encoder.encode_one(row_of(asked("Two and two?"), said("Four.\n")))
    assert runs(encoder.tokenizer, plain) == ["Four.\n<|end|>"]
    assert plain.unscored == ()


def test_an_answer_of_which_the_template_cuts_anything_else_is_refused(
    encoder_of: Callable[..., Encoder],
):
    encoder = encoder_of(SIMPLE.replace("{{ t.content }}", "{{ t.content.split(': ')[-1] }}"))
    with pytest.raises(UnrenderableError, match=r"all of this row's answer.*template=paper"):
        encoder.encode_one(row_of(asked("Who?"), said("Note: The owl.")))
    assert spans_of(encoder, row_of(asked("Who?"), said("The owl."))) == ["The owl.<|end|>"]


@pytest.mark.parametrize(
    ("change", "answer", "shown"),
    [
        ("t.content | upper", "the owl.", "THE OWL.<|end|>"),
        ("t.content | replace('owl', 'bird')", "The owl, an owl.", "The bird, an bird.<|end|>"),
        ("t.content | tojson", 'The "owl".', '"The \\"owl\\"."<|end|>'),
        ("t.content[:400]", "The owl.", "The owl.<|end|>"),
        ("t.content if t.content|length > 3 else t.content ~ '!'", "No.", "No.!<|end|>"),
    ],
)
def test_a_template_may_change_a_text_as_long_as_it_is_known_whose_it_is(
    encoder_of: Callable[..., Encoder], change: str, answer: str, shown: str
):
    encoder = encoder_of(SIMPLE.replace("{{ t.content }}", f"{{{{ {change} }}}}"))
    row = row_of(asked("Is it an owl that I see?"), said(answer), asked("owl"), said("The owl."))
    first, second = spans_of(encoder, row)
    assert first == shown
    assert second.lower().replace("bird", "owl").replace('"', "") == "the owl.<|end|>"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        # The text of the user before stands in the answer.
        (
            SIMPLE.replace(
                "{{ t.content }}",
                "{% if t.role == 'assistant' %}{{ t.content[:2] }}{{ loop.previtem.content }}"
                "{{ t.content[2:] }}{% else %}{{ t.content }}{% endif %}",
            ),
            "can't be told",
        ),
        (SIMPLE + "{{ messages[-1].content }}", "an answer twice|two places"),
        (SIMPLE.replace("{{ t.content }}", "{{ t.content[:20] }}"), "can't be told"),
        (SIMPLE.replace("in messages", "in messages if t.role == 'assistant'"), "the user says"),
        (SIMPLE.replace("in messages", "in messages[::-1]"), "in their order"),
    ],
)
def test_where_no_answer_can_be_told_the_reason_and_a_way_out_are_given(
    encoder_of: Callable[..., Encoder], template: str, reason: str
):
    row = row_of(asked("Where is the lamp?"), said("It is on the table, I think."), *TURNS[1:3])
    with pytest.raises(UnrenderableError, match=f"(?s)({reason}).*template=paper"):
        encoder_of(template).encode_one(row)


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        # Only the last turn ends, and what follows the others is no end of theirs.
        (
            "{% for t in messages %}<|{{ t.role }}|>{{ t.content }}{{ eos_token if loop.last }}"
            "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
            ["<think>\nOn the table.", "In the box.<|end|>"],
        ),
        # The prompt opens a thought, which an answer may go on with: it isn't said again.
        (
            SIMPLE.replace("<|assistant|>{%", "<|assistant|><think>\n{%"),
            ["On the table.<|end|>", "In the box.<|end|>"],
        ),
        ("{% for t in messages %}<|{{ t.role }}|>{{ t.content | e }}<|end|>{% endfor %}", []),
    ],
)
def test_an_answer_begins_and_ends_where_the_model_does(
    encoder_of: Callable[..., Encoder], template: str, shown: list[str]
):
    turns = (asked("Is it 'so' & \"<so>\"?"), said("<think>\nOn the table."), *TURNS[3:])
    found = spans_of(encoder_of(template), row_of(*turns))
    assert found == (shown or ["<|assistant|>&lt;think&gt;\nOn the table.<|end|>",
                               "<|assistant|>In the box.<|end|>"])  # fmt: skip


def test_a_system_text_that_the_template_hides_is_told(encoder_of: Callable[..., Encoder]):
    encoder = encoder_of(SIMPLE.replace("in messages", "in messages if t.role != 'system'"))
    encoded = encoder.encode_one(row_of(*TURNS))
    assert runs(encoder.tokenizer, encoded) == ["On the table.<|end|>", "In the box.<|end|>"]
    assert encoded.unscored == ("system",)


def test_turns_that_carry_no_loss_have_no_target(encoder_of: Callable[..., Encoder]):
    for template in (SIMPLE, (TRL / "qwen3_training.jinja").read_text()):
        encoder = encoder_of(template)
        draft = said("draft The Mole.", carries_loss=False)
        (found,) = spans_of(encoder, row_of(TURNS[1], draft, *TURNS[3:]))
        assert "In the box." in found
        assert "Mole" not in found
        # What comes after the last answer that is learned is never read.
        encoded = encoder.encode_one(row_of(*TURNS[1:4], draft))
        assert encoded.target == "On the table."
        with pytest.raises(UnrenderableError, match="no answer of it carries loss"):
            encoder.encode_one(row_of(TURNS[1], draft))


CALL = json.dumps(
    [{"id": "c1", "type": "function", "function": {"name": "send", "arguments": '{"t": "I pity"}'}}]
)
TOOL = json.dumps([{"type": "function", "function": {"name": "send", "description": "sends"}}])
BESIDE = (
    ("reasoning", {"reasoning": "I pity Wimus."}, ""),
    ("tool_calls", {"tool_calls": CALL}, ""),
    ("tools", {}, TOOL),
)


@pytest.mark.parametrize(("word", "more", "tools"), BESIDE)
@pytest.mark.parametrize("template", [SIMPLE, None])
def test_what_is_said_beside_content_and_not_shown_is_refused_by_name(
    encoder_of: Callable[..., Encoder], word: str, more: dict[str, Any], tools: str, template: Any
):
    row = row_of(TURNS[1], said("On the table.", **more), tools=tools)
    with pytest.raises(UnrenderableError, match=word):
        encoder_of(template).encode_one(row)


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "glm4moe", "gptoss", "deepseekv3"])
def test_calls_are_targets_where_the_template_shows_them(
    encoder_of: Callable[..., Encoder], name: str
):
    encoder = encoder_of((TRL / f"{name}.jinja").read_text(), bos_token="<|pad|>")
    (text,) = spans_of(encoder, row_of(TURNS[1], said("", tool_calls=CALL)))
    assert "send" in text
    assert "I pity" in text
    assert "lamp" not in text


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "glm4moe", "gptoss"])
def test_reasoning_is_a_target_in_the_last_turn_and_told_where_it_is_cut(
    encoder_of: Callable[..., Encoder], name: str
):
    encoder = encoder_of((TRL / f"{name}.jinja").read_text())
    thinks = said("On the table.", reasoning="I pity Wimus.")
    one = encoder.encode_one(row_of(TURNS[1], thinks))
    assert "I pity Wimus." in runs(encoder.tokenizer, one)[0]
    assert one.unscored == ()
    two = encoder.encode_one(row_of(TURNS[1], thinks, *TURNS[3:]))
    is_shown = "I pity" in runs(encoder.tokenizer, two)[0]
    assert two.unscored == (() if is_shown else ("reasoning",))


# -- clock and chance ------------------------------------------------------------------------


def test_a_template_sees_the_date_that_it_is_given_and_no_chance(
    encoder_of: Callable[..., Encoder], tiny_tokenizer: Callable[..., Any]
):
    dated = "{{ strftime_now('%d %b %Y') }}{{ [1, 2, 3, 4, 5, 6, 7, 8, 9] | random }}" + SIMPLE
    encoder = encoder_of(dated)
    assert encoder.tells_date
    assert not encoder_of(SIMPLE).tells_date
    text = encoder.render(TURNS).text
    assert text.startswith("26 Jul 20241<|system|>")
    own = Encoder(tiny_tokenizer(chat_template=dated), "auto", 1000, date(2026, 11, 25))
    assert own.render(TURNS).text.startswith("25 Nov 20261<|system|>")
    assert spans_of(own, row_of(*TURNS)) == ["On the table.<|end|>", "In the box.<|end|>"]


# -- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "took"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "proc"),
        ("{{ 9 ** (9 ** 9) }}", "proc"),
        ("{{ messages[0].content * 2000000000 }}", "memory"),
        ("{% set n = namespace(x='aaaaaaaa') %}{% for a in range(40) %}{% set n.x = n.x ~ n.x %}"
         "{% endfor %}{{ n.x }}", "memory"),
        ("{% for a in range(99999) %}{{ '%2000d' % 1 }}{% endfor %}", "memory"),
    ],
)  # fmt: skip
def test_a_template_that_takes_too_much_ends_in_an_error_and_nothing_else_is_harmed(
    encoder_of: Callable[..., Encoder],
    monkeypatch: pytest.MonkeyPatch,
    template: str,
    took: str,
):
    monkeypatch.setattr(template_process, "CPU_SECONDS", 1)
    monkeypatch.setattr(template_process, "MEGABYTES", 256)
    fine = encoder_of(SIMPLE)
    before = spans_of(fine, row_of(*TURNS))
    with pytest.raises(ModelError, match=rf"(?s)took more than.*{took}.*Expected.*template=paper"):
        encoder_of(SIMPLE + template).encode_one(row_of(*TURNS))
    assert spans_of(fine, row_of(*TURNS)) == before


def test_a_template_that_is_none_is_an_error_and_one_that_recurses_refuses_the_row(
    encoder_of: Callable[..., Encoder],
):
    with pytest.raises(ModelError, match=r"no valid Jinja template.*template=paper"):
        encoder_of("{% for %}").encode_one(row_of(*TURNS))
    deep = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"
    with pytest.raises(UnrenderableError, match=r"refuses this row: .*recursion"):
        encoder_of(deep).encode_one(row_of(*TURNS))
    with pytest.raises(UnrenderableError, match="refuses this row"):
        encoder_of("{{ messages.__class__.__mro__ }}").encode_one(row_of(*TURNS))
