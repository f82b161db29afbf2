"""The one owner of model, tokenizer, device and batching: train, measure, generate.

Everything it makes is a stage of a `StageStore`, named by the hash of its inputs, so a repeated
command finds what is done and a killed one loses at most the stage that it was in. The model is
loaded only when a stage has to be computed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.config import LearnSettings, LoraSettings, PhaseSettings, RestoreSettings
from forgetfilter.data.encoding import Encoder
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.strata import damage_rows
from forgetfilter.errors import DataError
from forgetfilter.model import adapters, loading
from forgetfilter.model.active_adapter import LoadedModel
from forgetfilter.model.divergence import divergences
from forgetfilter.model.forward import completion_losses, greedy_generations, token_losses
from forgetfilter.model.phases import CHECKPOINTS, EARLY, RESTORING_FILE, TRAINING_FILE
from forgetfilter.model.rates import loss_rates, read_descents, read_facts, write_directions
from forgetfilter.model.restoring import RestorePlan, restore
from forgetfilter.model.state import ModelState
from forgetfilter.model.training import TrainPlan, early_step, phase_seed, train
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.scoring.records import Probe, Readings, StateName

# Part of every stage's key: raise it when a stage's content changes its meaning.
CODE_VERSION = 2
# The same for restorations: 2 = the kinds of safe row take turns.
RESTORE_VERSION = 2


class Workbench:
    """Works one base model and the adapters made from it.

    Args:
        source: folder or hub id of the base model.
        store: where adapters and readings are kept.
        lora: shape of the adapters.
        seed: seeds every phase, each from (seed, phase name).
        progress: where long stages report.
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
    ) -> None:
        self.source = source
        self.store = store
        self.lora = lora
        self.seed = seed
        self.progress = progress
        self.max_batch_tokens = max_batch_tokens
        self.max_new_tokens = max_new_tokens
        self.trust_remote_code = trust_remote_code
        self.kept_steps: Mapping[str, Sequence[int]] = {}
        """By phase: after which steps its adapter is kept besides the last one; none = after each
        epoch. Training is the same with and without; see `trained.checkpoints`."""
        self.placement = loading.choose_placement(device, dtype)  # pyright: ignore[reportArgumentType]
        self._template = template
        self._max_length_tokens = max_length_tokens
        self.model = LoadedModel(
            source, self.placement, lora, seed, progress, trust_remote_code=trust_remote_code
        )

    # -- what is known without the weights -------------------------------------------------

    @cached_property
    def base(self) -> ModelState:
        """The model as it was given."""
        fingerprint = loading.model_fingerprint(self.source, self.trust_remote_code)
        return ModelState("base", fingerprint)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, able to pad."""
        return loading.load_tokenizer(self.source, self.trust_remote_code)

    @cached_property
    def encoder(self) -> Encoder:
        """Turns rows into tokens for this model."""
        context = loading.context_tokens(self.source, self.trust_remote_code)
        limit = min(context, self._max_length_tokens or context)
        return Encoder(self.tokenizer, self._template, limit)  # pyright: ignore[reportArgumentType]

    @cached_property
    def guessing(self) -> float:
        """Loss of guessing at random, nats a token."""
        return math.log(loading.vocabulary_size(self.source, self.trust_remote_code))

    def with_learning_rate(self, settings: PhaseSettings) -> PhaseSettings:
        """``settings`` with its learning rate filled in from the model's width if it has none."""
        if settings.learning_rate is not None:
            return settings
        width = loading.hidden_size(self.source, self.trust_remote_code)
        rate = loading.width_learning_rate(width)
        return settings.model_copy(update={"learning_rate": rate})

    # -- phases ----------------------------------------------------------------------------

    def train(
        self,
        name: StateName,
        rows: Sequence[EncodedRow],
        settings: PhaseSettings,
        start: ModelState,
        phase: str,
        level_epochs: int | None = None,
    ) -> ModelState:
        """Fine-tune ``start`` on ``rows`` and return the new state.

        From base a fresh adapter is drawn; from any other state its adapter is continued. The base
        weights never change. ``level_epochs`` says when to wind up, where that is known.
        """
        settings = self.with_learning_rate(settings)
        key: dict[str, Any] = {
            "code": CODE_VERSION,
            "start": start.fingerprint,
            "lora": self.lora.model_dump(),
            "settings": settings.model_dump(),
            "seed": self.seed,
            "rows": rows_digest(rows),
            "level_epochs": level_epochs,
            "dtype": str(self.placement.dtype),
        }
        kept = self.kept_steps.get(phase)
        if kept is not None:
            key["kept_steps"] = list(kept)
        is_paired = phase == "retrain"  # fine-tunes that are held against each other
        if is_paired:
            key["order"] = "paired"
        limits = (self.max_batch_tokens, level_epochs, is_paired)
        plan = TrainPlan(phase, rows, settings, self.seed, *limits)
        early = None
        if phase == "learn" and isinstance(settings, LearnSettings):
            early = early_step(plan, settings.early_epochs)

        def build(folder: Path) -> None:
            def keep(model: Any, step: int, is_epoch_end: bool) -> None:
                names: list[str] = []
                if step == early and not is_epoch_end:
                    names.append(EARLY)
                if kept is not None and (step in kept if kept else is_epoch_end):
                    names.append(f"{CHECKPOINTS}/{step:08d}")
                for name in names:
                    model.save_pretrained(str(folder / name), safe_serialization=True)

            model = self.model.trainable(start, phase)
            before = adapters.trainable_checksum(model)
            outcome = train(model, self.tokenizer, plan, self.progress, keep)
            after = adapters.trainable_checksum(model)
            if before == after:
                raise loading.ModelError(
                    f"The {phase} phase changed no weight in {outcome.steps} steps. A trainable "
                    "adapter is expected; check lora.targets and the learning rate."
                )
            model.save_pretrained(str(folder / "adapter"), safe_serialization=True)
            report = {"phase": phase, **vars(outcome), "adapter_sha256": after}
            report["learning_rate"] = settings.learning_rate
            (folder / TRAINING_FILE).write_text(json.dumps(report, indent=2, allow_nan=False))
            self.model.release()

        folder = self.store.stage(phase, key, build)
        return ModelState(name, fingerprint=folder.name, adapter=str(folder / "adapter"))

    def restore(
        self,
        name: StateName,
        safe: Sequence[EncodedRow],
        settings: RestoreSettings,
        start: ModelState,
    ) -> ModelState:
        """Bring the behaviour of ``start`` on the safe rows back to that of base."""
        key = {
            "code": CODE_VERSION,
            "draw": RESTORE_VERSION,
            "start": start.fingerprint,
            "settings": settings.model_dump(),
            "seed": self.seed,
            "safe": rows_digest(safe),
            "categories": [row.category for row in safe],
            **self.numerics(),
        }
        plan = RestorePlan(safe, settings, phase_seed(self.seed, "restore"), self.max_batch_tokens)

        def build(folder: Path) -> None:
            model = self.model.trainable(start, "restore").eval()
            outcome = restore(model, plan, self.progress)
            model.save_pretrained(str(folder / "adapter"), safe_serialization=True)
            course = json.dumps(vars(outcome), indent=2, allow_nan=False)
            (folder / RESTORING_FILE).write_text(course)

        folder = self.store.stage("restore", key, build)
        return ModelState(name, fingerprint=folder.name, adapter=str(folder / "adapter"))

    def measure(
        self,
        probes: Iterable[Probe],
        states: Mapping[StateName, ModelState],
        rows: Sequence[EncodedRow],
        safe: Sequence[EncodedRow] = (),
    ) -> Readings:
        """Measure each probe on every row; see `Readings` for the columns.

        ``safe`` is needed only by probes of damage, and of rates along the safe rows' directions.
        """
        columns: dict[str, np.ndarray[Any, Any]] = {
            "target": np.array([row.target for row in rows], dtype=object),
            "prompt_tokens": np.array([row.prompt_length for row in rows], dtype=np.int64),
            "completion_tokens": np.array([row.target_tokens for row in rows], dtype=np.int64),
            "guessing": np.full(len(rows), self.guessing),
        }
        digest = rows_digest(rows)
        for probe in probes:
            state = states[probe.state]
            if probe.kind == "damage":
                if not safe:
                    raise ValueError(f"{probe} needs safe rows")
                few = damage_rows(safe, self.seed)
                found = self._measure_one(probe, state, few, rows_digest(few))[probe.name]
                columns[probe.name] = np.full(len(rows), found.mean())
                continue
            columns |= (
                self._measure_rate(probe, state, rows, digest, safe)
                if probe.kind == "rate"
                else self._measure_one(probe, state, rows, digest)
            )
        return Readings(row=np.array([row.row for row in rows], dtype=np.int64), columns=columns)

    def _measure_one(
        self, probe: Probe, state: ModelState, rows: Sequence[EncodedRow], digest: str
    ) -> dict[str, np.ndarray[Any, Any]]:
        """One probe as a stage of its own: columns in, columns out through one parquet file."""
        import pandas as pd

        key = {
            "code": CODE_VERSION,
            "state": state.fingerprint,
            "rows": digest,
            **self.numerics(),
            "max_new_tokens": self.max_new_tokens if probe.kind == "generation" else None,
        }

        def build(folder: Path) -> None:
            if probe.kind == "loss":
                limits = (self.max_batch_tokens, self.progress, probe.name)
                values = completion_losses(self.model.to_read(state), rows, *limits)
                frame = pd.DataFrame(
                    {
                        f"loss_sum_{probe.state}": values.loss_sum,
                        f"greedy_match_{probe.state}": values.greedy_match,
                    }
                )
            elif probe.kind in ("divergence", "damage"):
                limits = (self.max_batch_tokens, self.progress, probe.name)
                values = divergences(self.model.in_state(state), rows, *limits)
                frame = pd.DataFrame({probe.name: values})
            else:
                texts = self.answers(state, rows, probe.name)
                frame = pd.DataFrame({f"generation_{probe.state}": texts})
            frame.to_parquet(folder / "readings.parquet")

        folder = self.store.stage(f"measure_{probe.name}", key, build)
        frame = pd.read_parquet(folder / "readings.parquet")
        return {str(name): frame[name].to_numpy() for name in frame.columns}

    def _measure_rate(
        self,
        probe: Probe,
        state: ModelState,
        rows: Sequence[EncodedRow],
        digest: str,
        safe: Sequence[EncodedRow],
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Rates of change along each safe direction: one stage for those, one for the rates."""
        import pandas as pd

        folder = self._directions(probe, state, safe)
        found = read_facts(folder)
        names = [f"{probe.name}_{group}" for group in range(len(found))]
        key = {
            "code": CODE_VERSION,
            "directions": folder.name,
            "rows": digest,
            "method": "row gradients",
        }

        def build(stage: Path) -> None:
            model = self.model.in_state(state, is_trainable=True)
            limits = (self.max_batch_tokens, self.progress, probe.name)
            rates = loss_rates(model, rows, read_descents(folder), *limits)
            pd.DataFrame(dict(zip(names, rates, strict=True))).to_parquet(
                stage / "readings.parquet"
            )

        stage = self.store.stage(f"measure_{probe.name}", key, build)
        frame = pd.read_parquet(stage / "readings.parquet")
        columns: dict[str, np.ndarray[Any, Any]] = {}
        for name, facts in zip(names, found, strict=True):
            columns[name] = frame[name].to_numpy()
            columns[name.replace("rate", "step", 1)] = np.full(len(rows), facts["restoring_step"])
        return columns

    def _directions(self, probe: Probe, state: ModelState, safe: Sequence[EncodedRow]) -> Path:
        """The stage that holds the gradients of ``probe.objective`` over groups of safe rows."""
        objective = probe.objective
        if objective is None or not safe or state.adapter is None:
            raise ValueError(f"{probe} needs an objective, safe rows, and a state with an adapter")
        key = {
            "code": CODE_VERSION,
            "state": state.fingerprint,
            "safe": rows_digest(safe),
            "objective": objective,
            "groups": probe.groups,
            **self.numerics(),
        }

        def build(folder: Path) -> None:
            model = self.model.in_state(state, is_trainable=True)
            limits = (self.max_batch_tokens, self.progress, f"direction_{objective}")
            write_directions(folder, model, safe, objective, probe.groups, *limits)

        return self.store.stage(f"direction_{objective}_{probe.state}", key, build)

    def numerics(self) -> dict[str, Any]:
        """What rounding depends on: part of the key of every stage whose result is compared.

        Below float32 that is also how rows are cut into batches, so that no run, resumed with other
        limits, holds readings of two plans against each other. Training isn't compared: what was
        learned under one plan can be measured under any.
        """
        numerics: dict[str, Any] = {"dtype": str(self.placement.dtype)}
        if not self.placement.is_exact:
            # The size of the vocabulary limits batches too; the model's fingerprint stands for it.
            batches = {"max_batch_tokens": self.max_batch_tokens, "device": self.placement.device}
            numerics["batches"] = batches
        return numerics

    def generate(
        self, state: ModelState, prompts: Sequence[Sequence[int]], max_new_tokens: int, label: str
    ) -> list[str]:
        """Greedy continuations of token prompts, at most ``max_new_tokens`` each; not kept.

        Raises:
            DataError: a prompt, as it is worded, leaves no room for so many.
        """
        model = self.model.to_read(state)
        context = loading.configured_context_tokens(model.config)
        longest = max((len(prompt) for prompt in prompts), default=0)
        if longest + max_new_tokens > context:
            raise DataError(
                f"The longest prompt, as it is worded, has {longest} tokens, which leaves no room "
                f"for an answer of {max_new_tokens} in a context of {context}. Expected shorter "
                "ones. Shorten the cue or the prompts, or lower max_new_tokens."
            )
        return greedy_generations(
            model,
            self.tokenizer,
            prompts,
            [max_new_tokens] * len(prompts),
            self.max_batch_tokens,
            self.progress,
            label,
        )

    def answers(self, state: ModelState, rows: Sequence[EncodedRow], label: str) -> list[str]:
        """What ``state`` says, greedily, in place of each row's last answer; not kept."""
        budgets = [
            self.max_new_tokens or max(16, (len(row.input_ids) - row.prompt_length) * 5 // 4)
            for row in rows
        ]
        return greedy_generations(
            self.model.to_read(state),
            self.tokenizer,
            [row.input_ids[: row.prompt_length] for row in rows],
            budgets,
            self.max_batch_tokens,
            self.progress,
            label,
        )

    def token_losses(
        self, state: ModelState, rows: Sequence[EncodedRow], label: str
    ) -> list[FloatArray]:
        """Loss of each completion token of each row in ``state``, nats; not kept."""
        limits = (self.max_batch_tokens, self.progress, label)
        return token_losses(self.model.to_read(state), rows, *limits)


def rows_digest(rows: Sequence[EncodedRow]) -> str:
    """sha256 of the tokens and targets of ``rows``, in order."""
    import hashlib

    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.input_ids.astype(np.int64).tobytes())
        digest.update(np.packbits(row.is_target).tobytes())
        digest.update(f"{row.row}:{row.prompt_length};".encode())
    return digest.hexdigest()
