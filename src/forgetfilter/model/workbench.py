"""The one owner of model, tokenizer, device and batching: train, measure, generate.

Everything it makes is a stage of a `StageStore`, named by the hash of its inputs, so a repeated
command finds what is done, and a killed one goes on from the last checkpoint of the stage that it
was in. The model is loaded only when a stage has to be computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import date
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from forgetfilter.arrays import FloatArray
from forgetfilter.config import LoraSettings, PhaseSettings, RestoreSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.data.tokens.templates import ANY_DATE
from forgetfilter.errors import DataError
from forgetfilter.model.loading import base_model, model_files
from forgetfilter.model.loading.active_adapter import LoadedModel
from forgetfilter.model.loading.encoders import open_encoder
from forgetfilter.model.loading.fewer_bits import WHOLE_HERE
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.passes.forward import greedy_generations, token_losses
from forgetfilter.model.passes.gpu_memory import gpu_memory
from forgetfilter.model.stages import phases, readings
from forgetfilter.model.state import ModelState
from forgetfilter.model.team.leading import everywhere
from forgetfilter.model.training import defaults
from forgetfilter.progress import Progress
from forgetfilter.runs.parquet_parts import Column
from forgetfilter.runs.recording import Recording
from forgetfilter.runs.stages import StageStore
from forgetfilter.scoring.records import Probe, Readings, StateName
from forgetfilter.settings import LoadSettings

if TYPE_CHECKING:
    from forgetfilter.model.passes.shards import Shards
    from forgetfilter.model.training.step_method import StepMethod


class Workbench:
    """One base model with the adapters made from it, and the stages in which both are kept.

    `phases` makes the adapters, `readings` measures rows in them.

    Args:
        source: folder, GGUF file or hub id of the base model.
        store: where adapters and readings are kept.
        lora: shape of the adapters.
        seed: seeds every phase, each from (seed, phase name).
        progress: where long stages report.
        today: what a chat template is told to be today; rows, and so stages, may hang on it.
        recording: a training of the user's own that takes the place of the learn phase.
        checkpoint_minutes: between two checkpoints of an unfinished stage; 0: it has none.
        settings: how the base model is held in memory.
    """

    def __init__(
        self,
        source: str,
        store: StageStore,
        *,
        lora: LoraSettings,
        seed: int,
        progress: Progress,
        template: str = "auto",
        max_length_tokens: int | None = None,
        max_batch_tokens: int = 8192,
        max_new_tokens: int | None = None,
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
        today: date = ANY_DATE,
        recording: Recording | None = None,
        checkpoint_minutes: float = 10.0,
        settings: LoadSettings = WHOLE_HERE,
    ) -> None:
        self.source = source
        self.store = store
        self.lora = lora
        self.seed = seed
        self.progress = progress
        self.max_batch_tokens = max_batch_tokens
        self.max_new_tokens = max_new_tokens
        self.trust_remote_code = trust_remote_code
        self.today = today
        self.recording = recording
        self.checkpoint_minutes = checkpoint_minutes
        self.settings = settings
        self.kept_steps: Mapping[str, Sequence[int]] = {}
        """By phase: after which steps its adapter is kept besides the last one; none = after each
        epoch. Training is the same with and without; see `phases.checkpoints`."""
        # What the width decides is not asked where the dtype is given.
        width = model_files.hidden_size(source, trust_remote_code) if dtype == "auto" else None
        self.placement = choose_placement(device, dtype, width)  # pyright: ignore[reportArgumentType]
        self._template = template
        self._max_length_tokens = max_length_tokens
        self.model = LoadedModel(
            source,
            self.placement,
            lora,
            seed,
            progress,
            trust_remote_code=trust_remote_code,
            settings=settings,
        )

    # -- what is known without the weights -------------------------------------------------

    @cached_property
    def base(self) -> ModelState:
        """The model as it was given."""
        fingerprint = model_files.model_fingerprint(self.source, self.trust_remote_code)
        return ModelState("base", fingerprint)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, able to pad."""
        return base_model.load_tokenizer(self.source, self.trust_remote_code)

    @cached_property
    def encoder(self) -> Encoder:
        """Turns rows into tokens for this model."""
        return open_encoder(
            self.source,
            self.tokenizer,
            template=self._template,
            max_length_tokens=self._max_length_tokens,
            trust_remote_code=self.trust_remote_code,
            today=self.today,
        )

    @cached_property
    def guessing(self) -> float:
        """Loss of guessing at random, nats a token."""
        return math.log(model_files.vocabulary_size(self.source, self.trust_remote_code))

    def completed(self, settings: PhaseSettings) -> PhaseSettings:
        """``settings`` with what it leaves open filled in from the model's width."""
        if settings.learning_rate is not None and settings.num_train_epochs is not None:
            return settings
        width = model_files.hidden_size(self.source, self.trust_remote_code)
        filled = {
            "learning_rate": settings.learning_rate or defaults.width_learning_rate(width),
            "num_train_epochs": settings.num_train_epochs or defaults.width_epochs(width),
        }
        return settings.model_copy(update=filled)

    def numerics(self) -> dict[str, Any]:
        """What rounding depends on: part of the key of every stage whose result is compared.

        Below float32 that is also how rows are cut into batches, so that no run, resumed with other
        limits, holds readings of two plans against each other. Training isn't compared: what was
        learned under one plan can be measured under any.
        """
        numerics: dict[str, Any] = {"dtype": str(self.placement.dtype)}
        if not self.placement.is_exact:
            # The vocabulary may limit batches too; the model's fingerprint stands for it.
            batches: dict[str, Any] = {
                "max_batch_tokens": self.max_batch_tokens,
                "device": self.placement.device,
            }
            if self.placement.device == "cuda":  # smaller ones may be all that fits
                batches["memory"] = gpu_memory()
            numerics["batches"] = batches
            numerics["answers"] = "in parts"  # of the output layer, where they are many
        if self.placement.has_autocast:
            numerics["autocast"] = True
        if self.settings.bits is not None:
            numerics["bits"] = self.settings.bits
        return numerics

    # -- phases ----------------------------------------------------------------------------

    def train(
        self,
        name: StateName,
        rows: Sequence[EncodedRow],
        settings: PhaseSettings,
        start: ModelState,
        phase: str,
        level_epochs: int | None = None,
        method: StepMethod | None = None,
    ) -> ModelState:
        """Fine-tune ``start`` on ``rows`` and return the new state, called ``name``.

        From base a fresh adapter is drawn; from any other state its adapter is continued. The base
        weights never change. ``level_epochs`` says after how many epochs the learning rate begins
        to fall, where that is known; ``method`` makes the gradient of each step, where that is not
        the mean loss of its rows.
        """
        more = (level_epochs, method)
        return phases.train_stage(self, name, rows, settings, start, phase, *more)

    def starting_from(self, state: ModelState) -> Workbench:
        """The same workbench, the model on it shared, on which ``state`` counts as the base.

        For whatever begins where something else has ended, such as a filter that is to screen with
        a model that was hardened before.
        """
        other = copy(self)
        other.__dict__["base"] = replace(state, name="base")
        return other

    def restore(
        self,
        name: StateName,
        safe: Sequence[EncodedRow],
        settings: RestoreSettings,
        start: ModelState,
    ) -> ModelState:
        """Bring the behaviour of ``start`` on the safe rows back to that of base."""
        return phases.restore_stage(self, name, safe, settings, start)

    # -- readings --------------------------------------------------------------------------

    def measure(
        self,
        probes: Iterable[Probe],
        states: Mapping[StateName, ModelState],
        rows: Sequence[EncodedRow],
        safe: Sequence[EncodedRow] = (),
        known: Mapping[str, Column] = MappingProxyType({}),
    ) -> Readings:
        """Measure each probe on every row; see `Readings` for the columns.

        ``safe`` is needed by probes of damage, of rates along the safe rows' directions, and of
        likeness to them; for ``unsafe_likeness`` rows known to be unsafe stand in their place.
        Losses that are among the columns of ``known`` are not read; see `phases.kept_losses`.
        """
        return readings.measure(self, probes, states, rows, safe, known)

    def generate(
        self, state: ModelState, prompts: Sequence[Sequence[int]], max_new_tokens: int, label: str
    ) -> list[str]:
        """Greedy continuations of token prompts, at most ``max_new_tokens`` each; not kept.

        Raises:
            DataError: a prompt, as it is worded, leaves no room for so many.
        """
        context = model_files.context_tokens(self.source, self.trust_remote_code)
        longest = max((len(prompt) for prompt in prompts), default=0)
        if longest + max_new_tokens > context:
            raise DataError(
                f"The longest prompt, as it is worded, has {longest} tokens, which leaves no room "
                f"for an answer of {max_new_tokens} in a context of {context}. Expected shorter "
                "ones. Shorten the cue or the prompts, or lower max_new_tokens."
            )
        return everywhere(
            self,
            "to_read",
            state,
            greedy_generations,
            self.tokenizer,
            prompts,
            [max_new_tokens] * len(prompts),
            self.max_batch_tokens,
            self.progress,
            label,
        )

    def answers(
        self,
        state: ModelState,
        rows: Sequence[EncodedRow],
        label: str,
        shards: Shards | None = None,
    ) -> list[str]:
        """What ``state`` says, greedily, in place of each row's last answer; not kept."""
        budgets = [
            self.max_new_tokens or max(16, (len(row.input_ids) - row.prompt_length) * 5 // 4)
            for row in rows
        ]
        return everywhere(
            self,
            "to_read",
            state,
            greedy_generations,
            self.tokenizer,
            [row.input_ids[: row.prompt_length] for row in rows],
            budgets,
            self.max_batch_tokens,
            self.progress,
            label,
            shards,
        )

    def token_losses(
        self, state: ModelState, rows: Sequence[EncodedRow], label: str
    ) -> list[FloatArray]:
        """Loss of each completion token of each row in ``state``, nats; not kept."""
        limits = (self.max_batch_tokens, self.progress, label)
        return everywhere(self, "to_read", state, token_losses, rows, *limits)
