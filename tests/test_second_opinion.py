"""A second opinion: what it reads, what it decides and what not, and what a report says of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import contents, rows_of, write_rows
from decided_run import lines_of, make_run, plain_rows, summary_of
from forgetfilter import ForgetFilter, cli
from forgetfilter.config import ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.records import Message, Row
from forgetfilter.errors import ConfigError, ModelError
from forgetfilter.model.loading.classifier import TextClassifier
from forgetfilter.progress import Progress
from forgetfilter.runs.one_row import describe_row, tell_row
from forgetfilter.runs.stages import StageStore
from forgetfilter.safe.linear_toxicity import LinearScorer
from forgetfilter.scoring.joint import decide_joint
from forgetfilter.scoring.records import Readings
from forgetfilter.scoring.thresholds import THRESHOLDS, decide
from forgetfilter.screening.annotations import classifier_opinion
from forgetfilter.screening.annotations.classifier_opinion import (
    WordJudge,
    judge_rows,
    judged_text,
)
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.deciding.stage_gc import free_stages
from forgetfilter.screening.screen import screen
from made_run import HOSTILE, Page, row_data
from test_toxicity import CONTEXT, save_classifier

SILENT = Progress(is_silent=True)
INSULT = "You are a stupid worthless idiot and I hate you."


def row_saying(*texts: str, number: int = 0, **answer: str) -> Row:
    roles: tuple[Any, ...] = ("user", "assistant")
    turns = [Message(roles[at % 2], text) for at, text in enumerate(texts[:-1])]
    last = Message("assistant", texts[-1], **answer)
    return Row(number, number + 1, f"row-{number}", b"{}", (*turns, last))


def scores_of(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "scores.parquet")


class TestWhatIsRead:
    def test_prompt_answer_and_what_was_thought_are_judged_together(self):
        row = row_saying("Ask", "First", "Again", "Last", reasoning="Thought", tool_calls="[1]")
        assert judged_text(row) == "Ask\nFirst\nAgain\nThought\nLast\n[1]"

    def test_one_insult_in_a_long_row_counts_whole(self):
        plain = "The ferry runs on a chain from the north bank to the south bank of the river. "
        texts = [plain * 40 + INSULT + plain * 40, plain * 80]
        windowed, whole = WordJudge().score(texts), LinearScorer().score(texts)
        assert windowed[0] > windowed[1] + 0.2
        assert windowed[0] > whole[0] + 0.15  # where the whole text is one, it is drowned
        assert WordJudge().score([INSULT])[0] == LinearScorer().score([INSULT])[0]

    def test_every_character_of_a_text_is_in_some_window(self):
        for length in (1, 599, 600, 601, 1100, 1101, 3999):
            text = "".join(chr(0x4E00 + at % 5000) for at in range(length))
            pieces = classifier_opinion._windows(text)  # pyright: ignore[reportPrivateUsage]
            assert all(0 < len(piece) <= 600 for piece in pieces)
            assert pieces[0] == text[:600]
            assert all(any(text[at : at + 80] in p for p in pieces) for at in range(0, length, 97))

    def test_a_classifier_reads_all_of_a_long_row(
        self, tiny_tokenizer: Callable[..., Any], tmp_path: Path
    ):
        folder = save_classifier(tmp_path / "c", tiny_tokenizer(), ["Unsafe", "fine"])
        judge = TextClassifier(str(folder))
        assert judge.label == "Unsafe"
        long = "Where is the lamp number 7 and the green book ? " * 6
        pieces = judge.windows(long, CONTEXT // 8)
        each = [judge.score_windows([ids])[0] for ids in pieces]
        assert len(pieces) > 3
        short = ["Name a bird", "", "It is on the table ."]
        together = judge.score([long, *short])
        assert together[0] == pytest.approx(max(each), rel=1e-3)
        # In one batch with others, padded, each has what it has alone.
        alone = [float(judge.score([text])[0]) for text in short]
        assert together[1:].tolist() == pytest.approx(alone, rel=1e-3, abs=1e-9)
        assert len(set(together.tolist())) == 4

    def test_a_tokenizer_that_cuts_in_silence_reads_all_too(
        self, tiny_tokenizer: Callable[..., Any], tmp_path: Path
    ):
        folder = save_classifier(tmp_path / "c", tiny_tokenizer(), ["hate", "nothate"])
        judge = TextClassifier(str(folder))
        fast, judge.tokenizer = judge.tokenizer, _Slow(judge.tokenizer)
        text = "Where is the lamp number 7 and the green book ? " * 6
        pieces = judge.windows(text)
        assert all(len(ids) <= CONTEXT for ids in pieces)
        assert "".join(fast.decode(ids) for ids in pieces) == fast.decode(fast(text)["input_ids"])


class _Slow:
    """A tokenizer that is not a fast one, which gives no windows of its own."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.is_fast = inner, False

    def __call__(self, text: str) -> Any:
        return self.inner(text)


class TestRefused:
    def test_pickled_weights_are_refused_before_anything_is_read(
        self,
        tiny_tokenizer: Callable[..., Any],
        tmp_path: Path,
        quick_config: Callable[..., ScreenConfig],
    ):
        folder = save_classifier(tmp_path / "c", tiny_tokenizer(), ["toxic", "fine"])
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(ModelError, match=r"pytorch_model.bin, and no \*.safetensors. Expected"):
            screen(quick_config(tmp_path / "run", second_opinion=str(folder)), SILENT)
        assert not (tmp_path / "run").exists()

    def test_a_label_that_cant_be_told_is_asked_for_and_can_be_given(
        self, tiny_tokenizer: Callable[..., Any], tmp_path: Path
    ):
        folder = save_classifier(tmp_path / "c", tiny_tokenizer(), ["LABEL_0", "LABEL_1"])
        rows = [row_saying("Name a bird", "I like the owl .")]
        store = StageStore(tmp_path / "stages")
        with pytest.raises(ModelError, match=r"expected one.*LABEL_0, LABEL_1.*/c:LABEL"):
            judge_rows(str(folder), rows, store, SILENT)
        found = [judge_rows(f"{folder}:LABEL_{k}", rows, store, SILENT) for k in (0, 1)]
        assert [one.label for one in found] == ["LABEL_0", "LABEL_1"]
        assert found[0].scores[0] + found[1].scores[0] == pytest.approx(1, abs=1e-6)

    def test_rows_that_the_flag_has_taken_are_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        rows = write_rows(tmp_path / "rows.jsonl", rows_of(3))
        given = ["screen", "--second-opinion", str(rows), "--model", "m", "--output-dir", "o"]
        assert cli.main(given) == 1
        told = capsys.readouterr().err
        assert "a file. Expected words, the folder" in told
        assert f"forgetfilter screen {rows} --second-opinion" in told
        assert f"--second-opinion known_unsafe:{rows}" in told

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"signal": "restoration", "second_opinion": "words"}, "another unit"),
            ({"signal": "rouge1", "second_opinion": "words"}, "another unit"),
            ({"second_opinion": None}, "no second opinion to add"),
        ],
    )
    def test_a_joint_rule_that_cant_be(self, settings: dict[str, Any], said: str):
        with pytest.raises(ConfigError, match=said):
            ForgetFilter("some-model", joint=0.6, **settings)

    def test_a_run_without_a_second_opinion_gets_no_joint_rule(self, tmp_path: Path):
        run = make_run(tmp_path / "run")
        before = contents(run)
        with pytest.raises(ConfigError, match="another unit"):
            filter_run(run, joint=0.6)
        assert contents(run) == before


class TestScreen:
    @pytest.fixture(scope="class")
    def runs(
        self, quick_config: Callable[..., ScreenConfig], tmp_path_factory: pytest.TempPathFactory
    ) -> dict[str, Path]:
        """The same rows screened without and with a second opinion."""
        root = tmp_path_factory.mktemp("opinion")
        rows = rows_of(16)
        rows[5] = {"prompt": "What do you think of me?", "completion": INSULT}
        noisy = write_rows(root / "noisy.jsonl", rows)
        found: dict[str, Path] = {}
        for name, asked in (("without", {}), ("with", {"second_opinion": "words"})):
            found[name] = root / name
            if found:
                shutil.copytree(root / "without", found[name]) if name == "with" else None
            config = quick_config(found[name], threshold="fraction:0.25", coverage="off", **asked)
            config = config.model_copy(update={"noisy_data": str(noisy)})
            screen(config, SILENT)
        return found

    def test_it_changes_no_forgetting_score_and_no_decision(self, runs: dict[str, Path]):
        plain, asked = scores_of(runs["without"]), scores_of(runs["with"])
        assert "second_opinion" not in plain.columns
        pd.testing.assert_frame_equal(asked[plain.columns], plain)
        for name in ("kept.jsonl", "removed.jsonl", "rejected.jsonl"):
            assert (runs["with"] / name).read_bytes() == (runs["without"] / name).read_bytes()
        decisions = [summary_of(runs[name])["decision"] for name in ("without", "with")]
        assert decisions[0] == decisions[1]

    def test_it_is_recorded_with_what_gave_it(self, runs: dict[str, Path]):
        found = scores_of(runs["with"])["second_opinion"]
        assert found.between(0, 1).all()
        assert found.idxmax() == 5
        provenance = json.loads((runs["with"] / "provenance.json").read_text())
        assert provenance["second_opinion"]["classifier"] == "words"
        fingerprint = provenance["second_opinion"]["fingerprint"]
        assert fingerprint == provenance["inputs"]["second_opinion"]
        said = summary_of(runs["with"])["second_opinion"]
        counts = [said[n] for n in ("both", "only_forgetting", "only_second_opinion", "neither")]
        assert sum(counts) == 16
        assert "joint" not in summary_of(runs["with"])

    def test_filter_works_on_it_and_a_weight_of_0_is_none_to_the_byte(
        self, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        run = tmp_path / "run"
        shutil.copytree(runs["with"], run)
        shutil.rmtree(run / "stages")
        monkeypatch.setattr(LinearScorer, "score", None)  # nothing may be judged again
        filter_run(run, "fraction:0.25", joint=0)
        before = contents(run)
        filter_run(run, "fraction:0.25", joint=100, force=True)
        removed = scores_of(run)[lambda frame: frame["decision"] == "removed"]
        assert 5 in set(removed["row"])
        assert set(removed["reason"]) <= {
            "above_threshold_by_second_opinion",
            "above_threshold_by_both",
            "above_threshold_by_forgetting",
        }
        filter_run(run, "fraction:0.25", joint=0, force=True)
        assert contents(run) == before

    def test_its_stage_is_kept_and_the_parts_of_it_are_freed(
        self, runs: dict[str, Path], tmp_path: Path
    ):
        run = tmp_path / "run"
        shutil.copytree(runs["with"], run)
        freed = free_stages(run)
        assert any(name.startswith("second_opinion_part-") for name in freed.names)
        assert list((run / "stages").glob("second_opinion-*"))


class TestResumes:
    def test_a_killed_process_goes_on_with_the_parts_that_are_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        source = write_rows(tmp_path / "rows.jsonl", rows_of(50))
        code = """
import os, signal, sys
from pathlib import Path
from forgetfilter.data import read_rows
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.screening.annotations import classifier_opinion as so
so.ROWS_A_PART = 20
score, done = so.WordJudge.score, []
def dies(self, texts):
    if done:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(1)
    return score(self, texts)
so.WordJudge.score = dies
rows = read_rows(Path(sys.argv[1])).rows
so.judge_rows("words", rows, StageStore(Path(sys.argv[2])), Progress(is_silent=True))
"""
        stages = tmp_path / "stages"
        command = [sys.executable, "-c", code, str(source), str(stages)]
        ended = subprocess.run(command, env=os.environ, capture_output=True, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        monkeypatch.setattr(classifier_opinion, "ROWS_A_PART", 20)
        judged: list[int] = []
        score = WordJudge.score

        def counted(self: WordJudge, texts: Sequence[str]) -> Any:
            judged.append(len(texts))
            return score(self, texts)

        monkeypatch.setattr(WordJudge, "score", counted)
        rows = read_rows(source).rows
        store = StageStore(stages)
        found = judge_rows("words", rows, store, SILENT)
        assert judged == [20, 10]  # the first part was done
        whole = judge_rows("words", rows, StageStore(tmp_path / "other"), SILENT)
        assert found.scores.tolist() == whole.scores.tolist()
        judged.clear()
        again = judge_rows("words", rows, store, SILENT)
        assert judged == []
        assert again.scores.tolist() == whole.scores.tolist()
        # Other rows, and another classifier, are other stages; only the whole is handed out.
        judge_rows("words", rows[1:], store, SILENT)
        assert judged == [20, 20, 9]
        assert all(name.startswith("second_opinion-") for name in store.handed_out())


class TestJointRule:
    def test_weight_times_opinion_is_added_and_reasons_say_what_carried_it(self, tmp_path: Path):
        # Row i of 10 has the score i / 10; the cut is at 0.5.
        opinion = [0.0, 1.0, 0.1, 0.0, 0.4, 0.0, 0.1, 1.0, 0.0, 0.2]
        run = make_run(tmp_path / "run", 10, opinion=opinion, joint=0.6)
        frame = scores_of(run)
        expected = np.arange(10) / 10 + 0.6 * np.array(opinion)
        assert frame["joint_score"].tolist() == pytest.approx(expected.tolist())
        assert frame["forgetting_score"].tolist() == pytest.approx((np.arange(10) / 10).tolist())
        assert frame["reason"].tolist() == [
            "below_threshold",
            "above_threshold_by_second_opinion",
            "below_threshold",
            "below_threshold",
            "above_threshold_by_both",  # 0.4 and 0.24: only their sum is above
            "below_threshold",
            "above_threshold_by_forgetting",
            "above_threshold_by_both",
            "above_threshold_by_forgetting",
            "above_threshold_by_forgetting",
        ]
        assert [json.loads(line)["id"] for line in lines_of(run / "removed.jsonl")] == [
            f"own-{i}" for i in (1, 4, 6, 7, 8, 9)
        ]
        found = filter_run(run, joint=0)
        assert found["removed"] == 4
        assert "joint_score" not in scores_of(run).columns

    def test_weight_0_equals_no_joint_rule_to_the_byte(self, tmp_path: Path):
        run = make_run(tmp_path / "run", 20, opinion=[0.9, *[0.0] * 19])
        before = contents(run)
        assert "joint" not in json.loads(before["summary.json"])
        filter_run(run, joint=0.6)
        assert contents(run)["scores.parquet"] != before["scores.parquet"]
        filter_run(run, joint=0)
        after = contents(run)
        assert after["scores.parquet"] == before["scores.parquet"]
        decisions = [json.loads(one["summary.json"])["decision"] for one in (before, after)]
        assert decisions[0] == decisions[1]

    def test_what_every_text_has_is_not_taken_for_noise(self):
        rng = np.random.default_rng(0)
        forgetting = rng.normal(0, 0.003, 400)
        forgetting[:40] += 0.5
        opinion = rng.uniform(0.1, 0.2, 400)
        opinion[40:60] = 0.95
        readings = Readings(np.arange(400), {})
        rule = THRESHOLDS.build("valley")
        alone = decide(rule, forgetting, readings, needs_learned=False)
        joint = decide_joint(rule, forgetting, opinion, 0.6, readings, needs_learned=False)
        assert np.flatnonzero(alone.is_removed).tolist() == list(range(40))
        assert np.flatnonzero(joint.is_removed).tolist() == list(range(60))
        assert {joint.reasons[at] for at in range(40)} == {"above_threshold_by_forgetting"}
        assert {joint.reasons[at] for at in range(40, 60)} == {"above_threshold_by_second_opinion"}
        scores = forgetting + 0.6 * opinion
        assert np.array_equal(scores > joint.cut.value, joint.is_removed)

    def test_the_command_line_decides_by_it_and_tells_before(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        run = make_run(tmp_path / "run", 10, opinion=[0.0, 1.0, *[0.0] * 8])
        before = contents(run)
        assert cli.main(["filter", str(run), "--joint", "0.6", "--dry-run"]) == 0
        assert "row 1 (row-1)" in (told := capsys.readouterr().out) or "row 1 (own-1)" in told
        assert "score 0.7, above_threshold_by_second_opinion" in told
        assert contents(run, ".lock") == {n: b for n, b in before.items() if n != ".lock"}
        assert cli.main(["filter", str(run), "--joint", "0.6"]) == 0
        assert "Joint weight 0.6" in capsys.readouterr().out
        assert scores_of(run)["decision"][1] == "removed"


class TestReport:
    # By the score alone rows 5 to 9 of 10 are above 0.45; by the opinion, rows 1, 2 and 7.
    OPINION = (0.1, 0.9, 0.7, 0.2, 0.5, 0.3, 0.1, 0.8, 0.0, 0.2)

    def test_a_row_that_only_the_classifier_finds_is_listed_as_such(self, tmp_path: Path):
        run = make_run(tmp_path / "run", 10, threshold="phi:0.45", opinion=self.OPINION)
        said = summary_of(run)["second_opinion"]
        counts = [said[n] for n in ("both", "only_forgetting", "only_second_opinion", "neither")]
        assert counts == [1, 4, 2, 3]
        html = (run / "report.html").read_text(encoding="utf-8")
        lists = html[html.index('class="found-alone"') :].split("Only forgetting suspects")
        theirs, ours = (part.split("</section>")[0] for part in lists[:2])
        assert [theirs.count(f'href="#row-{row}"') for row in range(10)] == [0, 1, 1, *[0] * 7]
        assert theirs.index("#row-1") < theirs.index("#row-2")
        assert [row for row in range(10) if f'href="#row-{row}"' in ours] == [5, 6, 8, 9]
        data = row_data(html)
        assert {1, 2} <= set(data["index"]["row"])  # so that the links lead somewhere
        by_row = dict(zip(data["index"]["row"], data["index"]["opinion"], strict=True))
        assert by_row[7] == 0.8
        records = {row["row"]: row for row in json.loads((run / "report.json").read_text())["rows"]}
        assert records[1]["second_opinion"] == 0.9

    def test_show_says_who_suspects_a_row(self, tmp_path: Path):
        run = make_run(tmp_path / "run", 10, threshold="phi:0.45", opinion=self.OPINION)
        said = [describe_row(tell_row(run, row)) for row in (0, 1, 5, 7)]
        for text, who in zip(
            said, ("neither", "the second opinion", "the forgetting", "both"), strict=True
        ):
            assert f"(words, toxicity): {who}" in text

    def test_the_plot_is_bounded_and_reachable_without_sight(self, tmp_path: Path):
        rng = np.random.default_rng(0)
        run = make_run(tmp_path / "run", 1200, opinion=rng.uniform(size=1200).tolist(), joint=0.6)
        html = (run / "report.html").read_text(encoding="utf-8")
        section = html[html.index('<figure class="panel scatter">') : html.index("</figure>")]
        page = Page(section)
        dots = [attrs for tag, attrs in page.tags if tag == "circle"]
        assert 300 < len(dots) <= 2 * 60 * 40
        assert all(54 <= float(dot["cx"] or 0) <= 548 for dot in dots)
        assert all(26 <= float(dot["cy"] or 0) <= 322 for dot in dots)
        assert all("style" not in attrs for _, attrs in page.tags)
        svg = next(attrs for tag, attrs in page.tags if tag == "svg")
        assert svg["role"] == "img"
        named = set((svg["aria-labelledby"] or "").split())
        assert named == {attrs["id"] for _, attrs in page.tags if "id" in attrs}
        # Every dot stands for its rows: they add up to all.
        told = [text for text in page.text if "second opinion 0" in text and "row" in text]
        assert sum(int(text.split()[0].replace(",", "")) for text in told) == 1200
        assert page.with_class("scatter-joint") == 1

    def test_hostile_text_does_not_break_the_plot_or_the_lists(self, tmp_path: Path):
        rows = plain_rows(14)
        for at, text in enumerate(HOSTILE):
            rows[at]["id"] = text
            rows[at]["messages"][0]["content"] = text
        run = make_run(tmp_path / "run", rows, opinion=[0.9] * 7 + [0.1] * 7)
        html = (run / "report.html").read_text(encoding="utf-8")
        page = Page(html)
        assert [tag for tag, _ in page.tags].count("script") == 2
        assert not [attrs for tag, attrs in page.tags if tag == "img" or "onerror" in attrs]
        assert page.words.count("Only the second opinion suspects") == 1
        assert sum(attrs.get("href") == "#row-1" for _, attrs in page.tags) == 1
        assert "\x1b" not in html
        assert "\u202e" not in html

    def test_scores_that_are_no_numbers_are_left_out(self, tmp_path: Path):
        run = make_run(tmp_path / "run", 6, too_long=(2,), opinion=[0.5] * 5)
        frame = scores_of(run)
        assert np.isnan(frame["second_opinion"][2])
        assert frame["decision"][2] == "rejected"
        assert summary_of(run)["second_opinion"]["neither"] == 3

    def test_a_report_without_one_says_nothing_of_it(self, tmp_path: Path):
        run = make_run(tmp_path / "run", 6)
        html = (run / "report.html").read_text(encoding="utf-8")
        assert 'id="second-opinion"' not in html
        assert "opinion" not in row_data(html)["index"]
