"""How the base model is held: in fewer bits, spread, and with layers made again in training."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import build_model, rows_of, save_model, write_rows
from forgetfilter.config import LoraSettings, PhaseSettings, ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.errors import ConfigError
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import load_base_model
from forgetfilter.model.loading.fewer_bits import check_loadable
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.training.fine_tuning import train
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.progress import Progress
from forgetfilter.screening.screen import screen
from forgetfilter.settings import LoadSettings

SILENT = Progress(is_silent=True)


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_fewer_bits_without_the_library_name_the_extra(
    quick_config: Callable[..., ScreenConfig], tmp_path: Path
):
    config = quick_config(tmp_path / "run", loading={"bits": 4})
    with pytest.raises(ConfigError, match=r"pip install 'forgetfilter\[bits\]'"):
        screen(config, SILENT)


@pytest.mark.parametrize("given", [{"bits": 8}, {"device_map": "auto"}])
def test_a_gguf_file_is_loaded_whole(given: dict[str, Any]):
    with pytest.raises(ConfigError, match="loaded whole and on one device"):
        check_loadable(LoadSettings(**given), is_gguf=True)
    check_loadable(LoadSettings(device_map="auto"), is_gguf=False)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_screen_with_fewer_bits_learns_and_scores(
    quick_config: Callable[..., ScreenConfig],
    tiny_tokenizer: Callable[..., Any],
    tmp_path: Path,
    bits: int,
):
    pytest.importorskip("bitsandbytes", reason="it holds weights in fewer bits")
    import transformers

    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "vocab_size": len(tokenizer), "eos_token_id": None}
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    given = {"model": save_model(model, tokenizer, tmp_path / "model"), "signal": "restoration"}
    given["coverage"] = "off"
    whole = screen(quick_config(tmp_path / "whole", **given), SILENT)
    run = tmp_path / "run"
    found = screen(quick_config(run, **given, loading={"bits": bits}), SILENT)
    apart = (found.scores["base"] - whole.scores["base"]).abs()
    assert 0 < apart.max() < 0.5
    (adapter,) = run.glob("stages/learn-*/adapter/adapter_model.safetensors")
    assert {tensor.dtype for tensor in load_file(adapter).values()} == {torch.float32}


def test_a_model_spread_over_devices_reads_the_same(tiny_model: Callable[..., Path]):
    placement = choose_placement("cpu", "float32")
    ids = torch.arange(6)[None]
    logits = [
        load_base_model(str(tiny_model("llama")), placement, False, settings)(input_ids=ids).logits
        for settings in (LoadSettings(), LoadSettings(device_map="cpu"))
    ]
    torch.testing.assert_close(*logits)


def test_layers_made_again_give_the_same_adapter_and_leave_the_model_as_it_was(
    tiny_tokenizer: Callable[..., Any], tmp_path: Path
):
    tokenizer = tiny_tokenizer()
    rows_file = write_rows(tmp_path / "rows.jsonl", rows_of(8))
    rows, _ = Encoder(tokenizer, "auto", 192).encode(read_rows(rows_file).rows)
    settings = PhaseSettings(learning_rate=1e-3, max_steps=2, batch_size=8, stop="epochs")
    weights: list[torch.Tensor] = []
    calls: list[int] = []
    for is_checkpointed in (False, True):
        torch.manual_seed(0)
        base = build_model("llama", tokenizer).requires_grad_(False)
        model = add_adapter(base, LoraSettings(r=2, alpha=4))
        layer = model.get_base_model().model.layers[0].self_attn
        seen: list[int] = []
        layer.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        plan = TrainPlan("learn", rows, settings, 0, is_checkpointed=is_checkpointed)
        train(model, tokenizer, plan, SILENT)
        calls.append(len(seen))
        own = [weight.detach().flatten() for weight in model.parameters() if weight.requires_grad]
        weights.append(torch.cat(own))
        inner = model.get_base_model()
        assert not inner.is_gradient_checkpointing
        embedded = inner.get_input_embeddings()(torch.tensor([[1]]))
        assert not embedded.requires_grad
    assert calls[1] == 2 * calls[0]
    assert float((weights[0] - weights[1]).abs().max()) < 1e-6
