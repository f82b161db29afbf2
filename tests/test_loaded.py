"""Changing adapters on one base model leaves no trace, and a merged one reads like a worn one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ARCHITECTURES
from forgetfilter.config import LoraSettings
from forgetfilter.errors import ModelError
from forgetfilter.model.loading.active_adapter import LoadedModel
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.state import ModelState
from forgetfilter.progress import Progress

IDS = torch.tensor([[5, 9, 17, 30, 12, 8]])


@pytest.fixture
def opened(
    tiny_model: Callable[..., Path], tmp_path: Path, silent: Progress
) -> Callable[..., tuple[LoadedModel, ModelState, ModelState]]:
    """A loaded model, its base state, and the state of an adapter that changes it clearly."""

    def make(architecture: str, dtype: Any = "float32") -> Any:
        folder = tiny_model(architecture)
        loaded = LoadedModel(
            str(folder), choose_placement("cpu", dtype), LoraSettings(r=2, alpha=4), 0, silent
        )
        base = ModelState("base", "base")
        return loaded, base, stored(loaded, tmp_path / "adapter", 0.05)

    return make


def stored(loaded: LoadedModel, folder: Path, fill: float) -> ModelState:
    """The state of a new adapter; the further ``fill`` is from 0, the more it changes."""
    model = loaded.trainable(ModelState("base", "base"), folder.name)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(fill)
    model.save_pretrained(str(folder), safe_serialization=True)
    loaded.release()
    return ModelState("learned", folder.name, adapter=str(folder))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.float()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_merged_adapter_reads_like_a_worn_one_and_base_is_as_it_was(
    opened: Callable[..., Any], architecture: str
):
    loaded, base, learned = opened(architecture)
    before = logits(loaded.to_read(base))
    worn = logits(loaded.in_state(learned))
    merged = logits(loaded.to_read(learned))
    assert not torch.allclose(worn, before, atol=1e-2)  # the adapter does something
    torch.testing.assert_close(merged, worn, atol=1e-4, rtol=1e-4)
    # No rounding stays behind, whatever is worn next.
    assert logits(loaded.to_read(base)).equal(before)
    assert logits(loaded.in_state(learned)).equal(worn)


def test_a_short_number_format_is_not_merged(opened: Callable[..., Any]):
    loaded, _, learned = opened("llama", "bfloat16")
    assert hasattr(loaded.to_read(learned), "peft_config")


def test_an_adapter_that_can_be_switched_off_is_never_a_merged_one(opened: Callable[..., Any]):
    loaded, base, learned = opened("llama")
    before = logits(loaded.to_read(base))
    loaded.to_read(learned)
    with loaded.in_state(learned).disable_adapter():
        assert logits(loaded.in_state(learned)).equal(before)


@pytest.mark.parametrize("rank", [2, 3])
def test_an_adapter_that_takes_anothers_place_is_as_if_it_had_been_put_on_base(
    opened: Callable[..., Any], tmp_path: Path, rank: int
):
    loaded, _, first = opened("llama")
    other, _, _ = opened("llama")
    other._lora = LoraSettings(r=rank, alpha=4)
    second = stored(other, tmp_path / "second", -0.03)
    alone = logits(other.in_state(second))
    for state in (first, second):
        for model in (loaded.in_state(state), loaded.to_read(state)):
            assert not any(weight.requires_grad for weight in model.parameters())
    assert logits(loaded.in_state(second)).equal(alone)
    assert not logits(loaded.in_state(first)).equal(alone)
    trained = [
        name
        for name, weight in loaded.in_state(second, is_trainable=True).named_parameters()
        if weight.requires_grad
    ]
    assert trained
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize("is_worn", [False, True])
def test_pickled_weights_are_never_loaded(
    opened: Callable[..., Any], tmp_path: Path, is_worn: bool
):
    loaded, _, learned = opened("llama")
    if is_worn:
        loaded.in_state(learned)
    pickled = tmp_path / "pickled"
    shutil.copytree(tmp_path / "adapter", pickled)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"No adapter_model\.safetensors"):
        loaded.in_state(ModelState("learned", "pickled", adapter=str(pickled)))
