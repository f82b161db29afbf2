"""8-bit weights: what is left of a defence once the tuned model is stored in few bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.repaired import repaired
from forgetfilter.model.state import ModelState
from forgetfilter.screening.method import Setting

if TYPE_CHECKING:
    from torch import Tensor


@STRATEGIES.add("rounded_weights")
class RoundedWeights(Strategy):
    """Fine-tune on every row, and then round the weights of the tuned model to a few bits.

    A simulation of quantisation, in which all is computed as before: each output of a layer has a
    step of its own, the largest of its weights over ``2^(bits - 1) - 1``, and each weight is moved
    to the nearest multiple of it. So does the absmax scheme of "LLM.int8(): 8-bit Matrix
    Multiplication for Transformers at Scale" (arXiv 2208.07339), without its treatment of outlying
    activations. What is rounded are the layers that an adapter stands beside, the base weights and
    the update together: with ``lora.targets=all_linear`` all linear layers but the output layer.
    Costs no pass, and an adapter as large as the weights.

    Args:
        bits: of each weight, 2 to 8.
    """

    name = "rounded_weights"

    def __init__(self, bits: int = 8) -> None:
        if not 2 <= bits <= 8:
            raise ConfigError(
                f"rounded_weights: bits is {bits}; expected 2 to 8, for example "
                "rounded_weights:bits=8."
            )
        self.bits = bits

    def repair(self, setting: Setting, state: ModelState) -> ModelState:
        """The rounded model."""

        def build(folder: Path, adapter: str) -> None:
            from forgetfilter.model.loading.adapter_sums import StoredAdapter

            stored = StoredAdapter.read(adapter)
            layers = dict(setting.bench.model.in_state(state).named_modules())
            updates = {name: _moved(layers[name], self.bits) for name in stored.pairs}
            StoredAdapter(stored.folder, 1.0, _as_pairs(updates)).write(folder)

        return repaired(setting, state, {"rounded_weights": self.bits}, build)


def rounded(weights: Tensor, bits: int) -> Tensor:
    """``weights``, (out, in), each at the nearest of ``2^bits - 1`` levels of its output."""
    most = 2 ** (bits - 1) - 1
    step = weights.abs().amax(dim=1, keepdim=True) / most
    return (weights / step.clamp_min(1e-30)).round() * step


def _moved(layer: Any, bits: int) -> Tensor:
    """From a layer's base weights to the rounded ones with its adapter, (out, in), float32."""
    base = layer.get_base_layer().weight.detach().float()
    update = layer.get_delta_weight("default").detach().float()
    if layer.fan_in_fan_out:  # some architectures keep their weights the other way round
        base, update = base.T, update.T
    found: Tensor = rounded(base + update, bits) - base
    return found.cpu()


def _as_pairs(updates: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Each update as a product B @ A of factors that have the same rank in all of them."""
    import torch

    rank = max(min(update.shape) for update in updates.values())
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name, update in updates.items():
        outputs, inputs = update.shape
        a, b = torch.zeros(rank, inputs), torch.zeros(outputs, rank)
        if outputs <= inputs:
            a[:outputs], b[:, :outputs] = update, torch.eye(outputs)
        else:
            a[:inputs], b[:, :inputs] = torch.eye(inputs), update
        pairs[name] = a, b
    return pairs
