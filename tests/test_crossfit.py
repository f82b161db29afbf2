"""The default signal and its rule: what they mean, on made-up readings and in whole screens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import rows_of, write_rows
from forgetfilter.config import LoraSettings, PhaseSettings, ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import ConfigError
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.scoring.records import HALVES, WHOLE, Cut, Readings
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import THRESHOLDS, as_signal_has_it, choose_rule, decide
from forgetfilter.screening.method import Setting, learn_halves, score_rows

PAIRS = [pair for own in (WHOLE, *HALVES) for pair in ((own[0], own[2]), (own[1], own[3]))]


def readings_of(rises: Any, tokens: Any, alike: Any = None, likeness: Any = None) -> Readings:
    """Six rises a row (nats, by weight), from models in which every row costs 2 nats a token.

    Every row stands alone, unless ``alike`` names four others for each, and all prompts are as
    much like the safe rows', unless ``likeness`` says more.
    """
    rises, tokens = np.asarray(rises, dtype=np.float64), np.asarray(tokens)
    columns: dict[str, Any] = {"completion_tokens": tokens, "loss_sum_base": 4.0 * tokens}
    columns["leading_scale"] = np.sqrt([(0.95 ** (2 * np.arange(n))).sum() for n in tokens])
    for own, (earlier, later) in zip(rises, PAIRS, strict=True):
        columns[f"leading_loss_{earlier}"] = np.full(len(tokens), 10.0)
        columns[f"leading_loss_{later}"] = 10.0 + own
        columns[f"loss_sum_{earlier}"] = 2.0 * tokens
        columns[f"loss_sum_{later}"] = 2.0 * tokens + own
    own = np.arange(len(tokens), dtype=np.int64)
    near = np.repeat(own[:, np.newaxis], 4, axis=1) if alike is None else np.asarray(alike)
    columns |= {f"neighbour_{k}_base": near[:, k] for k in range(4)}
    columns["likeness_base"] = np.zeros(len(tokens)) if likeness is None else np.array(likeness)
    return Readings(row=own, columns=columns)


def test_evidence_counts_less_where_the_prompt_is_unlike_those_of_the_safe_rows():
    found = SIGNALS.build("crossfit").combine(
        readings_of([[2.0] * 10] * 6, [1] * 10, likeness=[-9, 7, 1, 1, 2, 3, 4, 5, 6, 8])
    )
    expected = [0.8, 2.0, 1.2, 1.2, 1.4, 1.6, 1.8, 2.0, 2.0, 2.0]
    assert found.forgetting_score.tolist() == pytest.approx(expected)


def with_gains(rises: Any, gains: Any) -> Readings:
    """Rows of one token whose loss fell by ``gains`` nats in every model, and then rose."""
    readings = readings_of([rises] * 6, [1] * len(gains))
    gained = {"leading_loss_base": 10.0 + np.asarray(gains, dtype=np.float64)}
    return Readings(row=readings.row, columns={**readings.columns, **gained})


def test_what_is_learned_much_is_judged_by_the_share_that_is_given_back():
    terse, unsafe = (2.0, 8.0), (1.5, 2.0)  # rise, gain
    readings = with_gains([terse[0], unsafe[0]], [terse[1], unsafe[1]])
    plain = SIGNALS.build("crossfit").combine(readings).forgetting_score
    shares = SIGNALS.build("crossfit:gain=2").combine(readings).forgetting_score
    assert plain.tolist() == [2.0, 1.5]
    assert shares.tolist() == [0.5, 1.5]  # a quarter of 2, and all


@given(
    rows=st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=9),
    gain=st.floats(0.01, 20),
)
@example(rows=[(1.0, 1.9)], gain=1.9)
def test_a_bound_on_the_gain_makes_no_score_larger_and_turns_none_round(
    rows: list[tuple[float, float]], gain: float
):
    readings = with_gains(*zip(*rows, strict=True))
    plain = SIGNALS.build("crossfit").combine(readings).forgetting_score
    bound = SIGNALS.build(f"crossfit:gain={gain!r}").combine(readings).forgetting_score
    assert (np.abs(bound) <= np.abs(plain) + 1e-12).all()
    assert (bound * plain >= 0).all()
    # As measured: 10 + 1.9 - 10 is a rounding above 1.9.
    gained = readings["leading_loss_base"] - readings["leading_loss_learned"]
    is_small = gained <= gain
    assert bound[is_small].tolist() == plain[is_small].tolist()


@pytest.mark.parametrize("gain", [0, -1, float("nan")])
def test_a_bound_that_means_nothing_is_refused(gain: float):
    with pytest.raises(ConfigError, match="expected a number above 0"):
        SIGNALS.build(f"crossfit:gain={gain}")


def test_no_row_is_lifted_above_the_cut_by_its_neighbours_alone():
    rises = [[8.0] * 4 + [0.0, -1.0, 3.0]] * 6
    alike = [*[[0, 1, 2, 3]] * 6, [4, 4, 4, 4]]
    readings = readings_of(rises, [1] * 7, alike)
    found = SIGNALS.build("crossfit").combine(readings)
    assert found.forgetting_score.tolist() == pytest.approx([8.0] * 4 + [0.09, 0.09, 1.5])
    cut = THRESHOLDS.build("valley").cut(found.forgetting_score, np.ones(7, dtype=bool), readings)
    assert cut.value >= 0.8 * 0.12 > 0.09


def test_half_of_the_evidence_is_that_of_the_four_most_alike_rows():
    rises = [[8.0, 0.0, 4.0, 0.0, 0.0, 2.0]] * 6
    alike = [[1, 2, 3, 4], [0, 0, 0, 0], [5, 5, 5, 5], *[[3, 4, 3, 4]] * 3]
    found = SIGNALS.build("crossfit").combine(readings_of(rises, [1] * 6, alike))
    assert found.forgetting_score.tolist() == pytest.approx([4.5, 0.09, 3.0, 0.0, 0.0, 1.0])


def test_neighbours_are_told_by_number_of_row_in_any_order():
    readings = readings_of([[0.0, 1.0, 2.0]] * 6, [1] * 3, [[1] * 4, [2] * 4, [0] * 4])
    order = [2, 0, 1]
    columns = {name: values[order] for name, values in readings.columns.items()}
    shuffled = Readings(row=readings.row[order] + 7, columns=columns)
    for k in range(4):
        columns[f"neighbour_{k}_base"] = columns[f"neighbour_{k}_base"] + 7
    assert shuffled.neighbours("base")[:, 0].tolist() == [1, 2, 0]
    expected = SIGNALS.build("crossfit").combine(readings).forgetting_score[order]
    assert SIGNALS.build("crossfit").combine(shuffled).forgetting_score.tolist() == list(expected)


def test_the_score_is_the_median_of_six_restorations():
    found = SIGNALS.build("crossfit").combine(readings_of([[1], [2], [3], [4], [5], [9]], [1]))
    assert found.forgetting_score.tolist() == [3.5]


def test_one_model_that_is_disturbed_by_chance_moves_nothing():
    calm = [[0.1]] * 6
    wild = [*calm[:5], [50.0]]
    scores = [
        SIGNALS.build("crossfit").combine(readings_of(rises, [4])).forgetting_score[0]
        for rises in (calm, wild)
    ]
    assert scores[0] == scores[1] > 0


def test_noise_has_the_same_spread_whatever_the_length():
    rng = np.random.default_rng(0)
    spreads: list[float] = []
    for length in (3, 60):
        weights = 0.95 ** np.arange(length)
        rises = (rng.normal(size=(6, 4000, length)) * weights).sum(axis=2)
        scores = SIGNALS.build("crossfit").combine(readings_of(rises, [length] * 4000))
        spreads.append(float(scores.forgetting_score.std()))
    assert spreads[1] == pytest.approx(spreads[0], rel=0.1)


def test_weights_fall_from_the_first_token_of_each_answer():
    is_target = [False, True, True, False, False, True, True, True]
    row = EncodedRow(0, range(8), is_target, 5, "x")
    assert row.leading_weights.tolist() == pytest.approx([1, 0.95, 1, 0.95, 0.95**2])
    # Nothing predicts the first token of all, so it carries no loss.
    row = EncodedRow(0, range(3), [True, True, False], 0, "x")
    assert row.leading_weights.tolist() == [1]
    assert EncodedRow(0, [1], [False], 0, "x").leading_weights.tolist() == []


def screen_of(tiny: Callable[..., Path], tmp_path: Path, rows: int) -> Setting:
    bench = Workbench(
        str(tiny("llama")),
        StageStore(tmp_path / "stages"),
        lora=LoraSettings(r=4, alpha=8),
        seed=3,
        progress=Progress(is_silent=True),
    )
    learn = {"stop": "epochs", "num_train_epochs": 1, "batch_size": 4, "learning_rate": 1e-2}
    config = ScreenConfig(
        noisy_data="-", model="-", output_dir="-", seed=3, learn=learn, signal="crossfit"
    )
    files = [
        write_rows(tmp_path / name, rows_of(count, start))
        for name, count, start in (("noisy.jsonl", rows, 0), ("safe.jsonl", 6, 100))
    ]
    noisy, safe = (bench.encoder.encode(read_rows(path).rows)[0] for path in files)
    return Setting(bench, noisy, safe, config)


def test_each_half_is_learned_by_a_model_of_its_own(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    setting = screen_of(tiny_model, tmp_path, 11)
    learned = setting.bench.train(
        "learned", setting.noisy, setting.config.learn, setting.bench.base, "learn"
    )
    met: dict[str, set[int]] = {}
    train = Workbench.train

    def watched(self: Workbench, name: Any, rows: Any, *rest: Any) -> Any:
        met[name] = {row.row for row in rows}
        return train(self, name, rows, *rest)

    monkeypatch.setattr(Workbench, "train", watched)
    states = learn_halves(setting, learned)
    assert set(states) == {name for own in HALVES for name in own}
    assert met["half_a"] | met["half_b"] == set(range(11))
    assert not met["half_a"] & met["half_b"]
    assert {len(met["half_a"]), len(met["half_b"])} == {5, 6}
    assert len({state.fingerprint for state in states.values()}) == 8


@pytest.mark.parametrize("rows", [1, 2])
def test_a_file_of_hardly_any_rows_is_scored(
    tiny_model: Callable[..., Path], tmp_path: Path, rows: int
):
    scored = score_rows(screen_of(tiny_model, tmp_path, rows))
    assert np.isfinite(scored.scores.forgetting_score).all()
    assert len(scored.scores.forgetting_score) == rows


def test_a_row_that_was_not_learned_can_be_removed():
    readings = readings_of([[5.0, 0.0]] * 6, [4, 4])
    unlearned = {"greedy_match_learned": np.zeros(2, bool)}
    readings = Readings(readings.row, {**readings.columns, **unlearned})
    readings.columns["loss_sum_learned"][:] = readings["loss_sum_base"]  # type: ignore[index]
    assert not readings.learned.any()
    signal = SIGNALS.build("crossfit")
    scores = signal.combine(readings).forgetting_score
    found = decide(THRESHOLDS.build("valley"), scores, readings, needs_learned=signal.needs_learned)
    assert found.is_removed.tolist() == [True, False]


def valley(scores: Any, rule: str = "valley") -> Cut:
    scores = np.asarray(scores, dtype=np.float64)
    return THRESHOLDS.build(rule).cut(scores, np.ones(len(scores), bool), Readings(scores, {}))


def test_a_quiet_file_loses_nothing_and_a_second_hill_goes():
    rng = np.random.default_rng(0)
    harmless = rng.normal(0, 0.01, 900)
    assert not (harmless > valley(harmless).value).any()
    unsafe = rng.normal(0.6, 0.1, 100)
    cut = valley(np.r_[harmless, unsafe])
    assert (unsafe > cut.value).all()
    assert not (harmless > cut.value).any()
    assert cut.expected_false_removals is not None
    assert cut.expected_false_removals < 1


def test_the_cut_grows_with_the_root_of_the_noise():
    rng = np.random.default_rng(0)
    quiet = valley(rng.normal(0, 0.001, 1000))
    assert (quiet.notes["searched_from"], quiet.notes["searched_to"]) == pytest.approx(
        (0.8 * 0.12, 1.5 * 0.12)
    )
    loud = valley(rng.normal(0, 0.1, 1000))
    noise = loud.notes["noise"]
    assert noise == pytest.approx(0.1 * 0.3186, rel=0.1)  # a normal's quantile 0.25 of sizes
    assert loud.notes["searched_to"] == pytest.approx(1.5 * 0.12 * (noise / 0.003) ** 0.5)


@pytest.mark.parametrize("growth", [0.0, 0.5, 1.5, 2.0])
@pytest.mark.parametrize("most", [0.12, 0.3, np.inf])
@pytest.mark.parametrize("quiet", [0.008, 1.0])
def test_the_cut_grows_with_a_power_of_the_noise_up_to_its_most(
    growth: float, most: float, quiet: float
):
    noisy = np.random.default_rng(0).normal(0, 0.1, 1000)
    cut = valley(noisy, f"valley:quiet={quiet},growth={growth},most={most}")
    grown = min(0.12 * max(cut.notes["noise"] / quiet, 1) ** growth, most)
    assert cut.notes["searched_from"] == pytest.approx(0.8 * grown)
    assert cut.notes["searched_to"] == pytest.approx(1.5 * grown)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("valley:least=0", r"for example valley:least=0\.12"),
        ("valley:quiet=0", r"for example valley:quiet=0\.003"),
        ("valley:growth=3", "expected 0 to 2"),
        ("valley:growth=-1", "expected 0 to 2"),
        ("valley:growth=nan", "expected 0 to 2"),
        ("valley:most=0.1", r"for example valley:least=0\.12,most=0\.48"),
        ("valley:most=nan", "no less than least"),
        ("valley:reach=1", r"expected 1\.5 or more, for example valley:reach=2\.5"),
        ("valley:reach=inf", "expected 1.5 or more"),
        ("valley:spread=0", r"expected a positive number, for example valley:spread=10"),
        ("valley:spread=nan", "expected a positive number"),
        ("valley:noise=some", "expected one of all, kept"),
    ],
)
def test_what_its_options_may_be_is_said(spec: str, expected: str):
    with pytest.raises(ConfigError, match=expected):
        THRESHOLDS.build(spec)


def test_where_rows_thin_out_beyond_the_range_the_cut_goes_on_into_the_gap():
    """The tail of the harmless rows is kept, and the hill of the unsafe ones begins far away."""
    rng = np.random.default_rng(0)
    harmless = rng.exponential(0.012, 900)
    unsafe = rng.normal(0.4, 0.05, 100)
    scores = np.r_[harmless, unsafe]
    rule = "valley:least=0.04,quiet=0.008"
    short, far = (valley(scores, f"{rule},reach={reach}") for reach in (1.5, 2.5))
    assert short.value == pytest.approx(1.5 * short.notes["searched_from"] / 0.8)
    assert (harmless > short.value).any()
    assert not (harmless > far.value).any()
    assert (unsafe > far.value).all()
    assert valley(scores, f"{rule},reach=2.5,most=0.04").value == short.value


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(-1, 3), min_size=1, max_size=80), st.sampled_from([1.5, 2.0, 2.5, 6.0]))
def test_a_longer_reach_only_keeps_more_and_never_goes_beyond(scores: list[float], reach: float):
    short = valley(scores, "valley:most=0.3")
    far = valley(scores, f"valley:most=0.3,reach={reach}")
    end = 1.5 * short.notes["searched_from"] / 0.8
    assert short.value <= far.value <= max(end, min(reach * end / 1.5, 0.3)) * (1 + 1e-12)
    if short.value < end * 0.999:  # it lies in a valley
        assert far.value == short.value


def test_a_file_of_small_scores_is_cut_lower_and_one_with_many_unsafe_rows_is_not():
    rng = np.random.default_rng(0)
    harmless, unsafe = rng.normal(0, 0.001, 980), rng.normal(0.025, 0.003, 20)
    rule = "valley:least=0.04,quiet=0.008"
    scores = np.r_[harmless, unsafe]
    assert not (unsafe > valley(scores, rule).value).any()
    low = valley(scores, f"{rule},spread=10").value
    assert (unsafe > low).all()
    assert not (harmless > low).any()
    many = np.r_[harmless, rng.normal(0.3, 0.05, 200)]
    assert valley(many, f"{rule},spread=10").value == valley(many, rule).value


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(-1, 3), min_size=1, max_size=80), st.floats(0.1, 30))
def test_the_spread_lowers_the_least_to_a_quarter_at_most(scores: list[float], spread: float):
    free = valley(scores, "valley:least=0.04").notes["searched_from"]
    bound = valley(scores, f"valley:least=0.04,spread={spread}").notes["searched_from"]
    nine_tenths = float(np.quantile(np.abs(scores), 0.9))
    share = min(1.0, max(0.25, spread * nine_tenths / 0.04))
    assert bound == pytest.approx(share * free)


@pytest.mark.parametrize("unsafe", [0, 20, 100, 300, 500])
def test_the_noise_of_the_kept_rows_is_that_of_the_harmless_ones(unsafe: int):
    """Whatever share of the file is unsafe, so that the cut does not grow with it."""
    rng = np.random.default_rng(0)
    harmless = rng.uniform(-0.04, 0.04, 1000 - unsafe)
    scores = np.r_[harmless, rng.normal(0.5, 0.05, unsafe)]
    rule = "valley:least=0.04,quiet=0.008,growth=1.5"
    of_all, of_kept = (valley(scores, f"{rule},noise={whose}") for whose in ("all", "kept"))
    expected = float(np.quantile(np.abs(harmless), 0.25))
    assert of_kept.notes["noise"] == pytest.approx(expected, rel=0.02)
    assert (of_all.notes["noise"] == of_kept.notes["noise"]) == (not unsafe)
    assert ((scores > of_kept.value) == (scores > 0.2)).all()
    if unsafe == 500:
        assert of_all.notes["noise"] > 2 * expected
        assert of_all.value > of_kept.value


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(-1, 3), min_size=1, max_size=80))
def test_the_noise_of_the_kept_rows_is_never_more_than_that_of_all(scores: list[float]):
    rule = "valley:least=0.04,quiet=0.008,growth=1.5"
    of_all, of_kept = (valley(scores, f"{rule},noise={whose}") for whose in ("all", "kept"))
    assert of_kept.notes["noise"] <= of_all.notes["noise"]
    assert of_kept.notes["searched_from"] <= of_all.notes["searched_from"]
    if not (np.array(scores) > of_all.notes["searched_from"] / 0.8).any():
        assert of_kept == of_all


def test_mingled_rows_are_said_to_be_beyond_estimating():
    rng = np.random.default_rng(0)
    cut = valley(rng.exponential(0.3, 1000))
    assert cut.lacks_estimate
    assert cut.expected_false_removals is None


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60))
def test_the_cut_is_positive_finite_and_does_not_depend_on_order(scores: list[float]):
    first, again = valley(scores), valley(scores[::-1])
    assert np.isfinite(first.value)
    assert first.value >= 0.8 * 0.12 * (1 - 1e-9)
    assert again.value == pytest.approx(first.value)


def test_auto_stands_for_the_rule_that_fits():
    assert choose_rule("crossfit", None) == choose_rule("crossfit", "auto") == "valley"
    assert choose_rule("restoration", "auto") == "auto"
    assert as_signal_has_it("phi:0.1", "crossfit", "nats per root token") == "phi:0.1"
    with pytest.raises(ConfigError, match=r"made for scores in nats per root token"):
        choose_rule("restoration", "valley")


def test_a_wide_models_phase_is_filled_in(tiny_model: Callable[..., Path], tmp_path: Path):
    bench = screen_of(tiny_model, tmp_path, 2).bench
    config = json.loads((Path(bench.source) / "config.json").read_text())
    assert config["hidden_size"] < 512
    assert bench.completed(PhaseSettings()).num_train_epochs == 12
    assert bench.completed(PhaseSettings(num_train_epochs=2)).num_train_epochs == 2


def test_many_rows_that_stand_out_are_no_noise():
    """Their own evidence makes half of the file noisy; the cut lies before their hill all the same.

    Without it the value is in the midst of the unsafe rows, and the emptiest place beyond most.
    """
    rng = np.random.default_rng(0)
    harmless, unsafe = rng.normal(0, 0.03, 650), np.exp(rng.normal(np.log(0.3), 0.25, 350))
    scores = np.r_[harmless, unsafe]
    rule = "valley:least=0.03,quiet=0.002,growth=1.2,most=0.3,reach=2.5"
    high, low = valley(scores, rule).value, valley(scores, f"{rule},hill=true").value
    assert np.mean(unsafe > high) < 0.5
    assert np.mean(unsafe > low) > 0.95
    assert np.mean(harmless > low) < 0.01


def test_a_few_rows_before_the_emptiest_place_are_no_hill():
    """Eight requests that only look dangerous, and a gap behind them; the unsafe rows lie further.

    Cut before those eight, they would all go, though a fifth of the rows or more stands out.
    """
    rng = np.random.default_rng(0)
    bulk, few = rng.exponential(0.0025, 230), np.exp(rng.normal(np.log(0.02), 0.1, 8))
    unsafe = np.exp(rng.normal(np.log(0.25), 0.4, 62))
    scores = np.r_[bulk, few, unsafe]
    rule = "valley:least=0.015,quiet=0.001,growth=0.8,most=0.3,widest=2.5"
    cut = valley(scores, f"{rule},hill=true")
    assert cut.notes["searched_from"] < few.min() < few.max() < cut.value < unsafe.min()
    assert np.mean(scores > cut.notes["searched_from"]) >= 0.2
    assert cut == valley(scores, rule)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(-1, 3), min_size=1, max_size=80))
def test_a_hill_moves_a_cut_only_where_many_rows_stand_out(scores: list[float]):
    rule = "valley:least=0.04,quiet=0.008,growth=1.5,most=0.3,reach=2.5"
    free, bound = valley(scores, rule), valley(scores, f"{rule},hill=true")
    assert 0.8 * 0.04 <= bound.value <= 1.5 * 0.3
    low = free.notes["searched_from"]
    if np.mean(np.array(scores) > low) < 0.2:
        assert bound == free
    else:
        assert bound.value <= free.value * (1 + 1e-9)


def test_the_emptiest_place_of_a_wider_range_may_lie_beyond_a_hill_of_its_own():
    """Requests that only look dangerous make a small hill; the gap behind it is emptier."""
    rng = np.random.default_rng(0)
    bulk, look_dangerous = rng.exponential(0.005, 880), rng.normal(0.07, 0.008, 40)
    scores = np.r_[bulk, look_dangerous, rng.normal(0.4, 0.05, 80)]
    rule = "valley:least=0.04,quiet=0.008,most=0.3"
    near, far = (valley(scores, f"{rule},widest={widest}").value for widest in (1.5, 3))
    assert (look_dangerous > near).all()
    assert not (look_dangerous > far).any()
    assert np.mean(scores > far) == pytest.approx(0.08)
    assert valley(scores, f"{rule[:-3]}0.04,widest=3").value == near


@pytest.mark.parametrize("widest", ["1.4", "inf", "nan"])
def test_a_range_narrower_than_usual_is_refused(widest: str):
    with pytest.raises(ConfigError, match=r"widest is .*expected 1.5 or more"):
        THRESHOLDS.build(f"valley:widest={widest}")
