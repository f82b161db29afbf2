"""Intervals of means: worked by hand, within their range, and wide enough."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetfilter.lab.metrics import mean_over_cases, mean_over_seeds
from forgetfilter.lab.metrics.intervals import Scale, mean_interval, scale_of

SHARE = "share, 0..1"


@pytest.mark.parametrize(
    ("unit", "scale"),
    [
        (SHARE, Scale(0, 1)),
        ("toxicity, 0..1", Scale(0, 1)),
        ("bias score, -1..1", Scale(-1, 1)),
        ("difference; share, 0..1", Scale(-1, 1)),
        ("difference; bias score, -1..1", Scale(-2, 2)),
        ("seconds", Scale(0, math.inf)),
        ("difference; seconds", Scale()),
        ("points of some kind", Scale()),
    ],
)
def test_a_unit_says_its_range(unit: str, scale: Scale):
    assert scale_of(unit) == scale


def test_a_quantity_without_ends_has_the_t_interval():
    # 1, 2, 3: mean 2, sd 1, t(0.975, 2) = 4.3027.
    estimate = mean_over_seeds([1.0, 2.0, 3.0], "points")
    assert estimate.value == pytest.approx(2)
    assert estimate.high == pytest.approx(2 + 4.3027 / math.sqrt(3), rel=1e-4)
    assert estimate.low == pytest.approx(2 - 4.3027 / math.sqrt(3), rel=1e-4)


def test_seconds_have_it_on_the_logarithmic_scale():
    estimate = mean_over_seeds([1.0, 2.0, 3.0], "seconds")
    factor = math.exp(4.3027 / math.sqrt(3) / 2)
    assert estimate.low == pytest.approx(2 / factor, rel=1e-4)
    assert estimate.high == pytest.approx(2 * factor, rel=1e-4)


def test_scores_between_0_and_1_have_it_on_the_logit_scale():
    # 0.7, 0.8, 0.9: mean 0.8, sd 0.1; over p (1 - p) = 0.16.
    estimate = mean_over_seeds([0.7, 0.8, 0.9], "0..1")
    half = 4.3027 * 0.1 / math.sqrt(3) / 0.16
    assert estimate.low == pytest.approx(1 / (1 + math.exp(half) / 4), abs=1e-4)
    assert estimate.high == pytest.approx(1 / (1 + math.exp(-half) / 4), abs=1e-4)


def test_seeds_that_agree_on_all_or_nothing_leave_room_for_the_unseen():
    # 5 seeds without one unsafe answer of 2,000 each count for 10,000 * (1.96 / 2.776)^2 = 4,984:
    # at a rate of 1 - 0.025^(1 / 4,984) = 0.00074 that happens in 2.5% of all studies.
    none = mean_over_seeds([0.0] * 5, SHARE, 10_000)
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(0.00074, abs=1e-5)
    every = mean_over_seeds([1.0] * 5, SHARE, 10_000)
    assert every.high == 1
    assert every.low == pytest.approx(1 - none.high)
    # One of 40 in each of three seeds: it may have been two, or none.
    agreeing = mean_over_seeds([0.025] * 3, SHARE, 120)
    assert agreeing.low < 0.01 < 0.1 < agreeing.high < 0.3
    # Without a number of cases nothing can be said of them.
    unknown = mean_over_seeds([1.0] * 5, SHARE)
    assert (unknown.low, unknown.high) == (1, 1)


def test_a_single_seed_says_nothing_about_its_interval():
    estimate = mean_over_seeds([0.3], SHARE, 100)
    assert estimate.value == pytest.approx(0.3)
    assert (estimate.low, estimate.high) == (-math.inf, math.inf)
    assert math.isnan(mean_over_cases([], "F1, 0..1").value)


def test_values_outside_of_their_range_are_a_wrong_unit():
    with pytest.raises(ValueError, match="Mend the metric's unit"):
        mean_over_seeds([-3.0, 5.0], "seconds")
    assert mean_over_seeds([-3.0, 5.0], "difference; seconds").value == 1


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.integers(0, 40), min_size=2, max_size=6),
    st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, math.inf)]),
    st.booleans(),
)
def test_an_interval_holds_its_mean_and_stays_within_the_range(
    counts: list[int], ends: tuple[float, float], has_cases: bool
):
    low, high = ends
    span = high - low if math.isfinite(high) else 1000.0
    values = [low + span * count / 40 for count in counts]
    cases = 40 * len(counts) if has_cases else None
    estimate = mean_interval(values, Scale(low, high), cases)
    rounding = 1e-9 * span
    assert low - rounding <= estimate.low <= estimate.value + rounding
    assert estimate.value - rounding <= estimate.high <= high + rounding
    assert not math.isnan(estimate.low + estimate.high)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("mean", [0.01, 0.1, 0.5, 0.9])
def test_the_interval_of_a_share_holds_the_truth_as_often_as_it_says(seeds: int, mean: float):
    """Rates that differ by seed, 2,000 prompts each; docs/lab/metrics.md has the figures."""
    rng = np.random.default_rng(seeds)
    rates = rng.beta(mean * 30, (1 - mean) * 30, (1000, seeds))
    found = rng.binomial(2000, rates) / 2000
    estimates = [mean_over_seeds(list(row), SHARE, 2000 * seeds) for row in found]
    coverage = np.mean([one.low <= mean <= one.high for one in estimates])
    assert coverage > (0.85 if mean == 0.01 else 0.93)
