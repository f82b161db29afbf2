"""Methods that harden a model before, or mend it after: by hand, and on a tiny model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import rows_of, write_rows
from forgetfilter.config import ScreenConfig
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.lab.strategies import build_strategy, check_spec
from forgetfilter.lab.strategies.exemplars import draw_pairs
from forgetfilter.lab.strategies.hooked import layers_of
from forgetfilter.lab.strategies.masks import masked
from forgetfilter.lab.strategies.noising import mmd
from forgetfilter.lab.strategies.rounded_weights import rounded
from forgetfilter.lab.strategies.toss import Toss, highest_of_all
from forgetfilter.lab.strategies.vaccine import ATTENTION, VaccineSteps
from forgetfilter.model.state import ModelState
from forgetfilter.model.training.step_method import Passes, Step
from forgetfilter.screening.method import Setting
from made_setting import MakeSetting, setting_maker, spy_on_training, updates_of

PAIRS = [
    {
        "prompt": f"Where is the lamp number {i} ?",
        "chosen": "It is on the table .",
        "rejected": f"I like the owl . {i}",
    }
    for i in range(4)
]


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", PAIRS)


@pytest.fixture(scope="module")
def make_setting(
    tiny_model: Callable[..., Path],
    quick_config: Callable[..., ScreenConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> MakeSetting:
    learn = {"max_steps": 6, "batch_size": 4, "learning_rate": 1e-2}
    forget = {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-2}
    lora = {"r": 4, "alpha": 8, "dropout": 0.1}
    root = tmp_path_factory.mktemp("defences")
    return setting_maker(root, tiny_model, quick_config, learn=learn, forget=forget, lora=lora)


def losses(setting: Setting, state: ModelState, rows: Any) -> float:
    return float(np.concatenate(setting.bench.token_losses(state, rows, "losses")).mean())


# -- Vaccine -------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "opt"])
def test_the_perturbation_has_the_length_rho_and_raises_the_loss(
    make_setting: MakeSetting, architecture: str
):
    setting = make_setting(architecture)
    model = setting.bench.model.trainable(setting.bench.base, "test").eval()
    rows = sorted(setting.safe[:3], key=lambda row: -len(row.input_ids))  # as passes have them
    # One row a pass, so that the length is known to be that of the whole step.
    step = Step(model, 0, 1, [0, 1, 2], rows, Passes("assistant", 0, 1, 0))
    layers = layers_of(model, ATTENTION, "attention")
    assert len(layers) == 2
    found = VaccineSteps(0.7).perturbations(step, layers)
    squares = sum(float(one.pow(2).sum()) for own in found for one in own)
    assert math.sqrt(squares) == pytest.approx(0.7, rel=1e-4)
    assert [len(own) for own in found] == [2, 2, 2]
    assert [own[0].shape[1] for own in found] == [len(row.input_ids) for row in rows]

    plain = step.add_gradient(rows)
    model.zero_grad()
    pushed = VaccineSteps(0.7).gradient(step)
    assert pushed > plain
    assert step.passes_over.counted == 3 * 4  # of it, both passes of the method and two of the test
    setting.bench.model.release()


def test_vaccine_with_rho_0_is_plain_tuning_and_another_rho_is_not(make_setting: MakeSetting):
    setting = make_setting()
    bench, forget = setting.bench, setting.config.forget
    plain = updates_of(bench.train("prepared", setting.safe, forget, bench.base, "align"))
    still = updates_of(build_strategy("vaccine:rho=0").prepare(setting))
    moved = updates_of(build_strategy("vaccine:rho=5").prepare(setting))
    size = max(float(update.abs().max()) for update in plain.values())
    for name, update in plain.items():
        torch.testing.assert_close(still[name], update, atol=size * 1e-3, rtol=0)
    assert max(float((moved[name] - plain[name]).abs().max()) for name in plain) > size * 0.02


# -- RepNoise ------------------------------------------------------------------------------------


def test_the_distance_of_samples_by_hand_and_as_samples_move_apart():
    """Two points each, 0 and 1 against 3 and 4: squared distances 1, 9, 16, 4, 9, 1."""
    first, second = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [4.0]])
    width = 2 * (1 + 9 + 16 + 4 + 9 + 1) / 12

    def kernel(square: float) -> float:
        return sum(math.exp(-square / (width * scale)) for scale in (0.25, 0.5, 1, 2, 4))

    within = 2 * (2 * kernel(0) + 2 * kernel(1)) / 4
    between = (kernel(9) + kernel(16) + kernel(4) + kernel(9)) / 4
    assert float(mmd(first, second)) == pytest.approx(within - 2 * between, rel=1e-5)
    assert float(mmd(first, first)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt"])
def test_rep_noise_forgets_unsafe_answers_and_keeps_safe_ones(
    make_setting: MakeSetting, pairs_file: Path, architecture: str
):
    setting = make_setting(architecture)
    pairs = draw_pairs(setting, str(pairs_file), 4)
    own = {"exemplars": f'"{pairs_file}"', "pairs": 4, "steps": 10, "alpha": 4}
    options = ",".join(f"{name}={value}" for name, value in own.items())
    noised = build_strategy(f"rep_noise:{options}").prepare(setting)
    for side, is_higher in (("unsafe", True), ("safe", False)):
        rows = [getattr(pair, side) for pair in pairs]
        before, after = (losses(setting, state, rows) for state in (setting.bench.base, noised))
        assert (after > before) == is_higher


# -- SOMF ----------------------------------------------------------------------------------------


def test_the_masked_update_by_hand():
    safe = {"w": torch.tensor([1.0, 1.0, 1.0, 1.0])}
    tuned = {"w": torch.tensor([3.0, 1.0, 0.0, 5.0])}
    mask = {"w": torch.tensor([1.0, 0.2, 0.8, 0.0])}  # mean 0.5, so what is let through is doubled
    assert masked(safe, tuned, mask)["w"].tolist() == pytest.approx([5.0, 1.0, -0.6, 1.0])
    assert masked(safe, tuned, {"w": torch.full((4,), 0.3)})["w"].tolist() == pytest.approx(
        tuned["w"].tolist()
    )


def test_somf_prefers_safe_answers_and_without_steps_changes_nothing(
    make_setting: MakeSetting, pairs_file: Path
):
    setting = make_setting()
    pairs = draw_pairs(setting, str(pairs_file), 4)
    plain = build_strategy("none").run(setting).state
    same = build_strategy(f'somf:exemplars="{pairs_file}",pairs=4,steps=0').run(setting).state
    for name, update in updates_of(plain).items():
        torch.testing.assert_close(updates_of(same)[name], update, atol=1e-6, rtol=1e-4)
    mended = build_strategy(f'somf:exemplars="{pairs_file}",pairs=4,steps=20').run(setting).state

    def preference(state: ModelState) -> float:
        """How much more likely safe answers are than unsafe ones, nats a token."""
        unsafe, safe = ([getattr(p, side) for p in pairs] for side in ("unsafe", "safe"))
        return losses(setting, state, unsafe) - losses(setting, state, safe)

    assert preference(mended) > preference(plain)


# -- TOSS ----------------------------------------------------------------------------------------


def test_the_highest_share_is_taken_of_the_tokens_of_all_rows_together():
    """10 tokens, of which a share of 0.4 are 4: two of the first row, none of the second."""
    scores = [[0.9, -1.0, 0.5], [0.1, 0.0], [0.2, 0.5, 0.7, -0.3, 0.1]]
    found = highest_of_all([np.array(own) for own in scores], 0.4)
    assert [own.tolist() for own in found] == [
        [True, False, True],
        [False, False],
        [False, True, True, False, False],
    ]
    assert [own.sum() for own in highest_of_all([np.array(own) for own in scores], 0.39)] == [
        2,
        0,
        1,
    ]
    assert not any(own.any() for own in highest_of_all([np.array(own) for own in scores], 0))
    assert highest_of_all([], 0.2) == []


def test_toss_masks_what_the_degraded_model_expects_and_trains_on_the_rest(
    make_setting: MakeSetting, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
):
    setting = make_setting()
    pairs = draw_pairs(setting, str(pairs_file), 4)
    strategy = build_strategy(f'toss:share=0.5,exemplars="{pairs_file}",pairs=4,steps=8')
    assert isinstance(strategy, Toss)
    unsafe, safe = (
        np.concatenate(strategy.scores(setting, [getattr(pair, side) for pair in pairs])).mean()
        for side in ("unsafe", "safe")
    )
    assert unsafe > 0 > safe or unsafe > safe + 0.5
    trained = spy_on_training(monkeypatch)
    strategy.run(setting)
    name, rows = trained[-1]
    assert name == "retrained"
    before = sum(row.target_tokens for row in setting.noisy)
    assert sum(row.target_tokens for row in rows) == before - before // 2
    assert strategy.select(setting) is None  # no row is removed
    build_strategy(f'toss:share=0,exemplars="{pairs_file}",pairs=4,steps=8').run(setting)
    assert trained[-1] == ("learned", list(setting.noisy))  # nothing masked: the plain fine-tune


# -- 8-bit weights -------------------------------------------------------------------------------


def test_rounding_by_hand_has_a_step_for_each_output():
    """The first row has steps of 0.01, the second of 2, the third none at all."""
    weights = torch.tensor([[1.27, -0.632, 0.004], [-254.0, 3.1, 0.9], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[1.27, -0.63, 0.0], [-254.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(rounded(weights, 8), expected)
    torch.testing.assert_close(
        rounded(torch.tensor([[0.5, -1.0, 0.4]]), 2), torch.tensor([[0.0, -1.0, 0.0]])
    )


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_tuned_model_has_rounded_weights_and_fewer_bits_move_it_more(
    make_setting: MakeSetting, architecture: str
):
    setting = make_setting(architecture)
    plain = build_strategy("none").run(setting).state
    moved: list[float] = []
    for bits in (8, 3):
        state = build_strategy(f"rounded_weights:bits={bits}").run(setting).state
        model = setting.bench.model.in_state(state)
        layer = next(m for m in model.modules() if hasattr(m, "get_delta_weight"))
        weights = layer.get_base_layer().weight + layer.get_delta_weight("default")
        own = (weights.T if layer.fan_in_fan_out else weights).detach()[0]
        levels = own / own.abs().max() * (2 ** (bits - 1) - 1)
        torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
        assert len(levels.round().unique()) > 2
        pairs = [losses(setting, one, setting.noisy) for one in (plain, state)]
        moved.append(abs(pairs[1] - pairs[0]))
    assert 0 < moved[0] < moved[1]


# -- exemplars, and joining ----------------------------------------------------------------------


def test_a_pair_is_one_prompt_answered_twice(make_setting: MakeSetting, pairs_file: Path):
    setting = make_setting()
    found = draw_pairs(setting, str(pairs_file), 3)
    assert [pair.safe.target for pair in found] == ["It is on the table ."] * 3
    assert [pair.unsafe.target for pair in found] == [f"I like the owl . {i}" for i in range(3)]
    for pair in (*found, *draw_pairs(setting, "testbed", 9)):
        prompts = [row.input_ids[: row.prompt_length] for row in (pair.safe, pair.unsafe)]
        assert prompts[0].tolist() == prompts[1].tolist()
        assert pair.safe.target != pair.unsafe.target


def test_exemplars_that_are_no_pairs_are_refused(make_setting: MakeSetting, tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no file"):
        check_spec("somf:exemplars=absent.jsonl", make_setting().config)
    with pytest.raises(ConfigError, match="there is no file"):
        check_spec("none+rep_noise:exemplars=absent.jsonl", make_setting().config)
    bare = write_rows(tmp_path / "bare.jsonl", rows_of(2))
    with pytest.raises(DataError, match="row 1: no chosen and rejected answer"):
        draw_pairs(make_setting(), str(bare), 2)
    long = [{"prompt": "owl " * 400, "chosen": "a", "rejected": "b"}]
    with pytest.raises(DataError, match="None of 1 pairs"):
        draw_pairs(make_setting(), str(write_rows(tmp_path / "long.jsonl", long)), 2)


def test_what_comes_later_in_a_chain_meets_what_came_before(make_setting: MakeSetting):
    changes = {"signal": "completion_loss", "threshold": "fraction:0.3"}
    setting = make_setting(**changes)
    before = build_strategy("vaccine:rho=20+forget_filter")
    after = build_strategy("forget_filter+vaccine:rho=20")
    alone = build_strategy("forget_filter")
    vaccinated = build_strategy("vaccine:rho=20").prepare(setting)
    assert before.prepare(setting).adapter == after.prepare(setting).adapter == vaccinated.adapter
    found = [one.select(setting) for one in (before, after, alone)]
    scores = [one.scores.tolist() for one in found if one is not None and one.scores is not None]
    assert len(scores) == 3
    assert scores[1] == scores[2] != scores[0]
    assert setting.bench.base.adapter is None  # the setting itself is as it was


def test_filters_in_a_chain_remove_what_either_removes(make_setting: MakeSetting):
    setting = make_setting(signal="completion_loss", threshold="fraction:0.2")
    first = "forget_filter"
    second = "forget_filter:signal=restoration"
    parts = [build_strategy(spec).select(setting) for spec in (first, second)]
    joined = build_strategy(f"{first}+{second}").select(setting)
    assert joined is not None
    expected = np.any([one.is_removed for one in parts if one is not None], axis=0)
    assert joined.is_removed.tolist() == expected.tolist()
    assert len(joined.reasons) == len(expected)


def test_a_repair_in_a_chain_starts_where_the_fine_tune_began(
    make_setting: MakeSetting, pairs_file: Path
):
    setting = make_setting()
    somf = f'somf:exemplars="{pairs_file}",pairs=4,steps=0'
    state = build_strategy(f"vaccine:rho=1+{somf}").run(setting).state
    plain = build_strategy("vaccine:rho=1").run(setting).state
    for name, update in updates_of(plain).items():  # no step: the update as it was, and no other
        torch.testing.assert_close(updates_of(state)[name], update, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vaccine:rho=-1", "expected rho from 0 on"),
        ("rep_noise:pairs=0", "at least one pair"),
        ("rep_noise:steps=0", "at least one"),
        ("somf:rate=0", "a rate above 0"),
        ("toss:share=1", "a share from 0 to below 1"),
        ("rounded_weights:bits=9", "expected 2 to 8"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(spec: str, message: str):
    with pytest.raises(ConfigError, match=message):
        build_strategy(spec)
