"""How fast this machine makes a model's passes, from a short measurement without its weights.

A model of the same layers, as few of them as take about a second, is drawn at random and passes of
two sizes are timed over it: what every pass costs however small it is, and what each operation
more costs. A matrix product says how fast the machine could be at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from forgetfilter.config import LoraSettings, PhaseSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import quiet_dependencies
from forgetfilter.model.loading.placement import Placement
from forgetfilter.model.passes.answer_head import target_nats
from forgetfilter.model.passes.costs import Costs, count_costs, cut_config
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.progress import Progress

Clock = Callable[[], float]

ASSUMED_SHARE = 0.4
"""Share of a device's peak that passes are assumed to reach where nothing was measured."""
_SECONDS = 1.0
"""About what one training pass of the measurement may take."""
_REPEATS = 3
_FEW_ROWS = 4


@dataclass(frozen=True)
class Pace:
    """Seconds of a pass: some however small it is, and more for each operation."""

    fixed: float
    rate: float
    """FLOPs a second beyond that."""

    def seconds(self, flops: float, passes: float = 1) -> float:
        """Of so many passes with so many FLOPs together."""
        return self.fixed * passes + flops / self.rate


@dataclass(frozen=True)
class Speed:
    """What time is told from."""

    peak: float
    """FLOPs a second of a large matrix product in the format computed in."""
    reading: Pace
    training: Pace
    head: float
    """FLOPs a second of the output layer with the loss that is taken from it."""
    head_training: float
    step: float
    """Seconds of an optimizer step beside its passes."""
    start: float
    """Seconds until a phase of training makes its first step."""
    is_measured: bool


def assumed_speed(peak: float) -> Speed:
    """For a device that is not here, of which nothing but its peak is known, FLOPs a second."""
    rate = ASSUMED_SHARE * peak
    pace = Pace(0.0, rate)
    return Speed(peak, pace, pace, rate, rate, 0.0, 0.0, is_measured=False)


def matrix_peak(dtype: torch.dtype, device: str, clock: Clock = time.perf_counter) -> float:
    """FLOPs a second of products of square matrices: the most of some sizes and repeats."""
    best = 0.0
    for size in (512, 1024) if device == "cpu" else (4096, 8192):
        left = torch.randn(size, size).to(device, dtype)
        right = torch.randn(size, size).to(device, dtype)
        for _ in range(1 + _REPEATS):
            seconds = timed(lambda left=left, right=right: left @ right, device, clock)
            best = max(best, 2 * size**3 / max(seconds, 1e-9))
    return best


def timed(work: Callable[[], Any], device: str, clock: Clock = time.perf_counter) -> float:
    """Seconds of ``work``, all that it has asked of a device included."""
    _wait_for(device)
    start = clock()
    work()
    _wait_for(device)
    return clock() - start


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@quiet_dependencies()
def measure_speed(
    config: Any,
    tokenizer: Any,
    lora: LoraSettings,
    placement: Placement,
    rows: int,
    length: int,
    clock: Clock = time.perf_counter,
) -> Speed:
    """Measure how fast passes of about ``rows`` rows of ``length`` tokens are made here.

    Takes some seconds, and memory for a few layers.
    """
    device, dtype = placement.device, placement.dtype
    peak = matrix_peak(dtype, device, clock)
    whole = count_costs(config, lora, dtype, autocast=placement.has_autocast)
    most = _SECONDS * peak / 2
    share = most / max(whole.training.of(rows, length), 1.0)
    layers = max(1, min(whole.layers, int(share * whole.layers)))
    if share * whole.layers < 1:  # not even one layer of a whole pass
        rows = max(2 * _FEW_ROWS, int(rows * share * whole.layers))
    model, cut = _cut_model(config, layers, lora, placement)
    scale = whole.layers / layers
    few, rows = (min(_FEW_ROWS, max(1, rows // 2)), max(2, rows))
    ids = torch.zeros((rows, length), dtype=torch.long, device=device)

    def run(count: int, is_training: bool) -> None:
        body = model.get_base_model().base_model
        rounding = torch.autocast(device, dtype, enabled=placement.has_autocast)
        inputs = {"input_ids": ids[:count], "attention_mask": torch.ones_like(ids[:count])}
        with torch.set_grad_enabled(is_training), rounding:
            states = body(**inputs, use_cache=False).last_hidden_state
            if is_training:
                weights = [w for w in model.parameters() if w.requires_grad]
                torch.autograd.grad(states.float().sum(), weights)

    paces: list[Pace] = []
    for is_training, growth in ((False, cut.forward), (True, cut.training)):
        seconds = [
            median(
                timed(lambda n=n, t=is_training: run(n, t), device, clock)
                for _ in range(_REPEATS + 1)
            )
            for n in (few, rows)
        ]
        paces.append(_pace(seconds, [growth.of(n, length) for n in (few, rows)], scale))
    head = _head_rates(whole, dtype, device, min(rows * length, 1024), clock)
    step, start = _training_overhead(model, tokenizer, cut, paces[1], clock)
    return Speed(peak, paces[0], paces[1], *head, step, start, is_measured=True)


def _pace(seconds: list[float], flops: list[float], scale: float) -> Pace:
    """What two sizes of passes say; of a model with ``scale`` times the layers."""
    slope = (seconds[1] - seconds[0]) / max(flops[1] - flops[0], 1.0)
    slope = max(slope, 0.5 * seconds[1] / flops[1])
    return Pace(scale * max(0.0, seconds[1] - slope * flops[1]), 1 / slope)


def _cut_model(
    config: Any, layers: int, lora: LoraSettings, placement: Placement
) -> tuple[Any, Costs]:
    """A random model of the first layers, with an adapter, and what its passes cost."""
    from transformers import AutoModelForCausalLM

    cut = cut_config(config, layers)
    cut.vocab_size = min(cut.vocab_size, 1024)
    cut.pad_token_id = cut.bos_token_id = cut.eos_token_id = None
    costs = count_costs(cut, lora, placement.dtype, autocast=placement.has_autocast)
    with torch.random.fork_rng():
        model = AutoModelForCausalLM.from_config(cut, dtype=placement.dtype)
        model = model.to(placement.device).eval().requires_grad_(False)
        return add_adapter(model, lora), costs


def _head_rates(
    costs: Costs, dtype: torch.dtype, device: str, tokens: int, clock: Clock
) -> tuple[float, float]:
    """FLOPs a second of the output layer, without and with its gradient."""
    vocabulary = min(costs.vocabulary, 2**14)
    weight = torch.randn(vocabulary, costs.width).to(device, dtype)
    wanted = torch.zeros(tokens, dtype=torch.long, device=device)
    rates: list[float] = []
    for is_training in (False, True):
        states = torch.randn(tokens, costs.width).to(device, dtype).requires_grad_(is_training)

        def run(states: torch.Tensor = states, is_training: bool = is_training) -> None:
            nats = target_nats((states @ weight.T).float(), wanted).sum()
            if is_training:
                torch.autograd.grad(nats, states)

        seconds = median(timed(run, device, clock) for _ in range(_REPEATS + 1))
        flops = 2.0 * vocabulary * costs.width * tokens * (2 if is_training else 1)
        rates.append(flops / max(seconds, 1e-9))
    return rates[0], rates[1]


def _training_overhead(
    model: Any, tokenizer: Any, costs: Costs, pace: Pace, clock: Clock
) -> tuple[float, float]:
    """Seconds of a step beside its passes, and of the start of a phase, through the trainer."""
    from forgetfilter.model.training.fine_tuning import train

    rows = [_short_row(at) for at in range(2)]
    seconds: list[float] = []
    with torch.random.fork_rng():
        for steps in (1, 2, 6):  # the first warms up
            settings = PhaseSettings(
                learning_rate=1e-6, max_steps=steps, batch_size=2, stop="epochs"
            )
            plan = TrainPlan("learn", rows, settings, 0)
            begun = clock()
            train(model, tokenizer, plan, Progress(is_silent=True))
            seconds.append(clock() - begun)
    each = max(0.0, (seconds[2] - seconds[1]) / 4)
    passes = costs.training.of(2, len(rows[0].input_ids)) / pace.rate
    return max(0.0, each - passes), max(0.0, seconds[1] - 2 * each)


def _short_row(at: int) -> EncodedRow:
    ids, is_target = np.arange(8, dtype=np.int32), np.arange(8) >= 4
    return EncodedRow(row=at, input_ids=ids, is_target=is_target, prompt_length=4, target="")
