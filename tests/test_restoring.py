"""Restoring brings the safe behaviour back to the base model's, and nothing else matters to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import CONTEXT, rows_of, write_rows
from forgetfilter.config import LoraSettings, PhaseSettings, RestoreSettings
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.errors import ModelError
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.measuring.divergence import (
    divergences,
    safe_gradient,
    squared_norm,
    trainable_parameters,
)
from forgetfilter.model.passes.forward import completion_losses
from forgetfilter.model.training.fine_tuning import train
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.model.training.restoring import RestorePlan, restore
from forgetfilter.progress import Progress

SILENT = Progress(is_silent=True)
LEARN = PhaseSettings(learning_rate=3e-2, max_steps=12, batch_size=8)
SETTINGS = RestoreSettings(steps=6, batch_size=3)


@pytest.fixture(scope="module")
def rows(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]
) -> tuple[list[EncodedRow], list[EncodedRow]]:
    """Eight rows to learn and six others to be safe on."""
    folder = tmp_path_factory.mktemp("restored")
    encoder = Encoder(load_tokenizer(str(tiny_model("llama"))), "auto", CONTEXT)
    sets = ((rows_of(8), "learn"), (rows_of(6, start=100), "safe"))
    files = [write_rows(folder / f"{name}.jsonl", made) for made, name in sets]
    learned, safe = (encoder.encode(read_rows(file).rows)[0] for file in files)
    return learned, safe


def learned_model(folder: Path, rows: Sequence[EncodedRow]) -> Any:
    """A tiny model whose adapter has learned the rows."""
    base = load_base_model(str(folder), choose_placement("cpu", "float32"))
    torch.manual_seed(1)
    model = add_adapter(base, LoraSettings(r=4, alpha=8))
    train(model, load_tokenizer(str(folder)), TrainPlan("learn", rows, LEARN, 0), SILENT)
    return model


def divergence(model: Any, safe: Sequence[EncodedRow]) -> float:
    return float(safe_gradient(model, safe, "kl_to_base", 8192, SILENT, "").values.mean())


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainable_parameters(model).items()}


def test_the_safe_behaviour_comes_back_and_what_was_learned_is_partly_lost(
    tiny_model: Callable[..., Path], rows: Any
):
    learned, safe = rows
    model = learned_model(tiny_model("llama"), learned)
    before = divergence(model, safe)
    loss_before = completion_losses(model, learned, 8192, SILENT, "").loss_sum
    outcome = restore(model, RestorePlan(safe, SETTINGS, 0), SILENT)
    assert divergence(model, safe) < 0.5 * before
    assert len(outcome.divergences) == len(outcome.moves) == 6
    assert all(0 < move <= 0.1 for move in outcome.moves)
    # The learned rows are of the same kind as the safe ones here, so they are undone with them.
    assert completion_losses(model, learned, 8192, SILENT, "").loss_sum.mean() > loss_before.mean()


def test_the_result_depends_on_the_seed_but_not_on_how_rows_share_a_pass(
    tiny_model: Callable[..., Path], rows: Any
):
    learned, safe = rows
    model = learned_model(tiny_model("llama"), learned)
    start = weights_of(model)
    results: list[dict[str, torch.Tensor]] = []
    for seed, max_batch_tokens in ((0, 8192), (0, 60), (1, 8192)):
        with torch.no_grad():
            for name, weight in trainable_parameters(model).items():
                weight.copy_(start[name])
        restore(model, RestorePlan(safe, SETTINGS, seed, max_batch_tokens), SILENT)
        results.append(weights_of(model))
    moved = squared_norm({n: results[0][n] - start[n] for n in start}) ** 0.5
    apart = squared_norm({n: results[1][n] - results[0][n] for n in start}) ** 0.5
    other = squared_norm({n: results[2][n] - results[0][n] for n in start}) ** 0.5
    assert moved > 0
    assert apart < 1e-3 * moved
    assert other > 10 * apart


def test_how_far_base_is_read_ahead_changes_nothing(
    tiny_model: Callable[..., Path], rows: Any, monkeypatch: pytest.MonkeyPatch
):
    import forgetfilter.model.training.restoring as restoring

    learned, safe = rows
    model = learned_model(tiny_model("llama"), learned)
    start = weights_of(model)
    read = restoring.base_log_probabilities
    passes: list[int] = []

    def count(model: Any, rows: Sequence[EncodedRow], limit: int) -> Any:
        passes.append(len(rows))
        return read(model, rows, limit)

    monkeypatch.setattr(restoring, "base_log_probabilities", count)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    a_batch_or_two = vocabulary * 2 * max(sum(row.is_target) for row in safe) * SETTINGS.batch_size
    results: list[dict[str, torch.Tensor]] = []
    for most in (2**26, a_batch_or_two, 0):
        monkeypatch.setattr(restoring, "_MOST_AHEAD", most)
        with torch.no_grad():
            for name, weight in trainable_parameters(model).items():
                weight.copy_(start[name])
        restore(model, RestorePlan(safe, SETTINGS, 0), SILENT)
        results.append(weights_of(model))
    # All 18 rows at once, then two or three batches at a time, then each with its own pass.
    assert passes[0] == 18
    assert len(passes) > 2
    assert sum(passes[1:]) <= 18
    moved = squared_norm({n: results[0][n] - start[n] for n in start}) ** 0.5
    for other in results[1:]:
        apart = squared_norm({n: other[n] - results[0][n] for n in start}) ** 0.5
        assert apart < 1e-3 * moved


def test_where_nothing_is_damaged_nothing_moves(tiny_model: Callable[..., Path], rows: Any):
    base = load_base_model(str(tiny_model("llama")), choose_placement("cpu", "float32"))
    model = add_adapter(base, LoraSettings(r=4, alpha=8))  # a fresh adapter changes nothing
    start = weights_of(model)
    outcome = restore(model, RestorePlan(rows[1], SETTINGS, 0), SILENT)
    assert outcome.divergences == pytest.approx([0.0] * 6, abs=1e-6)
    for name, weight in weights_of(model).items():
        torch.testing.assert_close(weight, start[name], rtol=0, atol=1e-4)


def test_every_safe_row_is_used_before_any_is_used_again(
    tiny_model: Callable[..., Path], rows: Any, monkeypatch: pytest.MonkeyPatch
):
    import forgetfilter.model.training.restoring as restoring

    seen: list[int] = []

    def spy(model: Any, batch: Sequence[EncodedRow], *rest: Any) -> Any:
        seen.extend(row.row for row in batch)
        return safe_gradient(model, batch, *rest)

    monkeypatch.setattr(restoring, "safe_gradient", spy)
    model = learned_model(tiny_model("llama"), rows[0])
    settings = RestoreSettings(steps=3, batch_size=4)
    restore(model, RestorePlan(rows[1], settings, 0), SILENT)
    assert len(seen) == 12
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))


def test_every_kind_of_row_is_restored_on_however_rare(tiny_model: Callable[..., Path], rows: Any):
    """Of 44 rows 4 are of a rare kind: a draw from all of them holds none in a third of cases."""
    learned, safe = rows
    many = [replace(safe[i % 6], row=i, category="many" if i < 40 else "rare") for i in range(44)]
    model = learned_model(tiny_model("llama"), learned)
    settings = RestoreSettings(steps=3, batch_size=4)
    for seed in range(5):
        outcome = restore(model, RestorePlan(many, settings, seed), SILENT)
        assert len(outcome.rows_used) == 12
        assert any(row >= 40 for row in outcome.rows_used)
        assert sum(row < 40 for row in outcome.rows_used) >= 10  # the others by their share


def test_a_model_without_a_trainable_adapter_is_refused(tiny_model: Callable[..., Path], rows: Any):
    base = load_base_model(str(tiny_model("llama")), choose_placement("cpu", "float32"))
    with pytest.raises(ModelError):
        restore(base, RestorePlan(rows[1], SETTINGS, 0), SILENT)


def test_divergences_are_what_the_gradient_is_taken_of(
    rows: tuple[list[EncodedRow], list[EncodedRow]], tiny_model: Callable[..., Path]
):
    learned, safe = rows
    model = learned_model(tiny_model("llama"), learned)
    values = safe_gradient(model, safe, "kl_to_base", 8192, SILENT, "").values
    for budget in (8192, 1):  # whatever shares a pass
        np.testing.assert_allclose(divergences(model, safe, budget, SILENT, ""), values, rtol=1e-4)
