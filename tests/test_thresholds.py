"""A threshold rule cuts; a learned row strictly above the cut goes, and nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetfilter.errors import ConfigError
from forgetfilter.records import Readings, Selection
from forgetfilter.thresholds import THRESHOLDS, decide

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
        },
    )
    return decide(THRESHOLDS.build(rule), scores, readings)


def test_phi_removes_strictly_above_and_keeps_what_equals_it():
    selection = select("phi:0.1", [0.0999, 0.1, 0.1001])
    assert selection.is_removed.tolist() == [False, False, True]
    assert selection.cut.value == 0.1
    assert list(selection.reasons) == ["below_threshold", "below_threshold", "above_threshold"]


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


@pytest.mark.parametrize("rule", THRESHOLDS.names())
@pytest.mark.parametrize("learned", [True, False])
def test_every_rule_decides_on_no_eligible_row_and_on_equal_scores(rule: str, learned: bool):
    selection = select(rule, [0.2] * 5, [learned] * 5)
    assert np.isfinite(selection.cut.value)
    assert selection.is_removed.sum() in (0, 5)
    assert len(select(rule, []).reasons) == 0


@pytest.mark.parametrize("rule", ["fraction:1.5", "fraction:-0.1", "fraction:nan", "phi:inf"])
def test_an_impossible_value_is_refused_with_an_example(rule: str):
    with pytest.raises(ConfigError, match=r"expected .* for example (fraction|phi):0\.1"):
        THRESHOLDS.build(rule)
