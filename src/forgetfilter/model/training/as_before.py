"""What a trainer changes in a model besides its weights, and taking it back."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def as_before(model: Any) -> Generator[None]:
    """Undo SFTTrainer's changes of the base model when the block ends.

    Patches of its forward would stack with each phase. The router logits of a mixture of experts,
    which TRL switches on for a loss of its own, make each pass longer, and with them no texts of
    unequal length can be generated together. Gradient checkpointing, and the hooks it leaves on the
    embedding, are for training alone.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own, config = base.__dict__.get("forward"), base.config.get_text_config()
    routers = getattr(config, "output_router_logits", None)
    hooks = base.get_input_embeddings()._forward_hooks
    before = set(hooks)
    try:
        yield
    finally:
        if routers is not None:
            config.output_router_logits = routers
        if own is None:
            base.__dict__.pop("forward", None)
        else:
            base.forward = own
        if getattr(base, "is_gradient_checkpointing", False):
            base.gradient_checkpointing_disable()
        for hook in [hook for hook in hooks if hook not in before]:  # set more than once
            del hooks[hook]
