"""Each architecture is screened from end to end, with adapters on all layers and on few."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import ARCHITECTURES, WITHOUT_CHAT_TEMPLATE, contents
from forgetfilter.errors import ModelError
from forgetfilter.model.loading.adapters import find_lora_targets
from forgetfilter.model.loading.base_model import load_base_model
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.screening.screen import screen

# The generating signal where generation differs most: rotary, learned and windowed positions.
GENERATING = frozenset({"llama", "gpt2", "gemma3"})


# One architecture of each way to name the projections is tried with few layers each time.
FEW_LAYERS = frozenset({"llama", "phi3", "gpt2", "gpt_neox"})


@pytest.mark.parametrize(
    ("architecture", "targets"),
    [
        pytest.param(
            architecture,
            targets,
            marks=[pytest.mark.slow]
            if targets == "attention_qv" and architecture not in FEW_LAYERS
            else [],
        )
        for architecture in ARCHITECTURES
        for targets in ("all_linear", "attention_qv")
    ],
)
def test_an_architecture_is_screened_whole_and_only_its_adapter_changes(
    tiny_model: Callable[..., Path],
    quick_config: Callable[..., Any],
    tmp_path: Path,
    silent: Any,
    architecture: str,
    targets: str,
):
    from peft import PeftModel
    from safetensors.torch import load_file

    folder = tiny_model(architecture)
    before = contents(folder)
    signal = "rouge1" if architecture in GENERATING else "completion_loss"
    lora = {"r": 2, "alpha": 4, "targets": targets}
    config = quick_config(tmp_path / "run", model=folder, signal=signal, lora=lora)
    result = screen(config, silent)

    assert len(result.scores) == 16
    assert result.scores[["base", "before", "after", "forgetting_score"]].notna().all(axis=None)
    template = result.summary["template"]
    assert ("paper's" in template) == (architecture in WITHOUT_CHAT_TEMPLATE)
    assert contents(folder) == before  # the base weights are as they were

    learned, forgotten = (
        next((tmp_path / "run" / "stages").glob(f"{phase}-*")) / "adapter"
        for phase in ("learn", "forget")
    )
    first, second = (load_file(path / "adapter_model.safetensors") for path in (learned, forgotten))
    assert first.keys() == second.keys()
    # A fresh adapter's second matrix is zero: learning has moved each, forgetting went on.
    moved = [name for name in first if "lora_B" in name]
    assert moved
    assert all(bool(first[name].any()) for name in moved)
    assert any(not first[name].equal(second[name]) for name in moved)
    base = load_base_model(str(folder), choose_placement("cpu", "float32"))
    assert PeftModel.from_pretrained(base, str(learned)).active_adapters == ["default"]


def test_query_and_value_are_found_under_the_names_that_an_architecture_has(
    tiny_model: Callable[..., Path],
):
    found = {
        architecture: find_lora_targets(
            load_base_model(str(tiny_model(architecture)), choose_placement("cpu", "float32")),
            "attention_qv",
        )
        for architecture in ("llama", "phi3", "gpt2", "gpt_neox")
    }
    assert found == {
        "llama": ["q_proj", "v_proj"],
        "phi3": ["qkv_proj"],
        "gpt2": ["c_attn"],
        "gpt_neox": ["query_key_value"],
    }


def test_an_architecture_without_known_projections_names_the_way_out():
    import torch

    with pytest.raises(ModelError, match=r"Use --set lora\.targets=all_linear"):
        find_lora_targets(torch.nn.Sequential(torch.nn.Linear(2, 2)), "attention_qv")
