"""Adapters on a base model: fresh, loaded, changed for another, merged, taken off."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch

from forgetfilter.config import LoraSettings
from forgetfilter.errors import ModelError
from forgetfilter.model.loading.base_model import quiet_dependencies
from forgetfilter.text import printable

# Query and value projections, then the fused projections of architectures that have them.
_QUERY_VALUE = ("q_proj", "v_proj")
_FUSED = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "in_proj", "qkv")


@quiet_dependencies()
def add_adapter(model: Any, settings: LoraSettings) -> Any:
    """Wrap ``model`` with a fresh LoRA adapter whose parameters alone are trainable.

    The caller seeds: adapter weights are drawn from torch's global generator.

    Raises:
        ModelError: the settings fit no layer, or some layer can't have such an adapter.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        bias="none",
        task_type="CAUSAL_LM",
        target_modules=find_lora_targets(model, settings.targets),
        exclude_modules=_routers(model) or None,
    )
    try:
        return check_trainable(get_peft_model(model, config))
    except ValueError as error:
        # Experts of a mixture, for one, can have no dropout.
        raise ModelError(
            f"PEFT can't put an adapter on {type(model).__name__}: {printable(str(error))}. Layers "
            "that LoRA knows are expected. Use --set lora.dropout=0, or "
            "--set lora.targets=attention_qv."
        ) from None


@quiet_dependencies()
def load_adapter(model: Any, folder: str, *, is_trainable: bool) -> Any:
    """Wrap ``model`` with the adapter stored in ``folder`` (safetensors only).

    Raises:
        ModelError: there is no such adapter.
    """
    from peft import PeftModel

    _check_stored(folder)
    # PEFT loads adapters frozen unless told otherwise; a frozen one would "train" without effect.
    wrapped = PeftModel.from_pretrained(model, folder, is_trainable=is_trainable)
    return check_trainable(wrapped) if is_trainable else wrapped.eval()


@quiet_dependencies()
def change_adapter(model: Any, folder: str, *, is_trainable: bool) -> Any:
    """``model``, which has an adapter, with the one stored in ``folder`` in its place.

    Much faster than wrapping anew, and the same; for an adapter of another shape it is done anew.

    Raises:
        ModelError: there is no such adapter.
    """
    from peft import PeftConfig, load_peft_weights, set_peft_model_state_dict

    def shape(config: Any) -> tuple[Any, ...]:
        targets = config.target_modules
        return config.r, config.lora_alpha, targets if isinstance(targets, str) else set(targets)

    _check_stored(folder)
    if shape(model.peft_config["default"]) != shape(PeftConfig.from_pretrained(folder)):
        return load_adapter(remove_adapter(model), folder, is_trainable=is_trainable)
    set_peft_model_state_dict(model, load_peft_weights(folder, device="cpu"))
    for name, weight in model.named_parameters():
        weight.requires_grad_(is_trainable and "lora_" in name)
    return check_trainable(model) if is_trainable else model.eval()


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter of ``model`` as safetensors.

    The vocabulary is never resized here; PEFT would ask the hub for the base model's size. Nor
    does PEFT write its model card, which takes longer than all else: `adapter_folder` writes ours
    where an adapter is handed over.
    """
    model.create_or_update_model_card = lambda _: None
    try:
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    finally:
        del model.create_or_update_model_card


class Merged:
    """An adapter that is added to the base weights, and taken out again without a trace.

    Taking it out by subtraction would leave rounding behind, so the weights that it changes are
    copied first.

    Args:
        model: a wrapped model in float32, not merged.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._copies = [weight.detach().clone() for weight in adapted_weights(model)]
        model.merge_adapter()

    def undo(self) -> None:
        """The weights as they were."""
        self._model.unmerge_adapter()
        with torch.no_grad():
            for weight, copy in zip(adapted_weights(self._model), self._copies, strict=True):
                weight.copy_(copy)


def adapted_weights(model: Any) -> list[torch.Tensor]:
    """The base weights that an adapter stands beside, each once.

    Mostly ``weight`` of a linear layer; the experts of a mixture are a module with several
    parameters, each with an adapter of its own that knows its name.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    weights: dict[int, torch.Tensor] = {}
    for layer in layers:
        weight = getattr(layer.get_base_layer(), getattr(layer, "parameter_name", "weight"))
        weights[id(weight)] = weight
    return list(weights.values())


def remove_adapter(model: Any) -> Any:
    """The base model again, its weights untouched."""
    return model.unload()


def find_lora_targets(
    model: Any, targets: Literal["all_linear", "attention_qv"]
) -> str | list[str]:
    """Names of the layers that carry an adapter.

    Raises:
        ModelError: the architecture has neither query/value nor a known fused projection.
    """
    if targets == "all_linear":
        return "all-linear"
    suffixes = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if suffixes.issuperset(_QUERY_VALUE):
        return list(_QUERY_VALUE)
    fused = [name for name in _FUSED if name in suffixes]
    if fused:
        return fused[:1]
    raise ModelError(
        f"{type(model).__name__} has no query and value projections that are known here. "
        "Use --set lora.targets=all_linear."
    )


def _routers(model: Any) -> list[str]:
    """Layers that pass for linear ones but give more than a tensor, as routers of mixtures do."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and type(module).__module__.startswith("transformers.models.")
        and type(module).forward is not torch.nn.Linear.forward
    ]


def trainable_checksum(model: Any) -> str:
    """sha256 over all trainable parameters; differs whenever training changed anything."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def check_trainable(model: Any) -> Any:
    """``model`` itself, once something in it is known to be trainable.

    Raises:
        ModelError: every parameter is frozen.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(
            "No parameter of the adapter can be trained. Check lora.targets against the model."
        )
    return model


def _check_stored(folder: str) -> None:
    """See that there are safetensors: PEFT would fall back on pickled weights."""
    if not (Path(folder) / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"No adapter_model.safetensors in {folder}. An adapter folder written by forgetfilter "
            "is expected; repeat the command that made it, with --overwrite."
        )
