"""Each way of training does what its paper says: cases worked by hand, and on a tiny model."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from forgetfilter.config import ScreenConfig
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies import build_strategy
from forgetfilter.lab.strategies.batches import drawn, endless
from forgetfilter.lab.strategies.bayesian import BayesianSteps
from forgetfilter.lab.strategies.lisa import LisaSteps
from forgetfilter.lab.strategies.safe_grad import conflict
from forgetfilter.model.loading.adapter_sums import StoredAdapter
from forgetfilter.model.stages.phases import row_passes
from forgetfilter.model.state import ModelState
from forgetfilter.model.training.step_method import Step, StepMethod
from forgetfilter.progress import Progress
from forgetfilter.screening.method import fine_tune
from made_setting import MakeSetting, adapter_of, setting_maker, updates_of


@pytest.fixture(scope="module")
def make_setting(
    tiny_model: Callable[..., Path],
    quick_config: Callable[..., ScreenConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> MakeSetting:
    learn = {"max_steps": 6, "batch_size": 4, "learning_rate": 1e-2}
    lora = {"r": 4, "alpha": 8, "dropout": 0.1}
    root = tmp_path_factory.mktemp("methods")
    return setting_maker(root, tiny_model, quick_config, learn=learn, lora=lora)


def apart(first: ModelState, second: ModelState) -> float:
    """Distance of two adapters, over all their numbers."""
    pairs = zip(adapter_of(first).pairs.values(), adapter_of(second).pairs.values(), strict=True)
    return math.sqrt(
        sum(float((x - y).pow(2).sum()) for own in pairs for x, y in zip(*own, strict=True))
    )


class PlainSteps(StepMethod):
    """The plain step, made by a method."""

    key = {"plain": 1}  # noqa: RUF012

    def gradient(self, step: Step) -> float:
        assert step.total == 6
        assert len(step.rows) == len(step.indices) <= 4
        return step.add_gradient(step.rows)


def test_the_plain_step_made_by_a_method_is_plain_training(make_setting: MakeSetting):
    setting = make_setting()
    is_kept = np.arange(10) != 3
    plain = fine_tune(setting, is_kept, setting.bench.base)
    made = fine_tune(setting, is_kept, setting.bench.base, method=PlainSteps())
    assert made != plain
    moved = max(float(update.abs().max()) for update in updates_of(plain).values())
    assert moved > 1e-3
    for name, update in updates_of(plain).items():
        torch.testing.assert_close(updates_of(made)[name], update, atol=moved * 1e-3, rtol=0)


# -- Lisa ----------------------------------------------------------------------------------------


class OneWeight:
    """A model with one weight, whose loss is half its square: steps can be followed by hand."""

    def __init__(self, value: float) -> None:
        self.weight = torch.nn.Parameter(torch.tensor([value]))

    def step(self, number: int, total: int, rows: list[Any], log: list[Any]) -> Any:
        self.weight.grad = None

        def add_gradient(rows: list[Any]) -> float:
            log.append(rows)
            self.weight.grad = self.weight.detach().clone()
            return 0.5 * float(self.weight.detach() ** 2)

        return SimpleNamespace(
            number=number,
            total=total,
            rows=rows,
            indices=list(range(len(rows))),
            weights={"w": self.weight},
            add_gradient=add_gradient,
        )

    @property
    def value(self) -> float:
        return float(self.weight.detach())

    def descend(self) -> None:
        assert self.weight.grad is not None
        self.weight.data.sub_(0.5 * self.weight.grad)


def test_lisa_by_hand_takes_turns_and_refreshes_an_anchor_only_when_its_state_ends():
    model, log = OneWeight(1.0), []
    method = LisaSteps(["s"], (1, 2), 0.5, seed=0)  # pyright: ignore[reportArgumentType]
    # Starts on safe rows, pulled from a tenth of the steps on: here from step 1. Worked by hand
    # with steps of 0.5: w' = w - 0.5 (w + 0.5 (w - anchor)).
    expected = [
        (["s"], 1.0, None, 0.5),  # nothing pulls in the first tenth: 1 - 0.5
        (["n"], 0.5, 0.5, 0.25),  # the safe state has ended at 0.5
        (["n"], 0.25, 0.5, 0.1875),  # the same anchor: 0.25 - 0.5 (0.25 - 0.125)
        (["s"], 0.1875, 0.1875, 0.09375),  # the noisy state has ended at 0.1875
        (["n"], 0.09375, 0.09375, 0.046875),  # and the safe state at 0.09375
    ]
    for number, (rows, before, anchor, after) in enumerate(expected):
        assert model.value == pytest.approx(before)
        loss = method.gradient(model.step(number, 10, ["n"], log))
        pull = 0.0 if anchor is None else 0.25 * (before - anchor) ** 2
        assert loss == pytest.approx(0.5 * before**2 + pull)
        assert log[-1] == rows
        model.descend()
        assert model.value == pytest.approx(after)


def test_lisas_distance_to_the_last_safe_state_shrinks_with_rho(make_setting: MakeSetting):
    # A turn that lasts to the end: the anchor is where the first two steps, on safe rows, ended.
    learn = make_setting().config.learn.model_dump()
    short = make_setting(learn={**learn, "max_steps": 2})
    anchor = build_strategy("lisa:safe_steps=2,noisy_steps=90").run(short).state
    found = [
        apart(anchor, build_strategy(f"lisa:safe_steps=2,noisy_steps=90,rho={rho}").run(each).state)
        for rho, each in ((rho, make_setting()) for rho in (0, 3, 30))
    ]
    assert found[0] > 1.02 * found[1] > 1.02 * found[2] > 0


# -- SafeGrad ------------------------------------------------------------------------------------


def test_a_conflicting_gradient_becomes_orthogonal_and_another_stays():
    safe = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([2.0])}
    own = {"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([-3.0])}
    share = conflict(own, safe)
    assert share == pytest.approx(-5 / 5)  # (1 - 6) / (1 + 4)
    left = {name: own[name] - share * safe[name] for name in own}
    assert left["a"].tolist() == [2.0, 5.0]
    assert left["b"].tolist() == [-1.0]
    assert sum(float((left[name] * safe[name]).sum()) for name in own) == pytest.approx(0)
    assert conflict({name: -value for name, value in own.items()}, safe) == 0
    assert conflict(own, {name: 0 * value for name, value in safe.items()}) == 0


def test_safe_grad_stays_nearer_to_base_on_the_safe_rows_the_more_it_weighs_them(
    make_setting: MakeSetting,
):
    from forgetfilter.model.measuring.divergence import divergences

    found: list[float] = []
    for spec in ("none", "safe_grad:weight=0", "safe_grad:weight=5"):
        setting = make_setting()
        state = build_strategy(spec).run(setting).state
        model = setting.bench.model.in_state(state)
        limits = (8192, Progress(is_silent=True), "divergence")
        found.append(float(divergences(model, setting.safe, *limits).mean()))
    assert found[0] > found[2]
    assert found[1] > found[2]


# -- Bayesian Data Scheduler ---------------------------------------------------------------------


def test_a_row_that_fits_worse_than_the_weighted_mean_loses_weight():
    """Three rows with losses 1, 2 and 6: the first step of their logits worked by hand."""
    method = BayesianSteps(["s"], 3, 0.1, seed=0)  # pyright: ignore[reportArgumentType]
    losses = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    step = SimpleNamespace(
        number=0,
        rows=["n"] * 3,
        indices=[0, 1, 2],
        add_gradient=lambda rows: 10.0,
        passes=lambda rows: [SimpleNamespace(indices=[0, 1, 2])],
        row_losses=lambda batch: losses,
    )
    assert method.gradient(step) == pytest.approx(10 + 3)  # equal weights: the mean of the three
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([1 / 3] * 3)
    # d/dw of mean(N softmax(w) l) is softmax (l - mean): (-2, -1, 3) / 3; Adam's first step is the
    # rate times the sign.
    assert method.logits is not None
    assert method.logits.tolist() == pytest.approx([0.2, 0.2, 0.0], abs=1e-5)
    weights = method.weights()
    share = math.exp(0.2) / (2 * math.exp(0.2) + 1)
    assert weights.tolist() == pytest.approx([3 * share, 3 * share, 3 - 6 * share], abs=1e-4)


def test_bds_without_a_rate_is_safe_and_noisy_rows_in_equal_parts(make_setting: MakeSetting):
    still = build_strategy("bds:rate=0").run(make_setting()).state
    moving = build_strategy("bds:rate=0.5").run(make_setting()).state
    assert apart(still, moving) > 1e-3


# -- merging and extrapolating -------------------------------------------------------------------


def test_merging_at_0_and_1_gives_the_ends_and_half_way_half_the_update(make_setting: MakeSetting):
    setting = make_setting()
    plain = updates_of(build_strategy("none").run(setting).state)
    assert max(float(update.abs().max()) for update in plain.values()) > 1e-3
    for weight in (0, 0.25, 1):
        merged = updates_of(build_strategy(f"merge_base:weight={weight}").run(setting).state)
        for name, update in plain.items():
            torch.testing.assert_close(merged[name], (1 - weight) * update)
    base = build_strategy("merge_base:weight=1").run(setting).state
    bench = setting.bench
    losses = [bench.token_losses(state, setting.safe, "losses") for state in (bench.base, base)]
    np.testing.assert_allclose(np.concatenate(losses[0]), np.concatenate(losses[1]), rtol=1e-5)


def test_the_low_rank_extrapolation_by_hand(make_setting: MakeSetting):
    """An update with singular values 3 and 1 along two axes: rank 1 extends the first alone."""
    b = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    adapter = StoredAdapter(Path(), 2.0, {"w": (torch.eye(2), b)})
    reduced = adapter.reduced(1).updates()["w"]
    assert reduced.tolist() == [pytest.approx(r) for r in ([6.0, 0.0], [0.0, 0.0], [0.0, 0.0])]
    torch.testing.assert_close(adapter.reduced(2).updates()["w"], adapter.updates()["w"])
    together = adapter.plus(StoredAdapter(Path(), 0.5, {"w": (torch.ones(1, 2), torch.ones(3, 1))}))
    torch.testing.assert_close(together.updates()["w"], 2 * b + 0.5)

    setting = make_setting()
    aligned = updates_of(build_strategy("lox:factor=0").prepare(setting))
    for name, update in updates_of(build_strategy("lox:rank=1,factor=2").prepare(setting)).items():
        u, s, v = torch.linalg.svd(aligned[name])
        main = s[0] * torch.outer(u[:, 0], v[0])
        torch.testing.assert_close(update, aligned[name] + 2 * main, atol=1e-5, rtol=1e-3)

    plain = updates_of(build_strategy("none").run(setting).state)
    after = build_strategy("lox:rank=4,factor=0.5,when=after").run(setting).state
    for name, update in updates_of(after).items():
        torch.testing.assert_close(update, plain[name] + 0.5 * aligned[name], atol=1e-5, rtol=1e-3)
    assert setting.bench.answers(after, setting.safe[:1], "answers")  # of a rank of its own


# -- what it costs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "passes"),
    [
        ("none", 20),  # six steps of 4, 4 and 2 of ten rows
        ("lisa:safe_steps=2,noisy_steps=9", 20),  # safe rows take the place of noisy ones
        ("bds", 20 + 6 * 4),
        ("safe_grad", 20 + 6 * 4),
        ("safe_grad:batch=1", 20 + 6),
        ("lox", 20 + 2 * 6),  # two steps of the forget phase on six safe rows
        ("vaccine", 20 + 2 * 2 * 6),  # each of them twice
        ("merge_base", 20),
    ],
)
def test_passes_over_rows_are_counted(make_setting: MakeSetting, spec: str, passes: int):
    setting = make_setting()
    build_strategy(spec).run(setting)
    assert row_passes(setting.bench.store.counted()) == passes


# -- batches and refusals ------------------------------------------------------------------------


def test_every_safe_row_comes_up_before_any_comes_up_again():
    rows: Any = list("abcde")
    found = [row for batch in islice(endless(rows, 2, 7), 10) for row in batch]
    assert all(sorted(found[at : at + 5]) == rows for at in range(0, 20, 5))
    assert found[:5] != found[5:10]
    assert [len(batch) for batch in islice(endless(rows, 9, 7), 2)] == [5, 5]
    assert sorted(drawn(rows, 12, 7)) == sorted([*rows, *rows, *drawn(rows, 12, 7)[10:]])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lisa:safe_steps=0", "at least one"),
        ("lisa:rho=-1", "expected 0 or more"),
        ("safe_grad:weight=-1", "expected 0 or more"),
        ("bds:rate=-1", "expected 0 or more"),
        ("merge_base:weight=2", "from 0 to 1"),
        ("lox:rank=0", "from 1 on"),
        ("safety_replay:ratio=0", "above 0"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(spec: str, message: str):
    with pytest.raises(ConfigError, match=message):
        build_strategy(spec)
