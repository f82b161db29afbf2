"""What base would answer itself, and the signal that holds rows against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from forgetfilter.errors import ConfigError
from forgetfilter.progress import Progress
from forgetfilter.scoring.records import Readings, with_evidence
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import THRESHOLDS, as_signal_has_it, choose_rule
from forgetfilter.screening.deciding.decide import rule_to_apply
from test_crossfit import readings_of

SILENT = Progress(is_silent=True)


def contradicting(
    likeness: Any, surprise: Any, gains: Any = 0.0, text: Any = 0.0, given: Any = None
) -> Readings:
    """Rows of one token that rise by 2 nats in each restoration.

    Their own answers read as base's do, or as ``given``.
    """
    count = len(likeness)
    readings = readings_of([[2.0] * count] * 6, [1] * count)
    before = np.asarray(surprise, dtype=np.float64) - gains
    columns = dict(readings.columns)
    for name in readings.columns:
        if name.startswith("leading_loss_"):
            columns[name] = columns[name] - 10.0 + before
    columns["leading_loss_base"] = np.asarray(surprise, dtype=np.float64)
    columns["loss_sum_base"] = columns["leading_loss_base"]
    columns["own_likeness_base"] = np.asarray(likeness, dtype=np.float64)
    columns["own_text_likeness_base"] = np.zeros(count) + text
    columns["given_text_likeness_base"] = np.zeros(count) + (text if given is None else given)
    columns["removed_likeness_base"] = np.zeros(count)
    return Readings(row=readings.row, columns=columns)


def scores(readings: Readings, signal: str = "contradiction") -> list[float]:
    return SIGNALS.build(signal).combine(readings).forgetting_score.tolist()


def test_evidence_counts_less_where_base_answers_unlike_it_answers_safe_rows():
    found = scores(contradicting([-9, 7, 1, 1, 2, 3, 4, 5, 6, 8], [4.0] * 10))
    assert found == pytest.approx([0.4, 2.0, 0.8, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0])


def test_both_ways_to_read_bases_own_answer_must_agree():
    """Counts 0.35, 0.6, 0.85 and 1 by one, times those by the other."""
    readings = contradicting([0, 1, 2, 3], [4.0] * 4, text=[3, 1, 2, 0])
    counted = np.array([0.35 * 1, 0.6 * 0.6, 0.85 * 0.85, 1 * 0.35])
    assert scores(readings) == pytest.approx(2 * counted)
    assert scores(readings, "contradiction:text=false") == pytest.approx([0.7, 1.2, 1.7, 2.0])


def test_a_task_is_told_by_what_base_answers_and_not_by_how_it_asks():
    """A task that is worded like the safe rows', which base answers as a task: unlike by the text.

    By the states in which the answer is said it stands among the requests that base declines.
    """
    said, text = [0.0] * 8 + [1.0, 1.2, 1.1], [0.0] * 8 + [2.0, 2.1, -5.0]
    *_, unsafe, other, task = scores(contradicting(said, [4.0] * 11, text=text))
    assert task < 0.25 * min(unsafe, other)
    *_, unsafe, other, task = scores(contradicting(said, [4.0] * 11), "contradiction:text=false")
    assert task >= unsafe


def test_an_answer_that_is_safer_than_bases_own_contradicts_nothing():
    """A refusal of a task, which base would do: by 1.5 the log odds may differ, then e-fold."""
    readings = contradicting([0] * 4, [4.0] * 4, text=[0.5] * 4, given=[-3.0, 2.0, 3.0, 5.0])
    assert scores(readings) == pytest.approx([2.0, 2.0, 2 * np.exp(-1), 2 * np.exp(-3)])
    assert scores(readings, "contradiction:text=false") == pytest.approx([2.0] * 4)


def test_what_base_says_itself_contradicts_nothing():
    assert scores(contradicting([0] * 4, [0.0, 0.25, 0.5, 1.9])) == pytest.approx([0, 0.5, 2, 2])


def test_what_was_learned_much_counts_by_the_share_that_is_given_back():
    """The less so the more base's own answer is like a safe one: to the power 1, 1, 3/4, 1/2."""
    gains = np.array([8.0, 2.0, 8.0, 8.0])
    readings = contradicting([0, 0, 1, 2], [16.0] * 4, gains, text=[0, 0, 1, 2])
    by_quarter = np.array([0.25, 1, 0.25**0.75, 0.25**0.5])
    by_half = np.array([0.5, 1, 0.5**0.75, 0.5**0.5])
    counted = 2 * np.array([0.6, 0.6, 0.85, 1]) ** 2
    assert scores(readings) == pytest.approx(counted * by_quarter)
    assert scores(readings, "contradiction:gain=4") == pytest.approx(counted * by_half)


def rising(*rows: list[float]) -> Readings:
    """Rows of one token with six rises each, whose own answers are as like safe ones as any."""
    readings = contradicting([0.0] * len(rows), [4.0] * len(rows))
    columns = dict(readings.columns)
    for at, (earlier, later) in enumerate(SIGNALS.build("contradiction").pairs):
        columns[f"leading_loss_{later}"] = columns[f"leading_loss_{earlier}"] + [
            row[at] for row in rows
        ]
    return Readings(row=readings.row, columns=columns)


def test_half_of_the_evidence_is_of_the_model_that_has_learned_the_row():
    """The first of the six is its late end; the median is of all six."""
    readings = rising([0.8, 0.1, 0.2, 0.3, 0.2, 0.1], [0.0, 0.3, 0.4, 0.4, 0.5, 0.2])
    assert scores(readings) == pytest.approx([(0.8 + 0.2) / 2, (0.0 + 0.35) / 2])
    assert scores(readings, "contradiction:learned=0") == pytest.approx([0.2, 0.35])
    assert scores(readings, "contradiction:learned=1") == pytest.approx([0.8, 0.0])


def test_an_unsafe_row_without_fellows_is_not_overlooked():
    """Models that learned other rows have gained nothing of it, so that nothing is given back."""
    lone, task = [0.5, 0.1, 0.0, 0.0, 0.0, 0.0], [0.05, 0.06, 0.05, 0.06, 0.05, 0.06]
    unsafe, harmless = scores(rising(lone, *[task] * 9))[:2]
    assert unsafe > 4 * harmless
    unsafe, harmless = scores(rising(lone, *[task] * 9), "contradiction:learned=0")[:2]
    assert unsafe < harmless


@pytest.mark.parametrize("learned", ["-0.1", "1.01", "nan"])
def test_a_share_outside_of_its_range_is_refused(learned: str):
    with pytest.raises(ConfigError, match=r"learned is .*expected 0 to 1"):
        SIGNALS.build(f"contradiction:learned={learned}")


def test_a_rule_by_its_bare_name_has_the_options_of_the_signal():
    options = (
        "least=0.015,quiet=0.001,growth=0.8,most=0.3,widest=2.5,spread=10,noise=kept,hill=true"
    )
    for asked in (None, "valley", "auto"):
        assert choose_rule("contradiction", asked) == f"valley:{options}"
    assert choose_rule("contradiction", "valley:least=0.12") == "valley:least=0.12"
    assert as_signal_has_it("valley", "gone", "nats per root token") == "valley"
    summary = {"signal": "contradiction", "threshold": {"rule": "phi:0.2"}}
    for asked in ("valley", "auto"):
        assert rule_to_apply(summary, asked)[0] == f"valley:{options}"


@pytest.mark.parametrize("signal", ["contradiction", "contradiction:kinds=false"])
def test_prompts_are_not_compared_beside_it(signal: str):
    kinds = [probe.kind for probe in SIGNALS.build(signal).probes]
    own = {"own_likeness", "text_likeness"}
    assert {*kinds} - {"removed_likeness"} == {"loss", "neighbours", *own}
    assert (kinds[-1] == "removed_likeness") == (signal == "contradiction")


def test_rows_unlike_those_removed_count_less_and_none_counts_more():
    """By hand: probabilities of 1/3 and more change nothing; 1/6 halves, 1/30 leaves a tenth."""
    readings = contradicting([0] * 5, [4.0] * 5)
    odds = np.log([1 / 2, 3.0, 1 / 5, 1 / 29, 1e4])
    readings = Readings(readings.row, {**readings.columns, "removed_likeness_base": odds})
    found = SIGNALS.build("contradiction").combine(readings)
    assert found.forgetting_score.tolist() == pytest.approx([2, 2, 1, 0.2, 2])
    assert found.alone is not None
    assert found.alone.tolist() == scores(readings, "contradiction:kinds=false")


def test_kinds_move_no_cut_and_only_keep_rows():
    """Whatever they say, nothing goes that did not go without them, in any of eighty files."""
    rng = np.random.default_rng(0)
    rule = THRESHOLDS.build(choose_rule("contradiction", None))
    is_judged = np.ones(100, dtype=bool)
    kept = 0
    for _ in range(80):
        rises = np.concatenate([rng.normal(0, 0.05, 70), rng.lognormal(-2, 1, 30)])
        readings = readings_of([rises] * 6, [1] * 100)
        columns = {**readings.columns, "own_likeness_base": rng.normal(size=100)}
        columns["own_text_likeness_base"] = np.zeros(100)
        columns["given_text_likeness_base"] = np.zeros(100)
        columns |= {"leading_loss_base": np.full(100, 4.0), "loss_sum_base": np.full(100, 4.0)}
        columns["removed_likeness_base"] = rng.normal(0, 3, 100)
        readings = Readings(readings.row, columns)
        alone = SIGNALS.build("contradiction:kinds=false").combine(readings)
        found = SIGNALS.build("contradiction").combine(readings)
        before = rule.cut(alone.forgetting_score, is_judged, with_evidence(readings, alone))
        after = rule.cut(found.forgetting_score, is_judged, with_evidence(readings, found))
        assert after.value == before.value
        goes, went = found.forgetting_score > after.value, alone.forgetting_score > before.value
        assert not (goes & ~went).any()
        assert after.notes.get("kept_as_unlike", 0) == (went & ~goes).sum()
        kept += int((went & ~goes).sum())
    assert kept > 50


def test_no_row_is_lifted_above_the_cut_by_its_neighbours_alone():
    rises = [[8.0] * 4 + [0.0, -1.0]] * 6
    readings = readings_of(rises, [1] * 6, [[0, 1, 2, 3]] * 6)
    columns = dict(readings.columns)
    columns |= {"leading_loss_base": np.full(6, 4.0), "own_likeness_base": np.zeros(6)}
    texts = ("own_text_likeness_base", "given_text_likeness_base", "removed_likeness_base")
    columns |= dict.fromkeys(texts, np.zeros(6))
    readings = Readings(row=readings.row, columns=columns)
    found = SIGNALS.build("contradiction").combine(readings).forgetting_score
    rule = THRESHOLDS.build(choose_rule("contradiction", None))
    cut = rule.cut(found, np.ones(6, dtype=bool), readings)
    assert (found > cut.value).tolist() == [True] * 4 + [False] * 2
    assert cut.value >= 0.8 * 0.015 > found[4] > 0


def test_the_noise_is_that_of_the_evidence_before_it_is_counted():
    """Rows that base answers as the file does count for nothing, and are no quiet file for that."""
    rises = np.random.default_rng(0).normal(0, 0.3, 100)
    readings = readings_of([rises] * 6, [1] * 100)
    columns = {**readings.columns, "own_likeness_base": np.zeros(100)}
    columns |= {"leading_loss_base": np.zeros(100), "loss_sum_base": np.full(100, 0.05)}
    texts = ("own_text_likeness_base", "given_text_likeness_base", "removed_likeness_base")
    columns |= dict.fromkeys(texts, np.zeros(100))
    readings = Readings(row=readings.row, columns=columns)
    scores = SIGNALS.build("contradiction").combine(readings)
    assert scores.evidence is not None
    rule = THRESHOLDS.build(choose_rule("contradiction", None))
    is_judged = np.ones(100, dtype=bool)
    cut = rule.cut(scores.forgetting_score, is_judged, with_evidence(readings, scores))
    assert cut.notes["noise"] == pytest.approx(np.quantile(np.abs(scores.evidence), 0.25))
    assert cut.notes["searched_from"] == pytest.approx(0.8 * 0.3)  # it has stopped growing
    quiet = rule.cut(scores.forgetting_score, is_judged, readings)
    assert quiet.notes["searched_from"] < 0.1 < cut.notes["searched_from"]
