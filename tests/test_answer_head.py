"""The output layer is applied in parts, and nothing that is measured or trained is moved by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import ARCHITECTURES, build_model
from forgetfilter.config import LoraSettings, PhaseSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.measuring.divergence import divergences, safe_gradient
from forgetfilter.model.passes import answer_head, limits
from forgetfilter.model.passes.forward import completion_losses, row_batches, token_losses
from forgetfilter.model.training.fine_tuning import train
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.progress import Progress

SILENT = Progress(is_silent=True)
TOLERANCE_NATS = 1e-5
PART = 7
"""Tokens whose logits exist at once."""


def random_rows(vocabulary: int, count: int = 6) -> list[EncodedRow]:
    generator = np.random.default_rng(0)
    rows: list[EncodedRow] = []
    for at in range(count):
        length, prompt = 12 + 3 * at, 5 + at
        ids = generator.integers(0, vocabulary, length, dtype=np.int32)
        is_target = np.arange(length) >= prompt
        given = {"input_ids": ids, "is_target": is_target, "prompt_length": prompt}
        rows.append(EncodedRow(row=at, target="", **given))
    return rows


def adapted(model: Any) -> Any:
    """The model, frozen, with a small adapter that changes it."""
    wrapped = add_adapter(model.eval().requires_grad_(False), LoraSettings(r=2, alpha=4)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, 0.1)
    return wrapped


def measured(model: Any, rows: list[EncodedRow]) -> dict[str, Any]:
    losses = completion_losses(model, rows, 8192, SILENT, "")
    found = {
        "loss": losses.loss_sum,
        "choices": losses.greedy_match,
        "tokens": np.concatenate(token_losses(model, rows, 8192, SILENT, "")),
        "divergence": divergences(model, rows, 8192, SILENT, ""),
    }
    for objective in ("completion_loss", "kl_to_base"):
        gradient = safe_gradient(model, rows, objective, 8192, SILENT, "")
        flat = torch.cat([tensor.flatten() for tensor in gradient.gradient.values()])
        found[objective] = (flat / flat.norm()).numpy()
    return found


def limit(monkeypatch: pytest.MonkeyPatch, vocabulary: int) -> None:
    monkeypatch.setitem(limits.MOST_LOGITS, "cpu", vocabulary * PART)


def heads_of_others(tokenizer: Any) -> dict[str, Any]:
    """Models that change their logits after the output layer."""
    import transformers

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "initializer_range": 0.2,
    }
    capped = transformers.Gemma2Config(**sizes, head_dim=8, final_logit_softcapping=3.0)
    scaled = transformers.GraniteConfig(**sizes, logits_scaling=4.0)
    torch.manual_seed(0)
    build = transformers.AutoModelForCausalLM.from_config
    return {"capped": build(capped), "scaled": build(scaled)}


@pytest.mark.parametrize("kind", [*ARCHITECTURES, "capped", "scaled"])
def test_in_parts_everything_is_measured_as_at_once(
    tiny_tokenizer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: str
):
    tokenizer = tiny_tokenizer()
    others = heads_of_others(tokenizer)
    model = adapted(others[kind] if kind in others else build_model(kind, tokenizer))
    rows = random_rows(len(tokenizer))
    whole = measured(model, rows)
    limit(monkeypatch, len(tokenizer))
    assert answer_head.body_of(answer_head.unwrapped(model)) is not None
    parts = measured(model, rows)
    assert parts["divergence"].max() > 0.01
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-6, atol=TOLERANCE_NATS)


def test_no_more_logits_exist_than_allowed_in_reading_and_training(
    tiny_tokenizer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    tokenizer = tiny_tokenizer()
    vocabulary = len(tokenizer)
    rows = random_rows(vocabulary)
    settings = PhaseSettings(learning_rate=1e-2, max_steps=2, batch_size=6, stop="epochs")
    limit(monkeypatch, vocabulary)
    wide = 10**9
    weights: list[torch.Tensor] = []
    for most in (PART * vocabulary, wide):
        monkeypatch.setitem(limits.MOST_LOGITS, "cpu", most)
        model = adapted(build_model("llama", tokenizer))
        seen: list[int] = []
        output = answer_head.unwrapped(model).get_output_embeddings()
        output.register_forward_hook(lambda _, __, logits, seen=seen: seen.append(logits.numel()))
        measured(model, rows)
        train(model, tokenizer, TrainPlan("learn", rows, settings, 0), SILENT)
        assert (max(seen) <= PART * vocabulary) == (most != wide)
        own = [weight.detach().flatten() for weight in model.parameters() if weight.requires_grad]
        weights.append(torch.cat(own))
    assert float((weights[0] - weights[1]).abs().max()) < 1e-5


def test_an_output_layer_that_is_trained_gets_its_own_gradient(
    tiny_tokenizer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    tokenizer = tiny_tokenizer()
    model = build_model("llama", tokenizer).eval()
    (batch,) = row_batches(model, random_rows(len(tokenizer)), 8192)
    gradients: list[torch.Tensor] = []
    for is_limited in (False, True):
        if is_limited:
            limit(monkeypatch, len(tokenizer))
        loss = answer_head.token_nats(model, batch).sum()
        weight = model.get_output_embeddings().weight
        gradients.extend(torch.autograd.grad(loss, [weight]))
    assert torch.equal(*gradients)


def test_a_model_whose_head_reads_more_than_states_is_read_at_once(
    tiny_tokenizer: Callable[..., Any],
):
    """What is tried is whether logits come out the same: no kind of head has to be known."""
    inner = build_model("llama", tiny_tokenizer())
    plain = type(inner).forward

    class Odd(type(inner)):
        def forward(self, input_ids: Any = None, **inputs: Any) -> Any:
            found = plain(self, input_ids=input_ids, **inputs)
            found.logits = found.logits + input_ids[..., None]
            return found

    inner.__class__ = Odd
    assert answer_head.body_of(inner) is None


class Copies(TorchDispatchMode):
    """How many logits, in numbers, the tensors hold that operations make; views are none."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.shape[-1:] == (self.vocabulary,):
            given = [own.data_ptr() for own in args if isinstance(own, torch.Tensor)]
            if found.data_ptr() not in given:
                self.sizes.append(found.numel())
        return found


@pytest.mark.parametrize("is_in_parts", [False, True])
def test_of_all_logits_only_some_are_copied_at_once(
    tiny_tokenizer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, is_in_parts: bool
):
    """What a loss is made from took three times what the logits take, a divergence six times."""
    tokenizer = tiny_tokenizer()
    vocabulary = len(tokenizer)
    model = adapted(build_model("llama", tokenizer))
    (batch,) = row_batches(model, random_rows(vocabulary), 8192)
    tokens = 16 if is_in_parts else batch.predicts_target.numel()
    monkeypatch.setitem(limits.MOST_LOGITS, "cpu", vocabulary * tokens)
    answer_head.body_of(answer_head.unwrapped(model))
    parts = -(-len(batch.tokens) // tokens)
    block = tokens * vocabulary // 8
    found: list[torch.Tensor] = []
    for share in (1 / 8, 10.0):
        monkeypatch.setattr(limits, "COPIED_SHARE", share)
        with torch.no_grad(), Copies(vocabulary) as of_losses:
            found += answer_head.nats_and_choices(model, batch)
        with torch.no_grad(), Copies(vocabulary) as of_divergences:
            found.append(answer_head.token_divergences(model, batch))
        for copies, passes in ((of_losses, 1), (of_divergences, 2)):
            whole = sum(size > block for size in copies.sizes)
            assert (whole <= passes * parts) == (share < 1)
    for one, other in zip(found[:3], found[3:], strict=True):
        assert torch.equal(one, other)  # bit for bit
