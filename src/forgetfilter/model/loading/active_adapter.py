"""Keeps the base model loaded and swaps adapters on it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from forgetfilter.config import LoraSettings
from forgetfilter.model.loading import adapters, base_model
from forgetfilter.model.loading.fewer_bits import WHOLE_HERE
from forgetfilter.model.loading.placement import Placement
from forgetfilter.model.processes.parted import is_parted
from forgetfilter.model.state import ModelState, phase_seed
from forgetfilter.progress import Progress
from forgetfilter.settings import LoadSettings

# Base weights, in numbers, that are copied while an adapter is merged into them (2 GB).
_MOST_COPIED = 2**29


class LoadedModel:
    """Loads the base weights once, when they are first needed, and changes adapters on them.

    Args:
        source: folder, GGUF file or hub id of the base model.
        placement: device and dtype.
        lora: shape of fresh adapters.
        seed: draws them, each from (seed, phase name).
        progress: says that the model is being loaded.
        trust_remote_code: run code that a model repository brings along.
        settings: in how many bits, and on which devices.
    """

    def __init__(
        self,
        source: str,
        placement: Placement,
        lora: LoraSettings,
        seed: int,
        progress: Progress,
        *,
        trust_remote_code: bool = False,
        settings: LoadSettings = WHOLE_HERE,
    ) -> None:
        self._source = source
        self._placement = placement
        self._lora = lora
        self._seed = seed
        self._progress = progress
        self._trust_remote_code = trust_remote_code
        self._settings = settings
        self._wrapped: Any = None
        self._active: str | None = None
        self._merged: adapters.Merged | None = None

    @cached_property
    def _base(self) -> Any:
        self._progress.say(f"Loading {self._source}: {self._placement.reason}.")
        model = base_model.load_base_model(
            self._source, self._placement, self._trust_remote_code, self._settings
        )
        tokenizer = base_model.load_tokenizer(self._source, self._trust_remote_code)
        base_model.use_pure_greedy(model, tokenizer)
        return model

    def load(self) -> None:
        """Load the base weights, if they are not there yet."""
        assert self._base is not None

    def to_read(self, state: ModelState) -> Any:
        """The model in ``state`` for forward passes alone, its adapter merged where that is exact.

        In float32 the merged weights move a row's loss by rounding only, and a pass over a small
        model takes a third less time. A shorter format would round a small adapter away.
        """
        is_whole = self._placement.is_exact and self._settings.bits is None and not is_parted()
        if state.adapter is None or not is_whole:
            return self.in_state(state)
        wanted = f"{state.fingerprint}:merged"
        if self._active != wanted:
            model = self.in_state(state)
            weights = adapters.adapted_weights(model)
            if sum(weight.numel() for weight in weights) > _MOST_COPIED:
                return model
            self._merged, self._active = adapters.Merged(model), wanted
        return self._wrapped

    def in_state(self, state: ModelState, *, is_trainable: bool = False) -> Any:
        """The model in ``state``, in evaluation mode; its adapter open to gradients if asked."""
        wanted = f"{state.fingerprint}:{is_trainable}"
        if state.adapter is None:
            self.release()
            return self._base
        if self._active != wanted:
            self._put_on(state.adapter, is_trainable=is_trainable)
            self._active = wanted
        return self._wrapped.eval()

    def trainable(self, start: ModelState, phase: str) -> Any:
        """The model with a trainable adapter: a fresh one on base, else the one of ``start``."""
        from transformers import set_seed

        if start.adapter is None:
            self.release()
        else:
            self._put_on(start.adapter, is_trainable=True)
        # The adapter is drawn before any trainer exists, so it needs a seed of its own.
        set_seed(phase_seed(self._seed, f"{phase}/adapter"))
        if start.adapter is None:
            self._wrapped = adapters.add_adapter(self._base, self._lora)
        self._active = None
        return self._wrapped

    def release(self) -> None:
        """Take the adapter off; the base model stays in memory."""
        self._separate()
        if self._wrapped is not None:
            adapters.remove_adapter(self._wrapped)
        self._wrapped, self._active = None, None

    def _put_on(self, adapter: str, *, is_trainable: bool) -> None:
        self._separate()
        self._active = None
        change = adapters.load_adapter if self._wrapped is None else adapters.change_adapter
        model = self._base if self._wrapped is None else self._wrapped
        self._wrapped = change(model, adapter, is_trainable=is_trainable)

    def _separate(self) -> None:
        if self._merged is not None:
            self._merged.undo()
        self._merged = None
