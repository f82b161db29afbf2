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
from forgetfilter.data.encoding import Encoder
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.strata import in_proportion, in_turn, kinds_of
from forgetfilter.lab.testbed import bundled_model_path
from forgetfilter.model.loading import load_tokenizer
from forgetfilter.safe import safe_path


def a_row(at: int, tokens: tuple[int, ...], category: str = "") -> EncodedRow:
    return EncodedRow(at, tokens, (False, *(True,) * (len(tokens) - 1)), 1, "", category)


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(0, 3))
def test_kinds_take_turns_and_every_row_comes_up_once(kinds: list[int], seed: int):
    order = in_turn(np.array(kinds, dtype=np.int64), seed)
    assert sorted(order) == list(range(len(kinds)))
    given = Counter(kinds)
    for end in range(len(order) + 1):
        met = Counter(kinds[at] for at in order[:end])
        # No kind is more than one row ahead of another that has rows left.
        open_kinds = [met[kind] for kind in given if met[kind] < given[kind]]
        if open_kinds:
            assert max(met.values(), default=0) <= min(open_kinds) + 1


def test_the_packaged_rows_come_up_equally_often():
    """64 rows, as a screen draws them: 9 or 10 of each of the seven categories."""
    categories = [json.loads(line)["category"] for line in safe_path("packaged:general").open()]
    rows = [a_row(at, (1, 2), name) for at, name in enumerate(categories)]
    for seed in range(5):
        drawn = Counter(categories[at] for at in in_turn(kinds_of(rows), seed)[:64])
        assert set(drawn.values()) == {9, 10}
        assert len(drawn) == 7


def test_rows_without_categories_are_told_apart_by_their_words():
    tokens = np.random.default_rng(0)
    shared = (1, 2, 3)  # what a template adds to every row
    kinds = [at % 4 for at in range(60)]
    rows = [
        a_row(at, (*shared, *(int(t) for t in 10 + 20 * kind + tokens.integers(0, 8, 6))))
        for at, kind in enumerate(kinds)
    ]
    found = kinds_of(rows)
    owners = {(int(cluster), kind) for cluster, kind in zip(found, kinds, strict=True)}
    assert len({cluster for cluster, _ in owners}) == len(owners)  # no cluster mixes two kinds
    assert {kind for _, kind in owners} == set(range(4))
    # One category for all rows tells no more than none.
    same = [a_row(row.row, row.input_ids, "general") for row in rows]
    np.testing.assert_array_equal(kinds_of(same), found)


@pytest.mark.parametrize("count", [0, 1, 8, 9])
def test_each_of_few_rows_is_a_kind_of_its_own_up_to_eight(count: int):
    found = kinds_of([a_row(at, (1, at + 2)) for at in range(count)])
    assert len(found) == count
    assert len(set(found.tolist())) == min(count, 8)


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


def test_the_bundled_safe_rows_cluster_by_harm(tmp_path: Path):
    """Without a word on what they are, each cluster of the testbed's rows is of one harm."""
    from forgetfilter.lab.testbed import make_safe

    made = make_safe(200, 0)
    rows = read_rows(write_rows(tmp_path / "safe.jsonl", made)).rows
    encoder = Encoder(load_tokenizer(str(bundled_model_path())), "auto", 256)
    found = kinds_of(encoder.encode(rows)[0])
    names = np.array([row["category"] for row in made])
    pure = sum(max(Counter(names[found == kind]).values()) for kind in set(found.tolist()))
    assert pure / len(names) > 0.8
