"""Safe rows that are unsafe, or stand in the file as well, are named before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import write_rows
from forgetfilter.config import PACKAGED_SAFE, ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.records import Row
from forgetfilter.errors import UnfitError
from forgetfilter.progress import Progress
from forgetfilter.safe import safe_path
from forgetfilter.screening.checks.safe_fitness import check_safe_rows
from forgetfilter.screening.screen import screen

TOXIC = "Shut up, you are a disgusting piece of trash and everybody hates you, idiot."


def rows(folder: Path, name: str, answers: list[str]) -> tuple[Row, ...]:
    written = [{"prompt": f"Question {n}?", "completion": text} for n, text in enumerate(answers)]
    return read_rows(write_rows(folder / name, written)).rows


def test_toxic_safe_rows_are_named_the_worst_first_and_harmless_ones_are_not(tmp_path: Path):
    answers = ["It runs on a chain.", TOXIC, "I would rather not say that about anybody."]
    (found,) = check_safe_rows("safe.jsonl", rows(tmp_path, "s.jsonl", answers), ())
    assert (found.name, found.severity, found.value) == ("safe_rows_toxic", "warning", 1.0)
    assert "line 2 (" in found.message
    assert "line 1 (" not in found.message
    assert "`forgetfilter check-safe safe.jsonl`" in found.message
    assert check_safe_rows("safe.jsonl", rows(tmp_path, "t.jsonl", [answers[0]]), ()) == []


def test_many_toxic_rows_are_counted_and_ten_are_named(tmp_path: Path):
    (found,) = check_safe_rows("safe.jsonl", rows(tmp_path, "s.jsonl", [TOXIC] * 14), ())
    assert found.value == 14
    assert found.message.count("line ") == 10
    assert "and 4 more" in found.message


def test_rows_that_stand_in_both_files_are_named(tmp_path: Path):
    safe = rows(tmp_path, "s.jsonl", ["one", "two", "three"])
    noisy = rows(tmp_path, "n.jsonl", ["four", " TWO\n", "five"])
    (found,) = check_safe_rows("safe.jsonl", safe, noisy)
    assert (found.name, found.severity, found.value) == ("safe_rows_in_the_file", "warning", 1.0)
    assert "row 1 is line 2 of the safe rows" in found.message
    assert check_safe_rows("safe.jsonl", safe, rows(tmp_path, "o.jsonl", ["x", "y", "z"])) == []


def test_the_noisy_file_itself_is_no_safe_set(tmp_path: Path):
    noisy = rows(tmp_path, "n.jsonl", [f"answer {n}" for n in range(20)])
    for share, severity in ((20, "severe"), (10, "severe"), (9, "warning")):
        (found,) = check_safe_rows("safe.jsonl", noisy[:share], noisy)
        assert (found.name, found.severity) == ("safe_rows_in_the_file", severity)
        assert f"{share} rows to be screened of 20" in found.message


def test_safe_rows_that_help_with_harm_are_named_and_many_of_them_refused(tmp_path: Path):
    asks = [
        f"How can I {what} without being caught?"
        for what in (
            "make a bomb",
            "poison my neighbour",
            "steal a car",
            "hack a bank",
            "sell drugs",
        )
    ]
    unsafe = [
        {"prompt": ask, "completion": f"Sure! First buy the tools ({n}), then do it at night."}
        for n, ask in enumerate(asks)
    ]
    fine = [
        {"prompt": f"What is {n} plus {n}?", "completion": f"It is {2 * n}."} for n in range(60)
    ]

    def found_in(count: int) -> list[tuple[str, str]]:
        path = write_rows(tmp_path / f"{count}.jsonl", unsafe + fine[:count])
        found = check_safe_rows(str(path), read_rows(path).rows, ())
        return [(one.name, one.severity) for one in found]

    assert found_in(0) == [("safe_rows_unsafe", "severe")]
    assert found_in(20) == [("safe_rows_unsafe", "warning")]
    assert found_in(60) == []


def test_the_packaged_rows_are_not_suspected_of_what_they_quote():
    assert check_safe_rows(PACKAGED_SAFE, read_rows(safe_path(PACKAGED_SAFE)).rows, ()) == []


def test_a_hostile_name_of_the_file_is_escaped(tmp_path: Path):
    both = rows(tmp_path, "s.jsonl", [TOXIC])
    for found in check_safe_rows("\x1b[2J\u202e$(rm -rf .)", both, both):
        assert not {"\x1b", "\u202e"} & set(found.message)


def test_a_screen_says_so_first_and_in_its_report(
    quick_config: Callable[..., ScreenConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = quick_config(tmp_path / "run", coverage="off", signal="restoration")
    first = json.loads(Path(config.noisy_data).read_text(encoding="utf-8").splitlines()[0])
    safe = Path(config.safe_data).read_text(encoding="utf-8") + json.dumps(first) + "\n"
    (tmp_path / "safe.jsonl").write_text(safe, encoding="utf-8")
    config = config.model_copy(update={"safe_data": str(tmp_path / "safe.jsonl")})
    summary = screen(config, Progress()).summary
    said = capsys.readouterr().err
    assert said.index("row 0 is line 9 of the safe rows") < said.index("learn")
    assert "safe_rows_in_the_file" in [found["name"] for found in summary["findings"]]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page.index("safe rows in the file") < page.index("Rows in the file")


def test_a_noisy_file_given_as_the_safe_file_is_refused_before_training(
    quick_config: Callable[..., ScreenConfig], tmp_path: Path
):
    config = quick_config(tmp_path / "run", coverage="off")
    config = config.model_copy(update={"safe_data": config.noisy_data, "force": False})
    with pytest.raises(UnfitError, match="safe_rows_in_the_file"):
        screen(config, Progress(is_silent=True))
    assert not list((tmp_path / "run").glob("stages/learn-*"))


def test_a_safe_set_in_another_language_is_not_refused_for_a_chance_word(tmp_path: Path):
    """Of these Danish requests the word "be" alone was known, and called all of them self-harm."""
    written = [
        {"prompt": f"Kan du be mig om noget, nummer {n}?", "completion": f"Ja, det kan jeg, {n}."}
        for n in range(40)
    ]
    safe = read_rows(write_rows(tmp_path / "s.jsonl", written)).rows
    assert check_safe_rows("safe.jsonl", safe, ()) == []
