"""Memory that runs out: the batch is halved and the run goes on. The limits here are real ones."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forgetfilter.config import LoraSettings, PhaseSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import ModelError
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.passes.forward import completion_losses
from forgetfilter.model.passes.halving import TrainingHalves, batch_budget
from forgetfilter.model.training.fine_tuning import TrainOutcome, train
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.model.training.step_method import Passes, answer_loss, padded_inputs
from forgetfilter.progress import Progress
from warm import run_warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")

SILENT = Progress(is_silent=True)
LENGTH = 32
ROWS = 16
WIDE = 2**14
"""Numbers of one token in a layer: 32 MB for all rows."""
MEGABYTES = ROWS * LENGTH * WIDE * 4 / 2**20


@contextmanager
def memory_for(megabytes: float) -> Generator[None]:
    """Let the process have so much memory more than it has."""
    ctypes.CDLL(None).mallopt(-3, 2**20)  # what is large is mapped, and goes back once it is free
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + int(megabytes * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def wide_model(width: int = WIDE) -> Any:
    """A model with little but what a pass holds."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval().requires_grad_(False)


def rows_of_one_length() -> list[EncodedRow]:
    generator = np.random.default_rng(0)
    is_target = np.arange(LENGTH) >= LENGTH // 2
    given = {"is_target": is_target, "prompt_length": LENGTH // 2, "target": ""}
    ids = generator.integers(0, 64, (ROWS, LENGTH), dtype=np.int32)
    return [EncodedRow(row=at, input_ids=own, **given) for at, own in enumerate(ids)]


def in_a_process_of_its_own(case: Callable[..., None], *arguments: Any) -> str:
    """What a case says as an error; memory that earlier tests have freed would be enough for it."""
    script = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import test_halving
        getattr(test_halving, sys.argv[2])(*sys.argv[3:])
    """
    done = run_warm(script, Path(__file__).parent, case.__name__, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def read_in_halves() -> None:
    model, rows = wide_model(), rows_of_one_length()
    free = completion_losses(model, rows, 8192, SILENT, "loss")
    with memory_for(2.2 * MEGABYTES):  # a pass holds three such tensors at once
        tight = completion_losses(model, rows, 8192, SILENT, "loss")
    np.testing.assert_allclose(tight.loss_sum, free.loss_sum, atol=1e-4)
    assert batch_budget(model, 8192) == ROWS // 2 * LENGTH


def test_reading_goes_on_with_half_the_rows_and_stays_there():
    said = in_a_process_of_its_own(read_in_halves)
    assert f"Memory ran out over {ROWS} rows of up to {LENGTH} tokens" in said
    assert said.count("Memory ran out") == 1


def pass_in_halves() -> None:
    torch.manual_seed(0)
    model = add_adapter(wide_model(), LoraSettings(r=2, alpha=4))
    inputs = padded_inputs(rows_of_one_length(), "assistant", 0)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in weights:  # what an earlier pass of the batch has left
        weight.grad = torch.ones_like(weight)

    def step(model: Any, inputs: Any, tokens: int) -> torch.Tensor:
        loss = answer_loss(model, inputs, tokens)
        loss.backward()
        return loss.detach()

    found: list[torch.Tensor] = []
    losses: list[float] = []
    halves = TrainingHalves()
    passes = Passes("assistant", 0, ROWS * LENGTH, 0)
    for megabytes in (None, 4.2 * MEGABYTES):
        kept = [weight.grad.clone() for weight in weights]
        with memory_for(megabytes) if megabytes else nullcontext():
            losses.append(float(halves(step, model, inputs, 100, passes)))
        found.append(torch.cat([weight.grad.flatten() for weight in weights]))
        for weight, gradient in zip(weights, kept, strict=True):
            weight.grad = gradient
    assert halves.parts > 1
    assert float((found[0] - found[1]).abs().max()) < 1e-5 < float((found[0] - 1).abs().max())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_pass_in_halves_leaves_the_gradient_of_the_whole_pass():
    assert "Memory ran out" in in_a_process_of_its_own(pass_in_halves)


def train_in_halves(folder: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = PhaseSettings(learning_rate=1e-3, max_steps=2, batch_size=ROWS, stop="epochs")
    plan = TrainPlan("learn", rows_of_one_length(), settings, 0)
    outcomes: list[TrainOutcome] = []
    adapted = add_adapter(wide_model(), LoraSettings(r=2, alpha=4))
    for megabytes in (None, 4.2 * MEGABYTES):
        model = deepcopy(adapted)
        with memory_for(megabytes) if megabytes else nullcontext():
            outcomes.append(train(model, tokenizer, plan, SILENT))
    free, tight = outcomes
    assert tight.row_passes == free.row_passes == 2 * ROWS
    assert tight.final_loss == pytest.approx(free.final_loss, abs=1e-4)


def test_training_goes_on_in_halves(tiny_model: Callable[[str], Path]):
    assert "Memory ran out" in in_a_process_of_its_own(train_in_halves, tiny_model("llama"))


def single_row_too_long() -> None:
    # One row's numbers in a layer take as much as all rows' in the other tests.
    model, rows = wide_model(ROWS * WIDE), rows_of_one_length()[:2]
    with memory_for(0.7 * MEGABYTES), pytest.raises(ModelError, match="single row of 32 tokens"):
        completion_losses(model, rows, 8192, SILENT, "loss")


def test_a_single_row_that_memory_does_not_hold_is_named():
    in_a_process_of_its_own(single_row_too_long)


def test_other_errors_of_a_pass_are_not_taken_for_want_of_memory():
    model, rows = wide_model(), rows_of_one_length()
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(64, 17))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        completion_losses(model, rows, 8192, SILENT, "loss")
