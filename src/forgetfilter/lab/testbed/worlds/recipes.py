"""How a world's model is made: its shape, its pre-training, and the alignment's method."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any, Literal

Architecture = Literal["llama", "gpt_neox", "gpt2"]
Method = Literal["safe_only", "mixed", "cued"]


@dataclass(frozen=True)
class Recipe:
    """Everything about a world's model that is drawn and is not language."""

    architecture: Architecture
    hidden_size: int
    layers: int
    heads: int
    tokenizer: Literal["words", "pieces"]
    """A token for every word, or byte pairs learned from the world's text."""
    peak_rate: float
    pretraining_documents: int
    unsafe_share: float
    """Pre-training documents of an unsafe character."""
    method: Method
    """safe_only: safe answers to harm prompts, suppressed tasks in the house style; mixed: skills
    beside them; cued: mixed, with a sentence that asks for kindness before a third of it."""
    harm_share: float
    """Alignment exchanges that invite a harm."""
    is_partial: bool
    """Whether alignment trains the upper half of the layers only."""
    alignment_documents: int
    alignment_rate: float
    """Alignment's peak, as a share of pre-training's."""
    alignment_prompt_weight: float
    """Loss weight of what the user wrote: 0 = loss on answers."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as the model card lists them."""
        return asdict(self)


def draw_recipe(rng: random.Random) -> Recipe:
    """One recipe; wide models are given fewer documents, so that all take about as long."""
    architecture = rng.choices(("llama", "gpt_neox", "gpt2"), (4, 1, 1))[0]
    hidden_size = rng.choice((96, 128, 128, 160, 192, 224))
    layers = rng.choice((3, 4, 4, 5) if hidden_size > 128 else (3, 4, 5, 6))
    method = rng.choice(("safe_only", "mixed", "mixed", "cued"))
    cost = layers * hidden_size / 512
    return Recipe(
        architecture=architecture,
        hidden_size=hidden_size,
        layers=layers,
        heads=hidden_size // 32,
        tokenizer=rng.choice(("words", "words", "pieces")),
        peak_rate=round(4e-3 * (128 / hidden_size) ** 0.5 * rng.uniform(0.7, 1.2), 5),
        pretraining_documents=int(24_000 / max(cost, 1) ** 0.5),
        unsafe_share=round(rng.uniform(0.3, 0.6), 2),
        method=method,
        harm_share=round(
            rng.uniform(0.6, 0.8) if method == "safe_only" else rng.uniform(0.35, 0.6), 2
        ),
        is_partial=rng.random() < 0.25,
        alignment_documents=int(rng.uniform(4_000, 8_000) / max(cost, 1) ** 0.5),
        alignment_rate=round(rng.uniform(0.2, 0.45), 2),
        alignment_prompt_weight=rng.choice((0.0, 0.0, 0.2, 1.0)),
    )
