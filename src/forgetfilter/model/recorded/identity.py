"""What tells whether a recorded training and a screen have the same rows, tokens and weights."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import torch

_WEIGHTS = 32
_NUMBERS = 4


def tokens_digest(ids: np.ndarray[Any, Any]) -> str:
    """What identifies a row by its tokens, shape (T,)."""
    return hashlib.sha256(ids.astype(np.int64).tobytes()).hexdigest()[:32]


def vocabulary_digest(tokenizer: Any) -> str:
    """sha256 of the tokens of a tokenizer and their ids."""
    tokens: dict[str, int] = tokenizer.get_vocab()
    text = json.dumps(sorted((at, token) for token, at in tokens.items()))
    return hashlib.sha256(text.encode()).hexdigest()


@torch.no_grad()
def weights_sample(model: Any) -> dict[str, list[float]]:
    """A few numbers of some weights of the base model, by its own names for them.

    Enough to tell another model, or one that was changed after it was loaded.
    """
    base: dict[str, Any] = {}
    for name, weight in model.named_parameters():
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if "lora_" not in name:
            base[plain] = weight
    names = sorted(base)
    chosen = names[:: max(1, len(names) // _WEIGHTS)]
    found: dict[str, list[float]] = {}
    for name in chosen:
        flat = base[name].detach().reshape(-1)
        at = torch.linspace(0, len(flat) - 1, _NUMBERS).round().long()
        found[name] = [float(value) for value in flat[at.to(flat.device)].float().cpu()]
    return found


def is_same_sample(recorded: dict[str, list[float]], found: dict[str, list[float]]) -> bool:
    """Whether two samples are of one model, but for the rounding of shorter number formats."""
    return recorded.keys() == found.keys() and all(
        np.allclose(recorded[name], found[name], rtol=0.01, atol=1e-6) for name in recorded
    )
