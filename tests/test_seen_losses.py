"""Losses that the learn phase keeps (`learn.keep_losses`): what they are, and what is not read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import contents, rows_of, write_rows
from forgetfilter.config import LearnSettings, LoraSettings, ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.model.stages.phases import SEEN_FILE, kept_losses
from forgetfilter.model.training.fine_tuning import train
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.model.training.seen_losses import SeenLosses
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.scoring.records import Probe
from forgetfilter.screening.checks.coverage_cost import scoring_tokens, tokens
from forgetfilter.screening.method import Setting, probes_to_read, score_rows
from forgetfilter.screening.screen import screen
from killing import EVERY_STEP, Killed, Killing
from made_setting import setting_maker

LEARN = {"batch_size": 4, "learning_rate": 1e-2, "stop": "epochs", "num_train_epochs": 3}
KEPT = {**LEARN, "keep_losses": True}


@pytest.fixture(scope="module")
def make_setting(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Any, quick_config: Any
) -> Callable[..., Setting]:
    return setting_maker(tmp_path_factory.mktemp("setting"), tiny_model, quick_config)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_where_nothing_moves_they_are_the_losses_of_either_model(
    make_setting: Callable[..., Setting], architecture: str
):
    learn = {**KEPT, "learning_rate": 1e-12}
    setting = make_setting(architecture, learn=learn, signal="completion_loss")
    bench, rows = setting.bench, setting.noisy
    state = bench.train("learned", rows, setting.config.learn, bench.base, "learn")
    kept = kept_losses(state)
    read = bench.measure([Probe("loss", "base")], {"base": bench.base}, rows)
    for name in ("loss_sum", "leading_loss"):
        for own in ("base", "learned"):
            np.testing.assert_allclose(kept[f"{name}_{own}"], read[f"{name}_base"], atol=1e-4)
    for own in ("base", "learned"):
        assert list(kept[f"greedy_match_{own}"]) == list(read["greedy_match_base"])
    assert np.ptp(kept["loss_sum_base"]) > 1  # rows differ, so the order is seen


def test_they_are_those_of_the_first_pass_and_of_the_last(make_setting: Callable[..., Setting]):
    """The same run ended earlier has the same first pass, and is where the last one begins."""
    setting = make_setting(learn=KEPT, signal="completion_loss")
    bench, rows = setting.bench, setting.noisy
    settings = setting.config.learn.model_copy(update={"lr_scheduler_type": "constant"})
    budgets = [settings.model_copy(update={"num_train_epochs": epochs}) for epochs in (2, 3)]
    two, three = (bench.train("learned", rows, own, bench.base, "learn") for own in budgets)
    first, second = kept_losses(two), kept_losses(three)
    assert list(first["loss_sum_base"]) == list(second["loss_sum_base"])
    before = bench.measure([Probe("loss", "learned")], {"learned": two}, rows)
    ahead = np.abs(second["loss_sum_learned"] - before["loss_sum_learned"])
    # The first of the three steps of an epoch trains on four rows that nothing was changed before.
    assert np.sum(ahead < 1e-4) == 4
    assert second["loss_sum_learned"].sum() < first["loss_sum_learned"].sum()


def test_no_row_is_read_in_base_or_learned_again(
    make_setting: Callable[..., Setting], tmp_path: Path
):
    setting = make_setting(learn=KEPT, signal="completion_loss")
    setting.bench.store = StageStore(tmp_path)
    scored = score_rows(setting)
    read = [path.name.rpartition("-")[0] for path in tmp_path.glob("measure_*")]
    assert read == ["measure_loss_forgotten"]
    assert probes_to_read(setting.config) == (Probe("loss", "forgotten"),)
    assert scoring_tokens(setting) == tokens(setting.noisy)
    rise = scored.readings["loss_sum_forgotten"] - scored.readings["loss_sum_learned"]
    expected = rise / scored.readings["completion_tokens"]
    np.testing.assert_allclose(scored.scores.forgetting_score, expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loss_on": "all"}, "keeps no losses, because learn.loss_on is all"),
        ({"num_train_epochs": 1}, "because not every row's loss was seen twice"),
        # Of six steps in two epochs.
        ({"max_steps": 5}, "because not every row's loss was seen twice"),
        ({"max_rows": 16}, ""),  # of more rows, of which those not learned have to be read
    ],
)
def test_where_they_can_not_be_kept_all_rows_are_read(
    make_setting: Callable[..., Setting], change: dict[str, Any], said: str, tmp_path: Path
):
    settings = [
        make_setting(seed=2, learn={**LEARN, **change, **more}, signal="completion_loss")
        for more in ({}, {"keep_losses": True})
    ]
    plain = score_rows(settings[0])
    progress = Killing()
    settings[1].bench.progress = progress
    settings[1].bench.store = StageStore(tmp_path)
    kept = score_rows(settings[1])
    assert list(plain.scores.forgetting_score) == list(kept.scores.forgetting_score)
    assert any(said in line for line in progress.lines) or not said


def test_a_mixture_of_experts_whose_routing_has_a_loss_is_trained_by_both(
    make_setting: Callable[..., Setting],
):
    """That loss is one of the whole pass: rows have none of their own, and are read."""
    adapters: list[dict[str, torch.Tensor]] = []
    for has_seen in (False, True):
        setting = make_setting("qwen3_moe", learn=LEARN)
        model = setting.bench.model.trainable(setting.bench.base, "learn")
        model.get_base_model().config.output_router_logits = True
        plan = TrainPlan("learn", setting.noisy, setting.config.learn, 0)
        seen = SeenLosses(setting.noisy) if has_seen else None
        train(model, setting.bench.tokenizer, plan, Progress(is_silent=True), seen=seen)
        assert seen is None or not seen.is_whole
        trained = {n: w.detach().clone() for n, w in model.named_parameters() if w.requires_grad}
        adapters.append(trained)
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])


def test_a_killed_phase_keeps_what_one_that_was_not_keeps(
    tiny_model: Callable[..., Path], tmp_path: Path
):
    file = write_rows(tmp_path / "rows.jsonl", rows_of(22))
    settings = LearnSettings(**KEPT)

    def attempt(name: str, kill: int | None = None) -> Path | None:
        bench = Workbench(
            str(tiny_model("llama")),
            StageStore(tmp_path / name),
            lora=LoraSettings(r=2, alpha=4, dropout=0.1),
            seed=0,
            progress=Killing(kill),
            checkpoint_minutes=EVERY_STEP,
        )
        rows = bench.encoder.encode(read_rows(file).rows)[0]
        state = bench.train("learned", rows, settings, bench.base, "learn")
        return Path(str(state.adapter)).parent

    whole = attempt("whole")
    for kill in (3, 5, 7):  # in the first pass, in the second, in the last
        with pytest.raises(Killed):
            attempt("killed", kill)
    made = attempt("killed")
    assert whole is not None
    assert made is not None
    assert contents(whole, without="stage.json") == contents(made, without="stage.json")
    assert len(pd.read_parquet(made / SEEN_FILE)) == 22


def test_a_screen_with_them_is_told_from_one_without(
    quick_config: Callable[..., ScreenConfig], tmp_path: Path
):
    """What is asked for stands in the run's settings, and nothing where it isn't."""
    assert "keep_losses" not in LearnSettings().model_dump()
    config = quick_config(tmp_path / "run", learn=KEPT, coverage="off", force=True)
    screen(config, Progress(is_silent=True))
    assert "keep_losses: true" in (tmp_path / "run" / "config.yaml").read_text()
