"""Fine-tuning through TRL: the only file that imports trl.

Every setting that decides the outcome is passed explicitly, because TRL's defaults differ from
what a measured method needs (bf16 autocast, gradient checkpointing, a cut at 1024 tokens).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from forgetfilter.config import PhaseSettings
from forgetfilter.errors import DataError
from forgetfilter.model.loading.adapters import check_trainable
from forgetfilter.model.loading.base_model import padding_id, quiet_dependencies
from forgetfilter.model.passes.halving import training_budget
from forgetfilter.model.passes.limits import pass_cost
from forgetfilter.model.state import phase_seed
from forgetfilter.model.training.as_before import as_before
from forgetfilter.model.training.checkpoints import PhaseCheckpoints, resumable, usable, when_due
from forgetfilter.model.training.collating import Collator, indices_of
from forgetfilter.model.training.course import Course, Watch
from forgetfilter.model.training.plan import (
    TrainPlan,
    epoch_steps,
    tokens_per_pass,
    total_steps,
)
from forgetfilter.model.training.seen_losses import SeenLosses
from forgetfilter.model.training.shared_step import in_shares
from forgetfilter.model.training.step_method import Passes
from forgetfilter.progress import Progress


@dataclass(frozen=True)
class TrainOutcome:
    """What a finished phase reports."""

    steps: int
    rows: int
    target_tokens: int
    final_loss: float
    """Mean training loss over the last tenth of the steps, nats per token."""
    level_epochs: int | None = None
    """With ``stop: learned``: epochs before the learning rate began to fall."""
    learned_shares: list[float] = field(default_factory=list[float])
    """Learned share after each of these epochs, between 0 and 1, where it was measured."""
    exact_shares: list[float] = field(default_factory=list[float])
    """The same for rows whose every target token is the model's first choice."""
    row_passes: int = 0
    """Forward and backward passes, each over one row: what the phase cost, whatever the machine."""


@quiet_dependencies()
def train(
    model: Any,
    tokenizer: Any,
    plan: TrainPlan,
    progress: Progress,
    watch: Watch | None = None,
    checkpoints: PhaseCheckpoints | None = None,
    seen: SeenLosses | None = None,
) -> TrainOutcome:
    """Train whatever requires a gradient in ``model`` (an adapter, or all of it), in place.

    Args:
        model: a causal language model, with or without a trainable adapter.
        tokenizer: its pad token fills up batches, masked by position: it may equal the end of text.
        plan: rows, settings and seed. ``settings.learning_rate`` must be a number by now.
        progress: where the steps are reported.
        watch: is shown the model after every step, and once more at the end of each epoch.
        checkpoints: of this phase; it goes on from the last one, and writes more.
        seen: takes note of each row's losses; of ``plan.rows``, for one process alone.

    Raises:
        DataError: there is no row to train on.
        ModelError: nothing in ``model`` can be trained; or the training loss, its gradient or a
            weight became NaN or infinite, at which training stops at once.
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
    plan = in_shares(plan, model)
    steps = total_steps(plan)
    device = next(model.parameters()).device.type
    plan = replace(plan, max_batch_tokens=training_budget(model, plan.max_batch_tokens))
    seed = phase_seed(plan.seed, plan.phase)
    set_seed(seed)
    padding = padding_id(model, tokenizer)
    checkpoints = usable(checkpoints, plan.method)
    entry = checkpoints.latest() if checkpoints else None
    with (
        tempfile.TemporaryDirectory(prefix="forgetfilter-") as scratch,
        progress.bar(plan.phase, steps, "steps", entry.number if entry else 0) as bar,
        as_before(model),
    ):
        course = Course(plan, steps, bar, watch, seen)
        course.passes = _passes(plan, model, padding)
        if entry:
            course.resume(entry.facts)
        config = trl.SFTConfig(  # pyright: ignore[reportPrivateImportUsage]
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=settings.batch_size,  # the course cuts them into passes
            gradient_accumulation_steps=1,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=_scheduler_type(settings, course),
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
            gradient_checkpointing=plan.is_checkpointed,
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
            logging_nan_inf_filter=False,  # it would replace NaN by the mean of earlier losses
            report_to="none",
            disable_tqdm=True,
            push_to_hub=False,
        )
        # Several visible GPUs in one process would mean DataParallel, which TRL refuses.
        config._n_gpu = min(config.n_gpu, 1)  # pyright: ignore[reportPrivateUsage]
        plain = trl.SFTTrainer  # pyright: ignore[reportPrivateImportUsage]
        kind, callbacks = course.trainer_class(plain), [course.callback()]
        if checkpoints:
            kind = resumable(kind, checkpoints, course, plan.method)
            callbacks.append(when_due(checkpoints, epoch_steps(plan)))
        # TRL rounds adapters of models in fewer bits to bfloat16, which loses small steps.
        weights = [(weight, weight.data) for weight in model.parameters() if weight.requires_grad]
        trainer = kind(
            model=model,
            args=config,
            # TRL takes no dataset but this; of indices, so that it doesn't copy every token.
            train_dataset=datasets.Dataset.from_dict({"index": range(len(plan.rows))}),
            data_collator=indices_of
            if plan.method
            else Collator(plan.rows, settings.loss_on, padding, seen is not None),
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        for weight, data in weights:
            weight.data = data
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        given = len(trainer.train_dataset)  # pyright: ignore[reportArgumentType]
        if given != len(plan.rows):
            raise RuntimeError(f"{len(plan.rows)} rows were given, {given} are trained on")
        trainer.train(resume_from_checkpoint=str(entry.folder) if entry else None)
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad):
        raise course.diverged(len(course.losses), "a weight is NaN or infinite")
    model.eval()
    tail = course.losses[-max(1, len(course.losses) // 10) :]
    return TrainOutcome(
        steps=len(course.losses),
        rows=len(plan.rows),
        target_tokens=sum(
            len(row.input_ids) if settings.loss_on == "all" else row.target_tokens
            for row in plan.rows
        ),
        final_loss=sum(tail) / max(1, len(tail)),
        level_epochs=course.level_epochs,
        learned_shares=course.share.shares if course.share else [],
        exact_shares=course.share.exact_shares if course.share else [],
        row_passes=course.passes.counted,
    )


def _passes(plan: TrainPlan, model: Any, padding: int) -> Passes:
    """How steps are cut into passes on the device of ``model``."""
    device = next(model.parameters()).device.type
    most, cost = tokens_per_pass(plan, device), pass_cost(device)
    if getattr(model.config, "output_router_logits", False):
        cost = most * plan.settings.batch_size  # experts are balanced by pass: as few as fit
    return Passes(plan.settings.loss_on, padding, most, cost)


def _scheduler_type(settings: PhaseSettings, course: Course) -> str:
    """Name of the scheduler in transformers; not used where the course sets the rate itself."""
    is_level = settings.lr_scheduler_type == "constant" or course.is_open
    return "constant_with_warmup" if is_level else settings.lr_scheduler_type
