"""NaN and infinity end the work where they first appear, with nothing of them kept or decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import CONTEXT, build_model, rows_of, save_model, write_rows
from forgetfilter.config import LearnSettings, LoraSettings, RestoreSettings, ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.errors import ModelError
from forgetfilter.lab.testbed.pretraining import (
    Shape,
    Stage,
    encode,
    make_model,
    train_from_nothing,
)
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.measuring.divergence import divergences, safe_gradient
from forgetfilter.model.measuring.grouping import group_rows
from forgetfilter.model.measuring.rates import loss_rates
from forgetfilter.model.passes.forward import completion_losses, token_losses
from forgetfilter.model.training.fine_tuning import train
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.model.training.restoring import RestorePlan, restore
from forgetfilter.model.training.stopping import LearnedShare
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.scoring.records import Probe, Readings
from forgetfilter.scoring.thresholds import THRESHOLDS, decide
from forgetfilter.screening.screen import screen

SILENT = Progress(is_silent=True)
LORA = LoraSettings(r=2, alpha=4)
QUICK = LearnSettings(max_steps=6, batch_size=8, lr_scheduler_type="constant", warmup_ratio=0)


def load(folder: Path, count: int = 8) -> tuple[Any, Any, list[EncodedRow]]:
    """A tiny model with a fresh adapter, its tokenizer and encoded rows."""
    tokenizer = load_tokenizer(str(folder))
    base = load_base_model(str(folder), choose_placement("cpu", "float32"))
    torch.manual_seed(1)
    path = write_rows(folder / f"rows-{count}.jsonl", rows_of(count))
    rows, _ = Encoder(tokenizer, "auto", CONTEXT).encode(read_rows(path).rows)
    return add_adapter(base, LORA), tokenizer, rows


def poison(model: Any, value: float = math.nan) -> Any:
    """``model`` with one weight of its adapter that is not finite."""
    weight = next(p for p in model.parameters() if p.requires_grad)
    weight.data.view(-1)[0] = value
    return model


@pytest.fixture(scope="module")
def broken_model(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Callable[..., Any]
) -> Path:
    """A model folder whose weights are finite, as loading requires, but whose outputs are not."""
    tokenizer = tiny_tokenizer()
    model = build_model("llama", tokenizer)
    model.model.norm.weight.data[:] = 3e38
    return save_model(model, tokenizer, tmp_path_factory.mktemp("broken"))


def bench(folder: Path, root: Path) -> Workbench:
    return Workbench(str(folder), StageStore(root), lora=LORA, seed=0, progress=SILENT)


def stages(root: Path) -> list[str]:
    """The stages that are kept; unfinished folders are not among them."""
    return [path.name for path in root.glob("*-*") if not path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("rate", "phase", "setting"),
    [
        (1e12, "learn", "learn"),
        (1e30, "learn", "learn"),
        (1e30, "forget", "forget"),
        (1e30, "retrain", "learn"),
    ],
)
def test_a_diverged_phase_stops_at_once_and_names_step_and_setting(
    tiny_model: Callable[..., Path],
    make_rows: Callable[..., Path],
    tmp_path: Path,
    rate: float,
    phase: str,
    setting: str,
):
    it = bench(tiny_model("llama"), tmp_path)
    it.kept_steps = {phase: range(7)}
    rows, _ = it.encoder.encode(read_rows(make_rows(8)).rows)
    settings = QUICK.model_copy(update={"learning_rate": rate})
    with pytest.raises(ModelError) as caught:
        it.train("learned", rows, settings, it.base, phase)
    assert f"The {phase} phase diverged in step 2 of 6" in str(caught.value)
    assert f"Lower {setting}.learning_rate, which is {rate}." in str(caught.value)
    assert stages(tmp_path) == []
    saved = {path.parent.name for path in tmp_path.rglob("adapter_model.safetensors")}
    assert saved <= {"00000001", "early"}  # and nothing at all of the step that went wrong


def test_a_screen_with_far_too_high_a_rate_ends_in_one_line(
    quick_config: Callable[..., ScreenConfig], tmp_path: Path
):
    learn = {"learning_rate": 1e12, "max_steps": None, "num_train_epochs": 6, "batch_size": 8}
    with pytest.raises(ModelError, match="learn phase diverged in step 2 of 12"):
        screen(quick_config(tmp_path / "run", learn=learn), SILENT)
    # What base knows was measured before; of the phase itself nothing is kept.
    kept = {name.rpartition("-")[0] for name in stages(tmp_path / "run" / "stages")}
    assert kept == {"measure_loss_base"}
    assert not list((tmp_path / "run").rglob("training.json"))


def test_a_weight_that_overflows_in_the_very_last_step_is_seen(tiny_model: Callable[..., Path]):
    model, tokenizer, rows = load(tiny_model("llama"))
    settings = QUICK.model_copy(update={"learning_rate": 1e-3, "max_steps": 2})

    def overflow(model: Any, step: int, is_epoch_end: bool) -> None:
        if step == 2 and is_epoch_end:
            poison(model, math.inf)

    with pytest.raises(ModelError, match=r"step 2 of 2: a weight is NaN .* which is 0.001"):
        train(model, tokenizer, TrainPlan("learn", rows, settings, 0), SILENT, overflow)


def test_where_nothing_was_trained_yet_the_rate_is_not_blamed(broken_model: Path):
    model, tokenizer, rows = load(broken_model)
    settings = QUICK.model_copy(update={"learning_rate": 1e-3})
    with pytest.raises(ModelError, match=r"step 1 of 6: the loss is nan.*Nothing was trained"):
        train(model, tokenizer, TrainPlan("learn", rows, settings, 0), SILENT)


def test_a_share_of_learned_rows_is_not_told_from_nan(tiny_model: Callable[..., Path]):
    model, _, rows = load(tiny_model("llama"))
    share = LearnedShare(rows, 0, 8192)
    share.begin(model)
    with pytest.raises(ModelError, match="8 of 8 values in the model in training"):
        share.is_enough(poison(model))
    assert share.shares == []


def test_a_model_whose_losses_are_nan_is_told_before_anything_is_decided(
    broken_model: Path, quick_config: Callable[..., ScreenConfig], tmp_path: Path
):
    it = bench(broken_model, tmp_path / "stages")
    _, _, rows = load(broken_model)
    with pytest.raises(ModelError, match=r"8 of 8 values in loss_base .* weights are damaged"):
        it.measure([Probe("loss", "base")], {"base": it.base}, rows)
    assert stages(tmp_path / "stages") == []
    config = quick_config(tmp_path / "run", model=broken_model, learn={"learning_rate": 1e-3})
    with pytest.raises(ModelError, match=r"16 of 16 values in loss_base .* weights are damaged"):
        screen(config, SILENT)
    assert not (tmp_path / "run" / "scores.parquet").exists()


def test_of_many_rows_the_few_with_a_bad_loss_are_counted(
    tiny_tokenizer: Callable[..., Any], tmp_path: Path
):
    tokenizer = tiny_tokenizer()
    model = build_model("qwen3", tokenizer)  # its output weights are not those of the input
    save_model(model, tokenizer, tmp_path)
    wrapped, _, rows = load(tmp_path)
    words = [set(row.input_ids) for row in rows]
    own = next(iter(words[5] - set().union(*words[:5], *words[6:])))
    wrapped.get_base_model().model.embed_tokens.weight.data[own] = math.nan
    for measure in (completion_losses, token_losses):
        with pytest.raises(ModelError, match=r"1 of 8 values in it .*first at position 5"):
            measure(wrapped, rows, 8192, SILENT, "it")


Measure = Callable[[Any, Sequence[EncodedRow]], Any]
LIMITS = (8192, SILENT, "here")


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, rows: divergences(model, rows, *LIMITS),
        lambda model, rows: safe_gradient(model, rows, "kl_to_base", *LIMITS),
        lambda model, rows: safe_gradient(model, rows, "completion_loss", *LIMITS),
        lambda model, rows: group_rows(model, rows, 2, *LIMITS),
        lambda model, rows: loss_rates(
            model, rows, [{n: p for n, p in model.named_parameters() if p.requires_grad}], *LIMITS
        ),
    ],
)
def test_no_divergence_gradient_group_or_rate_is_made_from_nan(
    tiny_model: Callable[..., Path], measure: Measure
):
    model, _, rows = load(tiny_model("llama"))
    with pytest.raises(ModelError, match=r"NaN or infinite for .*here"):
        measure(poison(model), rows)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_restoration_stops_at_the_step_that_is_not_finite(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, ahead: bool
):
    import forgetfilter.model.training.restoring as restoring

    if not ahead:
        monkeypatch.setattr(restoring, "_MOST_AHEAD", 0)
    model, _, rows = load(tiny_model("llama"))
    plan = RestorePlan(rows, RestoreSettings(steps=3, batch_size=4), 0)
    with pytest.raises(ModelError, match="4 of 4 values in restore, step 1 of 3"):
        restore(poison(model), plan, SILENT)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spec", ["auto", "phi:0.1", "fraction:0.3"])
def test_no_rule_decides_on_scores_that_are_not_finite(spec: str, value: float):
    columns: dict[str, Any] = {
        "loss_sum_base": np.full(6, 2.0),
        "loss_sum_learned": np.full(6, 0.1),
        "greedy_match_learned": np.ones(6, dtype=np.bool_),
    }
    scores = np.array([0.01, 0.02, value, 0.3, 0.02, 0.01])
    with pytest.raises(ModelError, match="forgetting score is NaN or infinite for 1 of 6"):
        decide(THRESHOLDS.build(spec), scores, Readings(np.arange(6), columns))


def test_pre_training_that_diverges_names_stage_step_and_rate(tiny_tokenizer: Callable[..., Any]):
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = make_model(Shape(32, 1, 2, 64, CONTEXT), tokenizer)
    turns = [
        [{"role": "user", "content": f"number {i} ?"}, {"role": "assistant", "content": "one"}]
        for i in range(40)
    ]
    stage = Stage("tongue", peak_rate=1e30, prompt_weight=0.1, batch_tokens=64)
    with pytest.raises(ModelError, match=r"diverged in tongue, step \d+ of .* which is 1e\+30"):
        train_from_nothing(model, encode(tokenizer, turns, 0.1, CONTEXT), stage, 0, SILENT)
