"""Fine-tuning through TRL: the only file that imports trl.

Every setting that decides the outcome is passed explicitly, because TRL's defaults differ from
what a measured method needs (bf16 autocast, gradient checkpointing, a cut at 1024 tokens).
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from forgetfilter.config import PhaseSettings
from forgetfilter.encoding import loss_labels
from forgetfilter.errors import DataError
from forgetfilter.modeling import check_trainable, quiet_dependencies
from forgetfilter.progress import Bar, Progress
from forgetfilter.records import EncodedRow


@dataclass(frozen=True)
class TrainPlan:
    """What one phase trains on, and how."""

    phase: str
    """Name of the phase; seeds and progress are named after it."""
    rows: Sequence[EncodedRow]
    settings: PhaseSettings
    seed: int
    max_batch_tokens: int = 8192


@dataclass(frozen=True)
class TrainOutcome:
    """What a finished phase reports."""

    steps: int
    rows: int
    target_tokens: int
    final_loss: float
    """Mean training loss over the last tenth of the steps, nats per token."""


def phase_seed(seed: int, phase: str) -> int:
    """A seed of its own for each phase, so that phases neither share nor disturb random state."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{phase}".encode()).digest()[:4], "big")


def total_steps(plan: TrainPlan) -> int:
    """Optimizer steps of a plan."""
    if plan.settings.max_steps is not None:
        return plan.settings.max_steps
    per_epoch = math.ceil(len(plan.rows) / plan.settings.batch_size)
    return max(1, math.ceil(plan.settings.num_train_epochs * per_epoch))


@quiet_dependencies()
def train(model: Any, tokenizer: Any, plan: TrainPlan, progress: Progress) -> TrainOutcome:
    """Train whatever requires a gradient in ``model`` (an adapter, or all of it), in place.

    Args:
        model: a causal language model, with or without a trainable adapter.
        tokenizer: its pad token fills up batches, masked by position: it may equal the end of text.
        plan: rows, settings and seed. ``settings.learning_rate`` must be a number by now.
        progress: where the steps are reported.

    Raises:
        DataError: there is no row to train on.
        ModelError: nothing in ``model`` can be trained.
    """
    import datasets
    import trl
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    if not plan.rows:
        raise DataError(
            f"The {plan.phase} phase has no rows to train on; at least one is expected. "
            "Check the input file, or lower what the threshold removes."
        )
    settings = plan.settings
    if settings.learning_rate is None:
        raise ValueError("settings.learning_rate is None; resolve it from the model's width first")
    check_trainable(model)
    steps = total_steps(plan)
    micro = _rows_per_pass(plan)
    device = next(model.parameters()).device.type
    features = [
        {"input_ids": list(row.input_ids), "labels": loss_labels(row, settings.loss_on)}
        for row in plan.rows
    ]
    seed = phase_seed(plan.seed, plan.phase)
    set_seed(seed)
    with (
        tempfile.TemporaryDirectory(prefix="forgetfilter-") as scratch,
        progress.bar(plan.phase, steps, "steps") as bar,
        _forward_restored(model),
    ):
        losses = _LossRecord(bar)
        config = trl.SFTConfig(  # pyright: ignore[reportPrivateImportUsage]
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=settings.batch_size // micro,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_scheduler_type
            if settings.lr_scheduler_type != "constant"
            else "constant_with_warmup",
            warmup_steps=round(settings.warmup_ratio * steps),
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            optim="adamw_torch",
            adam_beta1=0.9,
            adam_beta2=0.999,
            adam_epsilon=1e-8,
            seed=seed,
            data_seed=seed,
            bf16=False,
            fp16=False,
            tf32=None,
            use_cpu=device == "cpu",
            gradient_checkpointing=False,
            max_length=None,
            packing=False,
            padding_free=False,
            shuffle_dataset=False,
            completion_only_loss=False,
            assistant_only_loss=False,
            loss_type="nll",
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            dataloader_num_workers=0,
            dataloader_pin_memory=device == "cuda",
            dataloader_drop_last=False,
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="steps",
            logging_steps=1,
            logging_first_step=True,
            report_to="none",
            disable_tqdm=True,
            push_to_hub=False,
        )
        # Several visible GPUs in one process would mean DataParallel, which TRL refuses.
        config._n_gpu = min(config.n_gpu, 1)  # pyright: ignore[reportPrivateUsage]
        trainer = trl.SFTTrainer(  # pyright: ignore[reportPrivateImportUsage]
            model=model,
            args=config,
            train_dataset=datasets.Dataset.from_list(features),
            data_collator=_Collator(tokenizer.pad_token_id),
            processing_class=tokenizer,
            callbacks=[losses.callback()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        seen = len(trainer.train_dataset)  # pyright: ignore[reportArgumentType]
        if seen != len(plan.rows):
            raise RuntimeError(f"{len(plan.rows)} rows were handed over, {seen} are trained on")
        trainer.train()
    model.eval()
    tail = losses.values[-max(1, len(losses.values) // 10) :]
    return TrainOutcome(
        steps=steps,
        rows=len(plan.rows),
        target_tokens=sum(label != -100 for f in features for label in f["labels"]),
        final_loss=sum(tail) / max(1, len(tail)),
    )


def _rows_per_pass(plan: TrainPlan) -> int:
    """Rows per forward pass: the largest divisor of the batch whose padded tokens fit.

    Affects memory and speed only: the loss is a mean over the tokens of the whole batch.
    """
    longest = max(len(row.input_ids) for row in plan.rows)
    batch = plan.settings.batch_size
    divisors = (rows for rows in range(batch, 0, -1) if batch % rows == 0)
    return next((rows for rows in divisors if rows * longest <= plan.max_batch_tokens), 1)


@dataclass(frozen=True)
class _Collator:
    """Pads on the right; the attention mask follows positions, not ids."""

    pad_token_id: int

    def __call__(self, features: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(feature["input_ids"]) for feature in features)
        input_ids = torch.full((len(features), longest), self.pad_token_id)  # (B, T)
        labels = torch.full((len(features), longest), -100)  # (B, T)
        attention_mask = torch.zeros((len(features), longest), dtype=torch.long)  # (B, T)
        for i, feature in enumerate(features):
            length = len(feature["input_ids"])
            input_ids[i, :length] = torch.tensor(feature["input_ids"])
            labels[i, :length] = torch.tensor(feature["labels"])
            attention_mask[i, :length] = 1
        return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


class _LossRecord:
    """Collects the loss of every step and moves the progress bar."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self.values: list[float] = []

    def callback(self) -> Any:
        """A TRL callback that writes into this record."""
        from transformers.trainer_callback import TrainerCallback

        record = self

        class Callback(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                record.bar.update(1)

            def on_log(
                self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any
            ) -> None:
                if logs and "loss" in logs:
                    record.values.append(float(logs["loss"]))

        return Callback()


@contextmanager
def _forward_restored(model: Any) -> Generator[None]:
    """Undo SFTTrainer's patch of the base model's forward, which would stack with each phase."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = base.__dict__.get("forward")
    try:
        yield
    finally:
        if own is None:
            base.__dict__.pop("forward", None)
        else:
            base.forward = own
