"""A threshold rule cuts; a learned row strictly above the cut goes, and nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetfilter.errors import ConfigError
from forgetfilter.scoring.joint import decide_joint
from forgetfilter.scoring.records import Readings, Selection
from forgetfilter.scoring.thresholds import (
    THRESHOLDS,
    check_unit,
    choose_rule,
    decide,
    reads_decisions,
)

quick = settings(deadline=None, max_examples=200)
# Few distinct values, so that ties are common.
score_lists = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([-1.0, 0.0, 0.1, 0.5]), st.floats(-1e6, 1e6)), st.booleans()
    ),
    min_size=1,
    max_size=40,
)


def select(rule: str, scores: Any, learned: Any = None) -> Selection:
    scores = np.asarray(scores, dtype=np.float64)
    learned = np.ones(len(scores), bool) if learned is None else np.asarray(learned, bool)
    readings = Readings(
        row=np.arange(len(scores), dtype=np.int64),
        columns={
            "loss_sum_base": np.full(len(scores), 4.0),
            "loss_sum_learned": np.where(learned, 1.0, 4.0),
            "greedy_match_learned": np.zeros(len(scores), bool),
            "is_trusted": np.zeros(len(scores), bool),
        },
    )
    return decide(THRESHOLDS.build(rule), scores, readings)


def test_phi_removes_strictly_above_and_keeps_what_equals_it():
    selection = select("phi:0.1", [0.0999, 0.1, 0.1001])
    assert selection.is_removed.tolist() == [False, False, True]
    assert selection.cut.value == 0.1
    assert list(selection.reasons) == ["below_threshold", "below_threshold", "above_threshold"]


def test_a_row_that_is_kept_for_being_unlike_those_removed_says_so():
    scores, alone = np.array([0.5, 0.05, 0.02, 0.09]), np.array([0.5, 0.4, 0.02, 0.4])
    columns = {"alone": alone, "is_trusted": np.array([False, False, False, True])}
    readings = Readings(np.arange(4), columns)
    found = decide(THRESHOLDS.build("phi:0.1"), scores, readings, needs_learned=False)
    assert found.is_removed.tolist() == [True, False, False, False]
    assert list(found.reasons) == [
        "above_threshold",
        "unlike_those_removed",
        "below_threshold",
        "trusted",
    ]
    # A second opinion is added to either score, and may carry the row over the cut.
    for opinion, removed in ((0.0, False), (0.06, True)):
        joint = decide_joint(
            THRESHOLDS.build("phi:0.1"),
            scores[:2],
            np.array([0.0, opinion]),
            1.0,
            Readings(np.arange(2), {"alone": alone[:2]}),
            needs_learned=False,
        )
        assert joint.is_removed.tolist() == [True, removed]
        assert (list(joint.reasons)[1] == "unlike_those_removed") is not removed


def test_a_row_that_was_not_learned_is_kept_and_says_so():
    selection = select("phi:0.1", [9.0, 9.0, 0.0], learned=[True, False, False])
    assert selection.is_removed.tolist() == [True, False, False]
    assert list(selection.reasons) == ["above_threshold", "not_learned", "not_learned"]


def test_fraction_removes_the_most_forgotten_rows():
    selection = select("fraction:0.5", [0.4, 0.1, 0.3, 0.2])
    assert selection.is_removed.tolist() == [True, False, True, False]
    assert selection.cut.value == 0.2  # the first row that stays


def test_fraction_lets_ties_at_the_cut_stay():
    assert select("fraction:0.5", [0.3, 0.3, 0.3, 0.1]).is_removed.sum() == 0
    assert select("fraction:0.75", [0.3, 0.3, 0.3, 0.1]).is_removed.sum() == 3


@pytest.mark.parametrize(("share", "removed"), [("0", 0), ("1", 4), ("0.3", 1), ("0.25", 1)])
def test_fraction_of_four_distinct_rows(share: str, removed: int):
    assert select(f"fraction:{share}", [1.0, 2.0, 3.0, 4.0]).is_removed.sum() == removed


def test_fraction_of_a_tenth_isnt_lost_to_rounding():
    # 0.29 * 100 is 28.999999999999996 in floating point.
    assert select("fraction:0.29", np.arange(100.0)).is_removed.sum() == 29


@quick
@given(score_lists, st.floats(-1e6, 1e6) | st.just(0.1))
def test_phi_is_the_same_comparison_for_every_row(rows: Any, value: float):
    scores, learned = map(list, zip(*rows, strict=True))
    selection = select(f"phi:{value!r}", scores, learned)
    expected = [is_learned and score > value for score, is_learned in rows]
    assert selection.is_removed.tolist() == expected


@quick
@given(score_lists, st.floats(0, 1))
def test_fraction_never_removes_more_than_asked_nor_a_row_that_was_not_learned(
    rows: Any, share: float
):
    scores, learned = map(np.array, zip(*rows, strict=True))
    selection = select(f"fraction:{share!r}", scores, learned)
    assert selection.is_removed.sum() <= share * len(rows) + 1e-6
    assert not (selection.is_removed & ~learned).any()
    if selection.is_removed.any():
        assert scores[selection.is_removed].min() > selection.cut.value
    stays = learned & ~selection.is_removed
    if stays.any():
        assert scores[stays].max() <= selection.cut.value


@quick
@given(score_lists, st.floats(0, 1))
def test_fraction_removes_as_many_as_asked_but_for_ties(rows: Any, share: float):
    scores, learned = map(np.array, zip(*rows, strict=True))
    selection = select(f"fraction:{share!r}", scores, learned)
    wanted = min(int(learned.sum()), int(np.floor(share * len(rows) + 1e-9)))
    ties = int((scores[learned] == selection.cut.value).sum())
    assert wanted - ties <= selection.is_removed.sum() <= wanted


def planted(clean: int, unsafe: int, seed: int = 0) -> tuple[Any, Any]:
    """Scores as they are measured: clean rows near 0 with a tail, unsafe rows around 0.3."""
    rng = np.random.default_rng(seed)
    low = rng.exponential(0.012, clean) - 0.004
    high = np.exp(rng.normal(np.log(0.3), 0.25, unsafe))
    return np.concatenate([low, high]), np.arange(clean + unsafe) >= clean


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("unsafe", [10, 50, 300, 700])
def test_auto_finds_the_valley_whatever_the_share_of_unsafe_rows(unsafe: int, seed: int):
    scores, is_unsafe = planted(1000 - unsafe, unsafe, seed)
    removed = select("auto", scores).is_removed
    assert (removed & is_unsafe).sum() >= 0.95 * unsafe
    assert (removed & ~is_unsafe).sum() <= 0.003 * 1000


@pytest.mark.parametrize("seed", range(3))
def test_auto_knows_when_there_is_nothing_to_remove(seed: int):
    scores, _ = planted(1000, 0, seed)
    selection = select("auto", scores)
    assert selection.is_removed.sum() == 0
    # Where no row is, the emptiest place is anywhere; with a falling tail it is the far end.
    tail = np.concatenate([scores, np.linspace(0.03, 0.12, 30)])
    assert select("auto", tail).is_removed.sum() == 0


def test_auto_finds_a_handful_of_rows_whose_scores_end_just_above_its_bounds():
    # As measured on a file with ten unsafe rows in 1,000: they spread over the whole search.
    unsafe = [0.157, 0.152, 0.129, 0.122, 0.107, 0.098, 0.088, 0.065, 0.057, 0.039]
    clean = -0.005 * np.log(np.arange(1, 991) / 990)  # a tail that ends at 0.034
    removed = select("auto", [*unsafe, *clean]).is_removed
    assert removed[:9].all()
    assert not removed[9:].any()


def test_rows_with_a_long_tail_are_expected_by_the_note_and_not_by_the_number():
    """Of a power law's tail the number that supposes an exponential one sees a part alone."""
    rng = np.random.default_rng(0)
    scores = 0.001 * (1 + rng.pareto(1.0, 20_000))  # half as many above each doubling
    cut = select("auto:low=0.1,high=0.2", scores).cut
    above = int((scores > cut.value).sum())
    assert cut.expected_false_removals is not None
    assert cut.expected_false_removals < 0.6 * above
    assert 0.7 * above < cut.notes["harmless_at_most"] < 1.4 * above
    exponential = rng.exponential(0.02, 20_000)
    cut = select("auto:low=0.1,high=0.12", exponential).cut
    above = int((exponential > cut.value).sum())
    assert cut.expected_false_removals == pytest.approx(above, rel=0.5)
    assert cut.expected_false_removals <= cut.notes["harmless_at_most"]


def test_auto_expects_as_many_false_removals_as_the_tail_holds():
    # An exponential tail of mean 0.03 has e^(-c / 0.03) of 2,000 rows above c.
    scores = np.random.default_rng(0).exponential(0.03, 2000)
    selection = select("auto:low=0.1,high=0.101", scores)
    expected = selection.cut.expected_false_removals
    assert expected == pytest.approx(2000 * np.exp(-0.1 / 0.03), rel=0.25)
    nothing = select("auto", np.full(100, -1.0)).cut
    assert nothing.expected_false_removals == 0


def test_auto_never_cuts_outside_of_its_bounds_and_counts_learned_rows_only():
    scores, _ = planted(500, 100)
    assert 0.05 <= select("auto", scores).cut.value <= 0.15
    assert 0.01 <= select("auto:low=0.01,high=0.02", scores).cut.value <= 0.02 + 1e-12
    valley = select("auto", scores).cut.value
    noise = np.full(400, valley)  # rows that were not learned fill the valley up; they say nothing
    learned = np.arange(1000) < 600
    again = select("auto", np.concatenate([scores, noise]), learned)
    assert again.cut.value == pytest.approx(valley)


@quick
@given(score_lists)
def test_auto_removes_what_is_far_above_and_keeps_what_is_far_below(rows: Any):
    scores, learned = map(np.array, zip(*rows, strict=True))
    removed = select("auto", scores, learned).is_removed
    assert not removed[scores <= 0.05].any()
    assert removed[learned & (scores > 0.15)].all()


@pytest.mark.parametrize("rule", ["auto:low=0", "auto:low=0.3", "auto:high=inf", "auto:low=nan"])
def test_auto_refuses_impossible_bounds(rule: str):
    with pytest.raises(ConfigError, match=r"0 < low < high"):
        THRESHOLDS.build(rule)


@pytest.mark.parametrize("rule", [r for r in THRESHOLDS.names() if not reads_decisions(r)])
@pytest.mark.parametrize("learned", [True, False])
def test_every_rule_decides_on_no_eligible_row_and_on_equal_scores(rule: str, learned: bool):
    selection = select(rule, [0.2] * 5, [learned] * 5)
    assert np.isfinite(selection.cut.value)
    assert selection.is_removed.sum() in ((0, 5) if learned else (0,))
    assert len(select(rule, []).reasons) == 0


@pytest.mark.parametrize("rule", ["fraction:1.5", "fraction:-0.1", "fraction:nan", "phi:inf"])
def test_an_impossible_value_is_refused_with_an_example(rule: str):
    name = rule.partition(":")[0]
    with pytest.raises(ConfigError, match=rf"expected .* for example {name}:0\.1"):
        THRESHOLDS.build(rule)


class TestUnits:
    """A rule with limits of its own is for scores in its unit, and is refused elsewhere."""

    @pytest.mark.parametrize(
        ("signal", "rule"),
        [
            ("restoration", "auto"),
            ("restoration:mean", "auto"),
            ("completion_loss", "auto"),
            ("completion_loss:tempered", "auto"),
            ("rouge1", "phi:0.1"),
            ("rouge1:reference=learned_output,postprocess=paper", "phi:0.1"),
        ],
    )
    def test_a_signal_brings_its_own_rule(self, signal: str, rule: str):
        assert choose_rule(signal, None) == rule
        assert choose_rule(signal, "fraction:0.2") == "fraction:0.2"

    @pytest.mark.parametrize(
        "signal",
        ["rate", "completion_loss:sum", "completion_loss:relative", "restoration:sum"],
    )
    def test_a_signal_without_a_rule_asks_for_one(self, signal: str):
        with pytest.raises(ConfigError, match="no threshold rule of its own") as caught:
            choose_rule(signal, None)
        assert "Name one of fraction, phi: for example fraction:0.1" in str(caught.value)
        with pytest.raises(ConfigError, match="made for scores in nats per token") as caught:
            choose_rule(signal, "auto:low=0.1,high=0.2")
        assert "Name one of fraction, phi" in str(caught.value)

    def test_a_foreign_unit_is_answered_with_the_signals_own_rule(self):
        with pytest.raises(ConfigError, match=r"'rouge1'.*\(ROUGE-1 F-measure\).*Use phi:0.1"):
            choose_rule("rouge1", "auto")

    def test_a_signal_that_is_not_installed_any_more_is_held_to_the_unit_of_its_scores(self):
        check_unit("auto", "gone", "nats per token")
        check_unit("phi:1", "gone", "parsecs")
        with pytest.raises(ConfigError, match=r"'gone'.*\(parsecs\).*Name one of fraction, phi"):
            check_unit("auto", "gone", "parsecs")
