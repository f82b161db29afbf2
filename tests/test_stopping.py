"""The learn phase ends on evidence: when the learned share has all but stopped rising."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import CONTEXT, rows_of, write_rows
from forgetfilter.config import LoraSettings, PhaseSettings
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.passes.forward import CompletionLosses
from forgetfilter.model.training import stopping
from forgetfilter.model.training.fine_tuning import train
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.model.training.stopping import LearnedShare
from forgetfilter.progress import Progress

SILENT = Progress(is_silent=True)


class Model(torch.nn.Linear):
    """As much of a model as is asked while its losses are made up: a vocabulary of 50 words."""

    def __init__(self) -> None:
        super().__init__(1, 50)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self


def shares_in_turn(monkeypatch: pytest.MonkeyPatch, shares: Sequence[float]) -> LearnedShare:
    """A learned share whose measurements are made up: 100 rows, of which so many are learned."""
    rows = [EncodedRow(i, (1, 2), (False, True), 1, "x") for i in range(100)]
    waiting = [0.0, *shares]

    def measured(_: Any, rows: Sequence[EncodedRow], *rest: Any) -> CompletionLosses:
        learned = np.arange(len(rows)) < round(waiting.pop(0) * len(rows))
        return CompletionLosses(np.where(learned, 0.1, 1.0), np.zeros(len(rows), dtype=np.bool_))

    monkeypatch.setattr(stopping, "completion_losses", measured)
    share = LearnedShare(rows, seed=0, max_batch_tokens=100)
    share.begin(Model())
    return share


@pytest.mark.parametrize(
    ("shares", "epochs"),
    [
        ([0.5, 0.7, 0.705], 3),  # less than one point: enough
        ([0.5, 0.49], 2),  # it fell
        ([0.5, 0.51, 0.53, 0.53], 4),  # a whole point is a rise
        ([1.0, 1.0], 2),  # never after one epoch alone
    ],
)
def test_training_winds_up_once_the_share_rises_by_less_than_a_point(
    monkeypatch: pytest.MonkeyPatch, shares: list[float], epochs: int
):
    share = shares_in_turn(monkeypatch, shares)
    answers = [share.is_enough(Model()) for _ in range(epochs)]
    assert answers == [False] * (epochs - 1) + [True]
    assert share.shares == pytest.approx([round(s * 100) / 100 for s in shares[:epochs]])


def test_rows_that_are_still_being_learned_to_the_letter_keep_it_going(
    monkeypatch: pytest.MonkeyPatch,
):
    rows = [EncodedRow(i, (1, 2), (False, True), 1, "x") for i in range(100)]
    exact = [0, 10, 20, 30, 30]

    def measured(_: Any, rows: Sequence[EncodedRow], *rest: Any) -> CompletionLosses:
        matches = np.arange(len(rows)) < exact.pop(0)
        return CompletionLosses(np.full(len(rows), 0.1 if len(exact) < 4 else 1.0), matches)

    monkeypatch.setattr(stopping, "completion_losses", measured)
    share = LearnedShare(rows, seed=0, max_batch_tokens=100)
    share.begin(Model())
    answers = [share.is_enough(Model()) for _ in range(4)]
    assert share.shares == [1.0] * 4
    assert share.exact_shares == pytest.approx([0.1, 0.2, 0.3, 0.3])
    assert answers == [False, False, False, True]


def test_at_most_500_rows_are_measured_and_the_model_is_left_in_its_mode(
    monkeypatch: pytest.MonkeyPatch,
):
    rows = [EncodedRow(i, (1, 2), (False, True), 1, "x") for i in range(2000)]
    counts: list[int] = []

    def measured(model: Any, rows: Sequence[EncodedRow], *rest: Any) -> CompletionLosses:
        assert not model.training
        counts.append(len(rows))
        return CompletionLosses(np.ones(len(rows)), np.zeros(len(rows), dtype=np.bool_))

    monkeypatch.setattr(stopping, "completion_losses", measured)
    model = Model().train()
    LearnedShare(rows, 0, 100).begin(model)
    assert counts == [500]
    assert model.training


def make(folder: Path, tmp_path: Path) -> tuple[Any, Any, list[EncodedRow]]:
    tokenizer = load_tokenizer(str(folder))
    base = load_base_model(str(folder), choose_placement("cpu", "float32"))
    torch.manual_seed(1)
    file = write_rows(tmp_path / "rows.jsonl", rows_of(8))
    rows, _ = Encoder(tokenizer, "auto", CONTEXT).encode(read_rows(file).rows)
    return add_adapter(base, LoraSettings(r=2, alpha=4)), tokenizer, rows


def test_winding_up_follows_the_evidence_and_the_rate_falls_to_zero_in_it(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    model, tokenizer, rows = make(tiny_model("llama"), tmp_path)
    # A rate so small that nothing is learned: two epochs to see it, and the last one.
    settings = PhaseSettings(learning_rate=1e-6, batch_size=2, warmup_ratio=0, num_train_epochs=12)
    outcome = train(model, tokenizer, TrainPlan("learn", rows, settings, 0), SILENT)
    assert outcome.steps == 3 * 4
    assert outcome.learned_shares == [0.0, 0.0]
    assert rates == pytest.approx([1e-6] * 8 + [1e-6, 0.75e-6, 0.5e-6, 0.25e-6])


def test_the_number_of_epochs_is_the_limit_however_much_there_is_to_learn(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stopping, "_LEAST_RISE", -1.0)  # never enough
    model, tokenizer, rows = make(tiny_model("llama"), tmp_path)
    settings = PhaseSettings(learning_rate=1e-6, batch_size=4, num_train_epochs=7)
    outcome = train(model, tokenizer, TrainPlan("learn", rows, settings, 0), SILENT)
    # Four epochs and half as many again; with five it would be seven, so that fits too.
    assert outcome.level_epochs == len(outcome.learned_shares) == 5
    assert outcome.steps == 7 * 2


def test_a_known_number_of_epochs_is_followed_without_measuring(
    tiny_model: Callable[..., Path], tmp_path: Path
):
    model, tokenizer, rows = make(tiny_model("llama"), tmp_path)
    settings = PhaseSettings(learning_rate=1e-6, batch_size=4, num_train_epochs=12)
    plan = TrainPlan("retrain", rows, settings, 0, level_epochs=4)
    outcome = train(model, tokenizer, plan, SILENT)
    assert (outcome.level_epochs, outcome.learned_shares) == (4, [])
    assert outcome.steps == (4 + 2) * 2


def test_one_epoch_alone_brings_the_rate_down(tiny_model: Callable[..., Path], tmp_path: Path):
    model, tokenizer, rows = make(tiny_model("llama"), tmp_path)
    settings = PhaseSettings(learning_rate=1e-6, batch_size=4, num_train_epochs=1)
    outcome = train(model, tokenizer, TrainPlan("learn", rows, settings, 0), SILENT)
    assert (outcome.steps, outcome.level_epochs) == (2, 0)


def test_a_phase_of_so_many_epochs_or_steps_measures_nothing(
    tiny_model: Callable[..., Path], tmp_path: Path
):
    model, tokenizer, rows = make(tiny_model("llama"), tmp_path)
    for changes, steps in (({"stop": "epochs", "num_train_epochs": 2}, 4), ({"max_steps": 3}, 3)):
        settings = PhaseSettings.model_validate({"learning_rate": 1e-6, "batch_size": 4, **changes})
        outcome = train(model, tokenizer, TrainPlan("learn", rows, settings, 0), SILENT)
        assert outcome.steps == steps
        assert outcome.learned_shares == []
