"""Rows as tokens are small, can't change, and keep the names and orders that hang on them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from forgetfilter.config import LoraSettings, PhaseSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.stages.keys import rows_digest
from forgetfilter.model.training.fine_tuning import train
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.model.training.row_order import RowOrder
from forgetfilter.progress import Progress

ROWS, LENGTH = 1000, 500


def made(row: int, length: int, vocabulary: int) -> EncodedRow:
    rng = np.random.default_rng(row)
    ids = rng.integers(0, vocabulary, length)
    return EncodedRow(row, ids, np.arange(length) >= length // 2, length // 2, "x")


def test_a_token_takes_less_than_six_bytes():
    made(0, LENGTH, 50_000)  # what numpy loads on its first use is nobody's token
    tracemalloc.start()
    rows = [made(row, LENGTH, 50_000) for row in range(ROWS)]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / (len(rows) * LENGTH) < 6


def test_training_makes_no_copy_of_all_tokens(tiny_model: Callable[..., Path]):
    source, length = str(tiny_model("llama")), 190
    tokenizer = load_tokenizer(source)
    torch.manual_seed(0)
    base = load_base_model(source, choose_placement("cpu", "float32"))
    model = add_adapter(base, LoraSettings(r=2, alpha=4))
    rows = [made(row, length, 200) for row in range(2000)]
    settings = PhaseSettings(learning_rate=1e-3, max_steps=1, batch_size=2)
    train(model, tokenizer, TrainPlan("learn", rows[:2], settings, 0), Progress(is_silent=True))
    tracemalloc.start()
    train(model, tokenizer, TrainPlan("learn", rows, settings, 0), Progress(is_silent=True))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most / (len(rows) * length) < 6  # two lists of pointers alone are 16


def test_rows_are_equal_by_content_and_cant_be_written_to():
    ids, is_target = np.array([7, 300, 9]), [False, True, True]
    row = EncodedRow(4, ids, is_target, 1, "x")
    ids[1] = 5
    assert row.input_ids.tolist() == [7, 300, 9]
    assert row.target_tokens == 2
    assert row == EncodedRow(4, [7, 300, 9], is_target, 1, "x")
    assert len({row, EncodedRow(4, [7, 300, 9], is_target, 1, "x")}) == 1
    for other in (
        EncodedRow(4, [7, 300, 8], is_target, 1, "x"),
        EncodedRow(4, [7, 300, 9], [True, True, True], 1, "x"),
        EncodedRow(3, [7, 300, 9], is_target, 1, "x"),
    ):
        assert row != other
    with pytest.raises(ValueError, match="read-only"):
        row.input_ids[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        row.is_target[0] = True


def test_the_form_of_the_arrays_moves_no_order_and_no_name_of_a_stage():
    # Found with rows that were tuples of ints: finished runs and paired fine-tunes rest on them.
    ids = [(1, 2, 3), (1, 2, 300), (1, 2, 3), (70000, 5), (8, 9, 10, 11, 12)]
    rows = [
        EncodedRow(at, np.array(own), np.arange(len(own)) > 0, 1, "x") for at, own in enumerate(ids)
    ]
    assert rows_digest(rows) == "ba8645cd443901864b0786a2898badfa9b88b9b997d638ce594c4b7019ad3301"
    order = RowOrder(rows, 3)
    assert [list(order), list(order)] == [[3, 2, 0, 1, 4], [3, 4, 2, 1, 0]]
