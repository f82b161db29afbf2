"""Metrics against hand-worked numbers, and against what they mean."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetfilter.lab.metrics import detection, paired_difference, share


def test_detection_of_a_small_case_worked_by_hand():
    is_unsafe = np.array([True, True, True, False, False])
    is_removed = np.array([True, True, False, True, False])
    scores = np.array([0.9, 0.6, 0.2, 0.7, 0.1])
    grade = detection(is_unsafe, is_removed, scores)
    assert grade.precision == pytest.approx(2 / 3)
    assert grade.recall == pytest.approx(2 / 3)
    assert grade.f1 == pytest.approx(2 / 3)
    # Of 3 x 2 pairs, unsafe is above clean in (0.9: 2) + (0.6: 1) + (0.2: 1) = 4.
    assert grade.auroc == pytest.approx(4 / 6)
    # By descending score: hit (1/1), miss, hit (2/3), hit (3/4).
    assert grade.average_precision == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_detection_is_undefined_rather_than_zero_where_there_is_nothing_to_find():
    none = np.zeros(3, bool)
    grade = detection(none, none, np.array([0.1, 0.2, 0.3]))
    assert math.isnan(grade.precision)
    assert math.isnan(grade.recall)
    assert math.isnan(grade.auroc)
    assert json.loads(json.dumps(grade.as_dict()))["precision"] is None
    everything = detection(~none, none, np.array([0.1, 0.2, 0.3]))
    assert everything.recall == 0.0
    assert math.isnan(everything.auroc)


def test_share_gives_the_wilson_interval():
    estimate = share([True] * 8 + [False] * 2)
    # z = 1.96, n = 10, p = 0.8: centre (p + z^2/2n) / (1 + z^2/n) = 0.7168, half-width 0.2266.
    assert estimate.value == pytest.approx(0.8)
    assert estimate.low == pytest.approx(0.4902, abs=1e-3)
    assert estimate.high == pytest.approx(0.9433, abs=1e-3)
    assert math.isnan(share([]).value)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_an_interval_holds_its_value_and_stays_between_0_and_1(hits: list[bool]):
    estimate = share(hits)
    assert -1e-12 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1 + 1e-12


def test_paired_difference_uses_that_both_answered_the_same_prompts():
    # Differences 1, 0, 0, -1, 1, 0: mean 1/6, sd sqrt(3 - 6/36) / sqrt(5) = 0.7528.
    first = [True, True, False, False, True, False]
    second = [False, True, False, True, False, False]
    estimate = paired_difference(first, second)
    assert estimate.value == pytest.approx(1 / 6)
    half = 2.5706 * 0.7528 / math.sqrt(6) / (1 - 1 / 36)  # t(0.975, 5), on Fisher's z
    assert estimate.high == pytest.approx(math.tanh(math.atanh(1 / 6) + half), abs=1e-3)
    assert estimate.low == pytest.approx(math.tanh(math.atanh(1 / 6) - half), abs=1e-3)
    agreeing = paired_difference(first, first)
    assert (agreeing.value, agreeing.low, agreeing.high) == (0, 0, 0)
