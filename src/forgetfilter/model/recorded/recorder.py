"""Records somebody's own training run: per-row losses, and the adapter that it learned.

Losses are read from the training's own forward passes, so that nothing is computed twice. They
are those of a model that moves while it is trained: a row's loss in a pass is taken before the step
that it takes part in, with the dropout of that pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from forgetfilter.config import LearnSettings, LoraSettings
from forgetfilter.errors import DataError, ModelError
from forgetfilter.files import list_files, remove, sha256_file, write_json_atomic
from forgetfilter.model.loading import adapters, model_files
from forgetfilter.model.recorded.identity import tokens_digest, vocabulary_digest, weights_sample
from forgetfilter.model.recorded.settings import check_plain_lora, learn_settings, lora_settings
from forgetfilter.runs.provenance import describe_environment
from forgetfilter.runs.recording import (
    ADAPTER_FOLDER,
    EARLY_FOLDER,
    LOSSES_FILE,
    RECORD_FILE,
    ROWS_FILE,
    UNFINISHED_FILE,
    Record,
)


@dataclass
class _Row:
    """One row of those that differ as tokens."""

    at: int
    length: int
    carries_loss: bytes
    passes: int = 0


class Recorder:
    """Watches the forward passes of one training run and writes its recording.

    Args:
        folder: where to; only files of an earlier recording are replaced.
        model: folder or hub id of the base model; None: as the model in training names it.
        early_epochs: the adapter is also kept after so many passes over the rows, or half way.
    """

    def __init__(self, folder: Path, model: str | None, early_epochs: float) -> None:
        self.folder = folder
        self._source = model
        self._early_epochs = early_epochs
        self._today = date.today()
        self._rows: dict[str, _Row] = {}
        self._losses: list[tuple[int, int, float, int]] = []
        self._all_tokens_carry_loss = True
        self._step = 0
        self._hook: Any = None
        self._settings: LearnSettings | None = None
        self._lora: LoraSettings | None = None
        self._not_repeated: list[str] = []
        self._early_step = 0
        self._is_main = True

    def begin(self, model: Any, arguments: Any, state: Any, loader: Any, tokenizer: Any) -> None:
        """Look at what is going to be trained, and watch it from now on.

        Args:
            model: the model in training, with its adapter.
            arguments: the trainer's.
            state: the trainer's, with the number of steps.
            loader: gives the batches of training rows.
            tokenizer: the model's.

        Raises:
            DataError: training goes on from a checkpoint.
            ModelError: the model, or the way it is trained, can't be screened with.
        """
        if int(state.global_step) > 0:
            raise DataError(
                f"The training goes on from step {state.global_step}, and what came before was not "
                "recorded. Expected a training from its first step. Train without "
                "resume_from_checkpoint, or without the callback."
            )
        _check_whole(arguments)
        self._is_main = int(getattr(arguments, "process_index", 0)) == 0
        check_plain_lora(model)
        base = model.get_base_model()
        source = self._source or str(getattr(base, "name_or_path", "") or "")
        if not source:
            raise ModelError(
                "The model in training doesn't say where it was loaded from. Expected a folder or "
                "hub id, with which it can be screened. Name it: record_training(..., model=...)."
            )
        self._source = source
        self._fingerprint = model_files.model_fingerprint(source)
        self._vocabulary = vocabulary_digest(tokenizer)
        self._weights = weights_sample(model)
        self._settings, self._early_step, told = learn_settings(
            arguments, state, loader, self._early_epochs
        )
        self._lora, more = lora_settings(model)
        self._not_repeated = [*told, *more]
        self._seed = int(arguments.seed)
        self._before = adapters.trainable_checksum(model)
        if self._is_main:
            for name in (RECORD_FILE, ROWS_FILE, LOSSES_FILE, ADAPTER_FOLDER, EARLY_FOLDER):
                remove(self.folder / name)
            write_json_atomic(self.folder / UNFINISHED_FILE, {"model": source})
        self._rows.clear()
        self._losses.clear()
        self._step = 0
        self._unhook()  # a trainer may begin again, with smaller batches
        self._hook = model.register_forward_hook(self._passed, with_kwargs=True)

    def end_step(self, model: Any, step: int) -> None:
        """After the optimizer step number ``step``."""
        self._step = step
        if step == self._early_step and self._is_main:
            adapters.save_adapter(model, self.folder / EARLY_FOLDER)

    def end(self, model: Any, step: int) -> None:
        """Write what was recorded.

        Raises:
            ModelError: training changed nothing, or no row was seen.
        """
        self._unhook()
        self._gather()
        if not self._is_main:
            return
        after = adapters.trainable_checksum(model)
        if after == self._before or not self._losses:
            raise ModelError(
                f"The training changed no weight of the adapter in {step} steps. Expected an "
                "adapter that has learned its rows. Check the learning rate and the number of "
                "steps; nothing was recorded."
            )
        assert self._settings is not None
        assert self._lora is not None
        adapters.save_adapter(model, self.folder / ADAPTER_FOLDER)
        _write_tables(self.folder, self._rows, self._losses)
        tail = self._losses[-max(1, len(self._losses) // 10) :]
        final = sum(loss for *_, loss, _ in tail) / max(1, sum(count for *_, count in tail))
        loss_on = "all" if self._all_tokens_carry_loss else "assistant"
        record = Record(
            model=self._source or "",
            model_fingerprint=self._fingerprint,
            vocabulary=self._vocabulary,
            weights=self._weights,
            date=self._today.isoformat(),
            rows=len(self._rows),
            steps=step,
            final_loss=final,
            adapter_sha256=after,
            seed=self._seed,
            learn=self._settings.model_copy(update={"loss_on": loss_on}),
            lora=self._lora,
            not_repeated=self._not_repeated,
            files={
                name: sha256_file(self.folder / name)
                for name in list_files(self.folder)
                if name in (ROWS_FILE, LOSSES_FILE)
                or name.partition("/")[0] in (ADAPTER_FOLDER, EARLY_FOLDER)
            },
            environment=describe_environment(),
        )
        write_json_atomic(self.folder / RECORD_FILE, json.loads(record.model_dump_json()))
        remove(self.folder / UNFINISHED_FILE)

    def _gather(self) -> None:
        """Take what all processes of the training have seen, each row as one, by step."""
        if not torch.distributed.is_initialized():
            return
        own = (self._rows, self._losses, self._all_tokens_carry_loss)
        found: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(found, own)
        self._rows, self._losses = {}, []
        for rows, losses, all_carry_loss in found:
            places: dict[int, int] = {}
            for digest, row in rows.items():
                known = self._rows.setdefault(digest, replace(row, at=len(self._rows), passes=0))
                known.passes += row.passes
                places[row.at] = known.at
            self._losses += [(places[at], *rest) for at, *rest in losses]
            self._all_tokens_carry_loss &= all_carry_loss
        self._losses.sort(key=lambda loss: loss[1])

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = None

    def _passed(
        self, module: Any, arguments: tuple[Any, ...], given: Mapping[str, Any], output: Any
    ) -> None:
        """After a forward pass: note the rows in it and what each of them lost."""
        labels = given.get("labels")
        if not module.training or labels is None:
            return
        nats = _token_nats(output, labels).double().cpu().numpy()  # (B, T)
        for row in _rows_of(given, nats):
            ids, is_learned, losses = row
            digest = tokens_digest(ids)
            known = self._rows.get(digest)
            if known is None:
                packed = np.packbits(is_learned).tobytes()
                known = self._rows[digest] = _Row(len(self._rows), len(ids), packed)
            known.passes += 1
            self._all_tokens_carry_loss &= bool(is_learned[1:].all())
            count = int(np.count_nonzero(is_learned[1:]))
            self._losses.append((known.at, self._step, float(losses.sum()), count))


def _check_whole(arguments: Any) -> None:
    """Refuse a training in which no process has the whole weights, or sees its rows."""
    found = None
    if getattr(arguments, "deepspeed", None):
        found = "DeepSpeed parts the weights"
    elif getattr(arguments, "fsdp", None):
        found = "FSDP parts the weights"
    elif int(getattr(arguments, "n_gpu", 1)) > 1:
        found = f"{arguments.n_gpu} GPUs share one process, which parts each batch"
    elif getattr(arguments, "torch_compile", False):
        found = "torch_compile hides the forward passes"
    if found:
        raise ModelError(
            f"{found}. Expected processes that each compute the whole model as it stands, which is "
            "all that can be recorded so far. Train without these options, or without the callback "
            "and let the screen learn."
        )


@torch.no_grad()
def _token_nats(output: Any, labels: torch.Tensor) -> torch.Tensor:
    """Loss of each token, shape (B, T), 0 where it carries none; from TRL's outputs or logits."""
    wanted = labels[:, 1:]
    found = torch.zeros(labels.shape, dtype=torch.float32, device=labels.device)
    log_probs = getattr(output, "log_probs", None)
    if log_probs is not None:  # TRL has computed them; 0 where a token carries no loss
        found[:, 1:] = -log_probs.detach().float()
        found[:, 1:][wanted == -100] = 0
        return found
    logits = getattr(output, "logits", None)
    if logits is None or logits.shape[1] != labels.shape[1]:
        raise ModelError(
            "The model in training gives neither the log-probability of each token nor the logits "
            "of all of them. Expected TRL's SFTTrainer or transformers' Trainer with a causal "
            "language model. Use one of them, or train without the callback."
        )
    flat = logits[:, :-1].float().flatten(0, 1)
    nats = torch.nn.functional.cross_entropy(
        flat, wanted.to(flat.device).flatten(), ignore_index=-100, reduction="none"
    )
    found[:, 1:] = nats.view(wanted.shape).to(found.device)
    return found


def _rows_of(
    given: Mapping[str, Any], nats: np.ndarray[Any, Any]
) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Each row of a pass: its tokens, which of them carry loss, and their losses; each (T,)."""
    ids = given["input_ids"].cpu().numpy()
    is_learned = (given["labels"] != -100).cpu().numpy()
    mask, places = given.get("attention_mask"), given.get("position_ids")
    if mask is None and places is not None:  # rows in one line, without padding
        starts = np.flatnonzero(places[0].cpu().numpy() == 0)
        parts = [(0, slice(a, b)) for a, b in zip(starts, [*starts[1:], None], strict=True)]
    else:
        kept = np.ones(ids.shape, dtype=bool) if mask is None else mask.bool().cpu().numpy()
        parts = [(b, np.flatnonzero(kept[b])) for b in range(len(ids))]
    for b, part in parts:
        if is_learned[b, part].any():
            yield ids[b, part], is_learned[b, part], nats[b, part]


def _write_tables(
    folder: Path, rows: Mapping[str, _Row], losses: list[tuple[int, int, float, int]]
) -> None:
    pd.DataFrame(
        {
            "tokens": list(rows),
            "length": [row.length for row in rows.values()],
            "carries_loss": [row.carries_loss for row in rows.values()],
            "passes": [row.passes for row in rows.values()],
        }
    ).to_parquet(folder / ROWS_FILE)
    columns = ("at", "step", "loss_sum", "loss_tokens")
    pd.DataFrame(losses, columns=list(columns)).to_parquet(folder / LOSSES_FILE)
