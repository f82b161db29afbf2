"""What one pass over a model costs, counted without its weights: operations, and bytes kept.

The model is built from its config with tensors that have a shape and no content, an adapter beside
it, and a pass is made over those. So any architecture that transformers knows is counted as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch

from forgetfilter.config import LoraSettings
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import quiet_dependencies
from forgetfilter.model.passes.limits import most_logits

Bits = Literal[4, 8] | None
"""In how many bits the base weights of linear layers are held; None: in the format computed in."""

ROWS, SHORT, LONG = 4, 64, 128
"""The shapes that are counted: rows, and two lengths, between which attention is told apart."""
_ADAM = 16
"""Bytes for each trained number: itself, its gradient and Adam's two averages, in float32."""
# Of each 64 numbers in 4 bits the largest is kept in float32; of each row in 8 bits, likewise.
_BYTES_OF: dict[int, float] = {4: 0.5 + 4 / 64, 8: 1.01}


@dataclass(frozen=True)
class Growth:
    """Something that grows with the tokens of a pass, and with the square of a row's length."""

    per_token: float
    per_square: float

    def of(self, rows: int, length: int) -> float:
        """How much it is for a pass of ``rows`` rows of ``length`` tokens."""
        return rows * (self.per_token * length + self.per_square * length * length)

    @staticmethod
    def through(short: float, long: float) -> Growth:
        """What was counted for `ROWS` rows of `SHORT` tokens, and of `LONG` ones."""
        first, second = short / ROWS / SHORT, long / ROWS / LONG
        slope = max(0.0, (second - first) / (LONG - SHORT))
        return Growth(first - slope * SHORT, slope)


@dataclass(frozen=True)
class Costs:
    """What a model costs in passes whose output layer is applied to completion tokens alone."""

    parameters: int
    """Numbers of the base model, tied ones once."""
    linear: int
    """Those of linear layers below the output layer: what 4 or 8 bits are used for."""
    adapter: int
    """Numbers of the adapter."""
    layers: int
    width: int
    vocabulary: int
    itemsize: int
    """Bytes of a number in the format computed in."""
    forward: Growth
    """FLOPs of a forward pass, without the output layer; a multiply-add counts as two."""
    training: Growth
    """FLOPs of a forward and a backward pass that reaches the adapter alone."""
    kept: Growth
    """Bytes that a pass keeps for its backward pass."""
    is_counted: bool
    """Whether passes were made; else all follows from the number of parameters."""

    def head(self, tokens: int, *, is_training: bool) -> float:
        """FLOPs of the output layer over so many completion tokens."""
        return 2.0 * self.vocabulary * self.width * tokens * (2 if is_training else 1)

    def weights(self, bits: Bits = None) -> float:
        """Bytes of the base model in memory."""
        if bits is None:
            return self.parameters * float(self.itemsize)
        rest = (self.parameters - self.linear) * self.itemsize
        return rest + self.linear * _BYTES_OF[bits]

    def logits(self, device: str) -> float:
        """Bytes of the logits that exist at once, with what is made of them, all in float32."""
        return 3.0 * 4 * min(most_logits(torch.device(device)), 2**14 * self.vocabulary)

    def training_bytes(self, rows: int, length: int, *, checkpointed: bool = False) -> float:
        """Bytes of a pass that trains: what it keeps, and the adapter with its optimizer."""
        kept = self.kept.of(rows, length)
        if checkpointed:  # each layer's input, and what one layer keeps
            kept = kept / self.layers + rows * length * self.width * self.itemsize * self.layers
        return kept + self.adapter * _ADAM

    def reading_bytes(self, rows: int, length: int) -> float:
        """Bytes that a pass without gradients holds at once: about what a layer would keep."""
        return 2 * self.kept.of(rows, length) / self.layers + self.adapter * 4.0


@quiet_dependencies()
def count_costs(config: Any, lora: LoraSettings, dtype: torch.dtype, *, autocast: bool) -> Costs:
    """Count what passes cost of a model with this config, computed in ``dtype``.

    ``autocast`` is whether products with float32 adapters are rounded to ``dtype`` too.
    """
    from transformers import AutoModelForCausalLM

    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.requires_grad_(False)
        output = model.get_output_embeddings()
        parameters = sum(weight.numel() for weight in model.parameters())
        linear = sum(
            module.weight.numel()
            for module in model.modules()
            if isinstance(module, torch.nn.Linear) and module is not output
        )
        vocabulary, width = output.weight.shape
        wrapped = add_adapter(model, lora)
    adapter = sum(w.numel() for w in wrapped.parameters() if w.requires_grad)
    found = None
    if not _experts(text):  # whose routers look at what they route, and there is nothing
        with suppress(Exception):
            found = _count_layers(config, lora, dtype, int(text.num_hidden_layers), autocast)
    sizes = (parameters, linear, adapter, int(text.num_hidden_layers), width, vocabulary)
    if found is None:
        return Costs(*sizes, dtype.itemsize, *_by_size(text, sizes, dtype), is_counted=False)
    return Costs(*sizes, dtype.itemsize, *found, is_counted=True)


def cut_config(config: Any, layers: int) -> Any:
    """The config of the same language model with its first layers alone."""
    cut = deepcopy(config.get_text_config() if hasattr(config, "get_text_config") else config)
    cut.num_hidden_layers = layers
    for name in ("layer_types", "mlp_layer_types"):
        if getattr(cut, name, None):
            setattr(cut, name, getattr(cut, name)[:layers])
    return cut


def _count_layers(
    config: Any, lora: LoraSettings, dtype: torch.dtype, layers: int, autocast: bool
) -> list[Growth]:
    """FLOPs forward, FLOPs forward and backward, and bytes kept, of all layers.

    From one layer and from two: a model's layers cost alike.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM

    counts: list[list[tuple[float, float, float]]] = []
    for number in (1, 2):
        with torch.device("meta"):
            build: Any = AutoModelForCausalLM.from_config
            model = build(cut_config(config, number), dtype=dtype).requires_grad_(False)
            wrapped = add_adapter(model, lora)
        rounding = torch.autocast("cpu", dtype) if autocast else nullcontext()
        with FakeTensorMode(allow_non_fake_inputs=True), rounding:
            _place_on_cpu(wrapped)
            counts.append([_count_pass(wrapped, length) for length in (SHORT, LONG)])
    growths: list[Growth] = []
    for kind in range(3):
        pairs = zip(*counts, strict=True)
        ends = [one[kind] + (layers - 1) * (two[kind] - one[kind]) for one, two in pairs]
        growths.append(Growth.through(ends[0], ends[1]))
    return growths


def _place_on_cpu(model: Any) -> None:
    """Give a model tensors that seem to be on the CPU, under a fake tensor mode."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                empty = torch.empty(weight.shape, dtype=weight.dtype)
                module._parameters[name] = torch.nn.Parameter(empty, weight.requires_grad)
        for name, values in module._buffers.items():
            if values is not None:
                module._buffers[name] = torch.empty(values.shape, dtype=values.dtype)


def _count_pass(model: Any, length: int) -> tuple[float, float, float]:
    """FLOPs forward, FLOPs forward and backward, and bytes kept, without the output layer."""
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.zeros((ROWS, length), dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    frozen = {_storage(weight) for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in frozen:
            kept[_storage(tensor)] = tensor
        return tensor

    body = model.get_base_model().base_model
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION_ON_CPU) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            states = body(**inputs).last_hidden_state
        forward = counter.get_total_flops()
        weights = [w for w in model.parameters() if w.requires_grad]
        torch.autograd.grad(states.float().sum(), weights)
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return float(forward), float(counter.get_total_flops()), float(size)


def _storage(tensor: torch.Tensor) -> int:
    """What views of the same numbers have in common."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """FLOPs of attention: two products of all positions with all."""
    rows, heads, length, width = query
    return 2 * rows * heads * length * key[2] * (width + value[-1])


def _attention_backward(_: Any, query: Any, key: Any, value: Any, *_more: Any, **__: Any) -> int:
    """Of its backward pass: five such products, one of them made again."""
    return 5 * _attention(query, key, value) // 2


_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ATTENTION_ON_CPU: dict[Any, Callable[..., int]] = {
    _ON_CPU: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def _experts(text: Any) -> int:
    """How many experts a layer of a mixture has; 0 of other models."""
    return getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None) or 0


def _by_size(text: Any, sizes: tuple[int, ...], dtype: torch.dtype) -> tuple[Growth, ...]:
    """FLOPs and bytes from sizes alone, where no pass can be made without content: mixtures."""
    parameters, _, adapter, layers, width, vocabulary = sizes
    body = parameters - vocabulary * width * (1 if text.tie_word_embeddings else 2)
    experts = _experts(text)
    active = float(body)
    if experts:
        inner = getattr(text, "moe_intermediate_size", None) or text.intermediate_size
        idle = experts - text.num_experts_per_tok
        active = max(body / experts, body - 3.0 * width * inner * layers * idle)
    attention = 4.0 * width * layers
    kept = 34.0 * width * layers * dtype.itemsize / 2
    return (
        Growth(2 * active + 2 * adapter, attention),
        Growth(4 * active + 6 * adapter, 3.5 * attention),
        Growth(kept, 0.0),
    )
