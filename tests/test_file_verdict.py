"""The verdict on a file: counted where the rule can tell, and "can't tell" where it can't."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from forgetfilter.runs.schema import Summary, Threshold
from forgetfilter.scoring.records import Cut, Readings
from forgetfilter.scoring.signals.base import NATS_PER_ROOT_TOKEN
from forgetfilter.scoring.thresholds import THRESHOLDS
from forgetfilter.screening.deciding.file_verdict import judge_file


def summary(removed: int, /, **changes: Any) -> Summary:
    """A decided run of 1,000 rows, all of them judged, by `crossfit` and its own rule."""
    told: dict[str, Any] = {
        "signal": "crossfit",
        "needs_learned": False,
        "rows": 1000,
        "kept": 1000 - removed,
        "removed": removed,
        "rejected": 0,
        "threshold": {"rule": "valley", "value": 0.2},
        "threshold_notes": {"noise": 0.003},
        "learned_share": 0.9,
        "judged": 1000,
    }
    return Summary.model_validate(told | changes)


def finding(name: str, severity: str = "warning") -> dict[str, Any]:
    return {"name": name, "severity": severity, "message": "m"}


SURE = Cut(0.2, expected_false_removals=0.1)


@pytest.mark.parametrize(
    ("removed", "level"), [(0, "none"), (1, "some"), (99, "some"), (100, "many"), (400, "many")]
)
def test_the_level_is_counted_where_the_rule_can_tell(removed: int, level: str):
    verdict = judge_file(summary(removed), SURE)
    assert verdict.level == level
    assert "1,000 rows that could be judged" in verdict.message


def test_a_warning_on_the_scores_does_not_undo_what_stands_out():
    doubted = summary(50, findings=[finding("learned_by_heart")])
    assert judge_file(doubted, SURE).level == "some"
    assert judge_file(summary(0, findings=[finding("safe_rows_toxic")]), SURE).level == "none"


def test_noise_casts_doubt_where_few_rows_are_removed():
    # Many unsafe rows are themselves what moves the scores.
    told = {"threshold_notes": {"noise": 0.052}}
    assert judge_file(summary(400, **told), SURE).level == "many"
    assert judge_file(summary(99, **told), SURE).reason == "noisy_scores"
    assert judge_file(summary(9, threshold_notes={"noise": 0.027}), SURE).level == "some"


@pytest.mark.parametrize(
    ("signal", "level"),
    [
        ("crossfit", "some"),
        ("contradiction", "cannot_tell"),
        ("contradiction:gain=3", "cannot_tell"),
        ("self_training", "some"),
        ("self_training:evidence=contradiction", "cannot_tell"),
        ("self_training:contradiction", "cannot_tell"),
        ("self_training: evidence=contradiction", "cannot_tell"),
    ],
)
def test_what_is_noisy_depends_on_the_signal(signal: str, level: str):
    told = summary(1, signal=signal, threshold_notes={"noise": 0.025})
    assert judge_file(told, SURE).level == level


@pytest.mark.parametrize(
    ("expected", "at_most", "said"),
    [
        (0.3, 0.8, "The rule expects fewer than one of them to be harmless."),
        (0.3, 1.0, "The rule expects fewer than one of them to be harmless."),
        (0.3, 3.2, "fewer than one of them to be harmless, or up to 4 if harmless scores have a"),
        (2.2, 26.0, "about 2 of them to be harmless, or up to 26 if harmless scores have a long"),
        (0.5, 0.5, "The rule expects fewer than one of them to be harmless."),
        (2.2, 2.2, "about 2 of them to be harmless."),
        (3.0, 3.0, "about 3 of them to be harmless."),
    ],
)
def test_a_longer_tail_is_told_where_it_makes_a_difference(
    expected: float, at_most: float, said: str
):
    cut = Cut(0.2, expected, notes={"harmless_at_most": at_most})
    assert said in judge_file(summary(99), cut).message


def test_noise_is_met_by_reading_rows_until_that_was_done():
    told = {"threshold_notes": {"noise": 0.052}, "unit": NATS_PER_ROOT_TOKEN}
    mingled = {"unit": NATS_PER_ROOT_TOKEN}
    for of, cut in ((told, SURE), (mingled, Cut(0.2, lacks_estimate=True))):
        said = judge_file(summary(99, **of), cut).message
        assert "--second-opinion known_unsafe:RUN --joint 1" in said
    # The joint rule adds nats per root token; and who has named known rows needn't be told of them.
    known = {"second_opinion": {"classifier": "known_unsafe:run", "kind": "known_unsafe"}}
    other = {"unit": "nats per token"}
    for changes, cut in (
        (other, "--threshold reviewed`"),
        (known, "--threshold reviewed --joint reviewed`"),
        (known | other, "--threshold reviewed`"),
    ):
        said = judge_file(summary(99, **(told | changes)), SURE).message
        assert "unsafe rows may lie below." in said
        assert "known_unsafe" not in said
        assert cut in said
    read = {"unit": NATS_PER_ROOT_TOKEN, "threshold": {"rule": "reviewed:0.8", "value": 0.2}}
    unranked = judge_file(summary(99, **read), Cut(0.2, lacks_estimate=True))
    assert "--threshold reviewed" not in unranked.message


def test_the_share_is_of_the_judged_rows():
    few = summary(10, judged=80, learned_share=0.08, needs_learned=True)
    assert judge_file(few, SURE).level == "many"
    assert judge_file(summary(10), SURE).level == "some"
    # A trusted row can't go, so it says nothing of the others.
    verdict = judge_file(summary(10), SURE, trusted=920)
    assert verdict.level == "many"
    assert "10 of the 80 rows that could be judged" in verdict.message


def test_a_share_below_the_bound_is_not_rounded_up_to_it():
    told = summary(999, rows=10_000, kept=9001, judged=10_000)
    assert "(9.9%, below the 10%" in judge_file(told, SURE).message
    assert "(57.0%, at least" in judge_file(summary(570), SURE).message


def test_a_rule_that_removes_nothing_because_it_cannot_tell_says_why():
    for notes, said in (
        ({"ranks": False}, "don't score higher than those to keep, so no cut follows"),
        ({"trusted_rows": 50, "rows_needed": 99}, "50 could be judged. Expected at least 99"),
        ({}, "can't tell whether any row should go"),
    ):
        message = judge_file(summary(0), Cut(0.2, lacks_estimate=True, notes=notes)).message
        assert said in message
        assert "The rule removed nothing" in message
        assert "mingled" not in message


@pytest.mark.parametrize(
    ("changes", "cut", "reason"),
    [
        ({"rows": 5, "rejected": 5, "kept": 0, "judged": 0}, SURE, "no_rows"),
        ({"is_decided": False, "undecided": 1000, "kept": 0}, SURE, "undecided"),
        ({"threshold": {"rule": "fraction:0.1"}}, Cut(0.1, fixes_share=True), "fixed_share"),
        ({"learned_share": 0.14}, SURE, "few_learned"),
        ({"learned_share": 0.9, "judged": 0}, SURE, "few_learned"),
        ({"threshold_notes": {"noise": 0.2}}, SURE, "noisy_scores"),
        ({}, Cut(0.2, lacks_estimate=True), "rule_cannot_tell"),
        ({"removed": 5, "kept": 995}, Cut(0.2, lacks_estimate=True), "mingled"),
        ({"findings": [finding("learned_by_heart")]}, SURE, "doubtful_scores"),
        ({"findings": [finding("x", "severe")], "removed": 9}, SURE, "untrusted_scores"),
        ({"removed": 2, "kept": 998}, Cut(0.2, expected_false_removals=1.2), "mostly_expected"),
    ],
)
def test_it_is_said_that_nothing_can_be_told(changes: dict[str, Any], cut: Cut, reason: str):
    verdict = judge_file(summary(0, **changes), cut)
    assert (verdict.level, verdict.reason) == ("cannot_tell", reason)


RULE = (
    "valley:least=0.015,quiet=0.001,growth=0.8,most=0.3,widest=2.5,spread=10,noise=kept,hill=true"
)


def test_the_false_alarm_rate_is_named_for_what_it_was_measured_on_alone():
    for signal, rule, rows, removed in (
        ("crossfit", "valley", 15_000, 18),
        ("contradiction", RULE, 18_500, 20),
    ):
        told = {"signal": signal, "threshold": {"rule": rule, "value": 0.2}}
        verdict = judge_file(summary(0, **told), SURE)
        assert (verdict.clean_rows, verdict.clean_removed) == (rows, removed)
        assert verdict.clean_files
    swapped = summary(0, signal="contradiction")
    assert judge_file(swapped, SURE).clean_rows is None
    named = summary(0, threshold={"rule": "phi:0.2", "value": 0.2})
    assert judge_file(named, SURE).clean_rows is None
    assert judge_file(summary(0, signal="restoration"), SURE).clean_rows is None


@pytest.mark.parametrize(("unsafe", "level"), [(0, "none"), (60, "some"), (300, "many")])
def test_the_default_rule_on_scores_that_part(unsafe: int, level: str):
    rng = np.random.default_rng(unsafe)
    scores = np.concatenate([rng.normal(0, 0.01, 1000 - unsafe), rng.normal(1, 0.1, unsafe)])
    everything = np.ones(1000, dtype=np.bool_)
    readings = Readings(row=np.arange(1000), columns={})
    cut = THRESHOLDS.build("valley").cut(scores, everything, readings)
    removed = int((scores > cut.value).sum())
    told = summary(removed, threshold_notes=dict(cut.notes)).model_copy(
        update={"threshold": Threshold(rule="valley", value=cut.value)}
    )
    assert judge_file(told, cut).level == level
