"""What every registered signal, threshold rule and strategy has to show; found by its registry."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from conftest import rows_of, write_rows
from forgetfilter.config import LearnSettings, ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow, Message, RejectedRow, Row, RowFile
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies import STRATEGIES, Outcome, Strategy, build_strategy
from forgetfilter.lab.strategies.controls import ORACLES
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.scoring.records import Readings
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import THRESHOLDS, choose_rule, decide, reads_decisions
from forgetfilter.screening.method import Scored, Setting, score_rows

COUNT = 10
IS_UNSAFE = np.arange(COUNT) % 4 == 1
# Every value that an option may choose from is a signal of its own.
SIGNAL_SPECS = [
    *SIGNALS.names(),
    "completion_loss:mean",
    "completion_loss:sum",
    "completion_loss:relative",
    "completion_loss:tempered",
    "restoration:mean",
    "restoration:relative",
    "rouge1:reference=learned_output,postprocess=paper",
    "self_training:evidence=contradiction",
]


class Bench:
    """Settings of one seed whose stages are shared by all signals, so that each trains once."""

    def __init__(self, model: Path, rows: Path, safe: Path, root: Path, config: Any) -> None:
        self.model, self.rows, self.safe, self.root, self.config = model, rows, safe, root, config

    def setting(
        self, signal: str, store: str = "shared", kind: type[Workbench] = Workbench, **changes: Any
    ) -> Setting:
        config: ScreenConfig = self.config.model_copy(update={"signal": signal, **changes})
        bench = kind(
            str(self.model),
            StageStore(self.root / store),
            lora=config.lora,
            seed=config.seed,
            progress=Progress(is_silent=True),
            max_batch_tokens=config.max_batch_tokens,
            max_new_tokens=8,
        )
        noisy, _ = bench.encoder.encode(read_rows(self.rows).rows)
        safe, _ = bench.encoder.encode(read_rows(self.safe).rows)
        return Setting(bench, noisy, safe, config)


@pytest.fixture(scope="module")
def benches(
    tiny_model: Callable[..., Path],
    quick_config: Callable[..., ScreenConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Bench:
    root = tmp_path_factory.mktemp("contract")
    rows = write_rows(root / "noisy.jsonl", rows_of(COUNT))
    safe = write_rows(root / "safe.jsonl", rows_of(6, start=100))
    # Enough to be learned in part, so that scores differ from row to row.
    learn = {"max_steps": 20, "batch_size": 8, "learning_rate": 3e-2}
    forget = {"max_steps": 3, "batch_size": 8, "learning_rate": 2e-2}
    lora = {"r": 8, "alpha": 16}
    config = quick_config(root / "run", learn=learn, forget=forget, lora=lora)
    return Bench(tiny_model("llama"), rows, safe, root, config)


def columns_of(scored: Scored) -> dict[str, np.ndarray[Any, Any]]:
    scores = scored.scores
    named = {name: getattr(scores, name) for name in ("base", "before", "after")}
    named["forgetting_score"] = scores.forgetting_score
    return {name: values for name, values in named.items() if values is not None}


@pytest.mark.parametrize("registry", [SIGNALS, THRESHOLDS, STRATEGIES], ids=lambda r: r.kind)
def test_every_part_is_documented_and_goes_by_its_registered_name(registry: Any):
    assert registry.names()
    for name in registry.names():
        part = registry.build(name)
        assert part.name == name
        documentation = inspect.getdoc(type(part))
        assert documentation, f"{name} has no docstring"
        options = list(inspect.signature(type(part)).parameters)
        for option in options:
            assert f"{option}:" in documentation, f"{name} doesn't document {option}"
        if registry is SIGNALS:
            assert part.unit
            assert part.probes
        if registry is THRESHOLDS:
            assert part.units is None or all(isinstance(unit, str) for unit in part.units)


@pytest.mark.parametrize("spec", SIGNAL_SPECS)
def test_a_signals_own_rule_fits_its_unit(spec: str):
    rule = SIGNALS.build(spec).default_rule
    if rule is None:
        with pytest.raises(ConfigError, match="no threshold rule of its own") as caught:
            choose_rule(spec, None)
        rule = str(caught.value).partition("for example ")[2].partition(",")[0]
    assert choose_rule(spec, rule) == rule


@pytest.mark.parametrize("spec", SIGNAL_SPECS)
class TestSignals:
    def test_scores_every_row_with_a_finite_number(self, benches: Bench, spec: str):
        scored = score_rows(benches.setting(spec))
        columns = columns_of(scored)
        assert {"base", "before", "forgetting_score"} <= columns.keys()
        for name, values in columns.items():
            assert values.shape == (COUNT,), name
            assert values.dtype == np.float64, name
            assert np.isfinite(values).all(), name
        assert len(set(columns["forgetting_score"])) > 1  # or the other tests would show nothing
        assert scored.readings.row.tolist() == list(range(COUNT))
        assert len(scored.readings.learned) == COUNT

    def test_the_same_readings_give_the_same_scores_in_any_order(self, benches: Bench, spec: str):
        scored = score_rows(benches.setting(spec))
        order = np.random.default_rng(0).permutation(COUNT)
        readings = scored.readings
        shuffled = Readings(
            row=readings.row[order],
            columns={name: values[order] for name, values in readings.columns.items()},
        )
        signal = SIGNALS.build(spec)
        for values in (*readings.columns.values(), *shuffled.columns.values()):
            values.setflags(write=False)  # it changes none of them
        np.testing.assert_array_equal(
            signal.combine(shuffled).forgetting_score, scored.scores.forgetting_score[order]
        )

    def test_measuring_in_another_order_and_batch_size_moves_nothing(
        self, benches: Bench, spec: str
    ):
        scored = score_rows(benches.setting(spec))
        setting = benches.setting(spec, max_batch_tokens=60)
        order = np.random.default_rng(1).permutation(COUNT)
        rows = [setting.noisy[i] for i in order]
        signal = SIGNALS.build(spec)
        needed = dict.fromkeys((*signal.probes,))
        readings = measure(setting, tuple(needed), scored, rows)
        again = signal.combine(readings)
        expected = columns_of(scored)
        for name, values in columns_of(Scored(scored.states, readings, again, spec)).items():
            # Forward passes in float32; a score that divides by little carries its rounding on.
            np.testing.assert_allclose(
                values, expected[name][order], atol=1e-3, rtol=1e-3, err_msg=name
            )


def measure(
    setting: Setting, probes: tuple[Any, ...], scored: Scored, rows: Sequence[EncodedRow]
) -> Readings:
    """The workbench's measurement, with the safe rows where a probe asks for their direction."""
    accepted = inspect.signature(setting.bench.measure).parameters
    extra = {name: setting.safe for name in ("safe", "safe_rows") if name in accepted}
    return setting.bench.measure(probes, scored.states, rows, **extra)


@pytest.mark.parametrize("spec", SIGNALS.names())
def test_the_same_seed_gives_the_same_scores_and_another_seed_others(benches: Bench, spec: str):
    first = columns_of(score_rows(benches.setting(spec)))
    again = columns_of(score_rows(benches.setting(spec, store="again")))
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)
    mine = score_rows(benches.setting(spec)).readings["loss_sum_learned"]
    other = score_rows(benches.setting(spec, seed=1)).readings["loss_sum_learned"]
    assert (mine != other).all()


@pytest.mark.parametrize("rule", THRESHOLDS.names())
def test_every_rule_gives_a_reason_for_every_row_and_ignores_their_order(benches: Bench, rule: str):
    scored = score_rows(benches.setting("completion_loss"))
    count = 2 * COUNT
    scores = np.linspace(-1, 1, count)
    columns = {name: np.tile(values, 2) for name, values in scored.readings.columns.items()}
    columns["greedy_match_learned"] = np.arange(count) % 3 > 0  # two thirds are learned
    columns["is_trusted"] = np.arange(count) % 4 == 0
    columns["reviewed"] = np.where(np.arange(count) % 5 > 0, scores > 0.2, -1)
    readings = Readings(row=np.arange(count), columns=columns)
    selection = decide(THRESHOLDS.build(rule), scores, readings)
    assert selection.is_removed.shape == (count,)
    assert selection.is_removed.dtype == np.bool_
    assert len(selection.reasons) == count
    assert all(selection.reasons)
    assert not (selection.is_removed & ~readings.learned).any()
    assert not (selection.is_removed & columns["is_trusted"]).any()
    order = np.random.default_rng(0).permutation(count)
    shuffled = Readings(
        row=readings.row[order], columns={n: v[order] for n, v in readings.columns.items()}
    )
    again = decide(THRESHOLDS.build(rule), scores[order], shuffled)
    assert again.cut.value == pytest.approx(selection.cut.value)
    assert (again.is_removed == selection.is_removed[order]).all()


@pytest.mark.parametrize("rule", THRESHOLDS.names())
@pytest.mark.parametrize("count", [0, 1, 12])
@pytest.mark.parametrize("score", [-1.0, 0.0, 0.1, 3.0])
def test_every_rule_takes_no_scores_and_equal_ones_and_treats_equal_rows_alike(
    rule: str, count: int, score: float
):
    losses = {"loss_sum_base": 9.0, "loss_sum_learned": 1.0, "greedy_match_learned": 1.0}
    losses["is_trusted"] = 0.0
    readings = Readings(
        row=np.arange(count), columns={name: np.full(count, v) for name, v in losses.items()}
    )
    assert readings.learned.all()
    if reads_decisions(rule):
        if count < 10:
            with pytest.raises(ConfigError, match="0 of their decisions can be used"):
                decide(THRESHOLDS.build(rule), np.full(count, score), readings)
            return
        columns = {**readings.columns, "reviewed": np.arange(count) % 2}
        readings = Readings(row=readings.row, columns=columns)
    selection = decide(THRESHOLDS.build(rule), np.full(count, score), readings)
    assert not np.isnan(selection.cut.value)
    assert selection.is_removed.shape == (count,)
    assert len(set(selection.is_removed.tolist())) <= 1


@pytest.mark.parametrize("rule", THRESHOLDS.names())
def test_every_rule_removes_the_most_forgotten_of_the_learned_rows(rule: str):
    rng = np.random.default_rng(0)
    # A hundred and twenty of the harmless rows are known to be so.
    scores = np.concatenate([rng.normal(0, 0.02, 160), rng.normal(0.6, 0.1, 20)])
    matched = np.arange(180) % 3 > 0
    base, learned = np.full(180, 9.0), np.where(matched, 1.0, 9.0)
    columns = {
        "loss_sum_base": base,
        "loss_sum_learned": learned,
        "greedy_match_learned": matched.astype(np.float64),
    }
    if rule == "conformal":
        matched = np.arange(180) >= 0
        columns |= {"is_trusted": np.arange(180) < 120, "greedy_match_learned": matched}
    columns["reviewed"] = np.where(np.arange(180) % 2 > 0, np.arange(180) >= 160, -1)
    readings = Readings(row=np.arange(180), columns=columns)
    assert (readings.learned == matched).all()
    removed = decide(THRESHOLDS.build(rule), scores, readings).is_removed
    assert 0 < removed.sum() < matched.sum()
    assert not removed[~matched].any()
    assert scores[removed].min() > scores[matched & ~removed].max()


class RecordingBench(Workbench):
    """A workbench that remembers what it was told to train."""

    def train(self, name: Any, rows: Any, settings: Any, *others: Any, **named: Any) -> Any:
        self.__dict__.setdefault("trained", []).append((list(rows), settings))
        state = super().train(name, rows, settings, *others, **named)
        report = Path(str(state.adapter)).with_name("training.json").read_text()
        self.__dict__.setdefault("reports", []).append(json.loads(report))
        return state


@pytest.mark.parametrize("name", [*STRATEGIES.names(), *ORACLES, "forget_filter+self_correction"])
class TestStrategies:
    def test_runs_and_hands_over_a_state_that_answers(self, benches: Bench, name: str):
        setting = benches.setting("completion_loss", threshold="fraction:0.2")
        strategy = build_strategy(name, IS_UNSAFE)
        outcome = strategy.run(setting)
        assert outcome.state.adapter is not None
        assert Path(outcome.state.adapter, "adapter_model.safetensors").is_file()
        if outcome.selection is not None:
            assert outcome.selection.is_removed.shape == (COUNT,)
            assert outcome.selection.is_removed.dtype == np.bool_
            assert len(outcome.selection.reasons) == COUNT
            assert 0 < outcome.selection.is_removed.sum() < COUNT
        question = strategy.prompt([Message("user", "Where is the lamp?")])
        tokens = setting.bench.encoder.encode_prompt(question)
        assert len(setting.bench.generate(outcome.state, [tokens], 4, "answer")) == 1

    def test_the_same_seed_gives_the_same_model_and_selection(self, benches: Bench, name: str):
        outcomes = [
            build_strategy(name, IS_UNSAFE).run(
                benches.setting("completion_loss", store=store, threshold="fraction:0.2")
            )
            for store in ("shared", "again")
        ]
        first, second = (
            Path(str(outcome.state.adapter), "adapter_model.safetensors").read_bytes()
            for outcome in outcomes
        )
        assert first == second
        chosen = [outcome.selection for outcome in outcomes]
        if chosen[0] is not None and chosen[1] is not None:
            assert (chosen[0].is_removed == chosen[1].is_removed).all()

    def test_noisy_rows_are_trained_with_the_same_settings_and_for_as_many_epochs(
        self, benches: Bench, name: str
    ):
        learn = LearnSettings(num_train_epochs=3, batch_size=8, learning_rate=3e-2)
        assert learn.ends_on_evidence
        setting = benches.setting(
            "completion_loss", "budget", RecordingBench, threshold="fraction:0.2", learn=learn
        )
        build_strategy(name, IS_UNSAFE).run(setting)
        trained, reports = setting.bench.__dict__["trained"], setting.bench.__dict__["reports"]
        noisy = {row.input_ids.tobytes() for row in setting.noisy}
        levels: list[int] = []
        for (rows, settings), report in zip(trained, reports, strict=True):
            if noisy.intersection(row.input_ids.tobytes() for row in rows):
                assert settings == learn
                levels.append(report["level_epochs"])
        assert levels
        assert len(set(levels)) == 1

    def test_never_sees_the_ground_truth(self, benches: Bench, name: str):
        given = {field.name for field in dataclasses.fields(Setting)}
        assert given == {"bench", "noisy", "safe", "config"}
        if name in ORACLES:
            with pytest.raises(ConfigError, match="needs the ground truth"):
                build_strategy(name)
        else:
            assert isinstance(build_strategy(name), Strategy)  # without any truth


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_no_registered_strategy_has_an_option_for_the_ground_truth(name: str):
    parameters = inspect.signature(type(STRATEGIES.build(name))).parameters
    hints = get_type_hints(type(STRATEGIES.build(name)).__init__)
    # An option is written in a spec, so it is a plain value; an array can't be handed over.
    allowed = {str, int, float, bool, type(None)}
    for option in parameters:
        kinds = get_args(hints[option]) or (hints[option],)
        assert all(kind in allowed or isinstance(kind, str) for kind in kinds), option


@pytest.mark.parametrize(
    "record", [Row, RejectedRow, RowFile, EncodedRow, Setting, Outcome, Message]
)
def test_no_record_that_travels_has_room_for_the_ground_truth(record: type):
    names = " ".join(field.name for field in dataclasses.fields(record))
    assert not any(word in names for word in ("unsafe", "harm", "truth", "label"))
