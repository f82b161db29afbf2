"""The most that one pass holds, by device; importing it needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CPU_BATCH_TOKENS = 1024
"""Most padded tokens of one pass on a CPU, of rows that are read or trained on: smaller passes pad
less and stay in its caches."""
PASS_COST = {"cpu": 64}
"""What a training pass costs however small it is, in padded tokens (models of 2M parameters: 70, of
135M: 20); elsewhere `_PASS_COST_ELSEWHERE`."""
_PASS_COST_ELSEWHERE = 2048
MOST_LOGITS = {"cpu": 2**25}
"""Logits, in numbers, that may exist at once (128 MB in float32); elsewhere `_MOST_ELSEWHERE`."""
_MOST_ELSEWHERE = 2**26
COPIED_SHARE = 1 / 8
"""Of those, how many are copied at once where no gradient is asked for: what is measured of logits
takes copies in float32."""


def pass_cost(device: str) -> int:
    """What a training pass on a kind of device costs however small it is, in padded tokens."""
    return PASS_COST.get(device, _PASS_COST_ELSEWHERE)


def most_logits(device: torch.device) -> int:
    """How many logits, in numbers, may exist at once on ``device``."""
    return MOST_LOGITS.get(device.type, _MOST_ELSEWHERE)


def copied_logits(device: torch.device) -> int:
    """Of how many logits, in numbers, there may be copies at once on ``device``."""
    return int(most_logits(device) * COPIED_SHARE)
