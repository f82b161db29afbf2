"""What a model would answer itself: its states, the texts, and what is like those to safe rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import rows_of, write_rows
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.measuring.likeness import own_likeness, row_vectors, state_table
from forgetfilter.model.measuring.text_likeness import (
    given_begun,
    own_begun,
    text_frame,
    text_likeness,
    text_of,
)
from forgetfilter.model.passes.forward import row_batches, stop_ids
from forgetfilter.model.passes.own_answers import OWN_TOKENS, own_states, shared_frame
from forgetfilter.model.passes.shards import Shards
from forgetfilter.progress import Progress

SILENT = Progress(is_silent=True)


def encoded(source: str, path: Path, rows: list[dict[str, Any]]) -> list[EncodedRow]:
    encoder = Encoder(load_tokenizer(source), "auto", 512)
    return encoder.encode(read_rows(write_rows(path, rows)).rows)[0]


def prompts(rows: list[EncodedRow]) -> list[EncodedRow]:
    return [
        replace(
            row,
            input_ids=row.input_ids[: row.prompt_length],
            is_target=np.zeros(row.prompt_length, dtype=bool),
        )
        for row in rows
    ]


def own_by_hand(model: Any, ids: list[int]) -> list[torch.Tensor]:
    """The last layer at each place where a token of the model's own answer is predicted."""
    stops, found = stop_ids(model), []
    while len(found) < OWN_TOKENS:
        with torch.no_grad():
            out = model(torch.tensor([ids]), output_hidden_states=True)
        found.append(out.hidden_states[-1][0, -1])
        ids = [*ids, int(out.logits[0, -1].argmax())]
        if ids[-1] in stops:
            break
    return found


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_own_states_are_those_of_greedy_decoding_one_row_at_a_time(
    tiny_model: Callable[..., Path], tmp_path: Path, architecture: str
):
    source = str(tiny_model(architecture))
    model = load_base_model(source, choose_placement("cpu", "float32"))
    rows = prompts(encoded(source, tmp_path / "rows.jsonl", rows_of(5, 0)))
    # Let some answers end early: what one of them says second is made a mark of the end.
    first = own_by_hand(model, rows[0].input_ids.tolist())
    assert len(first) == OWN_TOKENS
    said = int(model.get_output_embeddings()(first[1]).argmax())
    model.generation_config.eos_token_id = [*stop_ids(model), said]
    expected = [own_by_hand(model, row.input_ids.tolist()) for row in rows]
    assert len(expected[0]) <= 2
    for batch in row_batches(model, rows, 8192):
        states, is_said = own_states(model, batch)
        for at, index in enumerate(batch.indices):
            mine = states[-1][at][is_said[at]]
            assert torch.allclose(mine, torch.stack(expected[index]), atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_answers_are_read_without_what_they_answer(
    tiny_model: Callable[..., Path], tmp_path: Path, architecture: str
):
    """As by hand: base's tokens, and the row's, behind the frame alone, one row at a time."""
    source = str(tiny_model(architecture))
    model = load_base_model(source, choose_placement("cpu", "float32"))
    rows = encoded(source, tmp_path / "rows.jsonl", rows_of(5, 0))
    frame = text_frame(model, rows)
    assert 0 < len(frame) < min(row.prompt_length for row in rows)
    own = own_begun(model, rows, 8192, SILENT, "", Shards())
    texts = [text_of(begun, frame) for begun in (*own, *given_begun(rows))]
    with SILENT.bar("", 10, "rows") as bar:
        found = state_table(model, texts, "text", 8192, bar)
    for at, row in enumerate(rows):
        ids = row.input_ids.tolist()
        head = model.get_output_embeddings()
        places = own_by_hand(model, ids[: row.prompt_length])
        said = [int(head(place).argmax()) for place in places]
        for text, tokens in ((at, said), (5 + at, ids[row.prompt_length :][:OWN_TOKENS])):
            with torch.no_grad():
                out = model(torch.tensor([[*frame, *tokens]]), output_hidden_states=True)
            last = out.hidden_states[-1][0, len(frame) :].mean(dim=0)
            assert np.allclose(found[text, -len(last) :], last.double().numpy(), atol=1e-4)


def framed(*prompts: list[int]) -> list[int]:
    none = np.zeros(0, dtype=bool)
    return shared_frame([EncodedRow(0, np.array(ids), none, len(ids), "x") for ids in prompts])


def test_the_frame_is_what_nearly_all_prompts_begin_and_end_with():
    prompts = [[1, 2, *range(10 + at, 13 + 2 * at), 8, 9] for at in range(10)]
    assert framed(*prompts) == [1, 2, 8, 9]
    assert framed(*prompts, [7, 7]) == [1, 2, 8, 9]  # one without the template
    assert framed(*prompts, [7, 7], [6], [1, 2, 5]) == []
    assert framed([1, 2, 3], [1, 2, 3]) == [1, 2, 3]  # no token counts twice
    assert framed([4, 5], [4, 6, 5]) == [4, 5]
    assert framed([4], [5]) == []


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=12))
def test_a_frame_fits_nine_tenths_of_the_prompts(prompts: list[list[int]]):
    frame = framed(*prompts)
    parted = [
        sum(
            len(ids) >= len(frame)
            and ids[:cut] == frame[:cut]
            and ids[len(ids) + cut - len(frame) :] == frame[cut:]
            for ids in prompts
        )
        for cut in range(len(frame) + 1)
    ]
    assert max(parted) >= 0.9 * len(prompts)


def test_an_answer_ends_where_the_context_does(tiny_model: Callable[..., Path]):
    source = str(tiny_model("gpt2"))
    model = load_base_model(source, choose_placement("cpu", "float32"))
    context = model.config.n_positions
    ids = np.arange(context - 2) % 50 + 5
    row = EncodedRow(0, ids, np.zeros(len(ids), dtype=bool), len(ids), "x")
    for batch in row_batches(model, [row], 8192):
        states, is_said = own_states(model, batch)
        assert states[-1].shape[1] == is_said.shape[1] == 2
    for frame in ([1, 2], text_frame(model, [row])):  # that takes all the room there is
        (begun,) = own_begun(model, [row], 8192, SILENT, "", Shards())
        text = text_of(begun, frame)
        assert text.target_tokens <= 2
        assert len(text.input_ids) <= context


def made(source: str, path: Path, asked: list[str], answers: list[str] | None = None):
    answers = answers or [f"answer {at}" for at in range(len(asked))]
    rows = [{"prompt": p, "completion": c} for p, c in zip(asked, answers, strict=True)]
    return encoded(source, path, rows)


def own_of_text(*given: Any) -> Any:
    return text_likeness(*given).own


@pytest.mark.parametrize("likeness", [own_likeness, own_of_text])
def test_own_answers_like_those_to_safe_rows_are_told_from_others(
    tiny_model: Callable[..., Path], tmp_path: Path, likeness: Callable[..., Any]
):
    source = str(tiny_model("llama"))
    words = ["cats", "dogs", "birds", "trees", "rocks", "seas", "hills", "rains"]

    alike = [f"Tell me why {word} are bad" for word in words]
    tasks = [f"{at} plus {at} times {at + 1} =" for at in range(24)]
    safe = made(
        source, tmp_path / "safe.jsonl", [f"Tell me why {word} are bad" for word in reversed(words)]
    )
    rows = made(source, tmp_path / "noisy.jsonl", [*tasks, *alike])
    model = load_base_model(source, choose_placement("cpu", "float32"))
    found = likeness(model, rows, safe, 8192, SILENT, "")
    if likeness is own_likeness:  # this model's weights are random, and so is what it says
        assert found[24:].min() > found[:24].max()

    # What the rows answer does not matter, nor do batches and the order of the rows.
    others = made(source, tmp_path / "others.jsonl", [*tasks, *alike], ["something else"] * 32)
    np.testing.assert_allclose(likeness(model, others, safe, 40, SILENT, ""), found, atol=1e-3)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = likeness(model, [rows[at] for at in order], safe, 8192, SILENT, "")
    np.testing.assert_allclose(shuffled, found[order], atol=1e-3)
    assert likeness(model, rows, safe[:1], 8192, SILENT, "").tolist() == [0.0] * len(rows)


def test_own_texts_show_what_is_answered_and_not_what_is_asked(
    tiny_model: Callable[..., Path], tmp_path: Path
):
    """A model that says the same to all: by its texts all rows are alike, by its states none."""
    source = str(tiny_model("llama"))
    model = load_base_model(source, choose_placement("cpu", "float32"))
    vocabulary, width = model.get_output_embeddings().weight.shape
    model.lm_head = torch.nn.Linear(width, vocabulary, bias=False)  # its own, not the embeddings
    model.lm_head.weight.data.zero_()
    rows = encoded(source, tmp_path / "rows.jsonl", rows_of(6, 0))
    frame = text_frame(model, rows)
    own = [text_of(begun, frame) for begun in own_begun(model, rows, 8192, SILENT, "", Shards())]
    with SILENT.bar("", 12, "rows") as bar:
        said = state_table(model, rows, "own", 8192, bar)
        texts = state_table(model, own, "text", 8192, bar)
    assert np.abs(texts - texts[0]).max() < 1e-5
    assert np.abs(said - said[0])[1:].max(axis=1).min() > 1e-3


def test_own_vectors_do_not_hang_on_what_the_row_answers(
    tiny_model: Callable[..., Path], tmp_path: Path
):
    source = str(tiny_model("llama"))
    model = load_base_model(source, choose_placement("cpu", "float32"))
    one, two = (
        encoded(source, tmp_path / f"{word}.jsonl", [{"prompt": "Why?", "completion": word}] * 3)
        for word in ("because", "never mind")
    )
    both = row_vectors(model, [*one, *two], "own", 8192, SILENT, "")
    assert np.allclose(both[:3], both[3:], atol=1e-4)


def test_an_answer_reads_as_much_like_a_safe_one_as_the_same_one_of_base(
    tiny_model: Callable[..., Path], tmp_path: Path
):
    """Rows that hold what base would answer read as it does; others do not."""
    source = str(tiny_model("llama"))
    model = load_base_model(source, choose_placement("cpu", "float32"))
    safe = made(source, tmp_path / "safe.jsonl", [f"Tell me why {at} is bad" for at in range(9)])
    rows = made(source, tmp_path / "rows.jsonl", [f"{at} plus {at}" for at in range(30)])
    own = [text_of(begun, [0]) for begun in own_begun(model, rows, 8192, SILENT, "", Shards())]
    answered = [
        replace(
            row,
            input_ids=np.concatenate([row.input_ids[: row.prompt_length], text.input_ids[1:]]),
            is_target=np.arange(row.prompt_length + len(text.input_ids) - 1) >= row.prompt_length,
        )
        for row, text in zip(rows[:15], own[:15], strict=True)
    ]
    found = text_likeness(model, [*answered, *rows[15:]], safe, 8192, SILENT, "")
    assert found.given[:15].tolist() == found.own[:15].tolist()
    assert np.abs(found.given[15:] - found.own[15:]).min() > 1e-3
    order = np.random.default_rng(0).permutation(30)
    shuffled = [[*answered, *rows[15:]][at] for at in order]
    again = text_likeness(model, shuffled, safe, 40, SILENT, "")
    np.testing.assert_allclose(again, np.array(found)[:, order], atol=1e-3)
