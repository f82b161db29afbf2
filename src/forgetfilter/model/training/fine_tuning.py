"""Fine-tuning through TRL: the only file that imports trl.

Every setting that decides the outcome is passed explicitly, because TRL's defaults differ from
what a measured method needs (bf16 autocast, gradient checkpointing, a cut at 1024 tokens).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from forgetfilter.config import PhaseSettings
from forgetfilter.errors import DataError, ModelError
from forgetfilter.model.loading.adapters import check_trainable
from forgetfilter.model.loading.base_model import autocast_for, padding_id, quiet_dependencies
from forgetfilter.model.passes.halving import TrainingHalves, training_budget
from forgetfilter.model.state import phase_seed
from forgetfilter.model.training.as_before import as_before
from forgetfilter.model.training.checkpoints import PhaseCheckpoints, resumable, usable, when_due
from forgetfilter.model.training.collating import Collator, indices_of
from forgetfilter.model.training.plan import TrainPlan, epoch_steps, rows_per_pass, total_steps
from forgetfilter.model.training.row_order import RowOrder
from forgetfilter.model.training.shared_step import in_shares
from forgetfilter.model.training.step_method import Passes, Step, answer_loss
from forgetfilter.model.training.stopping import LearnedShare
from forgetfilter.progress import Bar, Progress

Watch = Callable[[Any, int, bool], None]
"""Called with the model, the optimizer steps taken so far, and whether an epoch ends there; it may
read the model and save it, and must leave it and all random state as they are."""


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
) -> TrainOutcome:
    """Train whatever requires a gradient in ``model`` (an adapter, or all of it), in place.

    Args:
        model: a causal language model, with or without a trainable adapter.
        tokenizer: its pad token fills up batches, masked by position: it may equal the end of text.
        plan: rows, settings and seed. ``settings.learning_rate`` must be a number by now.
        progress: where the steps are reported.
        watch: is shown the model after every step, and once more at the end of each epoch.
        checkpoints: of this phase; it goes on from the last one, and writes more.

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
    micro = rows_per_pass(plan, is_cpu=device == "cpu")
    seed = phase_seed(plan.seed, plan.phase)
    set_seed(seed)
    per_step = settings.batch_size if plan.method else micro  # a method cuts its rows up itself
    padding = padding_id(model, tokenizer)
    checkpoints = usable(checkpoints, plan.method)
    entry = checkpoints.latest() if checkpoints else None
    with (
        tempfile.TemporaryDirectory(prefix="forgetfilter-") as scratch,
        progress.bar(plan.phase, steps, "steps", entry.number if entry else 0) as bar,
        as_before(model),
    ):
        course = _Course(plan, steps, bar, watch)
        course.passes = Passes(settings.loss_on, padding, micro)
        if entry:
            course.resume(entry.facts)
        config = trl.SFTConfig(  # pyright: ignore[reportPrivateImportUsage]
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=per_step,
            gradient_accumulation_steps=settings.batch_size // per_step,
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
        kind, callbacks = course.trainer_class(), [course.callback()]
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
            else Collator(plan.rows, settings.loss_on, padding),
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        for weight, data in weights:
            weight.data = data
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        seen = len(trainer.train_dataset)  # pyright: ignore[reportArgumentType]
        if seen != len(plan.rows):
            raise RuntimeError(f"{len(plan.rows)} rows were given, {seen} are trained on")
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


class _Course:
    """Follows a training run: records its losses, moves the bar, and ends it once all is learned.

    It ends with a decay: the learning rate falls to zero over half as many epochs as went before.
    """

    def __init__(self, plan: TrainPlan, steps: int, bar: Bar, watch: Watch | None = None) -> None:
        self.plan = plan
        self.steps = steps
        self.watch = watch
        self.bar = bar
        self.passes: Passes
        self.halves = TrainingHalves()
        self.losses: list[float] = []
        """Training loss of every step, nats per token."""
        self.level_epochs: int | None = None
        """Epochs at the full learning rate, once that is known."""
        self.share: LearnedShare | None = None
        self.is_open = plan.settings.ends_on_evidence
        if self.is_open and plan.level_epochs is None:
            seed = phase_seed(plan.seed, f"{plan.phase}/share")
            self.share = LearnedShare(plan.rows, seed, plan.max_batch_tokens)
        seed = phase_seed(plan.seed, plan.phase)
        self.order = RowOrder(plan.rows, seed) if plan.is_paired else None
        self._wanted_epochs = plan.level_epochs
        self._epoch_steps = epoch_steps(plan)
        self._warmup_steps = round(plan.settings.warmup_ratio * self._epoch_steps)
        self._level_steps = steps
        self._end = steps
        if self.is_open and steps <= self._epoch_steps:
            self._begin_decay(0)

    def rate_factor(self, step: int) -> float:
        """Share of the peak learning rate at a step: warm-up, level, and down to the end."""
        if step >= self._level_steps:
            return max(0.0, (self._end - step) / (self._end - self._level_steps))
        return min(1.0, (step + 1) / (self._warmup_steps + 1))

    def end_epoch(self, model: Any, step: int) -> bool:
        """Measure what is learned, unless the decay has begun; whether training is over."""
        if not self.is_open:
            return False
        if self.level_epochs is not None:
            return step >= self._end
        epochs = step // self._epoch_steps
        try:
            is_enough = self.share.is_enough(model) if self.share else epochs == self._wanted_epochs
        except ModelError:
            raise self.diverged(step, "the loss of a measured row is NaN or infinite") from None
        if is_enough or self._end_of_decay(epochs + 1) > self.steps:
            self._begin_decay(epochs)
        return False

    def step(self, model: Any, indices: list[int], number: int) -> Step:
        """What the plan's method is asked for."""
        epochs = self._wanted_epochs
        known = self._end_of_decay(epochs) if self.is_open and epochs else self._end
        rows = [self.plan.rows[index] for index in indices]
        return Step(model, number, min(known, self.steps), indices, rows, self.passes)

    def _end_of_decay(self, epochs: int) -> int:
        return (epochs + max(1, epochs // 2)) * self._epoch_steps

    def _begin_decay(self, epochs: int) -> None:
        self.level_epochs = epochs
        self._level_steps = epochs * self._epoch_steps
        self._end = min(self._end_of_decay(epochs), self.steps)
        self.bar.total = self._end

    def state(self) -> dict[str, Any]:
        """What it remembers from step to step, as JSON."""
        return {
            "losses": self.losses,
            "level_epochs": self.level_epochs,
            "row_passes": self.passes.counted,
            "share": self.share.state() if self.share else None,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self.losses = list(state["losses"])
        self.passes.counted = state["row_passes"]
        if self.share:
            self.share.resume(state["share"])
        if state["level_epochs"] is not None:
            self._begin_decay(state["level_epochs"])

    def check_step(self, step: int, logs: Mapping[str, float]) -> None:
        """Note the loss of a step; the first that is not finite, or its gradient, ends it all."""
        for name, quantity in (("loss", "loss"), ("grad_norm", "norm of the gradient")):
            if not math.isfinite(logs[name]):
                raise self.diverged(step, f"the {quantity} is {logs[name]:g}")
        self.losses.append(float(logs["loss"]))

    def diverged(self, step: int, found: str) -> ModelError:
        """The error that training ends with where a number is not finite."""
        phase = self.plan.phase
        setting = "forget" if phase == "forget" else "learn"  # retraining has learn's settings
        advice = (
            f"Lower {setting}.learning_rate, which is {self.plan.settings.learning_rate}."
            if self.losses
            else "Nothing was trained before that step: check the weights of the model that the "
            "phase starts from, or give --dtype float32."
        )
        return ModelError(
            f"The {phase} phase diverged in step {step} of {self.steps}: {found}. Finite numbers "
            f"are expected, and nothing of this phase is kept. {advice}"
        )

    def trainer_class(self) -> Any:
        """TRL's trainer; with this course's learning rate and order of rows where it has them."""
        import trl
        from torch.optim.lr_scheduler import LambdaLR

        plain = trl.SFTTrainer  # pyright: ignore[reportPrivateImportUsage]
        course = self

        class Trainer(plain):
            def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
                if not course.is_open:  # the end is known ahead
                    return super().create_scheduler(num_training_steps, optimizer)
                followed: Any = optimizer or self.optimizer
                self.lr_scheduler = LambdaLR(followed, course.rate_factor)
                return self.lr_scheduler

            def compute_loss(
                self,
                model: Any,
                inputs: Any,
                return_outputs: bool = False,
                num_items_in_batch: Any = None,
            ) -> Any:
                course.passes.counted += len(inputs["input_ids"])
                with autocast_for(model):  # the trainer has a forward pass of its own
                    if self.args.use_cpu and not self.aux_loss_enabled:
                        return answer_loss(model, inputs, num_items_in_batch)
                    return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

            def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
                method = course.plan.method
                if method is None:
                    step = super().training_step
                    return course.halves(step, model, inputs, num_items_in_batch, course.passes)
                model.train()
                indices = inputs["input_ids"][:, 0].tolist()
                step = course.step(model, indices, self.state.global_step)
                return torch.tensor(method.gradient(step))

            def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
                return course.order or super()._get_train_sampler(*args, **kwargs)

        return Trainer

    def callback(self) -> Any:
        """A trainer callback that reports to this course."""
        from transformers.trainer_callback import TrainerCallback

        course = self

        class Callback(TrainerCallback):
            def on_train_begin(
                self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
            ) -> None:
                if course.share and not course.share.has_begun:
                    course.share.begin(model)

            def on_step_end(
                self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
            ) -> None:
                course.bar.update(1)

            def on_epoch_end(
                self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
            ) -> None:
                if course.watch:
                    course.watch(model, state.global_step, True)
                if course.end_epoch(model, state.global_step):
                    control.should_training_stop = True

            def on_log(self, args: Any, state: Any, control: Any, **said: Any) -> None:
                if "loss" in said["logs"]:  # after each step; not the summary at the end
                    course.check_step(state.global_step, said["logs"])
                    state.log_history.clear()  # which would grow with each step
                    if course.watch:  # only now: it may save what the step has made
                        course.watch(said["model"], state.global_step, False)

        return Callback()


def _scheduler_type(settings: PhaseSettings, course: _Course) -> str:
    """Name of the scheduler in transformers; not used where the course sets the rate itself."""
    is_level = settings.lr_scheduler_type == "constant" or course.is_open
    return "constant_with_warmup" if is_level else settings.lr_scheduler_type
