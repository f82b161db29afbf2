"""The base model in memory, wearing one adapter at a time."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from forgetfilter import modeling
from forgetfilter.config import LoraSettings
from forgetfilter.progress import Progress
from forgetfilter.records import ModelState
from forgetfilter.training import phase_seed


class LoadedModel:
    """Loads the base weights once, when they are first needed, and changes adapters on them.

    Args:
        source: folder or hub id of the base model.
        placement: device and dtype.
        lora: shape of fresh adapters.
        seed: draws them, each from (seed, phase name).
        progress: says that the model is being loaded.
        trust_remote_code: run code that a model repository brings along.
    """

    def __init__(
        self,
        source: str,
        placement: modeling.Placement,
        lora: LoraSettings,
        seed: int,
        progress: Progress,
        *,
        trust_remote_code: bool = False,
    ) -> None:
        self._source = source
        self._placement = placement
        self._lora = lora
        self._seed = seed
        self._progress = progress
        self._trust_remote_code = trust_remote_code
        self._wrapped: Any = None
        self._active: str | None = None
        self._is_merged = False
        self._was_loaded = False

    @cached_property
    def _base(self) -> Any:
        if not self._was_loaded:
            self._progress.say(f"Loading {self._source}: {self._placement.reason}.")
        self._was_loaded = True
        model = modeling.load_base_model(self._source, self._placement, self._trust_remote_code)
        tokenizer = modeling.load_tokenizer(self._source, self._trust_remote_code)
        modeling.use_pure_greedy(model, tokenizer)
        return model

    def to_read(self, state: ModelState) -> Any:
        """The model in ``state`` for forward passes alone, its adapter merged where that is exact.

        In float32 the merged weights move a row's loss by rounding only, and a pass over a small
        model takes a third less time. A shorter format would round a small adapter away. What is
        merged is never taken apart again: base is loaded anew, so that no rounding is left in it.
        """
        if state.adapter is None or self._placement.dtype is not torch.float32:
            return self.in_state(state)
        wanted = f"{state.fingerprint}:merged"
        if self._active != wanted:
            self.release()
            self._wrapped = modeling.merge_adapter(self._base, state.adapter)
            self._active, self._is_merged = wanted, True
        return self._wrapped

    def in_state(self, state: ModelState, *, is_trainable: bool = False) -> Any:
        """The model in ``state``, in evaluation mode; its adapter open to gradients if asked."""
        wanted = f"{state.fingerprint}:{is_trainable}"
        if self._active != wanted:
            self.release()
            if state.adapter is not None:
                self._wrapped = modeling.load_adapter(
                    self._base, state.adapter, is_trainable=is_trainable
                ).eval()
            self._active = wanted
        return self._wrapped if self._wrapped is not None else self._base

    def trainable(self, start: ModelState, phase: str) -> Any:
        """The model with a trainable adapter: a fresh one on base, else the one of ``start``."""
        from transformers import set_seed

        self.release()
        # The adapter is drawn before any trainer exists, so it needs a seed of its own.
        set_seed(phase_seed(self._seed, f"{phase}/adapter"))
        self._wrapped = (
            modeling.add_adapter(self._base, self._lora)
            if start.adapter is None
            else modeling.load_adapter(self._base, start.adapter, is_trainable=True)
        )
        return self._wrapped

    def release(self) -> None:
        """Take the adapter off; the base model stays in memory unless one was merged into it."""
        if self._is_merged:
            del self._base
        elif self._wrapped is not None:
            modeling.remove_adapter(self._wrapped)
        self._wrapped, self._active, self._is_merged = None, None, False
