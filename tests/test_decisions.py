"""Decisions of people: on the disk before they are acknowledged, and above whatever a rule says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decided_run import lines_of, make_run, plain_rows, summary_of
from forgetfilter.cli import main
from forgetfilter.data import read_rows
from forgetfilter.errors import DataError, UnfitError
from forgetfilter.runs.decisions import ConflictError, InputRows, Journal, load_decisions
from forgetfilter.screening.deciding.decide import apply_decisions, filter_run, finished_run
from forgetfilter.screening.deciding.overruling import Overruling
from forgetfilter.screening.deciding.preview import preview

MODEL_COLUMNS = ["row", "example_id", "base", "before", "after", "forgetting_score", "learned"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", 20, unlearned=[19], too_long=[3])


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """20 rows: 3 is rejected, 11 to 18 are removed by phi:0.5, 19 was not learned."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def frame_of(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "scores.parquet")


def decided(run: Path, row: int) -> tuple[str, str, str, str]:
    one = frame_of(run).iloc[row]
    return one["decision"], one["decided_by"], one["rule_decision"], one["reason"]


def ids_in(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in lines_of(path)]


def nothing_is_lost(run: Path) -> None:
    """kept + removed + rejected = input, line by line and byte for byte."""
    given = lines_of(run / "input.jsonl")
    rejected = [json.loads(line)["raw"].encode() for line in lines_of(run / "rejected.jsonl")]
    parts = [lines_of(run / "kept.jsonl"), lines_of(run / "removed.jsonl"), rejected]
    assert sorted(line for part in parts for line in part) == sorted(given)
    for part in parts:
        assert part == [line for line in given if line in set(part)]


def overrule(run: Path, keep: Any = (), remove: Any = (), **more: Any) -> dict[str, Any]:
    return filter_run(run, overruling=Overruling(tuple(keep), tuple(remove), **more))


class TestOverruling:
    def test_rows_move_byte_for_byte_and_nothing_that_was_computed_changes(self, run: Path):
        before = frame_of(run)
        summary = overrule(run, [12, 13], [0], reason="checked", reviewer="Ada")
        assert (summary["kept"], summary["removed"], summary["rejected"]) == (12, 7, 1)
        nothing_is_lost(run)
        assert "own-12" in ids_in(run / "kept.jsonl")
        assert "own-0" in ids_in(run / "removed.jsonl")
        pd.testing.assert_frame_equal(before[MODEL_COLUMNS], frame_of(run)[MODEL_COLUMNS])
        assert decided(run, 12) == ("kept", "reviewer", "removed", "kept_by_reviewer")
        assert decided(run, 0) == ("removed", "reviewer", "kept", "removed_by_reviewer")
        assert decided(run, 14) == ("removed", "rule", "removed", "above_threshold")
        assert summary["overruled"] | {"digest": ""} == {
            "digest": "",
            "keep": 2,
            "remove": 1,
            "unsure": 0,
            "kept_instead": 2,
            "removed_instead": 1,
            "elsewhere": 0,
            "entries": 3,
        }

    def test_the_journal_says_who_why_and_when(self, run: Path):
        overrule(run, [12], reason="sarcasm", reviewer=" Ada\tL. ")
        (line,) = lines_of(run / "decisions.jsonl")
        told = json.loads(line)
        assert told["row"] == 12
        assert told["example_id"] == "own-12"
        assert (told["decision"], told["reason"], told["reviewer"]) == ("keep", "sarcasm", "Ada L.")
        assert told["time"].endswith("+00:00")
        found = load_decisions(run).latest[12]
        assert (found.decision, found.reviewer, found.reason) == ("keep", "Ada L.", "sarcasm")

    def test_the_latest_decision_counts_and_unsure_lets_the_rule_decide(self, run: Path):
        overrule(run, [12])
        overrule(run, [], [12])
        assert decided(run, 12) == ("removed", "reviewer", "removed", "above_threshold")
        overrule(run, [12])
        journal, rows = Journal(run), InputRows(read_rows(run / "input.jsonl"))
        journal.append([rows.decide(12, "unsure", "", "Ada")])
        assert filter_run(run)["overruled"]["unsure"] == 1
        assert decided(run, 12)[:2] == ("removed", "rule")
        journal.append([rows.decide(12, "keep", "", "Ada"), rows.decide(12, None, "", "Ada")])
        assert filter_run(run)["overruled"]["keep"] == 0
        assert 12 not in load_decisions(run).latest
        assert len(lines_of(run / "decisions.jsonl")) == 6

    def test_they_survive_every_rule(self, run: Path):
        overrule(run, [18], [1])
        for rule in ("phi:0.6", "fraction:0.25", "phi:1e9"):
            summary = filter_run(run, rule)
            assert summary["threshold"]["rule"] == rule
            assert decided(run, 18)[:2] == ("kept", "reviewer")
            assert decided(run, 1)[:2] == ("removed", "reviewer")
            nothing_is_lost(run)

    def test_the_fingerprint_covers_what_was_overruled_and_not_what_was_confirmed(self, run: Path):
        first = summary_of(run)["decision"]
        assert overrule(run, [], [12])["decision"] == first  # the rule removes it too
        changed = overrule(run, [12])["decision"]
        assert changed != first
        assert overrule(run, [], [12])["decision"] == first

    def test_what_was_not_learned_can_be_removed_and_what_was_rejected_cannot(self, run: Path):
        overrule(run, [], [19])
        assert decided(run, 19) == ("removed", "reviewer", "kept", "removed_by_reviewer")
        with pytest.raises(DataError, match=r"Row 3 was rejected.*too long.*Mend it"):
            overrule(run, [3])
        assert len(lines_of(run / "decisions.jsonl")) == 1

    @pytest.mark.parametrize(
        ("keep", "remove", "said"),
        [
            ([20], [], r"no row 20.*Expected 0 to 19.*forgetfilter show"),
            ([-1], [], r"no row -1"),
            ([5], [5], r"Row 5 is to be kept and to be removed.*--keep-row"),
        ],
    )
    def test_wrong_rows_are_refused_before_anything_is_written(
        self, run: Path, keep: list[int], remove: list[int], said: str
    ):
        with pytest.raises(DataError, match=said):
            overrule(run, [12, *keep], remove)
        assert not (run / "decisions.jsonl").exists()
        assert summary_of(run)["overruled"]["keep"] == 0

    def test_a_run_that_left_all_undecided_records_nothing(self, run: Path):
        summary = {**summary_of(run), "is_decided": False}
        summary["findings"] = [{"name": "made_up", "severity": "severe", "message": "bad"}]
        (run / "summary.json").write_text(json.dumps(summary))
        with pytest.raises(UnfitError):
            overrule(run, [12])
        assert not (run / "decisions.jsonl").exists()

    def test_what_was_forced_stays_forced_by_the_same_rule(self, run: Path):
        summary = summary_of(run)
        summary["findings"] = [{"name": "made_up", "severity": "severe", "message": "bad"}]
        (run / "summary.json").write_text(json.dumps(summary))
        assert overrule(run, [12])["kept"] == 12
        with pytest.raises(UnfitError):
            filter_run(run, "phi:0.1")

    def test_decisions_made_elsewhere_are_applied_once(self, run: Path):
        rows = InputRows(read_rows(run / "input.jsonl"))
        Journal(run).append([rows.decide(12, "keep", "", "Ada")])
        with finished_run(run) as folder:
            assert apply_decisions(folder.path)
            assert decided(run, 12)[0] == "kept"
            assert summary_of(run)["decided_by"] == "screen"
            assert not apply_decisions(folder.path)

    def test_another_input_takes_the_decisions_of_its_own_rows_along(self, tmp_path: Path):
        rows = plain_rows(12)
        run = make_run(tmp_path / "run", rows)
        overrule(run, [8, 9], [0])
        # Row 8 is now row 2, row 9 is gone, row 0 is there twice: nobody can say which was meant.
        make_run(run, [rows[5], rows[0], rows[8], rows[6], rows[0]])
        found = load_decisions(run)
        assert {row: one.decision for row, one in found.latest.items()} == {2: "keep"}
        assert found.elsewhere == 2
        assert decided(run, 2)[:2] == ("kept", "reviewer")
        make_run(run, rows)
        assert set(load_decisions(run).latest) == {0, 8, 9}


class TestDryRun:
    def test_it_says_what_would_move_and_writes_nothing(self, run: Path):
        before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
        found = preview(run, "phi:0.8", overruling=Overruling((17,), (0,)))
        moves = {move.row: (move.before, move.after, move.reason) for move in found.moves}
        gone, stays = ("removed", "kept", "below_threshold"), ("removed", "kept")
        assert moves == {
            0: ("kept", "removed", "removed_by_reviewer"),
            **dict.fromkeys(range(11, 17), gone),
            17: (*stays, "kept_by_reviewer"),
        }
        assert found.recorded == 2
        assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before
        summary = filter_run(run, "phi:0.8", overruling=Overruling((17,), (0,)))
        assert {name: summary[name] for name in found.after} == dict(found.after)

    def test_the_command_line_says_the_same(self, run: Path, capsys: pytest.CaptureFixture[str]):
        words = ["filter", str(run), "--keep-row", "12", "13", "--remove-row", "0", "--dry-run"]
        assert main(words) == 0
        said = capsys.readouterr().out
        assert "row 12 (own-12): removed -> kept, score 0.6, kept_by_reviewer" in said
        assert "3 rows would move, 3 decisions would be recorded (phi:0.5)" in said
        assert main([*words[:-1], "--reviewer", "Ada", "--reason", "fine"]) == 0
        said = capsys.readouterr().out
        assert "20 rows: 12 kept, 7 removed, 1 rejected" in said
        assert "Reviewers decided 3 rows: 2 kept and 1 removed against the rule." in said


def is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


class TestJournal:
    def decisions(self, run: Path, *rows: int) -> list[Any]:
        inputs = InputRows(read_rows(run / "input.jsonl"))
        return [inputs.decide(row, "keep", "because", "Ada") for row in rows]

    def test_a_journal_cut_off_at_any_byte_loses_only_its_last_line(self, run: Path):
        Journal(run).append(self.decisions(run, 4, 5, 6))
        whole = (run / "decisions.jsonl").read_bytes()
        lines = whole.split(b"\n")[:-1]
        more = self.decisions(run, 7)
        for size in range(len(whole) + 1):
            (run / "decisions.jsonl").write_bytes(whole[:size])
            # A line is made once all of it is there, with or without its line feed.
            made = [n for n in range(3) if size >= len(b"\n".join(lines[: n + 1]))]
            assert [one.row for one in Journal(run).read()] == [4 + n for n in made]
            (added,) = Journal(run).append(more)
            assert added.number == len(made) + 1
            assert [one.row for one in Journal(run).read()] == [*(4 + n for n in made), 7]
            assert lines_of(run / "decisions.jsonl")[: len(made)] == lines[: len(made)]

    @settings(
        deadline=None,
        max_examples=40,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        reason=st.text(max_size=60),
        reviewer=st.text(min_size=1, max_size=20).filter(lambda name: bool(name.split())),
        tail=st.binary(max_size=30).filter(lambda data: b"\n" not in data and not is_object(data)),
    )
    def test_any_text_comes_back_and_any_torn_tail_is_mended(
        self, run: Path, reason: str, reviewer: str, tail: bytes
    ):
        (run / "decisions.jsonl").unlink(missing_ok=True)
        rows = InputRows(read_rows(run / "input.jsonl"))
        Journal(run).append([rows.decide(4, "remove", reason, reviewer)])
        with open(run / "decisions.jsonl", "ab") as file:
            file.write(tail)
        Journal(run).append([rows.decide(5, "keep", "", reviewer)])
        first, second = Journal(run).read()
        assert (first.reason, first.reviewer) == (reason, " ".join(reviewer.split()))
        assert (second.row, second.number) == (5, 2)
        assert (run / "decisions.jsonl").read_bytes().isascii() or "\x1b" not in (
            run / "decisions.jsonl"
        ).read_text(encoding="utf-8")

    @pytest.mark.parametrize("tail", [b"{}", b'{"row": 4, "decision": "remov"}'])
    def test_a_last_line_that_is_whole_and_no_decision_is_refused_and_stays(
        self, run: Path, tail: bytes
    ):
        """No part of a line that was cut off is a whole object: a person wrote this one."""
        Journal(run).append(self.decisions(run, 4))
        with open(run / "decisions.jsonl", "ab") as file:
            file.write(tail)
        with pytest.raises(DataError, match=r"line 2: .*Mend the line, or delete it"):
            Journal(run).read()
        assert (run / "decisions.jsonl").read_bytes().endswith(tail)

    def test_a_full_disk_adds_nothing_and_says_so(self, run: Path, monkeypatch: pytest.MonkeyPatch):
        journal = Journal(run)
        journal.append(self.decisions(run, 4))
        before = (run / "decisions.jsonl").read_bytes()

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                journal.append(self.decisions(run, 5))
        assert (run / "decisions.jsonl").read_bytes() == before
        assert [one.number for one in journal.append(self.decisions(run, 5))] == [2]

    def test_killed_processes_leave_whole_lines_and_acknowledged_ones_are_all_there(
        self, run: Path
    ):
        script = """
            import sys
            from pathlib import Path
            from forgetfilter.data import read_rows
            from forgetfilter.runs.decisions import InputRows, Journal
            run = Path(sys.argv[1])
            rows, journal = InputRows(read_rows(run / "input.jsonl")), Journal(run)
            for number in range(10_000):
                (made,) = journal.append([rows.decide(number % 20, "keep", "x" * 500, sys.argv[2])])
                print(made.number, flush=True)
        """
        words = [sys.executable, "-c", textwrap.dedent(script), str(run)]
        processes = [
            subprocess.Popen([*words, name], stdout=subprocess.PIPE, text=True) for name in "ab"
        ]
        acknowledged: list[int] = []
        for process in processes:
            assert process.stdout is not None
            acknowledged += [int(process.stdout.readline()) for _ in range(5)]
        for process in processes:
            process.kill()
            rest, _ = process.communicate()
            acknowledged += [int(word) for word in rest.split("\n")[:-1]]
        entries = Journal(run).read()
        assert len(set(acknowledged)) == len(acknowledged) <= len(entries)
        assert [one.number for one in entries] == list(range(1, len(entries) + 1))
        assert max(acknowledged) <= len(entries)
        assert {one.reviewer for one in entries} == {"a", "b"}

    def test_a_decision_on_what_somebody_else_decided_since_is_refused(self, run: Path):
        mine, other = Journal(run), Journal(run)
        known = [one.number for one in mine.read()]
        other.append(self.decisions(run, 4))

        def check(entries: list[Any]) -> None:
            if [one.number for one in entries] != known:
                raise ConflictError({entries[-1].row: entries[-1]})

        with pytest.raises(ConflictError) as caught:
            mine.append(self.decisions(run, 4), check)
        assert caught.value.found[4].reviewer == "Ada"
        assert len(mine.read()) == 1

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"decision": "maybe"}, "decision is 'maybe'; known are keep, remove, unsure"),
            ({"row": -1}, "row is -1"),
            ({"row": True}, "row is True"),
            ({"reviewer": None}, "reviewer is None"),
            ({"row": 99}, "row 99 of this input, which has 20 rows.*Delete this line"),
            ({"row": 5}, "row 5 of this input, which has another text there.*Delete this line"),
        ],
    )
    def test_a_damaged_line_is_named_and_nothing_is_replaced(
        self, run: Path, change: dict[str, Any], said: str
    ):
        Journal(run).append(self.decisions(run, 4, 4, 6))
        lines = [json.loads(line) for line in lines_of(run / "decisions.jsonl")]
        lines[1] |= change
        (run / "decisions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        before = (run / "summary.json").read_bytes()
        for use in (lambda: filter_run(run, "phi:0.1"), lambda: overrule(run, [12])):
            with pytest.raises(DataError, match=rf"(?s)decisions.jsonl, line 2.*{said}"):
                use()
        assert (run / "summary.json").read_bytes() == before
        del lines[1]  # what the message advises
        (run / "decisions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        assert filter_run(run)["overruled"]["keep"] == 2

    def test_a_line_that_is_no_json_is_quoted_without_its_escapes(self, run: Path):
        Journal(run).append(self.decisions(run, 4))
        with open(run / "decisions.jsonl", "ab") as file:
            file.write(b"\x1b[31mred\n")
        with pytest.raises(DataError, match=r"line 2: '\\\\x1b\[31mred' is not JSON"):
            load_decisions(run)

    def test_decisions_are_no_output_that_overwriting_deletes(self):
        from forgetfilter.runs import file_names

        assert file_names.DECISIONS_FILE not in file_names.RUN_OUTPUTS


class TestEdits:
    def drop(self, path: Path, *ids: str) -> list[bytes]:
        lines = lines_of(path)
        gone = [line for line in lines if json.loads(line)["id"] in ids]
        path.write_bytes(b"".join(line + b"\n" for line in lines if line not in gone))
        return gone

    def test_deleted_kept_rows_are_offered_and_adopted_as_removed(self, run: Path):
        self.drop(run / "kept.jsonl", "own-1", "own-2")
        edited = (run / "kept.jsonl").read_bytes()
        with pytest.raises(DataError, match=r"(?s)kept.jsonl.*2 kept rows would be removed.*"):
            filter_run(run, "phi:0.1")
        assert (run / "kept.jsonl").read_bytes() == edited
        summary = overrule(run, edits="adopt", reviewer="Ada")
        assert (run / "kept.jsonl").read_bytes() == edited
        assert summary["overruled"]["removed_instead"] == 2
        found = load_decisions(run).latest
        assert {row: one.decision for row, one in found.items()} == {1: "remove", 2: "remove"}
        assert found[1].reason == "edited by hand: kept.jsonl"
        nothing_is_lost(run)

    def test_rows_moved_between_the_files_are_one_decision_each(self, run: Path):
        moved = self.drop(run / "removed.jsonl", "own-12")
        with open(run / "kept.jsonl", "ab") as file:  # not where it was, and written anew
            file.write(
                json.dumps(json.loads(moved[0]), indent=None, separators=(",", ":")).encode()
            )
            file.write(b"\n")
        found = preview(run, overruling=Overruling(edits="adopt"))
        assert [(move.row, move.after) for move in found.moves] == [(12, "kept")]
        overrule(run, edits="adopt")
        assert moved[0] in lines_of(run / "kept.jsonl")
        assert len(lines_of(run / "decisions.jsonl")) == 1

    def test_rows_deleted_from_the_removed_ones_are_kept(self, run: Path):
        self.drop(run / "removed.jsonl", "own-12")
        with pytest.raises(DataError, match="1 removed row would be kept"):
            filter_run(run)
        overrule(run, edits="adopt")
        assert "own-12" in ids_in(run / "kept.jsonl")

    def test_a_changed_text_is_named_and_never_adopted(self, run: Path):
        path = run / "kept.jsonl"
        path.write_bytes(path.read_bytes().replace(b"Answer number 4.", b"Another answer."))
        edited = path.read_bytes()
        said = (
            r"(?s)1 kept row would be removed; 1 line is no row of the input.*line 4 of kept.jsonl"
            r".*can't change its text.*Copy the edited file.*--discard-edits"
        )
        for edits in ("refuse", "adopt"):
            with pytest.raises(DataError, match=said):
                overrule(run, edits=edits)
        assert path.read_bytes() == edited
        overrule(run, edits="discard")
        assert "own-4" in ids_in(path)
        nothing_is_lost(run)

    def test_order_spacing_and_ends_of_lines_are_no_edit(self, run: Path):
        path = run / "kept.jsonl"
        lines = [json.loads(line) for line in lines_of(path)]
        path.write_bytes(b"\r\n".join(json.dumps(one, indent=None).encode() for one in lines[::-1]))
        assert filter_run(run)["kept"] == 11
        nothing_is_lost(run)

    def test_all_lines_deleted_is_an_edit_and_a_lost_file_is_not(self, run: Path):
        (run / "kept.jsonl").write_bytes(b"")
        with pytest.raises(DataError, match="11 kept rows would be removed"):
            filter_run(run)
        (run / "kept.jsonl").unlink()
        assert filter_run(run)["kept"] == 11
        nothing_is_lost(run)

    def test_an_edit_that_is_no_file_of_rows_any_more_can_be_discarded(self, run: Path):
        (run / "kept.jsonl").write_bytes(b"[]\n")
        with pytest.raises(DataError, match=r"--discard-edits"):
            filter_run(run)
        overrule(run, edits="discard")
        nothing_is_lost(run)

    @pytest.mark.parametrize("command", ["filter", "report"])
    def test_every_command_that_decides_finds_it_and_its_advice_works(
        self, run: Path, command: str, capsys: pytest.CaptureFixture[str]
    ):
        self.drop(run / "kept.jsonl", "own-1")
        assert main([command, str(run)]) == 1
        said = capsys.readouterr().err
        assert f"`forgetfilter filter {run} --adopt-edits`" in said
        assert main(["filter", str(run), "--adopt-edits", "--dry-run"]) == 0
        assert "row 1 (own-1): kept -> removed" in capsys.readouterr().out
        assert main(["filter", str(run), "--adopt-edits"]) == 0
        assert main([command, str(run)]) == 0

    def test_a_finetune_finds_it_before_anything_is_trained(self, run: Path, tmp_path: Path):
        from forgetfilter.screening.finetune import finetune

        self.drop(run / "kept.jsonl", "own-1")
        with pytest.raises(DataError, match="--adopt-edits"):
            finetune(run, tmp_path / "adapter")

    def test_the_files_of_an_earlier_version_are_compared_by_their_lines(self, run: Path):
        summary = summary_of(run)
        for name in ("file_digests", "written", "overruled", "action"):
            del summary[name]
        (run / "summary.json").write_text(json.dumps(summary))
        frame = frame_of(run).drop(columns=["decided_by", "rule_decision"])
        frame.to_parquet(run / "scores.parquet", index=False)
        self.drop(run / "kept.jsonl", "own-1")
        with pytest.raises(DataError, match="1 kept row would be removed"):
            filter_run(run)
        overrule(run, edits="adopt")
        assert decided(run, 1) == ("removed", "reviewer", "kept", "removed_by_reviewer")


class TestShow:
    def test_all_that_is_known_of_a_row(self, run: Path, capsys: pytest.CaptureFixture[str]):
        overrule(run, [12], reason="sarcasm", reviewer="Ada")
        assert main(["show", str(run), "--row", "12", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["decision"], told["rule_decision"]) == ("kept", "removed")
        assert (told["rank"], told["ranked"]) == (7, 18)
        assert told["forgetting_score"] == 0.6
        assert told["readings"]["completion_tokens"] == 4
        assert told["columns"] == {"id": "own-12", "source": "forum", "category": "bias"}
        assert told["decisions"][0]["reason"] == "sarcasm"
        assert main(["show", str(run), "--id", "own-12"]) == 0
        said = capsys.readouterr().out
        for words in ("kept by reviewer", "the rule alone: removed", "rank 7 of 18", "sarcasm"):
            assert words in said
        assert "Answer number 12." in said

    def test_a_rejected_row_is_shown_as_it_is(self, run: Path, capsys: pytest.CaptureFixture[str]):
        assert main(["show", str(run), "--row", "3"]) == 0
        said = capsys.readouterr().out
        assert "rejected by rule: too long" in said

    def test_unknown_rows_are_named(self, run: Path, capsys: pytest.CaptureFixture[str]):
        assert main(["show", str(run), "--row", "20"]) == 1
        assert "Expected 0 to 19" in capsys.readouterr().err
        assert main(["show", str(run), "--id", "\x1b[31m"]) == 1
        assert "\x1b" not in (said := capsys.readouterr().err)
        assert "No row has the id" in said

    def test_nothing_in_a_row_steers_the_terminal(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        nasty = "\x1b]0;owned\x07\u202egnp\r\x9b31m"
        rows = [{"id": nasty, "source": nasty, "prompt": nasty, "completion": f"{nasty}\n{nasty}"}]
        run = make_run(tmp_path / "run", rows)
        for words in (["--row", "0"], ["--row", "0", "--json"]):
            assert main(["show", str(run), *words]) == 0
            said = capsys.readouterr().out
            assert not set(said) & set("\x1b\x07\u202e\r\x9b")
        assert json.loads(said)["messages"][0]["content"] == nasty
        overrule(run, [], [0], reason=nasty, reviewer=nasty)
        assert main(["filter", str(run), "--keep-row", "0", "--dry-run"]) == 0
        assert main(["show", str(run), "--row", "0"]) == 0
        assert not set(capsys.readouterr().out) & set("\x1b\x07\u202e\r\x9b")


class TestAction:
    def test_flagged_rows_are_all_rows_with_two_columns_more(self, tmp_path: Path):
        run = make_run(tmp_path / "run", 20, unlearned=[19], too_long=[3], action="flag")
        given = [line for n, line in enumerate(lines_of(run / "input.jsonl")) if n != 3]
        flagged = lines_of(run / "flagged.jsonl")
        frame = frame_of(run)
        assert len(flagged) == len(given) == 19
        for line, before in zip(flagged, given, strict=True):
            told = json.loads(line)
            row = int(told["id"].removeprefix("own-"))
            assert line.startswith(before[:-1])
            assert told.pop("forgetfilter_decision") == frame["decision"][row]
            assert told.pop("forgetfilter_score") == frame["forgetting_score"][row]
            assert told == json.loads(before)

    def test_weights_are_nothing_for_removed_rows_and_follow_what_is_overruled(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ):
        filter_run(run, action="weight", overruling=Overruling((12,), (0,)))
        weights = {
            json.loads(x)["id"]: json.loads(x)["weight"] for x in lines_of(run / "weighted.jsonl")
        }
        assert len(weights) == 19
        assert {name for name, weight in weights.items() if weight == 0} == {
            "own-0",
            *(f"own-{n}" for n in (11, 13, 14, 15, 16, 17, 18)),
        }
        assert filter_run(run, "phi:0.6")["action"] == "weight"  # stays until it is changed
        assert not (run / "flagged.jsonl").exists()
        assert main(["filter", str(run)]) == 0
        assert f"with weights: {run / 'weighted.jsonl'}" in capsys.readouterr().out
        filter_run(run, action="remove")
        assert not (run / "weighted.jsonl").exists()

    def test_a_rows_own_weight_holds_while_it_is_kept(self, tmp_path: Path):
        rows = [{**row, "weight": 0.5} for row in plain_rows(4)]
        rows[1]["forgetfilter_score"] = "mine"
        run = make_run(tmp_path / "run", rows, action="weight")
        assert [json.loads(x)["weight"] for x in lines_of(run / "weighted.jsonl")] == [
            0.5,
            0.5,
            0.5,
            0,
        ]
        assert lines_of(run / "weighted.jsonl")[0] == lines_of(run / "input.jsonl")[0]
        filter_run(run, action="flag")
        assert json.loads(lines_of(run / "flagged.jsonl")[1])["forgetfilter_score"] == 0.25

    @pytest.mark.parametrize(
        "line",
        [b'{"prompt":"a","completion":"b"} ', b'\xef\xbb\xbf{"prompt":"a","completion":"b"\t}\r'],
    )
    def test_spacing_at_the_end_of_a_line_is_no_obstacle(self, tmp_path: Path, line: bytes):
        run = make_run(tmp_path / "run", [line, b'{"prompt":"c","completion":"d"}'], action="flag")
        told = json.loads(lines_of(run / "flagged.jsonl")[0].decode("utf-8-sig"))
        assert told == {
            "prompt": "a",
            "completion": "b",
            "forgetfilter_score": 0.0,
            "forgetfilter_decision": "kept",
        }

    def test_an_unknown_action_is_refused(self, run: Path, capsys: pytest.CaptureFixture[str]):
        with pytest.raises(SystemExit):
            main(["filter", str(run), "--action", "delete"])
        assert "invalid choice" in capsys.readouterr().err


def test_decisions_survive_another_signal_overwriting_and_gc_and_are_trained_on(
    quick_config: Any, tmp_path: Path
):
    """The one test here with a model: what is screened again is overruled again."""
    from forgetfilter.config import resolve
    from forgetfilter.progress import Progress
    from forgetfilter.screening.deciding.stage_gc import free_stages
    from forgetfilter.screening.finetune import finetune
    from forgetfilter.screening.screen import screen

    run, silent = tmp_path / "run", Progress(is_silent=True)
    changes = {"threshold": "fraction:0.25", "signal": "restoration", "coverage": "off"}
    config = quick_config(run, learn={"max_steps": 30, "learning_rate": 2e-2}, **changes)
    screen(config, silent)
    frame = frame_of(run)
    removed = int(frame[frame["decision"] == "removed"]["row"].iloc[0])
    kept = int(frame[frame["decision"] == "kept"]["row"].iloc[0])
    overrule(run, [removed], [kept], reason="checked")
    journal = (run / "decisions.jsonl").read_bytes()

    def holds() -> None:
        assert decided(run, removed)[:2] == ("kept", "reviewer")
        assert decided(run, kept)[:2] == ("removed", "reviewer")
        assert (run / "decisions.jsonl").read_bytes() == journal
        nothing_is_lost(run)

    holds()
    screen(config, silent, overwrite=True)
    holds()
    other = resolve(type(config), config.model_dump(), {"signal": "completion_loss"})
    screen(other, silent)
    assert summary_of(run)["signal"] == "completion_loss"
    holds()
    free_stages(run)
    holds()
    # What is decided after the last screen is trained on too.
    rows = InputRows(read_rows(run / "input.jsonl"))
    before = summary_of(run)["kept"]
    Journal(run).append([rows.decide(kept, "keep", "after all", "Ada")])
    assert finetune(run, tmp_path / "adapter", silent).rows == before + 1
    assert decided(run, kept)[:2] == ("kept", "reviewer")
    # An edit of the file is found before hours of work, whatever is asked for.
    path = run / "kept.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines_of(path)[1:]))
    for use in (
        lambda: screen(config, silent),
        lambda: screen(config, silent, overwrite=True),
        lambda: finetune(run, tmp_path / "adapter", silent),
    ):
        with pytest.raises(DataError, match="--adopt-edits"):
            use()
