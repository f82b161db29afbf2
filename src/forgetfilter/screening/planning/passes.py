"""The passes that a screen will make, counted phase by phase over the lengths of its rows."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from forgetfilter.config import ScreenConfig
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.strata import damage_rows
from forgetfilter.model.passes.batch_plan import batches_by_length, cheapest_passes
from forgetfilter.model.passes.costs import Bits, Costs
from forgetfilter.model.passes.gpu_memory import fitting_tokens
from forgetfilter.model.passes.limits import CPU_BATCH_TOKENS, pass_cost
from forgetfilter.model.training.plan import (
    TrainPlan,
    epoch_steps,
    tokens_per_pass,
    total_steps,
)
from forgetfilter.model.training.speed import Speed
from forgetfilter.scoring.records import HALVES, WHOLE, Probe
from forgetfilter.screening.method import probes_of, probes_to_read
from forgetfilter.screening.sampling import rows_to_learn
from forgetfilter.screening.set_aside import LEAST_READ, MOST_READ

_MEASURED_ROWS = 500  # as `model/training/stopping.py` measures after each epoch


@dataclass
class Work:
    """Passes of one phase, counted."""

    passes: float = 0.0
    tokens: float = 0.0
    """Padded tokens."""
    flops: float = 0.0
    """Without the output layer."""
    head_flops: float = 0.0
    training_passes: float = 0.0
    training_flops: float = 0.0
    training_head_flops: float = 0.0
    steps: float = 0.0
    """Optimizer steps."""
    starts: float = 0.0
    """Phases of training that begin."""

    def __add__(self, other: Work) -> Work:
        pairs = ((name, getattr(self, name) + getattr(other, name)) for name in vars(self))
        return Work(**dict(pairs))

    def __mul__(self, times: float) -> Work:
        return Work(**{name: value * times for name, value in vars(self).items()})

    @property
    def all_flops(self) -> float:
        """FLOPs of all that is counted."""
        heads = self.head_flops + self.training_head_flops
        return self.flops + self.training_flops + heads

    def seconds(self, speed: Speed) -> float:
        """How long it takes."""
        return (
            speed.reading.seconds(self.flops, self.passes)
            + speed.training.seconds(self.training_flops, self.training_passes)
            + self.head_flops / speed.head
            + self.training_head_flops / speed.head_training
            + self.steps * speed.step
            + self.starts * speed.start
        )


@dataclass(frozen=True)
class Target:
    """The machine that is planned for."""

    device: str
    memory: float | None
    """Bytes of the device; None where it is not planned with."""
    bits: Bits = None
    checkpointed: bool = False


@dataclass(frozen=True)
class Counter:
    """Counts the passes of each phase over some rows."""

    costs: Costs
    config: ScreenConfig
    target: Target
    reading_tokens: int
    """Most padded tokens of a pass that reads."""
    training_tokens: int
    scale: float = 1.0
    """How many rows of the file each given row stands for."""
    again: float = 1.0
    """What gradient checkpointing makes training cost more."""

    def read(self, rows: Sequence[EncodedRow], *, has_head: bool = True) -> Work:
        """One forward pass over each row."""
        work = Work()
        lengths = [len(row.input_ids) for row in rows]
        for batch in batches_by_length(lengths, self.reading_tokens):
            longest = lengths[batch[0]]
            targets = sum(rows[i].target_tokens for i in batch) if has_head else 0
            work += Work(
                passes=1,
                tokens=len(batch) * longest,
                flops=self.costs.forward.of(len(batch), longest),
                head_flops=self.costs.head(targets, is_training=False),
            )
        return work

    def train(self, rows: Sequence[EncodedRow], plan: TrainPlan, *, is_measured: bool) -> Work:
        """A phase of training, of the full number of epochs."""
        device, size = self.target.device, plan.settings.batch_size
        limits = tokens_per_pass(plan, device), pass_cost(device)
        order = random.Random(0).sample(range(len(rows)), len(rows))
        epoch = Work()
        for start in range(0, len(order), size):
            step = [rows[i] for i in order[start : start + size]]
            for own in cheapest_passes([len(row.input_ids) for row in step], *limits):
                epoch += self._gradient([step[i] for i in own])
        epochs = total_steps(plan) / epoch_steps(plan)
        work = epoch * (epochs * self.scale)
        work += Work(steps=total_steps(plan) * self.scale, starts=1)
        if is_measured and plan.settings.ends_on_evidence:
            work += self.read(rows[:_MEASURED_ROWS]) * (epochs + 1)
        return work

    def restore(self, safe: Sequence[EncodedRow], steps: int) -> Work:
        """Gradient steps on a few safe rows each, every one of them read in base first."""
        size = min(self.config.restore.batch_size, len(safe))
        order = random.Random(0).sample(range(len(safe)), len(safe))
        work = Work()
        for step in range(steps):
            rows = [safe[order[(step * size + i) % len(order)]] for i in range(size)]
            work += self.read(rows) + self._gradient(rows)
        return work

    def _gradient(self, rows: Sequence[EncodedRow]) -> Work:
        longest = max(len(row.input_ids) for row in rows)
        is_all = self.config.learn.loss_on == "all"
        targets = sum(len(r.input_ids) if is_all else r.target_tokens for r in rows)
        return Work(
            training_passes=1,
            tokens=len(rows) * longest,
            training_flops=self.costs.training.of(len(rows), longest) * self.again,
            training_head_flops=self.costs.head(targets, is_training=True),
        )

    def probe(self, probe: Probe, noisy: Sequence[EncodedRow], safe: Sequence[EncodedRow]) -> Work:
        """Reading one probe of every noisy row; of generations one pass over the row, no more."""
        if probe.kind == "damage":
            return self.read(damage_rows(safe, self.config.seed)) * 2
        if probe.kind == "rate":
            gradients = Work()
            for row in safe:
                gradients += self._gradient([row])
            for batch in batches_by_length([len(r.input_ids) for r in noisy], self.reading_tokens):
                gradients += self._gradient([noisy[i] for i in batch]) * self.scale
            return gradients
        once = self.read(noisy, has_head=probe.kind in ("loss", "divergence")) * self.scale
        if probe.kind == "divergence":
            return once * 2
        if probe.kind in ("forgotten_likeness", "removed_likeness"):
            return once * 2  # answers, and prompts, which are shorter
        if probe.kind in ("likeness", "own_likeness", "text_likeness", "safe_neighbours"):
            return once + self.read(safe, has_head=False)
        return once


def counter_for(costs: Costs, config: ScreenConfig, target: Target, scale: float) -> Counter:
    """A counter with the sizes of passes that the target has room for."""
    reading = training = config.max_batch_tokens
    if target.device == "cpu":
        reading = training = min(config.max_batch_tokens, CPU_BATCH_TOKENS)
    elif target.memory is not None:
        limits = (target.memory, costs.weights(target.bits), target.device)
        fit = fitting_tokens(costs, *limits, is_training=False)
        reading = min(reading, fit)
        is_less = target.checkpointed
        fit = fitting_tokens(costs, *limits, is_training=True, checkpointed=is_less)
        training = min(training, fit)
    again = costs.forward.per_token / costs.training.per_token if target.checkpointed else 0.0
    return Counter(costs, config, target, reading, training, scale, 1 + again)


def phases(
    counter: Counter, config: ScreenConfig, noisy: Sequence[EncodedRow], safe: Sequence[EncodedRow]
) -> dict[str, Work]:
    """The passes of each phase that the signal asks for, and of the fine-tune that follows."""
    states = {probe.state for probe in probes_of(config)}
    limits = (config.seed, counter.training_tokens)
    learning, given = _learned(counter, noisy)
    learn = TrainPlan("learn", given, config.learn, *limits)
    works = {"learn": learning.train(given, learn, is_measured=True)}
    if any(state in states for own in HALVES for state in own):
        half = given[::2]
        plan = TrainPlan("learn", half, config.learn, *limits)
        works["learn_halves"] = learning.train(half, plan, is_measured=False) * 2
    if "forgotten" in states:
        plan = TrainPlan("forget", safe, config.forget, *limits)
        works["forget"] = counter.train(safe, plan, is_measured=False)
    steps = sum(
        config.restore.early_steps * (early in states) + config.restore.steps * (late in states)
        for _, _, late, early in (WHOLE, *HALVES)
    )
    if steps:
        works["restore"] = counter.restore(safe, steps)
        if config.restore.set_aside and "early_restored" in states and len(safe) >= LEAST_READ:
            # Safe rows are looked at in base, and in two learned models before and after.
            works["restore"] += counter.read(safe[:MOST_READ]) * 5
    works["score"] = _sum(counter.probe(probe, noisy, safe) for probe in probes_to_read(config))
    if config.coverage == "quick":  # what it may cost at most
        beyond = [works["score"], *([works["restore"]] if steps else [])]
        works["coverage"] = _sum(beyond) * 0.25
    retrain = TrainPlan("retrain", noisy, config.learn, *limits)
    works["retrain"] = counter.train(noisy, retrain, is_measured=False)
    return works


def _learned(counter: Counter, noisy: Sequence[EncodedRow]) -> tuple[Counter, Sequence[EncodedRow]]:
    """The rows that the learn phase is given, as they are drawn of those that stand for the file.

    Each of them then stands for as many rows as the counter that comes with them says.
    """
    most = counter.config.learn.max_rows
    if most is None or most >= len(noisy) * counter.scale:
        return counter, noisy
    scale = max(1.0, most / len(noisy))
    return replace(counter, scale=scale), rows_to_learn(noisy, most, counter.config.seed)


def _sum(works: Iterable[Work]) -> Work:
    total = Work()
    for work in works:
        total += work
    return total
