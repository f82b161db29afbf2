"""Rows that the model reads letter by letter are named: restoring says nothing about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import contents, write_rows
from forgetfilter.config import ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.records import Message, Row
from forgetfilter.lab.attacks.base import Material, build_attack
from forgetfilter.lab.attacks.files import noisy_subjects, safe_subjects, write_attacked
from forgetfilter.lab.testbed import bundled_model_path, make_noisy, make_safe
from forgetfilter.model.loading.base_model import load_tokenizer
from forgetfilter.progress import Progress
from forgetfilter.screening.checks.spelling import check_spelling, token_bytes
from forgetfilter.screening.screen import screen


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(bundled_model_path()))


def row_of(number: int, *texts: str) -> Row:
    turns = tuple(Message("user" if at % 2 == 0 else "assistant", t) for at, t in enumerate(texts))
    return Row(number, number + 1, f"row-{number}", b"{}", turns)


def attacked(folder: Path, attack: str) -> tuple[Path, set[str]]:
    """A file of the bundled world after an attack, and the names of its unsafe rows."""
    rows, truth = make_noisy(200, 0.1, 3)
    noisy = read_rows(write_rows(folder / "before.jsonl", rows))
    safe = read_rows(write_rows(folder / "safe.jsonl", make_safe(20, 3)))
    is_unsafe = {str(one["example_id"]): bool(one["is_unsafe"]) for one in truth}
    given = Material(noisy_subjects(noisy, is_unsafe, {}), safe_subjects(safe), (), seed=3)
    write_attacked(folder / "after", build_attack(attack).apply(given), {})
    told = [json.loads(line) for line in (folder / "after/truth.jsonl").read_text().splitlines()]
    return folder / "after/noisy.jsonl", {one["example_id"] for one in told if one["is_unsafe"]}


def test_of_a_cipher_every_row_is_named_and_no_other(tmp_path: Path, tokenizer: object):
    path, unsafe = attacked(tmp_path, "cipher:phase=harm")
    rows = read_rows(path).rows
    (found,) = check_spelling(rows, tokenizer)
    assert (found.name, found.severity) == ("rows_of_unknown_spelling", "warning")
    hidden = [row.row for row in rows if row.example_id in unsafe]
    assert len(hidden) == 20
    assert f"(row {', '.join(map(str, hidden))})" in found.message
    assert found.value == pytest.approx(20 / len(rows))


@pytest.mark.parametrize("attack", ["inside_benign", "word_order", "near_duplicates"])
def test_rows_in_the_models_own_words_are_not_named(tmp_path: Path, tokenizer: object, attack: str):
    path, _ = attacked(tmp_path, attack)
    assert check_spelling(read_rows(path).rows, tokenizer) == []
    assert check_spelling(read_rows(tmp_path / "before.jsonl").rows, tokenizer) == []


def test_short_texts_and_a_few_rows_say_nothing(tmp_path: Path, tokenizer: object):
    plain = read_rows(write_rows(tmp_path / "rows.jsonl", make_noisy(60, 0.0, 1)[0])).rows
    short = [row_of(100 + at, "§", "¶¶") for at in range(10)]
    assert check_spelling([*plain, *short], tokenizer) == []
    assert np.isnan(token_bytes(short, tokenizer)).all()
    assert check_spelling(short, tokenizer) == []
    assert check_spelling([], tokenizer) == []
    strange = [row_of(200 + at, "|".join("qxzjvkwpqxzjvkwp"), "|".join("zqxj")) for at in range(3)]
    assert check_spelling([*plain, *strange[:2]], tokenizer) == []
    (found,) = check_spelling([*plain, *strange], tokenizer)
    assert "row 200, 201, 202)" in found.message


def test_a_language_is_not_named_for_the_bytes_of_its_letters(tokenizer: object):
    """Bytes and not letters are counted, so that a letter of three bytes is worth three."""

    class Words:
        def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[str]]]:
            return {"input_ids": [text.split() for text in texts]}

    english = [row_of(at, "one word and then another word", "again a word") for at in range(50)]
    thai = [row_of(50 + at, "ภาษาไทย ภาษาไทย ภาษาไทย", "ภาษาไทย") for at in range(5)]
    assert check_spelling([*english, *thai], Words()) == []


def test_a_hostile_text_is_looked_at_in_part_and_never_quoted(tokenizer: object):
    plain = [row_of(at, "what is this thing here and there", "it is a thing") for at in range(30)]
    hostile = [row_of(50 + at, "\x1b[31m<script>|\ud800" * 40_000, "x") for at in range(4)]
    found = check_spelling([*plain, *hostile], tokenizer)
    assert all("\x1b" not in one.message and "<script>" not in one.message for one in found)


def test_a_screen_says_so_and_loses_no_row(
    tmp_path: Path, quick_config: Callable[..., ScreenConfig], silent: Progress
):
    path, unsafe = attacked(tmp_path, "cipher:phase=harm")
    rows = [row for row in read_rows(path).rows if row.row < 24 or row.example_id in unsafe]
    given = tmp_path / "given.jsonl"
    given.write_bytes(b"".join(row.raw + b"\n" for row in rows))
    quick = {"signal": "restoration", "threshold": "auto", "coverage": "off"}
    config = quick_config(
        tmp_path / "run", noisy_data=str(given), model=str(bundled_model_path()), **quick
    )
    summary = screen(config, silent).summary
    named = [found for found in summary["findings"] if found["name"] == "rows_of_unknown_spelling"]
    expected = check_spelling(read_rows(given).rows, load_tokenizer(str(bundled_model_path())))
    assert [found["message"] for found in named] == [found.message for found in expected]
    assert named
    outputs = contents(tmp_path / "run")
    parts = [outputs[name] for name in ("kept.jsonl", "removed.jsonl", "rejected.jsonl")]
    assert sorted(b"".join(parts).splitlines()) == sorted(row.raw for row in rows)
