"""How alike a model represents rows: the nearest answers, and requests like the safe rows'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import rows_of, write_rows
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.measuring import likeness
from forgetfilter.model.measuring.likeness import nearest_rows, safe_likeness
from forgetfilter.progress import Progress

SILENT = Progress(is_silent=True)


@pytest.fixture
def loaded(tiny_model: Callable[..., Path], tmp_path: Path) -> tuple[object, list[EncodedRow]]:
    source = str(tiny_model("llama"))
    encoder = Encoder(load_tokenizer(source), "auto", 512)
    rows, _ = encoder.encode(read_rows(write_rows(tmp_path / "rows.jsonl", rows_of(9, 0))).rows)
    return load_base_model(source, choose_placement("cpu", "float32")), rows


def test_copies_of_a_row_are_its_nearest_and_no_row_is_its_own(
    loaded: tuple[object, list[EncodedRow]],
):
    model, rows = loaded
    doubled = [*rows, *rows]
    found = nearest_rows(model, doubled, 4, 8192, SILENT, "")
    assert found.shape == (18, 4)
    assert found[:, 0].tolist() == [(at + 9) % 18 for at in range(18)]
    assert not (found == np.arange(18)[:, np.newaxis]).any()
    assert all(len(set(each)) == 4 for each in found.tolist())


def test_neighbours_depend_neither_on_batches_nor_on_the_order_nor_on_blocks(
    loaded: tuple[object, list[EncodedRow]], monkeypatch: pytest.MonkeyPatch
):
    model, rows = loaded
    found = nearest_rows(model, rows, 3, 8192, SILENT, "")
    assert (nearest_rows(model, rows, 3, 40, SILENT, "") == found).all()
    order = np.array([4, 8, 0, 2, 6, 1, 3, 7, 5])
    shuffled = nearest_rows(model, [rows[at] for at in order], 3, 8192, SILENT, "")
    assert (order[shuffled] == found[order]).all()
    monkeypatch.setattr(likeness, "_MAX_SIMILARITIES", 20)  # two rows at a time
    assert (nearest_rows(model, rows, 3, 8192, SILENT, "") == found).all()


def test_a_row_stands_in_for_neighbours_that_are_missing(
    loaded: tuple[object, list[EncodedRow]],
):
    model, rows = loaded
    assert nearest_rows(model, rows[:1], 4, 8192, SILENT, "").tolist() == [[0, 0, 0, 0]]
    found = nearest_rows(model, rows[:3], 4, 8192, SILENT, "")
    assert [sorted(each) for each in found[:, :2].tolist()] == [[1, 2], [0, 2], [0, 1]]
    assert (found[:, 2:] == np.arange(3)[:, np.newaxis]).all()


def test_the_spread_of_a_thousand_rows_stands_for_all(
    loaded: tuple[object, list[EncodedRow]], monkeypatch: pytest.MonkeyPatch
):
    model, rows = loaded
    monkeypatch.setattr(likeness, "_STANDARD_ROWS", 4)
    found = nearest_rows(model, [*rows, *rows], 2, 8192, SILENT, "")
    assert found[:, 0].tolist() == [(at + 9) % 18 for at in range(18)]


def test_prompts_of_safe_rows_are_told_from_others(tiny_model: Callable[..., Path], tmp_path: Path):
    """Noisy rows whose prompts are worded as the safe rows' are rank above all others."""
    source = str(tiny_model("llama"))
    encoder = Encoder(load_tokenizer(source), "auto", 512)
    words = ["cats", "dogs", "birds", "trees", "rocks", "seas", "hills", "rains"]

    def encoded(name: str, prompts: list[str]) -> list[EncodedRow]:
        made = [
            {"prompt": prompt, "completion": f"answer {at}"} for at, prompt in enumerate(prompts)
        ]
        return encoder.encode(read_rows(write_rows(tmp_path / name, made)).rows)[0]

    alike = [f"Tell me why {word} are bad" for word in words]
    tasks = [f"{at} plus {at} times {at + 1} =" for at in range(24)]
    safe = encoded("safe.jsonl", [f"Tell me why {word} are worse" for word in words])
    rows = encoded("noisy.jsonl", [*tasks, *alike])
    model = load_base_model(source, choose_placement("cpu", "float32"))
    found = safe_likeness(model, rows, safe, 8192, SILENT, "")
    assert found[24:].min() > found[:24].max()

    # Neither batches nor the order of the rows move it; too few rows say nothing.
    np.testing.assert_allclose(safe_likeness(model, rows, safe, 40, SILENT, ""), found, atol=1e-3)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = safe_likeness(model, [rows[at] for at in order], safe, 8192, SILENT, "")
    np.testing.assert_allclose(shuffled, found[order], atol=1e-3)
    assert safe_likeness(model, rows, safe[:1], 8192, SILENT, "").tolist() == [0.0] * len(rows)
