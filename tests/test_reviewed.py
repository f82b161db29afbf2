"""The rule `reviewed`: a cut from what people decided, on made-up scores and on finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decided_run import make_run, summary_of
from forgetfilter import cli
from forgetfilter.config import ScreenConfig
from forgetfilter.errors import ConfigError, DataError, UnfitError
from forgetfilter.runs.decisions import Journal, input_rows, load_decisions
from forgetfilter.scoring.joint_weight import WEIGHTS, weight_by_decisions
from forgetfilter.scoring.records import Readings
from forgetfilter.scoring.thresholds import THRESHOLDS, choose_rule, decide
from forgetfilter.scoring.thresholds.reviewed import spread_over
from forgetfilter.screening.deciding.decide import apply_decisions, filter_run, finished_run
from forgetfilter.screening.deciding.overruling import Overruling
from forgetfilter.screening.deciding.preview import preview
from forgetfilter.screening.deciding.reviewed_rows import with_reviewed
from forgetfilter.screening.finetune import finetune


def select(rule: str, scores: Any, reviewed: Any) -> Any:
    """What a rule decides; ``reviewed`` has 1 to remove, 0 to keep, -1 for nothing."""
    columns = {"reviewed": np.asarray(reviewed)}
    readings = Readings(row=np.arange(len(scores)), columns=columns)
    return decide(THRESHOLDS.build(rule), np.asarray(scores), readings, needs_learned=False)


def drawn(seed: int, count: int, steepness: float = 4.0) -> tuple[Any, Any]:
    """Scores, and labels that are unsafe with odds of exp(steepness * (score - 1))."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1, count)
    return scores, rng.random(count) < 1 / (1 + np.exp(-steepness * (scores - 1)))


def read_some(scores: Any, is_unsafe: Any, places: Any) -> Any:
    reviewed = np.full(len(scores), -1)
    reviewed[list(places)] = is_unsafe[list(places)]
    return reviewed


class TestTheCurve:
    @pytest.mark.parametrize("probability", [0.3, 0.5, 0.7, 0.9])
    def test_it_cuts_where_the_probability_is_what_was_asked_for(self, probability: float):
        scores, is_unsafe = drawn(0, 20_000)
        reviewed = read_some(scores, is_unsafe, range(10_000))
        cut = select(f"reviewed:{probability}", scores, reviewed).cut
        right = 1 + np.log(probability / (1 - probability)) / 4
        assert cut.value == pytest.approx(right, abs=0.05)

    def test_forty_decisions_say_how_many_false_removals_there_are(self):
        expected, there = [], []
        for seed in range(60):
            scores, is_unsafe = drawn(seed, 2000)
            high = np.argsort(-scores)
            places = [*high[:10], *high[:1000][spread_over(1000)[:30]]]
            reviewed = read_some(scores, is_unsafe, places)
            found = select("reviewed", scores, reviewed)
            expected.append(found.cut.expected_false_removals)
            is_open = reviewed < 0
            there.append(np.sum(found.is_removed & is_open & ~is_unsafe))
        assert 0.5 < np.mean(expected) / np.mean(there) < 2

    def test_nine_times_in_ten_the_range_that_it_tells_holds_that_number(self):
        held, widths = [], []
        for seed in range(100):
            scores, is_unsafe = drawn(seed, 2000, steepness=2)
            high = np.argsort(-scores)
            places = [*high[:10], *high[:1000][spread_over(1000)[:30]]]
            reviewed = read_some(scores, is_unsafe, places)
            found = select("reviewed", scores, reviewed)
            low, most = found.cut.notes["harmless_range"]
            there = np.sum(found.is_removed & (reviewed < 0) & ~is_unsafe)
            held.append(low <= there <= most)
            widths.append((most - low) / max(found.cut.expected_false_removals, 1))
        assert 0.84 <= np.mean(held) <= 0.99
        assert np.median(widths) < 4

    def test_more_decisions_narrow_the_range(self):
        scores, is_unsafe = drawn(3, 20_000, steepness=2)
        widths: list[float] = []
        for step in (400, 40, 4):
            reviewed = read_some(scores, is_unsafe, range(0, 20_000, step))
            cut = select("reviewed", scores, reviewed).cut
            low, most = cut.notes["harmless_range"]
            assert low <= cut.expected_false_removals <= most
            widths.append((most - low) / cut.expected_false_removals)
        assert widths == sorted(widths, reverse=True)

    def test_trusted_rows_are_neither_expected_to_go_nor_named_to_be_read(self):
        scores, is_unsafe = drawn(2, 400)
        reviewed = read_some(scores, is_unsafe, range(0, 400, 8))
        columns = {"reviewed": reviewed, "is_trusted": np.ones(400, dtype=np.bool_)}
        readings, rule = Readings(np.arange(400), columns), THRESHOLDS.build("reviewed")
        found = decide(rule, scores, readings, needs_learned=False)
        assert found.cut.expected_false_removals == 0
        columns["reviewed"] = np.full(400, -1)
        with pytest.raises(ConfigError, match=r"decide them, or name another rule\.$"):
            decide(rule, scores, readings, needs_learned=False)

    def test_reading_the_highest_first_doesnt_move_the_cut(self):
        scores, is_unsafe = drawn(1, 20_000)
        high = np.argsort(-scores)[:8000]
        at_random = np.random.default_rng(0).permutation(20_000)[:8000]
        one, other = (
            select("reviewed", scores, read_some(scores, is_unsafe, places)).cut.value
            for places in (high, at_random)
        )
        assert one == pytest.approx(other, abs=0.05)

    def test_decisions_that_part_without_an_error_cut_between_them(self):
        scores = np.linspace(0, 1, 101)
        reviewed = read_some(scores, scores > 0.6, range(0, 101, 5))
        found = select("reviewed", scores, reviewed)
        assert 0.6 <= found.cut.value < 0.7
        assert not found.cut.lacks_estimate

    def test_where_decided_rows_are_not_ranked_nothing_goes_and_it_says_so(self):
        scores = np.linspace(0, 1, 100)
        found = select("reviewed", scores, read_some(scores, scores < 0.5, range(0, 100, 5)))
        assert not found.is_removed.any()
        assert found.cut.lacks_estimate
        assert found.cut.notes["ranks"] is False

    @pytest.mark.parametrize("score", [0.1, 0.3, 0.07, 1 / 3, 0.0, -1e6])
    def test_decided_rows_of_one_score_say_nothing_of_others(self, score: float):
        # The mean of equal numbers is off by rounding: no spread that anything may be cut by.
        others = np.random.default_rng(0).uniform(-0.05, 0.6, 300) + score
        scores = np.concatenate([np.full(12, score), others])
        reviewed = np.concatenate([np.ones(9), np.zeros(3), np.full(300, -1)]).astype(np.int64)
        found = select("reviewed", scores, reviewed)
        assert not found.is_removed.any()
        assert found.cut.notes["ranks"] is False

    def test_scores_whose_spread_is_too_small_for_a_number_say_nothing(self):
        scores = np.array([0.0] * 11 + [1.3e-177])
        reviewed = np.array([0] * 6 + [1] * 6)
        assert not select("reviewed", scores, reviewed).is_removed.any()

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from([-1, 0, 1])), min_size=12),
        st.floats(0.01, 0.98),
    )
    def test_a_higher_probability_never_removes_more(
        self, rows: list[tuple[float, int]], probability: float
    ):
        scores, reviewed = map(np.array, zip(*rows, strict=True))
        reviewed[:10] = np.arange(10) % 2  # enough decisions, of both kinds
        low = select(f"reviewed:{probability!r}", scores, reviewed)
        high = select(f"reviewed:{min(probability + 0.01, 0.99)!r}", scores, reviewed)
        assert not (high.is_removed & ~low.is_removed).any()
        expected = high.cut.expected_false_removals
        assert expected is None or 0 <= expected <= high.is_removed.sum()
        for found in (low, high):
            ends = found.cut.notes.get("harmless_range", [0, 0])
            assert 0 <= ends[0] <= ends[1] <= found.is_removed.sum()


class TestTheWeight:
    def decided(self, says: str, seed: int = 0) -> Any:
        """Decided rows of which forgetting, or the second opinion, says what is unsafe."""
        rng = np.random.default_rng(seed)
        forgetting, opinion = rng.normal(0, 0.2, 40), rng.uniform(0, 1, 40)
        told = forgetting / 0.2 if says == "forgetting" else (opinion - 0.5) * 4
        return forgetting, opinion, told + rng.normal(0, 0.3, 40) > 0.3

    def test_a_second_opinion_that_says_nothing_counts_nothing(self):
        found = [weight_by_decisions(*self.decided("forgetting", seed)) for seed in range(10)]
        assert np.median(np.array(found)) == 0
        assert max(found) <= 0.2

    def test_one_that_says_all_counts_most(self):
        found = [weight_by_decisions(*self.decided("opinion", seed)) for seed in range(10)]
        assert np.median(np.array(found)) == max(WEIGHTS)

    def test_it_is_the_weight_of_the_sum_that_decided(self):
        rng = np.random.default_rng(1)
        forgetting, opinion = rng.normal(0, 0.2, 4000), rng.uniform(0, 1, 4000)
        odds = 20 * (forgetting + 0.45 * opinion - 0.3)
        is_unsafe = rng.random(4000) < 1 / (1 + np.exp(-odds))
        assert weight_by_decisions(forgetting, opinion, is_unsafe) == 0.45

    def test_where_no_weight_ranks_there_is_none(self):
        forgetting, opinion = np.linspace(0, 1, 20), np.linspace(0, 1, 20)
        assert weight_by_decisions(forgetting, opinion, forgetting < 0.5) is None


class TestTooFewDecisions:
    @pytest.mark.parametrize(
        ("places", "said"),
        [([], "0 .*0 to remove, 0 to keep"), (range(90, 100), "10 .*10 to remove, 0 to keep")],
    )
    def test_it_names_rows_to_read(self, places: Sequence[int], said: str):
        scores = np.linspace(0, 1, 100)
        with pytest.raises(ConfigError, match=said) as caught:
            select("reviewed", scores, read_some(scores, scores > 0.5, places))
        told = str(caught.value)
        assert "10 or more, of both kinds" in told
        named = [int(word.strip("#,)")) for word in told.split() if word.startswith("#")]
        assert len(named) == 10
        # Where only unsafe rows were decided, harmless ones lie further down.
        assert (max(named) < 50) if places else (min(named) >= 50)

    def test_where_all_that_was_read_is_harmless_it_says_how_to_keep_all(self, tmp_path: Path):
        run = make_run(tmp_path / "run", 40)
        with pytest.raises(ConfigError, match=r"10 to keep.*--threshold fraction:0 keeps all"):
            filter_run(run, "reviewed", overruling=Overruling(keep=tuple(range(30, 40))))
        assert filter_run(run, "fraction:0")["removed"] == 0

    def test_a_screen_refuses_it_before_anything_is_trained(
        self, quick_config: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ):
        with pytest.raises(ConfigError, match=r"review RUN.*--threshold reviewed"):
            choose_rule("crossfit", "reviewed")
        config: ScreenConfig = quick_config(output_dir=tmp_path / "run")
        words = ["screen", str(config.noisy_data), "--model", str(config.model)]
        words += ["--output-dir", str(tmp_path / "run"), "--threshold", "reviewed"]
        assert cli.main(words) == 1
        assert "before a screen there is nothing to decide on" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("probability", ["0", "1", "-0.5", "nan"])
    def test_what_is_no_probability(self, probability: str):
        with pytest.raises(ConfigError, match="above 0 and below 1"):
            THRESHOLDS.build(f"reviewed:{probability}")


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 3000), st.integers(1, 64))
def test_the_first_places_are_spread_over_all(count: int, first: int):
    order = spread_over(count)
    assert sorted(order) == list(range(count))
    if count > first:
        gaps = np.diff([0, *sorted(order[:first]), count])
        assert gaps.max() <= 4 * count / first + 2


class TestRuns:
    """Row ``i`` of 40 has the score ``i / 40``; rows from 28 on are unsafe."""

    KEEP, REMOVE = (2, 8, 14, 20, 24, 26), (30, 33, 36, 39)

    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        return make_run(tmp_path / "run", 40)

    def decide(self, run: Path) -> dict[str, Any]:
        asked = Overruling(keep=self.KEEP, remove=self.REMOVE)
        return filter_run(run, "reviewed", overruling=asked)

    def test_decisions_of_the_same_command_count_and_the_preview_says_the_same(self, run: Path):
        asked = Overruling(keep=self.KEEP, remove=self.REMOVE)
        before = preview(run, "reviewed", overruling=asked)
        made = filter_run(run, "reviewed", overruling=asked)
        assert 26 / 40 < made["threshold"]["value"] < 33 / 40
        assert before.cut == made["threshold"]["value"]
        assert before.after["removed"] == made["removed"]
        notes = {"decided": 10, "decided_unsafe": 4, "harmless_range": [0, 3]}
        assert made["threshold_notes"] == notes
        assert made["expected_false_removals"] < 3

    def test_later_decisions_move_the_cut_and_withdrawn_ones_leave_it_undecidable(self, run: Path):
        first = self.decide(run)["threshold"]["value"]
        filter_run(run, overruling=Overruling(keep=(28, 29)))
        assert summary_of(run)["threshold"]["value"] > first
        rows = input_rows(run)
        Journal(run).append([rows.decide(row, None, "", "Ada") for row in self.KEEP])
        with pytest.raises(ConfigError, match="6 of their decisions can be used"):
            filter_run(run)
        assert summary_of(run)["threshold"]["rule"] == "reviewed"  # the run stays as it was
        assert filter_run(run, "phi:0.5")["threshold"]["value"] == 0.5

    def test_without_decisions_the_command_says_what_to_do(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ):
        assert cli.main(["filter", str(run), "--threshold", "reviewed"]) == 1
        told = capsys.readouterr().err
        assert "0 of their decisions can be used" in told
        assert "Spread over the scores" in told
        assert "Traceback" not in told

    def test_what_was_decided_before_likeness_to_those_very_rows_counts_no_more(self, run: Path):
        filter_run(run, overruling=Overruling(keep=(5,), remove=(39, 38)))
        filter_run(run, overruling=Overruling(keep=(6, 7), remove=(30,)))
        decided, readings = load_decisions(run), Readings(np.arange(40), {})
        opinion = np.where(np.isin(np.arange(40), (38, 39)), 1.0, 0.4)
        all_count = with_reviewed(readings, decided)["reviewed"]
        later = with_reviewed(readings, decided, opinion)["reviewed"]
        assert {row: all_count[row] for row in (5, 6, 7, 30, 38, 39)} == {
            5: 0, 6: 0, 7: 0, 30: 1, 38: 1, 39: 1
        }  # fmt: skip
        assert np.flatnonzero(later >= 0).tolist() == [6, 7, 30]

    def test_the_report_says_what_the_estimate_is_from(self, run: Path):
        self.decide(run)
        assert "from this file's scores and 10 decisions of people." in (
            (run / "report.html").read_text(encoding="utf-8")
        )


class TestTheWeightOfARun:
    """Row ``i`` of 40 has a forgetting score of ``i / 40``; its words say what people say."""

    READ = tuple(range(0, 40, 3))

    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        opinion = [0.9 if row % 2 else 0.1 for row in range(40)]
        return make_run(tmp_path / "run", 40, opinion=opinion, joint=0.1)

    def asked(self, rows: Sequence[int]) -> Overruling:
        odd = tuple(row for row in rows if row % 2)
        return Overruling(keep=tuple(set(rows) - set(odd)), remove=odd)

    def test_decisions_of_the_same_command_choose_it_and_the_preview_says_the_same(self, run: Path):
        asked = self.asked(self.READ)
        before = preview(run, "reviewed", overruling=asked, joint="reviewed")
        assert (summary_of(run)["joint"], before.joint) == (0.1, max(WEIGHTS))
        made = filter_run(run, "reviewed", overruling=asked, joint="reviewed")
        assert made["joint"] == max(WEIGHTS)
        assert before.cut == made["threshold"]["value"]
        assert before.after["removed"] == made["removed"]
        assert 14 <= made["removed"] <= 20  # of 20 that its words say, none but those
        # Later decisions are cut by the same weight until it is asked for again.
        assert filter_run(run, "fraction:0.1")["joint"] == max(WEIGHTS)

    def test_the_command_says_what_it_chose(self, run: Path, capsys: pytest.CaptureFixture[str]):
        filter_run(run, overruling=self.asked(self.READ))
        words = ["filter", str(run), "--threshold", "reviewed", "--joint", "reviewed"]
        for more in (["--dry-run"], []):
            assert cli.main([*words, *more]) == 0
            assert "Joint weight by what people decided: 1." in capsys.readouterr().out

    def test_too_few_decisions_are_told_and_nothing_changes(self, run: Path):
        with pytest.raises(ConfigError, match=r"2 of their decisions can be used \(1 to remove"):
            filter_run(run, overruling=self.asked((0, 1)), joint="reviewed")
        assert summary_of(run)["joint"] == 0.1
        assert not load_decisions(run).latest

    def test_without_a_second_opinion_there_is_nothing_to_weigh(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        run = make_run(tmp_path / "plain", 40)
        assert cli.main(["filter", str(run), "--joint", "reviewed"]) == 1
        assert "joint is reviewed, and the scores" in capsys.readouterr().err

    def test_a_word_that_is_no_weight_is_refused(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ):
        with pytest.raises(SystemExit):
            cli.main(["filter", str(run), "--joint", "much"])
        assert "neither a number of nats per root token nor reviewed" in capsys.readouterr().err


def test_what_later_decisions_make_severe_was_forced_by_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = make_run(tmp_path / "run", 60, threshold="phi:0.5")
    kept = Overruling(keep=tuple(range(0, 50, 5)), remove=(54, 56, 58))
    assert filter_run(run, "reviewed", overruling=kept)["removed"] < 12
    most = Overruling(remove=tuple(range(10, 60, 5)))
    before = summary_of(run)
    for ask in (filter_run, preview):
        with pytest.raises(UnfitError, match="most_rows_removed"):
            ask(run, overruling=most)
    assert summary_of(run) == before
    # Made on the review page, they are applied by whatever looks at the run next.
    rows = input_rows(run)
    Journal(run).append([rows.decide(row, "remove", "", "Ada") for row in range(10, 60, 5)])
    assert cli.main(["report", str(run)]) == 0
    told = capsys.readouterr()
    assert "60 rows: 0 kept, 0 removed, 60 undecided, 0 rejected" in told.out
    assert "severe: most_rows_removed" in told.err
    with finished_run(run) as folder:
        assert not apply_decisions(folder.path)
    after = summary_of(run)
    assert (after["is_decided"], after["undecided"], after["removed"]) == (False, 60, 0)
    assert len((run / "undecided.jsonl").read_bytes().splitlines()) == 60
    with pytest.raises(DataError, match="Nothing was decided"):
        finetune(run, tmp_path / "adapter")
    # By force it is decided, and stays so as more is decided.
    assert filter_run(run, force=True)["is_decided"]
    assert filter_run(run, overruling=Overruling(keep=(1,)))["is_decided"]
