"""How many tokens of a pass a GPU has room for, from what passes are counted to hold."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch

from forgetfilter.config import LoraSettings
from forgetfilter.model.loading.placement import Placement
from forgetfilter.model.passes.costs import Costs, count_costs

TYPICAL_LENGTH = 512
"""Tokens of a row at which the bytes of a pass are told."""
_IN_USE = 0.8
"""Share of a device's memory that is planned with; the rest is what an allocator leaves between."""
_FEWEST = 256

_counted: WeakKeyDictionary[Any, Costs] = WeakKeyDictionary()


def gpu_elsewhere() -> Placement:
    """How a model would be placed on a GPU that this machine may not have."""
    return Placement("cuda", torch.bfloat16, "a GPU, bfloat16")


def gpu_memory() -> float | None:
    """Bytes of the first GPU of this machine; None where there is none."""
    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory)


def tokens_that_fit(inner: Any, *, is_training: bool) -> int:
    """Padded tokens of a pass over a loaded model that its device has room for.

    From the device's whole memory, so that the same machine always gives the same batches; where
    others use the device too, memory may run out, and batches are halved.
    """
    if inner not in _counted:
        dtype = inner.get_output_embeddings().weight.dtype
        _counted[inner] = count_costs(inner.config, LoraSettings(), dtype, autocast=False)
    device = inner.get_output_embeddings().weight.device
    memory = torch.cuda.get_device_properties(device).total_memory
    held = sum(weight.nbytes for weight in inner.parameters() if weight.device == device)
    return fitting_tokens(_counted[inner], memory, held, device.type, is_training=is_training)


def fitting_tokens(
    costs: Costs,
    memory: float,
    weights: float,
    device: str,
    *,
    is_training: bool,
    checkpointed: bool = False,
) -> int:
    """Padded tokens for which ``memory`` bytes leave room beside the weights; a multiple of 256.

    At least 256: what doesn't hold them is found out by trying.
    """

    def held(rows: int) -> float:
        if is_training:
            return costs.training_bytes(rows, TYPICAL_LENGTH, checkpointed=checkpointed)
        return costs.reading_bytes(rows, TYPICAL_LENGTH)

    room = memory * _IN_USE - weights - costs.logits(device) - held(0)
    each = (held(1) - held(0)) / TYPICAL_LENGTH
    return max(_FEWEST, int(room / each) // _FEWEST * _FEWEST)
