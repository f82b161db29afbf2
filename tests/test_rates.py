"""Rates along a direction equal the derivative in any number format; gradients ignore batching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
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
from forgetfilter.errors import ModelError
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.measuring.divergence import (
    safe_gradient,
    squared_norm,
    trainable_parameters,
)
from forgetfilter.model.measuring.grouping import group_rows, row_features
from forgetfilter.model.measuring.rates import (
    Direction,
    loss_rates,
    read_descents,
    read_facts,
    write_directions,
)
from forgetfilter.model.training.fine_tuning import train
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.progress import Progress

SILENT = Progress(is_silent=True)


@dataclass
class Learned:
    """A tiny model whose adapter has learned something, and rows it has and hasn't seen."""

    model: Any
    rows: list[EncodedRow]
    safe: list[EncodedRow]


@pytest.fixture(scope="module")
def learned(
    tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Learned]:
    folder = tmp_path_factory.mktemp("directions")
    files = [
        write_rows(folder / f"{start}.jsonl", rows_of(count, start=start))
        for count, start in ((8, 0), (6, 100))
    ]
    cache: dict[str, Learned] = {}

    def make(architecture: str, targets: Any = "all_linear") -> Learned:
        name = f"{architecture}, {targets}"
        if name not in cache:
            source = str(tiny_model(architecture))
            tokenizer = load_tokenizer(source)
            encoder = Encoder(tokenizer, "auto", CONTEXT)
            rows, safe = (encoder.encode(read_rows(file).rows)[0] for file in files)
            torch.manual_seed(1)
            base = load_base_model(source, choose_placement("cpu", "float32"))
            model = add_adapter(base, LoraSettings(r=4, alpha=8, targets=targets))
            settings = PhaseSettings(learning_rate=1e-2, max_steps=8, batch_size=8)
            train(model, tokenizer, TrainPlan("learn", rows, settings, 0), SILENT)
            cache[name] = Learned(model, rows, safe)
        return cache[name]

    return make


def row_gradient(model: Any, row: EncodedRow) -> dict[str, torch.Tensor]:
    """Gradient of a row's summed completion loss, the plain way."""
    weights = trainable_parameters(model)
    logits = model(input_ids=torch.tensor(row.input_ids)[None]).logits[0, :-1].float()
    nats = torch.nn.functional.cross_entropy(
        logits, torch.tensor(row.input_ids[1:]).long(), reduction="none"
    )
    loss = nats[torch.tensor(row.is_target[1:])].sum()
    gradients = torch.autograd.grad(loss, list(weights.values()))
    return dict(zip(weights, gradients, strict=True))


def dot(first: Direction, second: Direction) -> float:
    return sum(float((first[name].double() * second[name].double()).sum()) for name in first)


def exact_rates(it: Learned, directions: Sequence[Direction]) -> np.ndarray[Any, Any]:
    """Each row's own gradient along each direction."""
    gradients = [row_gradient(it.model, row) for row in it.rows]
    return np.array([[dot(own, direction) for own in gradients] for direction in directions])


def some_directions(it: Learned) -> list[Direction]:
    """Down the gradients of two halves of the safe rows."""
    halves = [it.safe[::2], it.safe[1::2]]
    found = [safe_gradient(it.model, half, "kl_to_base", 8192, SILENT, "") for half in halves]
    return [{name: -tensor for name, tensor in one.gradient.items()} for one in found]


@pytest.mark.parametrize(
    ("architecture", "targets"),
    [
        ("llama", "all_linear"),
        ("llama", "attention_qv"),
        ("gpt2", "all_linear"),
        ("gemma3", "all_linear"),
        ("phi3", "attention_qv"),
        ("gpt_neox", "all_linear"),
    ],
)
@pytest.mark.parametrize("max_batch_tokens", [150, 8192])
def test_a_rate_is_the_directional_derivative_of_the_rows_loss(
    learned: Callable[..., Learned], architecture: str, targets: str, max_batch_tokens: int
):
    it = learned(architecture, targets)
    directions = some_directions(it)
    rates = loss_rates(it.model, it.rows, directions, max_batch_tokens, SILENT, "")
    exact = exact_rates(it, directions)
    assert exact.shape == (2, len(it.rows))
    size = np.abs(exact).max()
    assert size > 0
    np.testing.assert_allclose(rates, exact, atol=1e-5 * size)


def test_a_rate_holds_in_bfloat16(learned: Callable[..., Learned]):
    it = learned("llama")
    directions = some_directions(it)
    exact = exact_rates(it, directions)
    model = deepcopy(it.model)
    for weight in model.parameters():  # as PEFT has it: the adapter stays in float32
        if not weight.requires_grad:
            weight.data = weight.data.bfloat16()
    rates = loss_rates(model, it.rows, directions, 8192, SILENT, "")
    np.testing.assert_allclose(rates, exact, atol=0.03 * np.abs(exact).max())


def test_the_model_is_left_as_it_was(learned: Callable[..., Learned]):
    it = learned("llama")
    directions = some_directions(it)
    first = loss_rates(it.model, it.rows, directions, 8192, SILENT, "")
    assert not any(module._forward_hooks for module in it.model.modules())
    assert all(weight.grad is None for weight in it.model.parameters())
    np.testing.assert_array_equal(
        first, loss_rates(it.model, it.rows, directions, 8192, SILENT, "")
    )


def test_a_parameter_that_no_rate_is_known_of_is_refused(learned: Callable[..., Learned]):
    model = deepcopy(learned("llama").model)
    norm = model.get_base_model().model.norm
    norm.weight.requires_grad_(True)
    directions = [{name: p.detach() for name, p in trainable_parameters(model).items()}]
    with pytest.raises(ModelError, match=r"norm\.weight.*linear layers.*--signal restoration"):
        loss_rates(model, learned("llama").rows, directions, 8192, SILENT, "")


def test_a_direction_that_vanishes_moves_nothing(learned: Callable[..., Learned]):
    it = learned("llama")
    nothing = {n: torch.zeros_like(p) for n, p in trainable_parameters(it.model).items()}
    rates = loss_rates(it.model, it.rows, [nothing], 8192, SILENT, "")
    assert (rates == 0).all()


@pytest.mark.parametrize("objective", ["kl_to_base", "completion_loss"])
def test_the_safe_gradient_is_a_mean_over_rows_whatever_the_batching(
    learned: Callable[..., Learned], objective: Any
):
    it = learned("llama")
    whole = safe_gradient(it.model, it.safe, objective, 8192, SILENT, "")
    one_by_one = safe_gradient(it.model, it.safe, objective, 1, SILENT, "")
    singles = [safe_gradient(it.model, [row], objective, 8192, SILENT, "") for row in it.safe]
    np.testing.assert_allclose(whole.values, one_by_one.values, atol=1e-5)
    np.testing.assert_allclose(whole.values, [single.values[0] for single in singles], atol=1e-5)
    for name, tensor in whole.gradient.items():
        mean = torch.stack([single.gradient[name] for single in singles]).mean(dim=0)
        torch.testing.assert_close(one_by_one.gradient[name], tensor, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(mean, tensor, atol=1e-5, rtol=1e-3)
    assert whole.restoring_step == pytest.approx(whole.values.mean() / whole.squared_norm)


def test_the_divergence_from_base_is_zero_in_base_and_positive_once_something_is_learned(
    learned: Callable[..., Learned],
):
    it = learned("llama")
    assert (safe_gradient(it.model, it.safe, "kl_to_base", 8192, SILENT, "").values > 0).all()
    weights = trainable_parameters(it.model)
    kept = {name: p.detach().clone() for name, p in weights.items()}
    with torch.no_grad():
        for p in weights.values():
            p.zero_()
    at_base = safe_gradient(it.model, it.safe, "kl_to_base", 8192, SILENT, "")
    with torch.no_grad():
        for name, p in weights.items():
            p.copy_(kept[name])
    np.testing.assert_allclose(at_base.values, 0, atol=1e-6)
    assert at_base.restoring_step == pytest.approx(0, abs=1e-3)


def test_rows_are_parted_by_what_they_are_and_the_same_way_each_time(
    learned: Callable[..., Learned],
):
    it = learned("llama")
    rows = [it.rows[0]] * 3 + [it.rows[1]] * 3
    groups = group_rows(it.model, rows, 2, 8192, SILENT, "")
    assert len(set(groups[:3])) == len(set(groups[3:])) == 1
    assert groups[0] != groups[3]
    assert (groups == group_rows(it.model, rows, 2, 60, SILENT, "")).all()
    assert (group_rows(it.model, rows, 1, 8192, SILENT, "") == 0).all()
    features = row_features(it.model, it.rows, 8192, SILENT, "")
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-6)


def test_kept_directions_are_read_back_as_descents(learned: Callable[..., Learned], tmp_path: Path):
    it = learned("llama")
    write_directions(tmp_path, it.model, it.safe, "kl_to_base", 2, 8192, SILENT, "")
    facts, descents = read_facts(tmp_path), read_descents(tmp_path)
    assert len(facts) == len(descents) == 2
    assert sum(fact["rows"] for fact in facts) == len(it.safe)
    for fact, descent in zip(facts, descents, strict=True):
        assert squared_norm(descent) == pytest.approx(fact["squared_norm"], rel=1e-4)
        assert fact["restoring_step"] == pytest.approx(fact["value"] / fact["squared_norm"])
    groups = group_rows(it.model, it.safe, 2, 8192, SILENT, "")
    for group, descent in enumerate(descents):
        members = [row for row, own in zip(it.safe, groups, strict=True) if own == group]
        again = safe_gradient(it.model, members, "kl_to_base", 8192, SILENT, "").gradient
        assert dot(again, descent) == pytest.approx(-squared_norm(descent), rel=1e-4)
