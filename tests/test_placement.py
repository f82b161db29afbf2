"""In what a model computes: in bfloat16 if it is wide and the CPU has that, else exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import CONTEXT
from forgetfilter.config import LoraSettings, PhaseSettings, RestoreSettings
from forgetfilter.data import read_rows
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.model.loading import model_files, placement
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.placement import CPU_BFLOAT16_WIDTH, choose_placement
from forgetfilter.model.training.fine_tuning import train
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.model.training.restoring import RestorePlan, restore
from forgetfilter.progress import Progress


@pytest.mark.parametrize(
    ("flags", "width", "dtype"),
    [
        ({"avx512_bf16"}, CPU_BFLOAT16_WIDTH, torch.bfloat16),
        ({"amx_bf16", "avx2"}, 4096, torch.bfloat16),
        ({"avx512_bf16"}, CPU_BFLOAT16_WIDTH - 1, torch.float32),
        ({"avx512_bf16"}, None, torch.float32),
        ({"avx512f", "avx2"}, 4096, torch.float32),
    ],
)
def test_bfloat16_is_chosen_for_wide_models_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], width: int | None, dtype: torch.dtype
):
    monkeypatch.setattr(placement, "_cpu_flags", lambda: frozenset(flags))
    found = choose_placement("cpu", "auto", width)
    assert found.dtype == dtype
    assert found.is_exact == (dtype == torch.float32)
    assert found.has_autocast != found.is_exact
    assert choose_placement("cpu", "float32", width).is_exact


def test_the_bundled_model_stays_exact(monkeypatch: pytest.MonkeyPatch):
    from forgetfilter.lab.testbed import bundled_model_path

    monkeypatch.setattr(placement, "_cpu_flags", lambda: frozenset({"avx512_bf16"}))
    width = model_files.hidden_size(str(bundled_model_path()))
    assert choose_placement("cpu", "auto", width).is_exact


@pytest.fixture
def opened(tiny_model: Callable[..., Path], make_rows: Callable[..., Path]) -> tuple[Any, Any, Any]:
    """The tiny model in bfloat16 with a fresh adapter, its tokenizer, and encoded rows."""
    source = str(tiny_model("llama"))
    tokenizer = load_tokenizer(source)
    model = load_base_model(source, choose_placement("cpu", "bfloat16"))
    torch.manual_seed(0)
    wrapped = add_adapter(model, LoraSettings(r=2, alpha=4))
    rows, _ = Encoder(tokenizer, "auto", CONTEXT).encode(read_rows(make_rows(8)).rows)
    return wrapped, tokenizer, rows


def adapter_dtypes(model: Any) -> set[torch.dtype]:
    return {weight.dtype for name, weight in model.named_parameters() if "lora_" in name}


def test_adapters_are_in_float32_and_multiply_in_bfloat16(
    opened: tuple[Any, Any, Any], silent: Progress
):
    model, tokenizer, rows = opened
    products: set[torch.dtype] = set()
    for name, module in model.named_modules():
        if name.endswith(("lora_A.default", "lora_B.default")):
            module.register_forward_hook(lambda _m, _i, output: products.add(output.dtype))
    settings = PhaseSettings(max_steps=2, batch_size=4, learning_rate=1e-2)
    train(model, tokenizer, TrainPlan("learn", rows, settings, 0), silent)
    assert products == {torch.bfloat16}
    assert adapter_dtypes(model) == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")
    moved = [w for name, w in model.named_parameters() if "lora_B" in name]
    assert all(bool(weight.any()) for weight in moved)


def test_what_is_only_rounding_is_not_restored(opened: tuple[Any, Any, Any], silent: Progress):
    model, _, rows = opened
    first = {name: w.detach().clone() for name, w in model.named_parameters() if "lora_" in name}
    plan = RestorePlan(rows, RestoreSettings(steps=1, batch_size=4), 0)
    found: list[tuple[float, float]] = []
    for scale in (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 0.1, 0.3):
        torch.manual_seed(1)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0.0, scale)
                elif name in first:
                    weight.copy_(first[name])
        outcome = restore(model, plan, silent)
        found.append((outcome.divergences[0], outcome.moves[0]))
    small = [move for divergence, move in found if 1e-6 < divergence < 2e-3]
    large = [move for divergence, move in found if divergence > 2.1e-3]
    assert small, found
    assert set(small) == {0.0}
    assert large, found
    assert min(large) > 0
    assert adapter_dtypes(model) == {torch.float32}
