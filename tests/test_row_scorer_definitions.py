"""Each row scorer's formula on a case that can be worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from forgetfilter.data.records import EncodedRow
from forgetfilter.lab.row_scorers.bilevel import row_weights, selector_gradient
from forgetfilter.lab.row_scorers.datashield import direction, parting
from forgetfilter.lab.row_scorers.gradient_cosine import pooled_cosine
from forgetfilter.lab.row_scorers.gradient_size import length_normalised
from forgetfilter.lab.row_scorers.gradients import first_tokens
from forgetfilter.lab.row_scorers.he_anchoring import anchored, nearest_cosine
from forgetfilter.lab.row_scorers.larf import scaled, top_difference
from forgetfilter.lab.row_scorers.less import adam_update
from forgetfilter.lab.row_scorers.losses import robust_distance
from forgetfilter.lab.row_scorers.seal import upper_and_lower
from forgetfilter.lab.row_scorers.subspaces import denoised, mahalanobis, main_projection


class TestBilevel:
    def test_weights_are_one_on_average(self):
        np.testing.assert_allclose(row_weights(np.full(3, 0.1)), 1)
        found = row_weights(np.array([0.0, 0.0, math.log(2)]))
        np.testing.assert_allclose(found, [0.75, 0.75, 1.5])

    def test_seals_update_of_three_rows(self):
        # Equal weights: each row's gradient is a third of its loss's distance from the mean.
        found = selector_gradient(np.zeros(3), np.array([0, 1, 2]), np.array([1.0, 2.0, 6.0]))
        np.testing.assert_allclose(found, [-2 / 3, -1 / 3, 1.0])
        # A step of 0.3 against it: the row that the model fits badly goes down, the others up.
        np.testing.assert_allclose(0.0 - 0.3 * found, [0.2, 0.1, -0.3])

    def test_a_row_outside_of_the_batch_moves_by_the_shared_sum_alone(self):
        # Rows 0 and 1 of 3, losses 3 and 0: d/dw_j of (3/2) (p_0 3 + p_1 0), p = 1/3.
        found = selector_gradient(np.zeros(3), np.array([0, 1]), np.array([3.0, 0.0]))
        np.testing.assert_allclose(found, [1.0, -0.5, -0.5])

    def test_the_gradient_is_that_of_the_weighted_loss(self):
        rng = np.random.default_rng(0)
        logits, rows, losses = rng.normal(size=5), np.array([4, 1, 2]), rng.random(3)
        given = torch.tensor(logits, requires_grad=True)
        weights = 5 * torch.softmax(given, 0)
        (weights[torch.tensor(rows)] * torch.tensor(losses)).mean().backward()
        assert given.grad is not None
        np.testing.assert_allclose(selector_gradient(logits, rows, losses), given.grad.numpy())

    def test_the_full_update_of_a_row_that_both_models_fit_alike_is_none(self):
        # Losses less those of the second model: all zero, so that no weight moves.
        assert not selector_gradient(np.zeros(3), np.array([0, 1]), np.zeros(2)).any()

    def test_seal_begins_with_the_safe_rows_alone(self):
        assert upper_and_lower(0) == (1.0, 0.0)
        assert upper_and_lower(2) == pytest.approx((0.94, 0.06))


class TestGradients:
    def test_adams_update_at_its_start_has_the_gradients_sign(self):
        gradient = torch.tensor([2.0, -0.5])
        found = adam_update(gradient, torch.zeros(2), torch.zeros(2))
        expected = 0.1 / math.sqrt(0.001)
        torch.testing.assert_close(found, expected * gradient.sign(), rtol=1e-4, atol=0)

    def test_adams_update_with_what_it_remembers(self):
        # m = 1, v = 4, g = 3: (0.9 + 0.3) / sqrt(3.996 + 0.009).
        found = adam_update(torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([4.0]))
        assert float(found) == pytest.approx(1.2 / math.sqrt(4.005))

    def test_cosines_with_several_targets_are_averaged_or_the_largest_counts(self):
        rows = np.array([[2.0, 0.0], [1.0, 1.0]])
        targets = np.array([[5.0, 0.0], [0.0, -1.0]])
        half = 1 / math.sqrt(2)
        np.testing.assert_allclose(pooled_cosine(rows, targets, "mean"), [0.5, 0.0], atol=1e-12)
        np.testing.assert_allclose(pooled_cosine(rows, targets, "max"), [1.0, half])

    def test_anchoring_is_harmful_less_both_safe_ones_at_length_one(self):
        dots = np.array([[4.0], [1.0], [2.0]])
        assert anchored(dots, np.array([2.0])).tolist() == [0.5]

    def test_self_influence_counts_length(self):
        found = length_normalised(np.array([math.e - 1, 0.0]), np.array([0, 1]))
        np.testing.assert_allclose(found, [1.0, math.log(2)])

    def test_the_first_tokens_of_an_answer(self):
        row = EncodedRow(0, [5, 6, 7, 8, 9], [False, True, True, True, True], 1, "text")
        found = first_tokens(row, 2)
        assert found.input_ids.tolist() == [5, 6, 7]
        assert found.is_target.tolist() == [False, True, True]
        assert first_tokens(row, 9) == row


class TestHiddenStates:
    def test_the_nearest_exemplars_count(self):
        rows = np.array([[1.0, 0.0]])
        exemplars = np.array([[0.0, 2.0], [3.0, 0.0], [1.0, 1.0]])
        assert nearest_cosine(rows, exemplars, 1)[0] == pytest.approx(1)
        assert nearest_cosine(rows, exemplars, 2)[0] == pytest.approx((1 + 1 / math.sqrt(2)) / 2)

    def test_larfs_difference_by_pair(self):
        rows, unsafe, safe = np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]]), np.array([[0.0, 1.0]])
        assert top_difference(rows, unsafe, safe)[0] == pytest.approx(1)
        assert top_difference(rows, safe, unsafe)[0] == pytest.approx(-1)

    def test_larf_averages_the_hundred_largest_differences(self):
        rows = np.array([[1.0, 0.0]])
        unsafe = np.array([[1.0, 0.0]] * 100 + [[-1.0, 0.0]] * 10)
        assert top_difference(rows, unsafe, np.zeros((110, 2)))[0] == pytest.approx(1)

    def test_a_scaled_layer_is_as_before_in_the_end(self):
        layer = torch.nn.Linear(2, 2)
        weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
        with scaled(layer, 0.7):
            torch.testing.assert_close(layer.weight, 0.7 * weight)
            assert torch.equal(layer.bias, bias)
        assert torch.equal(layer.weight, weight)

    def test_saft_squares_the_projection_on_the_main_direction(self):
        states = np.array([[3.0, 1.0], [-3.0, 1.0], [0.0, 1.5], [0.0, 0.5]]) + 7
        np.testing.assert_allclose(main_projection(states, 1), [9, 9, 0, 0], atol=1e-12)
        # Two directions count by their singular values: sqrt(18) and sqrt(1/2), 6 to 1.
        expected = [9 * 6 / 7, 9 * 6 / 7, 0.25 / 7, 0.25 / 7]
        np.testing.assert_allclose(main_projection(states, 2), expected)

    def test_mahalanobis_measures_in_standard_deviations(self):
        rng = np.random.default_rng(0)
        crowd = rng.normal(size=(20000, 2)) * [1.0, 3.0]
        found = mahalanobis(np.array([[0.0, 6.0], [2.0, 0.0], [0.0, 0.0]]), crowd)
        np.testing.assert_allclose(found, [2, 2, 0], atol=0.1)

    def test_dra_takes_away_what_neutral_text_has_in_common(self):
        neutral = np.array([[4.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
        found = denoised(np.array([[5.0, 2.0, 1.0]]), neutral, 1)
        np.testing.assert_allclose(found, [[0.0, 2.0, 1.0]], atol=1e-12)

    def test_datashields_direction_and_how_well_it_parts(self):
        bad, safe = np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[-1.0, 0.0], [-3.0, 0.0]])
        assert direction(bad, safe).tolist() == [1.0, 0.0]
        # Means +-2, all values +-1 and +-3: 4 * 4 of 1 + 9 + 1 + 9.
        assert parting(bad, safe) == pytest.approx(16 / 20)
        assert parting(bad, bad[::-1]) == pytest.approx(0)


def test_loss_outliers_in_robust_standard_deviations():
    found = robust_distance(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    np.testing.assert_allclose(found * 1.4826, [2, 1, 0, 1, 97])
    same: Sequence[float] = robust_distance(np.array([1.0, 1.0, 1.0, 5.0])).tolist()
    assert same == [0, 0, 0, 0]
