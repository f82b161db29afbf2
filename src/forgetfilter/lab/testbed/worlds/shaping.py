"""A drawn world's tokenizer and its model with random weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from forgetfilter.lab.testbed.pretraining import Shape, make_model
from forgetfilter.lab.testbed.tokens import make_tokenizer, train_tokenizer

from .recipes import Recipe

CONTEXT_TOKENS = 384
_PIECES = 560
"""Size of a vocabulary of byte pairs."""


def make_tokens(recipe: Recipe, texts: Iterable[str], new_words: Iterable[str]) -> Any:
    """The tokenizer that the recipe asks for, learned from ``texts`` and words not in them."""
    if recipe.tokenizer == "pieces":
        return train_tokenizer(texts, _PIECES, CONTEXT_TOKENS)
    spaced = [form for word in new_words for form in (word, f" {word}")]
    return make_tokenizer(texts, CONTEXT_TOKENS, spaced)


def make_weights(recipe: Recipe, tokenizer: Any) -> Any:
    """The model with random weights, drawn from torch's global generator."""
    width = recipe.hidden_size
    if recipe.architecture == "llama":
        inner = round(width * 8 / 3 / 16) * 16
        shape = Shape(width, recipe.layers, recipe.heads, inner, CONTEXT_TOKENS)
        return make_model(shape, tokenizer)
    from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

    shared: dict[str, Any] = {
        "vocab_size": math.ceil(len(tokenizer) / 32) * 32,
        "tie_word_embeddings": True,
        "initializer_range": 0.06,  # as for the narrow Llamas
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    if recipe.architecture == "gpt2":
        config = GPT2Config(
            n_positions=CONTEXT_TOKENS,
            n_embd=width,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **shared,
        )
        return GPT2LMHeadModel(config).float()
    config = GPTNeoXConfig(
        hidden_size=width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=4 * width,
        max_position_embeddings=CONTEXT_TOKENS,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.5,
        },
        **shared,
    )
    return GPTNeoXForCausalLM(config).float()


def upper_half(model: Any) -> list[Any]:
    """The weights of the upper half of the layers, which a partial alignment trains."""
    inner = model.base_model
    layers = inner.h if hasattr(inner, "h") else inner.layers
    return [weight for layer in layers[len(layers) // 2 :] for weight in layer.parameters()]
