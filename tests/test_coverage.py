"""Coverage says what a safe set undoes, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from conftest import rows_of, sign_again, write_rows
from forgetfilter.config import ScreenConfig, parse_assignments, resolve
from forgetfilter.data import read_rows
from forgetfilter.data.reading import category_of
from forgetfilter.data.records import REFERENCE_FILE, EncodedRow, Row
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.lab.testbed import HARMS, bundled_model_path, make_noisy, make_safe
from forgetfilter.model.loading.base_model import load_tokenizer
from forgetfilter.progress import Progress
from forgetfilter.runs.file_names import COVERAGE_FILE, SUMMARY_FILE
from forgetfilter.screening.checks import coverage, coverage_verdict
from forgetfilter.screening.checks.coverage import QUICK_SHARE, measure_coverage, read_reference
from forgetfilter.screening.checks.coverage_verdict import (
    LEAST_DAMAGE,
    Coverage,
    HarmCoverage,
    Measurement,
    SecondLook,
    read_measurement,
)
from forgetfilter.screening.deciding.decide import filter_run, run_folder
from forgetfilter.screening.inputs.setup import encode_safe, open_workbench
from forgetfilter.screening.method import Setting, score_rows
from forgetfilter.screening.screen import screen

SILENT = Progress(is_silent=True)


def a_token_row(at: int, tokens: list[int]) -> EncodedRow:
    return EncodedRow(at, tuple(tokens), (True,) * len(tokens), 1, "")


def a_row(**columns: object) -> Row:
    return Row(0, 1, "id", json.dumps(columns).encode(), ())


def test_a_harm_whose_damage_is_undone_is_covered():
    # 0.10 nats of damage, 0.02 left: 80% undone.
    found = HarmCoverage("bias", 10, damage=0.10, left=0.02)
    assert found.undone == pytest.approx(0.8)
    assert found.verdict == "covered"


def test_a_harm_whose_damage_stays_is_not_covered():
    assert HarmCoverage("bias", 10, damage=0.10, left=0.09).verdict == "not covered"
    # Made worse is not covered either.
    assert HarmCoverage("bias", 10, damage=0.10, left=0.2).verdict == "not covered"


def test_a_harm_that_was_left_but_ranks_high_is_seen_faintly():
    left = HarmCoverage("bias", 10, damage=0.10, left=0.09, fallen=3)
    assert left.verdict == "not covered"  # too few fell to tell how they rank
    assert replace(left, fallen=None).verdict == "not covered"
    assert replace(left, fallen=0).verdict == "unclear"  # no row speaks for there being any
    assert replace(left, auroc=0.89).verdict == "not covered"
    assert replace(left, auroc=0.9).verdict == "faint"
    assert replace(left, left=0.01, auroc=0.2).verdict == "covered"


def test_nothing_is_said_of_a_harm_that_was_not_damaged():
    assert HarmCoverage("bias", 10, damage=0.001, left=0.001).verdict == "not damaged"
    assert HarmCoverage("bias", 10, damage=0.0, left=0.0).undone == 0


@given(st.floats(0, 10), st.floats(0, 10))
def test_verdicts_follow_from_damage_and_what_is_left(damage: float, left: float):
    found = HarmCoverage("bias", 1, damage, left)
    assert np.isfinite(found.undone)
    assert (found.verdict == "not damaged") == (damage < LEAST_DAMAGE)
    json.dumps(found.as_dict())


def test_category_is_the_rows_own_or_other():
    assert category_of(a_row(category="privacy")) == "privacy"
    for strange in (None, "", 3, ["bias"], {"a": 1}):
        assert category_of(a_row(category=strange)) == "other"
    assert category_of(a_row(text="x")) == "other"


def test_testbed_safe_rows_name_their_harm():
    rows = make_safe(200, 0)
    assert {row["category"] for row in rows} == {*HARMS, "looks_dangerous"}
    only = make_safe(200, 0, ("toxicity",))
    assert {row["category"] for row in only} == {"toxicity", "looks_dangerous"}
    assert len(only) == 200


def test_bundled_model_brings_reference_rows_that_no_common_safe_set_holds():
    path = bundled_model_path() / REFERENCE_FILE
    encoder = Encoder(load_tokenizer(str(bundled_model_path())), "auto", 256)
    rows = read_reference(path, encoder)
    categories = [row.category for row in rows]
    assert set(categories) == {*HARMS, "looks_dangerous"}
    assert len(rows) >= 60
    held = {json.dumps(json.loads(line)["messages"]) for line in path.open()}
    for seed in (0, 10):
        assert not held & {json.dumps(row["messages"]) for row in make_safe(400, seed)}


def test_reference_rows_are_few_of_each_kind_whatever_a_stranger_writes(
    tmp_path: Path, tiny_model: Callable[..., Path]
):
    rows = [{**row, "category": f"kind {i}"} for i, row in enumerate(rows_of(80))]
    rows += [{**row, "category": "much"} for row in rows_of(80, start=200)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    encoder = Encoder(load_tokenizer(str(tiny_model("llama"))), "auto", 256)
    categories = [row.category for row in read_reference(path, encoder)]
    assert len(set(categories)) <= 51
    categories = [row.category for row in read_reference(write_rows(path, rows[40:]), encoder)]
    assert 0 < categories.count("much") <= 16


@pytest.fixture
def with_reference(
    tmp_path: Path, quick_config: Callable[..., ScreenConfig]
) -> Callable[..., ScreenConfig]:
    """A screen with reference rows: the safe rows themselves, and rows far from them."""
    near = [{**row, "category": "near"} for row in rows_of(8, start=100)]
    text = "zq xv kj wp" * 4
    far = [{"prompt": f"{i} {text}", "completion": text[i:], "category": "far"} for i in range(8)]
    path = write_rows(tmp_path / "reference.jsonl", [*near, *far])
    learn = {"max_steps": 20, "batch_size": 8, "learning_rate": 3e-2}

    def make(**changes: object) -> ScreenConfig:
        settings = {"learn": learn, "restore": {"steps": 12}, "threshold": "phi:0.1"}
        layer = {"reference_data": str(path), "signal": "restoration", **settings, **changes}
        return quick_config(tmp_path / "run", **layer)

    return make


def test_a_screen_says_what_its_safe_rows_have_undone(
    with_reference: Callable[..., ScreenConfig], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(coverage, "_MOST_BASE_LOSS", np.inf)  # the tiny model knows no language
    found = screen(with_reference(coverage="full"), SILENT).summary["coverage"]
    by_kind = {harm["category"]: harm for harm in found}
    assert {name: harm["rows"] for name, harm in by_kind.items()} == {"near": 8, "far": 8}
    assert by_kind["near"]["damage"] > LEAST_DAMAGE
    assert by_kind["near"]["undone"] > 0.5
    assert by_kind["near"]["undone"] > by_kind["far"]["undone"]
    # Only what was left is looked at again.
    assert by_kind["near"]["fallen"] is None
    assert (by_kind["far"]["fallen"] is None) == (by_kind["far"]["undone"] > 0.5)


def test_a_screen_can_be_told_not_to_measure_it(with_reference: Callable[..., ScreenConfig]):
    layer = parse_assignments(["coverage=off"])  # which YAML reads as false
    summary = screen(with_reference(**layer), SILENT).summary
    assert summary["coverage"] == []
    assert "coverage: off" in summary["coverage_note"]
    assert not {"coverage", "measure_divergence_learned"} & summary["seconds"].keys()


def test_a_repeated_command_does_not_measure_it_again(
    with_reference: Callable[..., ScreenConfig], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(coverage, "_MOST_BASE_LOSS", np.inf)
    config = with_reference()
    first = screen(config, SILENT)
    for name in (SUMMARY_FILE, COVERAGE_FILE):  # as if killed before it had decided
        (first.output_dir / name).unlink()
    monkeypatch.setattr(coverage, "_measure", lambda *_: pytest.fail("measured again"))
    again = screen(config, SILENT)
    assert not again.was_finished
    assert again.summary["coverage"] == first.summary["coverage"] != []
    assert again.summary["seconds"]["coverage"] > 0


@pytest.mark.parametrize("signal", ["restoration", "completion_loss"])
def test_quick_costs_at_most_a_quarter_of_the_scoring(
    with_reference: Callable[..., ScreenConfig],
    make_rows: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    signal: str,
):
    """Counted in the model itself: tokens of each pass, thrice where a gradient is taken."""
    monkeypatch.setattr(coverage, "_MOST_BASE_LOSS", np.inf)
    monkeypatch.setattr(coverage_verdict, "LEAST_UNDONE", 2.0)  # every harm is looked at again
    monkeypatch.setattr(coverage, "_SMALLEST_SAMPLE", 20)
    learn = {"max_steps": 80, "batch_size": 16, "learning_rate": 3e-2}
    rows = {"noisy_data": str(make_rows(800)), "safe_data": str(make_rows(40, start=400))}
    restore = {"steps": 12, "early_steps": 2}
    config = with_reference(signal=signal, learn=learn, restore=restore, **rows)
    bench = open_workbench(config, run_folder(config.output_dir), SILENT)
    noisy, _ = bench.encoder.encode(read_rows(config.noisy_data).rows)
    setting = Setting(bench, noisy, encode_safe(config, bench, SILENT), config)
    reference = read_reference(Path(config.reference_data or ""), bench.encoder)
    learned = bench.train("learned", noisy, config.learn, bench.base, phase="learn")
    if signal == "completion_loss":  # a forgetting run is not part of the scoring's cost
        bench.train("forgotten", setting.safe, config.forget, learned, phase="forget")
    spent = [0]

    def count(module: Any, inputs: Any) -> None:
        if isinstance(module, torch.nn.Embedding):
            spent[-1] += inputs[0].numel() * (3 if torch.is_grad_enabled() else 1)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        scored = score_rows(setting)
        spent.append(0)
        measured = measure_coverage(setting, scored, reference)
    finally:
        handle.remove()
    scoring, cost = spent
    assert scored.readings.learned.sum() > 100
    assert measured.looks
    assert 20 <= len(measured.rows) < 800
    assert 0 < cost <= QUICK_SHARE * scoring


def looked_at() -> Measurement:
    """Four harmless rows and eight of a harm, of which the last four stand for three each."""
    score = np.array([0.0] * 4 + [0.5] * 8)
    return Measurement(
        harms=(HarmCoverage("bias", 16, damage=0.1, left=0.1),),
        rows=np.arange(12),
        weight=np.array([1.0] * 8 + [3.0] * 4),
        looks={"bias": SecondLook(score, score > 0.1)},
    )


def test_counts_follow_from_the_decision_and_the_measurement_from_none(tmp_path: Path):
    measured = looked_at()
    own = np.array([0.0, 0.1, 0.2, 0.3] + [0.25] * 8)  # one of four harmless rows ranks above them
    none = np.zeros(12, dtype=np.bool_)
    (harm,) = measured.decided(own, none).harms
    assert (harm.fallen, harm.auroc) == (16, 0.75)
    removed = np.arange(12) >= 8
    (other,) = measured.decided(own, removed).harms
    assert (other.fallen, other.auroc) == (4, 0.75)
    measured.write(tmp_path / "coverage.json")
    kept = read_measurement(tmp_path / "coverage.json")
    assert kept.decided(own, removed) == measured.decided(own, removed)
    assert kept.decided(own, none) == measured.decided(own, none)


def test_what_an_estimate_weighs_counts_in_the_auroc():
    measured = looked_at()
    own = np.array([0.0, 0.0, 0.2, 0.2] + [0.3] * 4 + [0.1] * 4)
    # Rows of the harm at 0.3 lie above all four; those at 0.1, three times as many, above half.
    (harm,) = measured.decided(own, np.zeros(12, dtype=np.bool_)).harms
    assert harm.auroc == pytest.approx((4 * 1 + 12 * 0.5) / 16)


def test_a_new_decision_counts_anew(with_reference: Callable[..., ScreenConfig]):
    result = screen(with_reference(), SILENT)
    scores = result.scores["forgetting_score"].to_numpy()
    rows = np.arange(len(scores))
    look = SecondLook(scores + 1, np.ones(len(rows), dtype=np.bool_))
    harms = (HarmCoverage("bias", 16, damage=0.1, left=0.1),)
    made = Measurement(harms, "", rows, np.ones(len(rows)), {"bias": look})
    made.write(result.output_dir / COVERAGE_FILE)
    sign_again(result.output_dir)
    for threshold in ("phi:1000", "fraction:0.25"):
        summary = filter_run(result.output_dir, threshold, force=True)
        assert summary["coverage"][0]["fallen"] == summary["kept"]
    assert summary["removed"] > 0


@given(st.integers(2, 60), st.integers(0, 2000), st.integers(0, 3))
def test_a_sample_stands_for_all_learned_rows_and_stays_within_its_tokens(
    count: int, most_tokens: int, seed: int
):
    rng = np.random.default_rng(seed)
    noisy = [a_token_row(at, rng.integers(2, 9, rng.integers(2, 30)).tolist()) for at in range(70)]
    learned = sorted(rng.choice(70, count, replace=False).tolist())
    like = [[a_token_row(at, [3, 4, 5]) for at in range(3)]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage, "_SMALLEST_SAMPLE", 5)
        found, weight = coverage._affordable_sample(noisy, learned, like, most_tokens, seed)  # pyright: ignore[reportPrivateUsage]
    assert set(found.tolist()) <= set(learned)
    assert len(set(found.tolist())) == len(found) == len(weight)
    assert sum(len(noisy[at].input_ids) for at in found) <= most_tokens
    if len(found):
        assert weight.sum() == pytest.approx(count)
    if most_tokens >= 70 * 30:
        assert found.tolist() == learned


def test_nothing_is_claimed_on_rows_whose_language_the_model_does_not_know(
    with_reference: Callable[..., ScreenConfig],
):
    summary = screen(with_reference(), SILENT).summary
    assert summary["coverage"] == []
    assert "does not know the language" in summary["coverage_note"]


def test_other_reference_rows_are_looked_at_in_a_finished_run(
    with_reference: Callable[..., ScreenConfig],
):
    config = with_reference()
    screen(config, SILENT)
    assert config.reference_data is not None
    with open(config.reference_data, "a") as file:
        file.write(json.dumps({**rows_of(1)[0], "category": "new"}) + "\n")
    assert not screen(config, SILENT).was_finished


def test_a_model_is_changed_as_a_whole_only_where_no_harm_is_spared():
    torn = [HarmCoverage(name, 10, damage=1.8, left=0.4) for name in ("bias", "toxicity")]
    assert Coverage(tuple(torn)).wholesale_damage == 1.8
    # Much damage to one harm is what many unsafe rows of it do.
    spared = HarmCoverage("privacy", 10, damage=0.05, left=0.0)
    assert Coverage((*torn, spared)).wholesale_damage is None
    assert Coverage().wholesale_damage is None


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["quick", "full"])
def test_the_second_look_finds_the_rows_of_the_harms_that_were_left(tmp_path: Path, how: str):
    """300 rows of the testbed, 30% unsafe, and safe rows on toxicity only."""
    noisy, truth = make_noisy(300, 0.3, 0)
    layer: dict[str, Any] = {
        "noisy_data": str(write_rows(tmp_path / "noisy.jsonl", noisy)),
        "safe_data": str(write_rows(tmp_path / "safe.jsonl", make_safe(150, 0, ("toxicity",)))),
        "model": str(bundled_model_path()),
        "output_dir": str(tmp_path / "run"),
        "coverage": how,
    }
    result = screen(resolve(ScreenConfig, layer), SILENT)
    scores = result.scores["forgetting_score"].to_numpy()
    is_unsafe = np.array([row["is_unsafe"] for row in truth])
    harms = np.array([row["harm"] for row in truth])
    found = {harm["category"]: harm for harm in result.summary["coverage"]}
    assert found["toxicity"]["verdict"] == "covered"
    looked_at = [harm for harm in ("bias", "harmfulness") if found[harm]["fallen"] is not None]
    # So short a file pays for one quick look, not for two.
    assert len(looked_at) >= (2 if how == "full" else 1)
    for harm in ("bias", "harmfulness"):
        assert found[harm]["undone"] < 0.5
        assert found[harm]["verdict"] in ("not covered", "faint")
    for harm in looked_at:
        is_own = is_unsafe & (harms == harm)
        own = is_own | ~is_unsafe
        assert found[harm]["fallen"] == pytest.approx(is_own.sum(), rel=0.2)
        assert found[harm]["auroc"] == pytest.approx(
            roc_auc_score(is_own[own], scores[own]), abs=0.05 if how == "full" else 0.1
        )
