"""What each baseline and control does, and how strategies are joined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetfilter.config import ScreenConfig
from forgetfilter.data.records import Message
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies import STRATEGIES, build_strategy
from forgetfilter.lab.strategies.self_correction import CUES
from forgetfilter.screening.method import Setting
from made_setting import MakeSetting, setting_maker, spy_on_training


@pytest.fixture(scope="module")
def make_setting(
    tiny_model: Callable[..., Path],
    quick_config: Callable[..., ScreenConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> MakeSetting:
    settings: dict[str, Any] = {
        # Enough to be learned in part, or there would be nothing to select.
        "learn": {"max_steps": 20, "batch_size": 8, "learning_rate": 3e-2},
        "lora": {"r": 8, "alpha": 16},
        "signal": "completion_loss",
        "threshold": "fraction:0.3",
    }
    root = tmp_path_factory.mktemp("strategies")
    return setting_maker(root, tiny_model, quick_config, **settings)


def stages(setting: Setting) -> list[str]:
    return sorted(path.name for path in setting.bench.store.root.iterdir())


def test_masking_tokens_trains_on_the_rest_of_the_removed_rows(
    make_setting: MakeSetting, monkeypatch: pytest.MonkeyPatch
):
    setting = make_setting()
    seen = spy_on_training(monkeypatch)
    outcome = STRATEGIES.build("token_mask").run(setting)
    assert outcome.selection is not None
    gone = outcome.selection.is_removed
    assert gone.sum() == 3
    trained = {row.row: row for row in seen[-1][1]}
    assert seen[-1][0] == "retrained"
    for row, is_removed in zip(setting.noisy, gone, strict=True):
        left = trained[row.row].target_tokens if row.row in trained else 0
        assert left < row.target_tokens if is_removed else trained[row.row] == row
    with pytest.raises(ConfigError, match="adds up over the tokens"):
        STRATEGIES.build("token_mask:signal=rouge1").check(setting.config)


def test_sequential_safety_tuning_is_the_forgetting_run_and_shares_its_stage(
    make_setting: MakeSetting,
):
    screened = make_setting()
    STRATEGIES.build("forget_filter").run(screened)
    before = stages(screened)
    setting = make_setting()
    STRATEGIES.build("safety_ft").run(setting)
    assert stages(setting) == before
    assert setting.bench.store.seconds().keys() == {"learn", "forget"}
    STRATEGIES.build("safety_ft:steps=1").run(setting)
    assert len(stages(setting)) == len(before) + 1


def test_the_papers_signal_has_its_own_forgetting_run_and_changes_no_other(
    make_setting: MakeSetting,
):
    setting = make_setting()
    spec = "forget_filter:signal=rouge1,threshold=fraction:0.2,steps=1"
    build_strategy(spec).run(setting)
    assert setting.config.signal == "completion_loss"
    assert setting.config.forget.max_steps == 2
    assert "measure_generation_forgotten" in setting.bench.store.seconds()


def test_random_removal_takes_as_many_rows_as_its_model_and_others(make_setting: MakeSetting):
    setting = make_setting()
    model = build_strategy("forget_filter").select(setting)
    assert model is not None
    drawn = [build_strategy("random_removal").select(make_setting(seed=seed)) for seed in range(3)]
    counts = [int(one.is_removed.sum()) for one in drawn if one is not None]
    assert counts[0] == model.is_removed.sum() > 0
    assert len({tuple(one.is_removed) for one in drawn if one is not None}) > 1
    fresh = make_setting()
    build_strategy("random_removal").run(fresh)
    assert fresh.bench.store.seconds().keys() == {"retrain"}  # the screening is not its own cost


def test_random_removal_needs_a_model_that_selects(make_setting: MakeSetting):
    with pytest.raises(ConfigError, match="'none' selects no rows"):
        build_strategy("random_removal:like=none").run(make_setting())


def test_the_oracle_removes_what_the_truth_says(make_setting: MakeSetting):
    is_unsafe = np.arange(10) == 4
    outcome = build_strategy("oracle_removal", is_unsafe).run(make_setting())
    assert outcome.selection is not None
    assert (outcome.selection.is_removed == is_unsafe).all()


def test_replay_mixes_in_the_wanted_share_of_the_safe_rows_or_ratio_to_the_noisy_ones(
    make_setting: MakeSetting, monkeypatch: pytest.MonkeyPatch
):
    trained = spy_on_training(monkeypatch)
    options = ("", ":fraction=0.5", ":ratio=0.3", ":ratio=2")
    for each in options:
        build_strategy(f"safety_replay{each}").run(make_setting())
    assert [len(rows) for _, rows in trained] == [10 + 6, 10 + 3, 10 + 3, 10 + 20]


USER = Message("user", "Hello.")
SYSTEM = Message("system", "Be brief.")


def test_the_cue_stands_in_front_in_a_system_turn_or_in_the_first_user_turn():
    system = build_strategy("self_correction")
    cue = CUES["english"]
    assert system.prompt([USER]) == [Message("system", cue), USER]
    assert system.prompt([SYSTEM, USER]) == [Message("system", f"{cue} Be brief."), USER]
    prefix = build_strategy('self_correction:cue="Be kind, please.",place=prefix')
    assert prefix.prompt([SYSTEM, USER]) == [SYSTEM, Message("user", "Be kind, please. Hello.")]


def test_a_chain_repairs_and_prompts_in_order(make_setting: MakeSetting):
    chain = build_strategy("forget_filter+safety_ft:steps=1+self_correction:cue=testbed")
    assert chain.rewords
    assert not build_strategy("forget_filter+safety_ft:steps=1").rewords
    assert chain.name == "forget_filter+safety_ft+self_correction"
    setting = make_setting()
    outcome = chain.run(setting)
    filtered = build_strategy("forget_filter").run(setting)
    assert outcome.selection is not None
    assert filtered.selection is not None
    assert (outcome.selection.is_removed == filtered.selection.is_removed).all()
    assert outcome.state.name == "forgotten"  # safety tuning of the filtered model
    assert outcome.state != build_strategy("safety_ft:steps=1").run(setting).state
    assert chain.prompt([USER])[0].content == CUES["testbed"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lisa+safety_replay", "'lisa' and 'safety_replay' both have a fine-tune"),
        ("forget_filtr", "Did you mean 'forget_filter'"),
        ("oracle_remval", "Did you mean 'oracle_removal'"),
        ("forget_filter:signal=rouge2", "Did you mean 'rouge1'"),
        ("forget_filter:threshold=pih", "Did you mean 'phi'"),
        ("forget_filter:steps=0", "expected at least one"),
        ("safety_ft:steps=0", "expected at least one"),
        ("safety_replay:fraction=2", "expected a share"),
        ("self_correction:place=end", "expected one of system, prefix"),
        ("self_correction:cue=Be kind, please", "expected key=value"),
    ],
)
def test_a_wrong_spec_is_explained(spec: str, message: str):
    with pytest.raises(ConfigError, match=message):
        build_strategy(spec)
