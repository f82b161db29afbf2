"""Base weights of which each of several processes keeps a part (PyTorch's FSDP2).

Adapters are put on afterwards, and so stay whole in every process: their gradients are added up by
`shared_step` and `divergence`. The base never changes, so nothing else has to be kept in step.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from forgetfilter.model.processes.joining import joined


def is_parted() -> bool:
    """Whether this process is one of several that each keep a part of the base weights."""
    group = joined()
    return group is not None and group.is_parted


def placed(model: Any, device: str) -> Any:
    """The model on its device: whole, or this process's part of it where that was asked for."""
    group = joined()
    if group is None or not group.is_parted:
        return model.to(device)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    mesh = init_device_mesh(device, (group.size,))
    offloads = group.is_offloaded and device != "cpu"
    options: dict[str, Any] = {
        "mesh": mesh,
        "reshard_after_forward": _lets_go(),
        "offload_policy": CPUOffloadPolicy() if offloads else OffloadPolicy(),
    }
    names: frozenset[str] = frozenset(getattr(model, "_no_split_modules", None) or ())
    for module in list(model.modules()):
        if type(module).__name__ in names:
            fully_shard(module, **options)
    fully_shard(model, **options)
    if device != "cpu":
        torch.cuda.empty_cache()
    return model


def _lets_go() -> bool:
    """Whether the weights of other processes are let go of after each layer; FSDP2's default."""
    return os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"
