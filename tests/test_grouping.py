"""The rows that a model represents most alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import rows_of, write_rows
from forgetfilter.data import read_rows
from forgetfilter.data.encoding import Encoder
from forgetfilter.data.records import EncodedRow
from forgetfilter.model import grouping
from forgetfilter.model.grouping import nearest_rows
from forgetfilter.model.loading import choose_placement, load_base_model, load_tokenizer
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
    monkeypatch.setattr(grouping, "_MAX_SIMILARITIES", 20)  # two rows at a time
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
    monkeypatch.setattr(grouping, "_STANDARD_ROWS", 4)
    found = nearest_rows(model, [*rows, *rows], 2, 8192, SILENT, "")
    assert found[:, 0].tolist() == [(at + 9) % 18 for at in range(18)]
