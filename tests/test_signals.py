"""Signals are pure functions of readings; the numbers here are worked by hand."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetfilter.scoring.records import Readings
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.signals.completion_loss import CompletionLoss
from forgetfilter.scoring.signals.rouge1 import rouge1_f


def make_readings(**columns: Any) -> Readings:
    arrays = {name: np.array(values) for name, values in columns.items()}
    count = len(next(iter(arrays.values())))
    return Readings(row=np.arange(count, dtype=np.int64), columns=arrays)


LOSSES = make_readings(
    completion_tokens=[2, 4],
    loss_sum_base=[8.0, 4.0],  # 4 and 1 nats a token
    loss_sum_learned=[2.0, 3.8],  # 1 and 0.95
    loss_sum_forgotten=[5.0, 4.2],  # 2.5 and 1.05
)


class TestCompletionLoss:
    def test_mean_is_the_rise_per_completion_token(self):
        scores = SIGNALS.build("completion_loss:mean").combine(LOSSES)
        # (5 - 2) / 2 and (4.2 - 3.8) / 4
        np.testing.assert_allclose(scores.forgetting_score, [1.5, 0.1])
        np.testing.assert_allclose(scores.base, [4.0, 1.0])
        np.testing.assert_allclose(scores.before, [1.0, 0.95])
        assert scores.after is not None
        np.testing.assert_allclose(scores.after, [2.5, 1.05])

    def test_sum_is_the_rise_of_the_whole_completion(self):
        scores = SIGNALS.build("completion_loss:sum").combine(LOSSES)
        np.testing.assert_allclose(scores.forgetting_score, [3.0, 0.4])
        np.testing.assert_allclose(scores.base, [8.0, 4.0])

    def test_relative_is_the_share_of_what_was_learned_that_is_lost_again(self):
        scores = SIGNALS.build("completion_loss:relative").combine(LOSSES)
        # Row 0 learned 4 - 1 = 3 nats a token and lost 1.5 again: one half.
        assert scores.forgetting_score[0] == pytest.approx(0.5)

    def test_relative_score_of_a_row_that_was_hardly_learned_stays_bounded(self):
        # It learned 1 - 0.95 = 0.05 nats a token; a plain quotient would be 2.
        scores = SIGNALS.build("completion_loss:relative").combine(LOSSES)
        assert 0 <= scores.forgetting_score[1] < 1.5
        assert np.isfinite(scores.forgetting_score).all()

    def test_tempered_divides_by_what_was_learned_only_above_one_nat(self):
        scores = SIGNALS.build("completion_loss:tempered").combine(LOSSES)
        # Row 0 learned 3 nats a token and lost 1.5: one half. Row 1 learned 0.05: its plain rise.
        np.testing.assert_allclose(scores.forgetting_score, [0.5, 0.1])

    @given(st.lists(st.tuples(*[st.floats(0, 20)] * 3), min_size=1))
    def test_tempered_never_exceeds_the_plain_rise_and_keeps_its_sign(self, losses: Any):
        base, learned, forgotten = (list(column) for column in zip(*losses, strict=True))
        readings = make_readings(
            completion_tokens=[1] * len(losses),
            loss_sum_base=base,
            loss_sum_learned=learned,
            loss_sum_forgotten=forgotten,
        )
        plain = SIGNALS.build("completion_loss").combine(readings).forgetting_score
        tempered = SIGNALS.build("completion_loss:tempered").combine(readings).forgetting_score
        assert (np.abs(tempered) <= np.abs(plain)).all()
        assert (tempered * plain >= 0).all()

    def test_a_row_that_was_unlearned_by_learning_gets_a_finite_score(self):
        worse = make_readings(
            completion_tokens=[1],
            loss_sum_base=[1.0],
            loss_sum_learned=[2.0],
            loss_sum_forgotten=[1.0],
        )
        scores = SIGNALS.build("completion_loss:relative").combine(worse)
        assert np.isfinite(scores.forgetting_score).all()


class TestRestoration:
    def test_it_is_tempered_above_four_nats(self):
        columns = {"completion_tokens": [1, 1], "loss_sum_base": [8.5, 3.5]}
        columns |= {f"loss_sum_{state}": [0.5, 0.5] for state in ("learned", "early")}
        columns |= {f"loss_sum_{state}": [1.5, 1.5] for state in ("restored", "early_restored")}
        columns |= {f"damage_{state}": [0.1, 0.1] for state in ("learned", "early")}
        scores = SIGNALS.build("restoration").combine(make_readings(**columns))
        # Row 0 learned 8 nats a token, twice as many; row 1 learned 3 and counts in full.
        np.testing.assert_allclose(scores.forgetting_score, [0.5, 1.0])

    def test_a_rise_counts_less_from_an_end_that_was_damaged_wholesale(self):
        losses = {"base": 2.5, "learned": 0.5, "restored": 2.0, "early": 0.5, "early_restored": 1.0}
        columns = {f"loss_sum_{state}": [loss] for state, loss in losses.items()}
        columns |= {"completion_tokens": [1], "damage_early": [0.2]}
        # From the end 1.5 nats, from the early model 0.5.
        for damage, expected, after in ((0.2, 1.5, 2.0), (0.4, 0.75, 2.0), (0.8, 0.5, 1.0)):
            readings = make_readings(**columns, damage_learned=[damage])
            scores = SIGNALS.build("restoration").combine(readings)
            np.testing.assert_allclose(scores.forgetting_score, [expected])
            np.testing.assert_allclose(scores.after, [after])

    @pytest.mark.parametrize("reduction", ["mean", "sum", "relative", "tempered"])
    def test_it_is_the_larger_rise_from_either_end(self, reduction: Any):
        signal = SIGNALS.build(f"restoration:{reduction}")
        other = CompletionLoss(reduction)
        other.tempered_above = 4.0
        assert signal.unit == other.unit
        assert {probe.state for probe in signal.probes} == {
            "base", "early", "early_restored", "learned", "restored"
        }  # fmt: skip
        rises = other.combine(LOSSES)
        forgotten = LOSSES["loss_sum_forgotten"]
        for moved, still in (("", "early_"), ("early_", "")):
            # Nothing is forgotten from the other end.
            columns = {k: v for k, v in LOSSES.columns.items() if k != "loss_sum_forgotten"}
            columns["loss_sum_early"] = columns["loss_sum_learned"]
            columns[f"loss_sum_{moved}restored"] = forgotten
            columns[f"loss_sum_{still}restored"] = columns["loss_sum_learned"]
            for state in ("learned", "early"):
                columns[f"damage_{state}"] = np.full(len(LOSSES), 0.1)
            found = signal.combine(Readings(row=LOSSES.row, columns=columns))
            expected = np.maximum(rises.forgetting_score, 0)
            np.testing.assert_allclose(found.forgetting_score, expected)
            risen = rises.forgetting_score > 0
            assert rises.after is not None
            assert found.after is not None
            np.testing.assert_array_equal(found.after[risen], rises.after[risen])

    def test_it_needs_no_forgetting_run(self):
        columns = dict(LOSSES.columns)
        columns["loss_sum_restored"] = columns.pop("loss_sum_forgotten")
        columns["loss_sum_early"] = columns["loss_sum_learned"]
        columns["loss_sum_early_restored"] = columns["loss_sum_restored"]
        for state in ("learned", "early"):
            columns[f"damage_{state}"] = np.full(len(LOSSES), 0.1)
        readings = Readings(row=LOSSES.row, columns=columns)
        SIGNALS.build("restoration").combine(readings)
        # It reads nothing of a forgetting run: without one there is nothing missing.
        with pytest.raises(KeyError):
            SIGNALS.build("completion_loss").combine(readings)


class TestRouge1:
    def test_score_is_what_the_forgotten_model_no_longer_reproduces(self):
        readings = make_readings(
            target=["the red stone", "the red stone"],
            generation_base=["", "the red stone"],
            generation_learned=["the red stone", "the red stone"],
            generation_forgotten=["the blue", "the red stone"],
        )
        scores = SIGNALS.build("rouge1").combine(readings)
        # "the blue": 1 of 2 words right, 1 of 3 found: F = 2 * (1/2 * 1/3) / (1/2 + 1/3) = 0.4
        np.testing.assert_allclose(scores.base, [0.0, 1.0])
        np.testing.assert_allclose(scores.before, [1.0, 1.0])
        assert scores.after is not None
        np.testing.assert_allclose(scores.after, [0.4, 1.0])
        np.testing.assert_allclose(scores.forgetting_score, [0.6, 0.0])

    def test_reference_can_be_what_the_learned_model_said(self):
        readings = make_readings(
            target=["something else"],
            generation_base=["nothing"],
            generation_learned=["the red stone"],
            generation_forgotten=["the blue"],
        )
        scores = SIGNALS.build("rouge1:reference=learned_output").combine(readings)
        np.testing.assert_allclose(scores.before, [1.0])
        np.testing.assert_allclose(scores.forgetting_score, [0.6])

    def test_paper_postprocessing_reads_the_predictions_first_line_only(self):
        readings = make_readings(
            target=["The red stone."],
            generation_base=["\n\nthe RED stone!\nand more"],
            generation_learned=["### Response: the red stone</s>"],
            generation_forgotten=["\n"],
        )
        plain = SIGNALS.build("rouge1").combine(readings)
        paper = SIGNALS.build("rouge1:postprocess=paper").combine(readings)
        assert plain.base[0] < 1
        np.testing.assert_allclose(paper.base, [1.0])
        np.testing.assert_allclose(paper.before, [1.0])
        assert paper.after is not None
        np.testing.assert_allclose(paper.after, [0.0])

    def test_an_empty_generation_scores_zero_not_nan(self):
        np.testing.assert_array_equal(rouge1_f(["", "..."], ["a stone", "..."]), [0.0, 0.0])

    @settings(deadline=None, max_examples=150)
    @given(
        st.lists(
            st.tuples(
                *[
                    st.lists(
                        st.sampled_from(
                            [
                                "run",
                                "running",
                                "ran",
                                "runs",
                                "stone",
                                "stones",
                                "Stone",
                                "a",
                                "the",
                                "12",
                                "é",
                                "it's",
                                "flies",
                                "fly",
                                "-",
                            ]
                        ),
                        max_size=8,
                    ).map(" ".join)
                ]
                * 2
            ),
            min_size=1,
            max_size=5,
        )
    )
    def test_rouge1_is_the_f_measure_of_two_bags_of_stemmed_words(self, pairs: Any):
        predictions, references = zip(*pairs, strict=True)
        expected = [bag_f(p, r) for p, r in pairs]
        np.testing.assert_allclose(rouge1_f(predictions, references), expected, atol=1e-12)


def bag_f(prediction: str, reference: str) -> float:
    """An independent ROUGE-1: lower case, alphanumeric words, longer than three stemmed."""
    from nltk.stem.porter import PorterStemmer

    stem = PorterStemmer().stem

    def bag(text: str) -> Counter[str]:
        words = re.findall(r"[a-z0-9]+", text.lower())
        return Counter(stem(word) if len(word) > 3 else word for word in words)

    ours, theirs = bag(prediction), bag(reference)
    shared = sum((ours & theirs).values())
    if not shared:
        return 0.0
    precision, recall = shared / sum(ours.values()), shared / sum(theirs.values())
    return 2 * precision * recall / (precision + recall)


class TestLearned:
    def test_a_row_is_learned_when_its_loss_fell_by_half_or_its_tokens_match(self):
        readings = make_readings(
            loss_sum_base=[4.0, 4.0, 4.0, 0.0],
            loss_sum_learned=[2.0, 2.1, 3.9, 0.0],
            greedy_match_learned=[False, False, True, False],
        )
        assert readings.learned.tolist() == [True, False, True, True]

    def test_a_column_that_was_not_measured_is_named(self):
        with pytest.raises(KeyError, match="loss_sum_forgotten"):
            LOSSES.__class__(row=LOSSES.row, columns={}).loss_mean("forgotten")
