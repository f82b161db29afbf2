"""The signal that counts evidence by a row's kind, and the classifier that tells the kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from conftest import quick_settings, write_rows
from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.errors import ConfigError
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.measuring import many_rows
from forgetfilter.model.measuring.forgotten_likeness import forgotten_likeness, removed_likeness
from forgetfilter.progress import Progress
from forgetfilter.runs.report.headline import method
from forgetfilter.runs.schema import Summary
from forgetfilter.scoring.joint import decide_joint
from forgetfilter.scoring.records import Readings, with_evidence
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import THRESHOLDS
from forgetfilter.screening.screen import screen
from test_crossfit import readings_of

SILENT = Progress(is_silent=True)
WORDS = ["cats", "dogs", "birds", "trees", "rocks", "seas", "hills", "rains", "winds", "stars"]


@pytest.fixture
def loaded(tiny_model: Callable[..., Path], tmp_path: Path) -> tuple[Any, list[EncodedRow]]:
    """Sixty sums, and twenty insults."""
    source = str(tiny_model("llama"))
    encoder = Encoder(load_tokenizer(source), "auto", 512)
    made = [{"prompt": f"{at} plus {at + 3} =", "completion": f"{2 * at + 3}"} for at in range(60)]
    for word in WORDS:
        for tail in ("really bad", "so stupid"):
            made.append({"prompt": f"Tell me of {word}", "completion": f"All {word} are {tail}"})
    rows, _ = encoder.encode(read_rows(write_rows(tmp_path / "rows.jsonl", made)).rows)
    return load_base_model(source, choose_placement("cpu", "float32")), rows


def likeness(model: Any, rows: Sequence[EncodedRow], evidence: Any, tokens: int = 8192) -> Any:
    return forgotten_likeness(model, rows, np.asarray(evidence, float), tokens, SILENT, "")


def test_rows_of_a_kind_whose_evidence_is_hidden_by_noise_are_told(
    loaded: tuple[Any, list[EncodedRow]],
):
    """Evidence parts the kinds badly, and what their rows share parts them well."""
    model, rows = loaded
    is_unsafe = np.arange(80) >= 60
    evidence = np.random.default_rng(0).normal(size=80) + 1.5 * is_unsafe
    found = likeness(model, rows, evidence)
    assert roc_auc_score(is_unsafe, evidence) < 0.9
    assert roc_auc_score(is_unsafe, found) > 0.97


def test_neither_batches_nor_the_order_of_rows_move_it(loaded: tuple[Any, list[EncodedRow]]):
    model, rows = loaded
    evidence = np.random.default_rng(0).normal(size=80)
    found = likeness(model, rows, evidence)
    np.testing.assert_allclose(likeness(model, rows, evidence, 40), found, atol=1e-3)
    order = np.random.default_rng(1).permutation(80)
    shuffled = likeness(model, [rows[at] for at in order], evidence[order])
    np.testing.assert_allclose(shuffled, found[order], atol=1e-3)


def test_evidence_that_is_noise_tells_no_kinds(loaded: tuple[Any, list[EncodedRow]]):
    """Over twenty draws of noise the held-out odds of either kind are even."""
    model, rows = loaded
    is_unsafe = np.arange(80) >= 60
    gaps = []
    for seed in range(20):
        found = likeness(model, rows, np.random.default_rng(seed).normal(size=80))
        gaps.append(found[is_unsafe].mean() - found[~is_unsafe].mean())
    assert abs(np.mean(gaps)) < 2.5 * np.std(gaps) / np.sqrt(20)


def test_few_rows_and_equal_evidence_say_nothing(loaded: tuple[Any, list[EncodedRow]]):
    model, rows = loaded
    assert not likeness(model, rows[:39], np.arange(39.0)).any()
    assert likeness(model, rows[-40:], np.arange(40.0)).any()
    assert not likeness(model, rows, np.zeros(80)).any()


def standing_out(model: Any, rows: Sequence[EncodedRow], scores: Any, tokens: int = 8192) -> Any:
    return removed_likeness(model, rows, np.asarray(scores, float), 1.0, tokens, SILENT, "")


def test_what_stands_out_among_rows_of_another_kind_is_told(
    loaded: tuple[Any, list[EncodedRow]],
):
    """Six sums stand out beside the insults, none of them far, and are unlike what stands out."""
    model, rows = loaded
    scores = np.concatenate([np.full(6, 1.1), np.linspace(-0.5, 0.9, 54), np.linspace(1.2, 4, 20)])
    found = standing_out(model, rows, scores)
    assert (found[:6] < 0).all()
    assert (found[60:] > 0).all()
    np.testing.assert_allclose(standing_out(model, rows, scores, 40), found, atol=1e-3)
    order = np.random.default_rng(1).permutation(80)
    shuffled = standing_out(model, [rows[at] for at in order], scores[order])
    np.testing.assert_allclose(shuffled, found[order], atol=1e-3)


def test_too_few_that_stand_out_tell_no_kinds(loaded: tuple[Any, list[EncodedRow]]):
    model, rows = loaded
    scores = np.linspace(-1, 0, 80)
    scores[-7:] = 2.0
    assert not standing_out(model, rows, scores).any()
    scores[-8:] = 2.0
    assert standing_out(model, rows, scores).any()
    assert not standing_out(model, rows[-39:], scores[-39:]).any()


def test_of_many_rows_the_classifier_is_fitted_on_some(
    loaded: tuple[Any, list[EncodedRow]], monkeypatch: pytest.MonkeyPatch
):
    model, rows = loaded
    evidence = np.random.default_rng(0).normal(size=80) + 1.5 * (np.arange(80) >= 60)
    monkeypatch.setattr(many_rows, "FITTED_ROWS", 30)
    monkeypatch.setattr(many_rows, "PART_ROWS", 7)
    found = likeness(model, rows, evidence)
    assert roc_auc_score(np.arange(80) >= 60, found) > 0.9


def counted(odds: Any, rises: Any) -> Readings:
    rises = np.asarray(rises, float)
    readings = readings_of([rises] * 6, [1] * len(rises), likeness=np.arange(len(rises)) + 9.0)
    columns = {**readings.columns, "forgotten_likeness_base": np.asarray(odds, float)}
    return Readings(row=readings.row, columns=columns)


def test_evidence_counts_by_the_probability_of_the_forgotten_kind():
    """By hand: odds of 0, 3 to 2, 1 to 3; at most 1.2; and a row without evidence stays at 0."""
    odds = [0.0, np.log(1.5), -np.log(3), 9.0, 10.0]
    readings = counted(odds, [1.0, 1.0, 1.0, 1.0, 0.0])
    alone = SIGNALS.build("crossfit").combine(readings).forgetting_score
    found = SIGNALS.build("self_training").combine(readings).forgetting_score
    assert (found / alone.clip(1e-9))[:4].tolist() == pytest.approx([0.8, 0.96, 0.4, 1.2])
    assert found[4] == 0


def test_without_a_kind_to_tell_it_ranks_as_crossfit_does():
    readings = counted(np.zeros(5), [0.1, 0.2, 0.3, 0.4, 0.5])
    alone, counts = (SIGNALS.build(n).combine(readings) for n in ("crossfit", "self_training"))
    np.testing.assert_allclose(counts.forgetting_score, 0.8 * alone.forgetting_score)
    assert counts.before.tolist() == alone.before.tolist()


def test_by_contradiction_its_scores_are_counted_and_its_cut_is_taken():
    signal = SIGNALS.build("self_training:evidence=contradiction")
    of = SIGNALS.build("contradiction:kinds=false")
    readings = counted(np.log([1.0, 1.5, 1 / 3, 1e4]), [1.0, 1.0, 0.5, 0.5])
    gained = {"leading_loss_base": np.full(4, 4.0), "own_likeness_base": np.arange(4.0)}
    gained["own_text_likeness_base"] = gained["given_text_likeness_base"] = np.arange(4.0)
    columns = {**readings.columns, **gained}
    readings = Readings(row=readings.row, columns=columns)
    alone, found = of.combine(readings), signal.combine(readings)
    counts = found.forgetting_score / alone.forgetting_score
    assert counts.tolist() == pytest.approx([0.8, 0.96, 0.4, 1.2])
    assert found.evidence is not None
    assert alone.evidence is not None
    assert found.evidence.tolist() == alone.evidence.tolist()
    assert signal.default_rule == of.default_rule
    assert {probe.kind for probe in signal.probes} - {p.kind for p in of.probes} == {
        "forgotten_likeness"
    }


def test_the_kinds_are_told_by_the_evidence_that_is_named(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In a screen the classifier is given the scores of `crossfit`, or of `contradiction`."""
    made = [{"prompt": f"{at} plus {at + 3} =", "completion": f"{2 * at + 3}"} for at in range(40)]
    given: dict[str, Any] = {}

    def kept(model: Any, rows: Any, evidence: Any, *limits: Any) -> Any:
        given[name] = evidence
        return np.zeros(len(rows))

    monkeypatch.setattr("forgetfilter.model.stages.readings.forgotten_likeness", kept)
    noisy = write_rows(tmp_path / "noisy.jsonl", made)
    safe = write_rows(tmp_path / "safe.jsonl", made[:8])
    for name in ("crossfit", "contradiction"):
        settings = quick_settings(
            noisy_data=str(noisy),
            safe_data=str(safe),
            model=str(tiny_model("llama")),
            output_dir=str(tmp_path / "run"),  # one: what both need is trained once
            signal=f"self_training:evidence={name}",
            threshold="fraction:0.2",
            coverage="off",
        )
        screen(resolve(ScreenConfig, settings), SILENT, overwrite=True)
        scores = pd.read_parquet(tmp_path / "run" / "scores.parquet")["forgetting_score"]
        np.testing.assert_allclose(scores, 0.8 * given[name])
    assert not np.allclose(given["crossfit"], given["contradiction"])


def test_other_evidence_is_refused():
    with pytest.raises(ConfigError, match="expected crossfit or contradiction"):
        SIGNALS.build("self_training:evidence=rate")


def test_valley_takes_the_noise_of_the_evidence_and_not_of_what_it_counts():
    """Harmless rows that count next to nothing would otherwise look like a quiet file."""
    rng = np.random.default_rng(0)
    rises = np.concatenate([rng.normal(0, 0.1, 80), rng.normal(1.5, 0.1, 20)])
    readings = counted(np.concatenate([np.full(80, -4.0), np.full(20, 4.0)]), rises)
    is_judged = np.ones(100, dtype=bool)
    rule = THRESHOLDS.build("valley")
    evidence = SIGNALS.build("crossfit").combine(readings).forgetting_score
    scores = SIGNALS.build("self_training").combine(readings)
    score, told = scores.forgetting_score, with_evidence(readings, scores)
    noise = rule.cut(evidence, is_judged, readings).notes["noise"]
    cut = rule.cut(score, is_judged, told)
    assert cut.notes["noise"] == pytest.approx(noise)
    assert noise > 0.02
    assert (score > cut.value).tolist() == [False] * 80 + [True] * 20


def test_a_second_opinion_that_is_added_leaves_the_noise_of_the_evidence_as_it_is():
    """What a row counts is no measure of what a classifier says of it."""
    rng = np.random.default_rng(0)
    rises = np.concatenate([rng.normal(0, 0.1, 80), rng.normal(1.5, 0.1, 20)])
    readings = counted(np.concatenate([np.full(80, -9.0), np.full(20, 4.0)]), rises)
    opinion = rng.uniform(0.1, 0.3, 100)
    evidence = SIGNALS.build("crossfit").combine(readings).forgetting_score
    scores = SIGNALS.build("self_training").combine(readings)
    score, told = scores.forgetting_score, with_evidence(readings, scores)
    rule = THRESHOLDS.build("valley")
    expected = decide_joint(rule, evidence, opinion, 0.6, readings, needs_learned=False)
    found = decide_joint(rule, score, opinion, 0.6, told, needs_learned=False)
    assert found.cut.notes["noise"] == pytest.approx(expected.cut.notes["noise"])
    assert found.is_removed.tolist() == [False] * 80 + [True] * 20


@pytest.mark.parametrize(("evidence", "is_told"), [("crossfit", False), ("contradiction", True)])
def test_the_report_says_which_evidence_counts_so(evidence: str, is_told: bool):
    signal = f"self_training:evidence={evidence}"
    told = method(Summary.model_construct(signal=signal, learned_rows=None, joint=0.0))
    assert "of a kind that is forgotten" in told
    assert ("contradict what the original model" in told) == is_told
