"""A trainer's arguments as settings of a learn phase, and which adapters a screen can use."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

from forgetfilter.config import LearnSettings, LoraSettings
from forgetfilter.errors import ModelError
from forgetfilter.model.loading.adapters import find_lora_targets

_SCHEDULERS: dict[str, Literal["constant", "linear", "cosine"]] = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
}
_PLAIN: dict[str, Any] = {
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "lora_bias": False,
    "modules_to_save": None,
    "trainable_token_indices": None,
    "rank_pattern": {},
    "alpha_pattern": {},
}
"""Options of LoRA that are expected as they stand here."""


def check_plain_lora(model: Any) -> None:
    """Refuse a model in training that isn't a whole base model with one plain LoRA adapter.

    Raises:
        ModelError: it is so.
    """
    configs = getattr(model, "peft_config", None)
    if not configs:
        raise ModelError(
            "The training has no adapter: it changes the model's own weights. Expected a LoRA "
            "adapter on a base model that stays as it is. Give the trainer a peft_config, such as "
            'LoraConfig(target_modules="all-linear").'
        )
    (name, config), *others = configs.items()
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    found = None
    if others or name != "default":
        found = f"the adapters {', '.join(configs)}"
    elif kind != "LORA":
        found = f"an adapter of type {kind}"
    else:
        own = [
            f"{option}={value!r}"
            for option, plain in _PLAIN.items()
            if (value := getattr(config, option, plain)) != plain and (value or plain)
        ]
        found = f"an adapter with {', '.join(own)}" if own else None
    if found:
        raise ModelError(
            f"The training has {found}. Expected one plain LoRA adapter called default, which a "
            "screen can restore. Leave these options of LoraConfig out, or train without the "
            "callback and let the screen learn."
        )
    if getattr(model.get_base_model(), "is_quantized", False):
        raise ModelError(
            "The base model is quantised, and a screen reads it in full precision. Expected the "
            "weights that the screen will have. Load the model without quantization_config, or "
            "train without the callback and let the screen learn."
        )
    own = [n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n]
    if own:
        raise ModelError(
            f"The training changes weights of the base model ({own[0]}). Expected an adapter "
            "alone. Freeze them (requires_grad_(False)), or train without the callback."
        )


def learn_settings(
    arguments: Any, state: Any, loader: Any, early_epochs: float
) -> tuple[LearnSettings, int, list[str]]:
    """The settings, after which step the early adapter is kept, and what they can't say."""
    passes = int(arguments.gradient_accumulation_steps)
    processes = int(getattr(arguments, "world_size", 1))  # each with batches of its own
    steps = int(state.max_steps)
    told: list[str] = []
    scheduler = str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type))
    if scheduler not in _SCHEDULERS:
        told.append(f"lr_scheduler_type {scheduler} (linear instead)")
    optimizer = str(getattr(arguments.optim, "value", arguments.optim))
    if not optimizer.startswith("adamw_torch"):
        told.append(f"optim {optimizer} (adamw_torch instead)")
    has_steps = int(arguments.max_steps) > 0
    warmup = int(arguments.get_warmup_steps(steps))
    settings = LearnSettings(
        learning_rate=float(arguments.learning_rate),
        num_train_epochs=None if has_steps else float(arguments.num_train_epochs),
        stop="epochs",
        max_steps=steps if has_steps else None,
        batch_size=int(arguments.per_device_train_batch_size) * passes * processes,
        lr_scheduler_type=_SCHEDULERS.get(scheduler, "linear"),
        warmup_ratio=min(warmup / max(1, steps), 0.999),
        weight_decay=float(arguments.weight_decay),
        max_grad_norm=float(arguments.max_grad_norm or 0),
        early_epochs=early_epochs,
    )
    try:
        early = round(early_epochs * math.ceil(len(loader) / passes))
    except TypeError:  # rows that come in a stream
        early = steps
    return settings, max(1, min(early, steps // 2)), told


def lora_settings(model: Any) -> tuple[LoraSettings, list[str]]:
    """The shape of the adapter of ``model``, and what of it the settings can't say."""
    config = model.peft_config["default"]
    targets, told = _targets(model)
    shape = LoraSettings(
        r=config.r, alpha=config.lora_alpha, dropout=config.lora_dropout, targets=targets
    )
    return shape, told


def _targets(model: Any) -> tuple[Literal["all_linear", "attention_qv"], list[str]]:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    adapted: set[str] = set()
    plain: set[str] = set()
    for name, module in model.named_modules():
        suffix = name.rpartition(".")[2]
        if isinstance(module, BaseTunerLayer):
            adapted.add(suffix)
        elif isinstance(module, torch.nn.Linear | Conv1D):
            is_inner = suffix == "base_layer" or ".lora_" in name or module is head
            plain |= set() if is_inner else {suffix}
    if not plain:
        return "all_linear", []
    try:
        attention = find_lora_targets(model, "attention_qv")
    except ModelError:
        attention = []
    if adapted == set(attention):
        return "attention_qv", []
    return "all_linear", [f"target_modules {', '.join(sorted(adapted))} (all_linear instead)"]
