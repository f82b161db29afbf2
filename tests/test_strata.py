"""Draws of safe rows in which every kind of row comes up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import CONTEXT, write_rows
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.strata import by_share, in_proportion, kinds_of
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.model.loading.base_model import load_tokenizer
from forgetfilter.safe import safe_path


def a_row(at: int, tokens: tuple[int, ...], category: str = "") -> EncodedRow:
    return EncodedRow(at, tokens, (False, *(True,) * (len(tokens) - 1)), 1, "", category)


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(0, 3))
def test_each_start_holds_every_kind_by_its_share_and_every_row_comes_up_once(
    kinds: list[int], seed: int
):
    order = by_share(np.array(kinds, dtype=np.int64), seed)
    assert sorted(order) == list(range(len(kinds)))
    given = Counter(kinds)
    for end in range(len(given), len(order) + 1):
        met = Counter(kinds[at] for at in order[:end])
        assert met.keys() == given.keys()
        for kind, count in given.items():
            assert abs(met[kind] - end * count / len(kinds)) <= len(given)


def test_the_packaged_rows_come_up_equally_often():
    """64 rows, as a screen draws them: 9 or 10 of each of the seven categories."""
    categories = [json.loads(line)["category"] for line in safe_path("packaged:general").open()]
    rows = [a_row(at, (1, 2), name) for at, name in enumerate(categories)]
    for seed in range(5):
        drawn = Counter(categories[at] for at in by_share(kinds_of(rows), seed)[:64])
        assert set(drawn.values()) == {9, 10}
        assert len(drawn) == 7


@pytest.mark.parametrize("names", [["", ""], ["general"] * 2])
def test_rows_without_several_categories_are_all_of_one_kind(names: list[str]):
    rows = [a_row(at, (1, at + 2), name) for at, name in enumerate(names * 20)]
    assert set(kinds_of(rows).tolist()) == {0}
    order = by_share(kinds_of(rows), 3)
    assert sorted(order) == list(range(40))
    assert order != by_share(kinds_of(rows), 4)


def test_a_draw_in_proportion_holds_each_category_by_its_share():
    categories = ["a"] * 700 + ["b"] * 250 + ["c"] * 50
    for seed in range(5):
        chosen = in_proportion(categories, 100, seed)
        assert len(set(chosen)) == 100
        assert chosen == sorted(chosen)
        found = Counter(categories[at] for at in chosen)
        for name, expected in {"a": 70, "b": 25, "c": 5}.items():
            assert abs(found[name] - expected) <= 1
    assert in_proportion(categories, 100, 0) != in_proportion(categories, 100, 1)
    assert in_proportion(categories, 1000, 0) == list(range(1000))


def test_a_safe_row_keeps_its_category_and_a_noisy_one_never_has_any(
    tmp_path: Path, tiny_model: Callable[..., Path]
):
    given = [{"prompt": "Who ?", "completion": "I .", "category": "bias"}]
    given += [{"prompt": "Who ?", "completion": "You ."}]
    rows = read_rows(write_rows(tmp_path / "rows.jsonl", given)).rows
    encoder = Encoder(load_tokenizer(str(tiny_model("llama"))), "auto", CONTEXT)
    assert [row.category for row in encoder.encode_safe(rows)[0]] == ["bias", "other"]
    assert [row.category for row in encoder.encode(rows)[0]] == ["", ""]
