"""Mixtures of experts: adapters on layers that are no linear ones, merged and taken out again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from forgetfilter.config import LoraSettings
from forgetfilter.errors import ModelError
from forgetfilter.model.loading import adapters

IDS = torch.tensor([[5, 9, 17, 30, 12, 8]])
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
    "initializer_range": 0.2,
    "num_experts_per_tok": 2,
}
DEEPSEEK = {
    "n_routed_experts": 4,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "qk_nope_head_dim": 8,
}
MIXTURES: dict[str, dict[str, Any]] = {
    "Mixtral": {"num_local_experts": 4},
    "Qwen2Moe": {
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
    "DeepseekV3": DEEPSEEK,
    "Phimoe": {"num_local_experts": 4},  # its router is a linear layer that gives two tensors
}


def mixture(name: str) -> Any:
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **MIXTURES[name]})
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("name", sorted(MIXTURES))
def test_an_adapter_is_learned_merged_and_taken_out_without_a_trace(name: str):
    base = mixture(name)
    before = logits(base)
    model = adapters.add_adapter(base, LoraSettings(r=2, alpha=4)).eval()
    trainable = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_B" in key:
                weight.fill_(0.02)
    active = logits(model)
    assert not torch.allclose(active, before, atol=1e-2)
    model(input_ids=IDS).logits.square().sum().backward()
    assert all(p.grad is not None for p in trainable)
    merged = adapters.Merged(model)
    torch.testing.assert_close(logits(model), active, atol=1e-4, rtol=1e-4)
    merged.undo()
    assert logits(model).equal(active)
    with model.disable_adapter():
        assert logits(model).equal(before)


def test_settings_that_experts_cant_have_are_told_with_a_way_out():
    with pytest.raises(ModelError, match=r"lora\.dropout=0"):
        adapters.add_adapter(mixture("Mixtral"), LoraSettings(r=2, alpha=4, dropout=0.1))
