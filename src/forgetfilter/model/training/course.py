"""What follows a training run: its losses, its bar, the course of its learning rate and its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from forgetfilter.errors import ModelError
from forgetfilter.model.loading.base_model import autocast_for
from forgetfilter.model.passes.halving import TrainingHalves
from forgetfilter.model.state import phase_seed
from forgetfilter.model.training.collating import PLACES
from forgetfilter.model.training.plan import TrainPlan, epoch_steps
from forgetfilter.model.training.row_order import RowOrder
from forgetfilter.model.training.seen_losses import SeenLosses
from forgetfilter.model.training.step_method import Passes, Step, answer_loss
from forgetfilter.model.training.stopping import LearnedShare
from forgetfilter.progress import Bar

Watch = Callable[[Any, int, bool], None]
"""Called with the model, the optimizer steps taken so far, and whether an epoch ends there; it may
read the model and save it, and must leave it and all random state as they are."""


class Course:
    """Follows a training run: records its losses, moves the bar, and ends it once all is learned.

    It ends with a decay: the learning rate falls to zero over half as many epochs as went before.
    """

    def __init__(
        self,
        plan: TrainPlan,
        steps: int,
        bar: Bar,
        watch: Watch | None = None,
        seen: SeenLosses | None = None,
    ) -> None:
        self.plan = plan
        self.seen = seen
        """Takes note of each row's losses, where they are wanted."""
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

    def save(self, folder: Path) -> None:
        """Write what else it remembers: the losses of rows, where they are wanted."""
        if self.seen:
            self.seen.save(folder)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        if self.seen:
            self.seen.resume(folder)

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

    def trainer_class(self, plain: Any) -> Any:
        """The trainer ``plain`` with this course's learning rate, losses and order of rows."""
        from torch.optim.lr_scheduler import LambdaLR

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
                places, tokens = inputs.pop(PLACES, None), num_items_in_batch
                with autocast_for(model):  # the trainer has a forward pass of its own
                    if self.aux_loss_enabled:  # which is of the whole pass
                        return super().compute_loss(model, inputs, return_outputs, tokens)
                    if course.seen and places is not None:
                        return course.seen.loss(model, inputs, tokens, places)
                    if self.args.use_cpu:
                        return answer_loss(model, inputs, tokens)
                    return super().compute_loss(model, inputs, return_outputs, tokens)

            def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
                method = course.plan.method
                if method is None:
                    step, passes = super().training_step, course.passes
                    found = [
                        course.halves(step, model, part, num_items_in_batch, passes)
                        for part in passes.parts(inputs)
                    ]
                    return torch.stack(found).sum()
                model.train()
                indices = inputs["input_ids"][:, 0].tolist()
                step = course.step(model, indices, self.state.global_step)
                return torch.tensor(method.gradient(step))

            def floating_point_ops(self, inputs: Any) -> int:
                return 0  # nobody asks for it, and it counts all weights in every step

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
                if course.seen:
                    course.seen.end_step(state.global_step)
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
