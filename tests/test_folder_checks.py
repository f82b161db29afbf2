"""What is wrong with a model's folder is told before anything is trained, with a way out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ARCHITECTURES, build_model, save_model
from forgetfilter.config import LoraSettings
from forgetfilter.errors import ModelError
from forgetfilter.model.loading import adapters
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.model_files import model_fingerprint
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.progress import Progress
from forgetfilter.screening.screen import screen

CPU = choose_placement("cpu", "float32")
SILENT = Progress(is_silent=True)


def refusal(quick_config: Callable[..., Any], tmp_path: Path, model: Path) -> str:
    """Why a screen with ``model`` is refused, before anything is trained."""
    run = tmp_path / "run"
    with pytest.raises(ModelError) as caught:
        screen(quick_config(run, model=model), SILENT)
    assert not list(run.rglob("training.json"))
    return str(caught.value)


@pytest.fixture
def saved(tmp_path: Path, tiny_tokenizer: Callable[..., Any]) -> Callable[..., Path]:
    """``saved(change)``: a folder with a tiny model that ``change`` has been done to."""

    def make(change: Callable[[Any], None] = lambda model: None) -> Path:
        tokenizer = tiny_tokenizer()
        model = build_model("llama", tokenizer)
        with torch.no_grad():
            change(model)
        return save_model(model, tokenizer, tmp_path / "model")

    return make


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_classifiers_checkpoint_is_no_language_model(
    quick_config: Callable[..., Any],
    tiny_tokenizer: Callable[..., Any],
    tmp_path: Path,
    is_tied: bool,
):
    import transformers

    tokenizer = tiny_tokenizer()
    config = build_model("llama", tokenizer).config
    config.tie_word_embeddings = is_tied
    model = transformers.LlamaForSequenceClassification(config)
    folder = save_model(model, tokenizer, tmp_path / "classifier")
    said = refusal(quick_config, tmp_path, folder)
    assert "LlamaForSequenceClassification" in said
    assert "lm_head" in said


def test_missing_weights_are_named(
    quick_config: Callable[..., Any], saved: Callable[..., Path], tmp_path: Path
):
    from safetensors.torch import load_file, save_file

    file = saved() / "model.safetensors"
    weights = load_file(file)
    names = [name for name in weights if "down_proj" in name]
    save_file({n: w for n, w in weights.items() if n not in names}, file, {"format": "pt"})
    said = refusal(quick_config, tmp_path, file.parent)
    assert "lacks 2 of the model's weights" in said
    assert all(name in said for name in names)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(
    quick_config: Callable[..., Any], saved: Callable[..., Path], tmp_path: Path, value: float
):
    name = "model.layers.1.mlp.up_proj.weight"

    def spoil(model: Any) -> None:
        dict(model.named_parameters())[name][3, 5] = value

    said = refusal(quick_config, tmp_path, saved(spoil))
    assert f"NaN or infinite numbers in 1 of its weights: {name}." in said


def test_weights_of_another_shape_than_the_config_says_are_told(
    quick_config: Callable[..., Any], saved: Callable[..., Path], tmp_path: Path
):
    folder = saved()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    said = refusal(quick_config, tmp_path, folder)
    assert "Check --model" in said or "another shape" in said


def test_a_tokenizer_that_is_larger_than_the_embedding_is_told(
    quick_config: Callable[..., Any], saved: Callable[..., Path], tmp_path: Path
):
    folder = saved()
    tokenizer = load_tokenizer(str(folder))
    size = len(tokenizer)
    tokenizer.add_tokens(["<|unused|>"])
    tokenizer.save_pretrained(folder)
    # A token that no row becomes does no harm (a new padding token, most often).
    screen(quick_config(tmp_path / "fine", model=folder, signal="restoration"), SILENT)
    tokenizer.add_tokens([" lamp"])
    tokenizer.save_pretrained(folder)
    said = refusal(quick_config, tmp_path, folder)
    assert f"makes token {size + 1} (' lamp')" in said
    assert f"the model's embedding has {size} rows" in said
    assert "resize_token_embeddings" in said


def test_an_adapter_is_no_model_and_the_command_that_is_told_merges_it(
    quick_config: Callable[..., Any], tiny_model: Callable[..., Path], tmp_path: Path
):
    base = tiny_model("llama")
    torch.manual_seed(0)
    model = adapters.add_adapter(load_base_model(str(base), CPU), LoraSettings(r=2, alpha=4))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.05)
    folder = tmp_path / "my adapter's"
    adapters.save_adapter(model, folder)
    for look in (model_fingerprint, lambda source: load_base_model(source, CPU)):
        with pytest.raises(ModelError, match=r"holds an adapter of .* not a whole model"):
            look(str(folder))
    said = refusal(quick_config, tmp_path, folder)
    command = said.splitlines()[-1].strip()
    assert command.startswith("python -c ")
    command = re.sub("^python", lambda _: sys.executable, command)
    subprocess.run(["sh", "-c", command], check=True, capture_output=True, env=dict(os.environ))
    merged = load_base_model(f"{folder}-merged", CPU)
    ids = torch.tensor([[5, 9, 17, 30]])
    with torch.no_grad():
        wanted = model.eval()(input_ids=ids).logits
        torch.testing.assert_close(merged(input_ids=ids).logits, wanted, atol=1e-4, rtol=1e-4)
    assert load_tokenizer(f"{folder}-merged").chat_template


def test_a_mixture_of_experts_is_adapted_in_its_experts_too(
    tiny_model: Callable[..., Path], recwarn: pytest.WarningsRecorder
):
    assert "qwen3_moe" in ARCHITECTURES  # which is screened and merged like all others
    base = load_base_model(str(tiny_model("qwen3_moe")), CPU)
    model = adapters.add_adapter(base, LoraSettings(r=2, alpha=4))
    adapted = {id(weight) for weight in adapters.adapted_weights(model)}
    experts = [w for n, w in model.named_parameters() if "experts" in n and "lora" not in n]
    assert experts
    assert all(id(weight) in adapted for weight in experts)
    assert not [w for w in recwarn if "_pattern keys" in str(w.message)]
