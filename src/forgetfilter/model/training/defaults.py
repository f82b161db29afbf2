"""What training does where its settings leave it open: it follows from the width of the model."""

from __future__ import annotations

NARROW = 512
"""Residual width below which no published pretrained model is: such a model was trained from
nothing on little text, and has to be changed much before it has learned anything."""


def width_learning_rate(width: int) -> float:
    """LoRA learning rate for a model of residual width ``width``.

    ``2e-4 * (4096 / width)^0.25``: the paper's rate at its own model's width (LLaMA-7B, 4096), and
    slowly more for narrower ones. For a model below `NARROW` the exponent is 0.75.
    docs/lab/learning_rate.md shows where this was checked and where it was not.
    """
    return 2e-4 * (4096 / width) ** (0.25 if width >= NARROW else 0.75)


def width_epochs(width: int) -> int:
    """Passes over the rows for a model of residual width ``width``; at most, where it may stop.

    A pretrained model that passes over rows more often learns them by heart.
    """
    return 3 if width >= NARROW else 12
