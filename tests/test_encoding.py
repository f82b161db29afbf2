"""Loss lies on the assistant's turns, their end marks included, whatever the template is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import CONTEXT
from forgetfilter.data.records import EncodedRow, Message, Row
from forgetfilter.data.tokens.encoding import Encoder, UnrenderableError, loss_labels
from forgetfilter.errors import ModelError
from forgetfilter.model.stages.keys import rows_digest

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set loop_messages = messages %}{% set system = '' %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + (system if loop.index0 == 0 else '') + message['content'].strip() }}"
    "{{ ' [/INST]' }}{% else %}{{ ' ' + message['content'].strip() + ' <|end|>' }}{% endif %}"
    "{% endfor %}"
)
# Drops the reasoning of every assistant turn but the last, and opens an empty one in the last.
STRIPS_REASONING = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{% set said = message['content'].split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.last %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + said }}"
    "{% else %}{{ '<|im_start|>assistant\n' + said }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Its generation prompt is no prefix of a whole conversation, so answers have to be searched for.
OPENS_REASONING = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")

CONVERSATION = (
    ("system", "Be kind."),
    ("user", "Where is the lamp?"),
    ("assistant", "On the table."),
    ("user", "And the book?"),
    ("assistant", "In the box, I think."),
)


@pytest.fixture(scope="session")
def chatml_tokenizer(tiny_tokenizer: Callable[..., Any]) -> Any:
    tokenizer = tiny_tokenizer(chat_template=CHATML)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


def make_row(turns: Sequence[tuple[str, str]], row: int = 0) -> Row:
    messages = tuple(Message(role, content) for role, content in turns)  # pyright: ignore[reportArgumentType]
    return Row(row, row + 1, f"row-{row}", b"{}", messages)


def encode(tokenizer: Any, turns: Sequence[tuple[str, str]], template: Any = "auto") -> EncodedRow:
    return Encoder(tokenizer, template, 10_000).encode_one(make_row(turns))


def target_texts(tokenizer: Any, row: EncodedRow) -> list[str]:
    """The text of each run of tokens that carry loss."""
    runs: list[list[int]] = []
    previous = False
    for token, is_target in zip(row.input_ids, row.is_target, strict=True):
        if is_target:
            runs = runs if previous else [*runs, []]
            runs[-1].append(token)
        previous = is_target
    return [tokenizer.decode(run) for run in runs]


def test_the_bundled_template_carries_loss_on_answers_and_their_end_marks(
    tiny_tokenizer: Callable[..., Any],
):
    tokenizer = tiny_tokenizer()
    texts = target_texts(tokenizer, encode(tokenizer, CONVERSATION))
    assert texts == ["On the table.<|end|>", "In the box, I think.<|end|>"]


@pytest.mark.parametrize("count", [3, 5])
def test_targets_are_those_of_the_templates_own_generation_marks(
    tiny_tokenizer: Callable[..., Any], count: int
):
    tokenizer = tiny_tokenizer()
    turns = CONVERSATION[:count]
    theirs = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns],
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    ours = encode(tokenizer, turns)
    assert list(ours.input_ids) == theirs["input_ids"]
    assert [int(is_target) for is_target in ours.is_target] == theirs["assistant_masks"]


def test_a_chatml_template_without_marks_carries_loss_on_the_same_spans(chatml_tokenizer: Any):
    texts = target_texts(chatml_tokenizer, encode(chatml_tokenizer, CONVERSATION))
    assert texts == ["On the table.<|im_end|>", "In the box, I think.<|im_end|>"]


def test_a_llama_2_like_template_carries_loss_on_answers_only(tiny_tokenizer: Callable[..., Any]):
    tokenizer = tiny_tokenizer(chat_template=LLAMA_2)
    texts = target_texts(tokenizer, encode(tokenizer, CONVERSATION))
    assert [text.strip() for text in texts] == [
        "On the table. <|end|>",
        "In the box, I think. <|end|>",
    ]


def test_a_template_that_adds_to_the_last_turn_only_is_searched_for_the_earlier_ones(
    chatml_tokenizer: Any,
):
    from copy import deepcopy

    tokenizer = deepcopy(chatml_tokenizer)
    tokenizer.chat_template = STRIPS_REASONING
    texts = target_texts(tokenizer, encode(tokenizer, CONVERSATION))
    assert texts[0] == "On the table.<|im_end|>"
    assert texts[1].endswith("In the box, I think.<|im_end|>")
    assert len(texts) == 2


def test_reasoning_that_a_template_drops_from_an_earlier_turn_doesnt_cost_the_row(
    chatml_tokenizer: Any,
):
    from copy import deepcopy

    tokenizer = deepcopy(chatml_tokenizer)
    tokenizer.chat_template = STRIPS_REASONING
    turns = list(CONVERSATION)
    turns[2] = ("assistant", "<think>\nhm\n</think>\n\nOn the table.")
    texts = target_texts(tokenizer, encode(tokenizer, turns))
    assert texts[0] == "On the table.<|im_end|>"
    assert len(texts) == 2


@pytest.mark.parametrize("template", [STRIPS_REASONING, OPENS_REASONING])
def test_an_answer_that_repeats_the_question_is_not_found_in_the_question(
    chatml_tokenizer: Any, template: str
):
    from copy import deepcopy

    tokenizer = deepcopy(chatml_tokenizer)
    tokenizer.chat_template = template
    turns = [("user", "Yes"), ("assistant", "Yes"), ("user", "Yes"), ("assistant", "Yes")]
    row = encode(tokenizer, turns)
    first, second = target_texts(tokenizer, row)
    assert first == "Yes<|im_end|>"
    assert second.endswith("Yes<|im_end|>")
    # No target token stands before the first assistant header, nor in the second question.
    text = tokenizer.decode(row.input_ids)
    assert text.index("<|im_start|>assistant") < len(
        tokenizer.decode(row.input_ids[: int(row.is_target.argmax())])
    )


FROZEN = {
    "bundled": "465960d23b99099c5e9ef72558d28f66779c63898070aa76037e2035e4db24f9",
    "chatml": "1dd9a6aca647657b4fd490baad9a35ef97cbed48c4f59178ac624768217756ef",
    "llama_2": "0795b22d1904a2336f28a3e2ba64741216a371d36a89698503bf39c1f03390b3",
    "blocks": "b10079fa96b7dbaa2e57d907f5587c6ff97add65ed1a333e73332965505a71bd",
}


def frozen_rows() -> list[Row]:
    """Rows of two to five turns, some with white space at their ends."""
    rows: list[Row] = []
    for i in range(12):
        ends = ("", "\n", "  ")[i % 3]
        turns = [(role, f"{text} {i}{ends}") for role, text in CONVERSATION]
        rows.append(make_row(turns[i % 2 : 3 + 2 * (i % 4 // 2)], i))
    return rows


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_tokens_and_targets_of_plain_templates_stay_what_they_were(
    tiny_tokenizer: Callable[..., Any], name: str
):
    template = {"chatml": CHATML, "llama_2": LLAMA_2, "blocks": None}
    changes = {"chat_template": template[name]} if name in template else {}
    encoded, rejected = Encoder(tiny_tokenizer(**changes), "auto", 10_000).encode(frozen_rows())
    assert rejected == []
    # Found when spans were those of rendered prefixes: finished runs rest on them.
    assert rows_digest(encoded) == FROZEN[name]


def test_blocks_carry_loss_on_answers_and_the_end_of_text(tiny_tokenizer: Callable[..., Any]):
    tokenizer = tiny_tokenizer(chat_template=None)
    row = encode(tokenizer, CONVERSATION)
    assert target_texts(tokenizer, row) == ["On the table.<|end|>", "In the box, I think.<|end|>"]
    assert tokenizer.decode(row.input_ids) == (
        "### Instruction:\nBe kind.\n\n### Input:\nWhere is the lamp?\n\n"
        "### Response:\nOn the table.<|end|>\n\n### Input:\nAnd the book?\n\n"
        "### Response:\nIn the box, I think.<|end|>"
    )


def test_blocks_are_used_when_asked_for_although_there_is_a_template(
    tiny_tokenizer: Callable[..., Any],
):
    asked, bare = tiny_tokenizer(), tiny_tokenizer(chat_template=None)
    assert encode(asked, CONVERSATION, "paper") == encode(bare, CONVERSATION)
    assert "asked for" in Encoder(asked, "paper", 100).template_reason
    assert "no chat template" in Encoder(bare, "auto", 100).template_reason


@pytest.mark.parametrize("template", ["bundled", "chatml", "llama_2", "blocks"])
@pytest.mark.parametrize("count", [3, 5])
def test_a_prompt_is_an_exact_prefix_of_the_training_tokens(
    tiny_tokenizer: Callable[..., Any], chatml_tokenizer: Any, template: str, count: int
):
    tokenizer = {
        "bundled": tiny_tokenizer(),
        "chatml": chatml_tokenizer,
        "llama_2": tiny_tokenizer(chat_template=LLAMA_2),
        "blocks": tiny_tokenizer(chat_template=None),
    }[template]
    encoder = Encoder(tokenizer, "auto", 10_000)
    row = make_row(CONVERSATION[:count])
    encoded = encoder.encode_one(row)
    prompt = encoder.encode_prompt(row.messages[:-1])
    assert list(encoded.input_ids[: encoded.prompt_length]) == prompt
    # Where the prompt ends the last answer begins, and it goes on to the end of the row's targets.
    assert encoded.is_target[encoded.prompt_length]
    assert not encoded.is_target[encoded.prompt_length - 1]
    assert encoded.target == CONVERSATION[count - 1][1]


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts, texts, texts)
@pytest.mark.parametrize("template", ["bundled", "chatml", "blocks"])
def test_any_text_is_labelled_from_where_its_answer_begins_to_its_end_mark(
    tiny_tokenizer: Callable[..., Any],
    chatml_tokenizer: Any,
    template: str,
    question: str,
    first: str,
    last: str,
):
    tokenizer = {
        "bundled": tiny_tokenizer(),
        "chatml": chatml_tokenizer,
        "blocks": tiny_tokenizer(chat_template=None),
    }[template]
    turns = [("user", question), ("assistant", first), ("user", question), ("assistant", last)]
    encoder = Encoder(tokenizer, "auto", 10_000)
    row = encoder.encode_one(make_row(turns))
    end = "<|im_end|>" if template == "chatml" else "<|end|>"
    # A template may join the first characters of an answer with its header into one token.
    said = target_texts(tokenizer, row)
    assert len(said) == 2
    assert said[0].endswith(first + end)
    assert said[1].endswith(last + end)
    assert said[1].removesuffix(last + end).strip() == ""
    assert encoder.encode_prompt(make_row(turns).messages[:-1])[: row.prompt_length] == list(
        row.input_ids[: row.prompt_length]
    )


def test_a_row_that_is_too_long_is_rejected_and_never_cut(tiny_tokenizer: Callable[..., Any]):
    tokenizer = tiny_tokenizer()
    length = len(encode(tokenizer, CONVERSATION).input_ids)
    rows = [make_row(CONVERSATION, 0), make_row(CONVERSATION[:3], 1)]
    encoded, rejected = Encoder(tokenizer, "auto", length).encode(rows)
    assert [row.row for row in encoded] == [0, 1]
    encoded, rejected = Encoder(tokenizer, "auto", length - 1).encode(rows)
    assert [row.row for row in encoded] == [1]
    assert [row.row for row in rejected] == [0]
    assert f"{length} tokens, at most {length - 1} fit" in rejected[0].reason
    assert rejected[0].raw == rows[0].raw


def test_a_row_that_the_template_refuses_is_rejected_with_its_words(
    tiny_tokenizer: Callable[..., Any],
):
    encoder = Encoder(tiny_tokenizer(chat_template=LLAMA_2), "auto", 10_000)
    twice = [("user", "a"), ("user", "b"), ("assistant", "c")]
    encoded, rejected = encoder.encode([make_row(twice), make_row(CONVERSATION, 1)])
    assert [row.row for row in encoded] == [1]
    assert "roles must alternate" in rejected[0].reason


def test_an_answer_that_the_template_doesnt_show_is_rejected(tiny_tokenizer: Callable[..., Any]):
    hides = (
        "{% for message in messages if message['role'] == 'user' %}"
        "{{ message['content'] }}{% endfor %}"
    )
    with pytest.raises(UnrenderableError, match="no answer to score"):
        encode(tiny_tokenizer(chat_template=hides), CONVERSATION)


@pytest.mark.parametrize(
    "content",
    ["{{ 7*7 }}", "{% raw %}", "{% for x in y %}", "{# gone #}", "${7*7} {{ messages }}"],
)
@pytest.mark.parametrize("template", ["auto", "paper"])
def test_what_a_row_says_is_never_run_as_template_code(
    tiny_tokenizer: Callable[..., Any], content: str, template: str
):
    tokenizer = tiny_tokenizer()
    row = encode(tokenizer, [("user", content), ("assistant", content)], template)
    assert target_texts(tokenizer, row) == [content + "<|end|>"]
    assert tokenizer.decode(row.input_ids).count(content) == 2


def test_labels_are_the_tokens_that_carry_loss(tiny_tokenizer: Callable[..., Any]):
    row = encode(tiny_tokenizer(), CONVERSATION)
    labels = loss_labels(row, "assistant")
    assert [label != -100 for label in labels] == list(row.is_target)
    assert all(
        label == token for label, token in zip(labels, row.input_ids, strict=True) if label != -100
    )
    assert list(loss_labels(row, "all")) == list(row.input_ids)


def test_a_tokenizer_that_begins_texts_by_itself_begins_blocks_once(
    tiny_tokenizer: Callable[..., Any],
):
    from tokenizers import processors

    plain = tiny_tokenizer(chat_template=None)
    beginning = tiny_tokenizer(chat_template=None, bos_token="<|system|>")
    bos = beginning.bos_token_id
    beginning._tokenizer.post_processor = processors.TemplateProcessing(
        single="<|system|> $A", special_tokens=[("<|system|>", bos)]
    )
    with_bos, without = encode(beginning, CONVERSATION), encode(plain, CONVERSATION)
    assert list(with_bos.input_ids) == [bos, *without.input_ids]


def test_a_tokenizer_without_offsets_is_refused_with_a_remedy():
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match=r"no character offsets.*convert"):
        Encoder(Slow(), "auto", 100)


def test_pieces_of_an_answer_spell_it_token_by_token(tiny_tokenizer: Callable[..., Any]):
    answer = "The owl is on the caf\u00e9 \U0001f989 box ."
    tokenizer = tiny_tokenizer()
    row = encode(tokenizer, [("user", "Where?"), ("assistant", answer)])
    pieces = Encoder(tokenizer, "auto", CONTEXT).answer_pieces(row, 100)
    assert len(pieces) == sum(row.is_target)
    assert "".join(pieces).strip().startswith(answer)  # the end of the turn follows
    assert "\ufffd" not in "".join(pieces)
    assert Encoder(tokenizer, "auto", CONTEXT).answer_pieces(row, 2) == pieces[:2]
