"""Checkpoints of a phase that changes a model, so that a killed one goes on where it was.

They are the trainer's own: optimizer, schedule, random state, and place in the order of the rows.
Weights are those that are trained, an adapter or all; what a phase remembers besides is JSON, and a
step method's state a file of its own. There are two at a time, the older for the case that the
newer is damaged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from forgetfilter.model.processes.joining import together
from forgetfilter.progress import Progress
from forgetfilter.runs.unfinished import Entry, UnfinishedWork

if TYPE_CHECKING:
    from forgetfilter.model.training.step_method import StepMethod

_VERSION = 1
_MOST = 2
_WEIGHTS = "trained.safetensors"
_METHOD = "method.pt"


class Remembering(Protocol):
    """Whatever has to be known of a phase besides the trainer's own state."""

    def state(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        ...

    def save(self, folder: Path) -> None:
        """Write what else it remembers."""
        ...

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        ...


class PhaseCheckpoints:
    """The checkpoints of one phase.

    Args:
        stage: the folder in which the phase's stage is made.
        phase: names it in what is said.
        steps: how many steps it has, at most.
        minutes: between two checkpoints; 0 writes none. Earlier ones are used all the same.
        device: type of the device that it computes on, whose random state is kept.
        progress: is told where the phase goes on, and why it can't.
    """

    def __init__(
        self, stage: Path, phase: str, steps: int, minutes: float, device: str, progress: Progress
    ) -> None:
        self._phase, self._steps, self._progress = phase, steps, progress
        made_with = {
            "checkpoints": _VERSION,
            "device": device,
            **{name: version(name) for name in ("torch", "transformers")},
        }
        self._work = UnfinishedWork(stage, "step", made_with, minutes, self._say)

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        return self._work.is_due

    def latest(self) -> Entry | None:
        """The last whole checkpoint, from which the phase goes on; None: it begins at the start."""
        entry = next(self._work.entries(), None)
        self._work.resume(entry)
        if entry is not None:
            self._say(f"goes on from step {entry.number:,} of {self._steps:,}")
        return entry

    def start_over(self, why: str) -> None:
        """Use no checkpoint, and say why."""
        self._work.resume(None)
        self._say(why)

    def write(self, step: int, facts: Mapping[str, Any], fill: Callable[[Path], None]) -> None:
        """Keep the state after ``step``; ``fill`` writes its files."""
        self._work.write(step, facts, fill, most=_MOST)

    def _say(self, what: str) -> None:
        self._progress.say(f"{self._phase}: {what}")


def usable(
    checkpoints: PhaseCheckpoints | None, method: StepMethod | None
) -> PhaseCheckpoints | None:
    """``checkpoints``, unless a phase with this method or of several processes can have none."""
    if checkpoints is None:
        return None
    why, group = "", together()
    if method is not None and method.state() is None:
        why = f"{type(method).__name__} can't save what it remembers from step to step"
    elif group is not None:
        why = f"{group.size} processes train"
    if not why:
        return checkpoints
    checkpoints.start_over(f"has no checkpoints, because {why}; killed, it begins at its start")
    return None


def save_weights(model: Any, folder: Path) -> None:
    """Write the weights of ``model`` that are trained.

    Raises:
        OSError: they can't be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    weights = {
        name: weight.detach().contiguous()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    try:
        save_file(weights, folder / _WEIGHTS)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def load_weights(model: Any, folder: Path) -> None:
    """Put the weights that `save_weights` wrote into ``model``."""
    from safetensors import safe_open

    with safe_open(folder / _WEIGHTS, framework="pt") as file, torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.copy_(file.get_tensor(name))


def resumable(
    trainer: Any, checkpoints: PhaseCheckpoints, course: Remembering, method: StepMethod | None
) -> Any:
    """A class of trainer that writes its checkpoints as those of a phase, and reads them."""

    class Resumable(trainer):
        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """A checkpoint has none."""

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            save_weights(self.model, folder)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            load_weights(model or self.model, Path(resume_from_checkpoint))
            course.load(Path(resume_from_checkpoint))
            if method is not None:
                saved = Path(resume_from_checkpoint, _METHOD)
                method.resume(torch.load(saved, map_location="cpu", weights_only=True))

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            step = self.state.global_step
            save = super()._save_checkpoint

            def fill(folder: Path) -> None:
                scratch, self.args.output_dir = self.args.output_dir, str(folder)
                try:
                    save(model, trial)
                finally:
                    self.args.output_dir = scratch
                own = folder / f"checkpoint-{step}"
                for path in own.iterdir():
                    os.replace(path, folder / path.name)
                own.rmdir()
                course.save(folder)
                if method is not None:
                    torch.save(method.state(), folder / _METHOD)

            checkpoints.write(step, course.state(), fill)

    return Resumable


def when_due(checkpoints: PhaseCheckpoints, epoch_steps: int) -> Any:
    """A trainer callback that asks for a checkpoint when one is due.

    After the last step of an epoch only once the epoch has ended: what is measured there belongs to
    the steps before.
    """
    from transformers.trainer_callback import TrainerCallback

    class WhenDue(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % epoch_steps:
                self._ask(state, control)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._ask(state, control)

        def _ask(self, state: Any, control: Any) -> None:
            is_over = control.should_training_stop or state.global_step >= state.max_steps
            control.should_save = checkpoints.is_due and not is_over

    return WhenDue()
