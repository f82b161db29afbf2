"""What an unfinished stage keeps is used whole or not at all, and never beyond its stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import contents
from forgetfilter.errors import ModelError
from forgetfilter.runs.stages import StageStore
from forgetfilter.runs.unfinished import UNFINISHED, Entry, UnfinishedWork

NOW = 1e-9
"""Minutes after which the next entry is due, as good as at once."""
MADE_WITH = {"device": "cpu", "torch": "2"}


class Work(UnfinishedWork):
    """Remembers what is said."""

    def __init__(self, stage: Path, minutes: float = NOW, **made_with: Any) -> None:
        self.lines: list[str] = []
        stage.mkdir(exist_ok=True)
        super().__init__(stage, "step", {**MADE_WITH, **made_with}, minutes, self.lines.append)

    def keep(self, number: int, most: int = 2) -> bool:
        def fill(folder: Path) -> None:
            (folder / "weights").write_text(f"weights {number}")
            (folder / "optimizer").write_text(f"optimizer {number}")

        return self.write(number, {"losses": [0.1] * number}, fill, most=most)

    def last(self) -> Entry | None:
        return next(self.entries(), None)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return tmp_path / "learn-0123.part"


def test_the_last_entry_comes_back_as_it_was_written(stage: Path) -> None:
    first = Work(stage)
    assert first.last() is None
    for number in (1, 2, 10):
        assert first.keep(number)
    again = Work(stage)
    assert [entry.number for entry in again.entries()] == [10, 2]
    found = again.last()
    assert found is not None
    assert found.facts == {"losses": [0.1] * 10}
    assert (found.folder / "weights").read_text() == "weights 10"
    assert again.lines == []


def test_there_are_never_more_than_two_at_a_time_one_that_is_written_among_them(
    stage: Path,
) -> None:
    work = Work(stage)
    seen: list[list[str]] = []

    def fill(folder: Path) -> None:
        seen.append(sorted(path.name for path in folder.parent.iterdir()))

    for number in range(1, 5):
        work.write(number, {}, fill, most=2)
    part = "00000000000{}.part"
    assert seen[0] == [part.format(1)]
    assert seen[1:] == [[f"{n - 1:012d}", part.format(n)] for n in (2, 3, 4)]
    assert [entry.number for entry in work.entries()] == [4, 3]


def cut(entry: Path) -> None:
    path = entry / "optimizer"
    path.write_bytes(path.read_bytes()[:-1])


def change(entry: Path) -> None:
    path = entry / "weights"
    path.write_bytes(path.read_bytes().replace(b"2", b"3"))


def add(entry: Path) -> None:
    (entry / "more").write_text("1")


def tear_list(entry: Path) -> None:
    path = entry / "entry.json"
    path.write_bytes(path.read_bytes()[:40])


def forge(entry: Path) -> None:
    path = entry / "entry.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "number": 7}))


DAMAGES: list[Callable[[Path], None]] = [
    cut,
    change,
    add,
    tear_list,
    forge,
    lambda entry: (entry / "optimizer").unlink(),
    lambda entry: (entry / "entry.json").unlink(),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_set_aside_and_the_one_before_is_used(
    stage: Path, damage: Callable[[Path], None]
) -> None:
    work = Work(stage)
    work.keep(1)
    work.keep(2)
    damage(stage / UNFINISHED / f"{2:012d}")
    again = Work(stage)
    found = again.last()
    assert found is not None
    assert found.number == 1
    assert len(again.lines) == 1
    assert again.lines[0].startswith("what was kept at step 2 isn't used: ")
    # It is still there to be looked at, until the next one is written.
    assert (stage / UNFINISHED / f"{2:012d}.damaged").is_dir()
    assert again.keep(2)
    assert [entry.number for entry in Work(stage).entries()] == [2, 1]
    assert not list(stage.rglob("*.damaged"))


def test_one_that_was_being_written_when_the_process_died_is_no_entry(stage: Path) -> None:
    work = Work(stage)
    work.keep(1)
    part = stage / UNFINISHED / f"{2:012d}.part"
    shutil.copytree(stage / UNFINISHED / f"{1:012d}", part)
    again = Work(stage)
    assert [entry.number for entry in again.entries()] == [1]
    assert again.lines == []
    assert not part.exists()


def test_an_entry_of_another_stage_or_of_other_software_is_not_used(stage: Path) -> None:
    Work(stage).keep(1)
    other = stage.with_name("learn-4567.part")
    shutil.copytree(stage, other)
    moved = Work(other)
    assert moved.last() is None
    assert moved.lines == ["what was kept at step 1 isn't used: it belongs to another stage"]
    later = Work(stage, torch="3")
    assert later.last() is None
    (line,) = later.lines
    assert "'torch': '2'" in line
    assert "'torch': '3'" in line


def test_what_the_stage_made_before_an_entry_stays_and_what_it_made_later_goes(
    stage: Path,
) -> None:
    work = Work(stage)
    (stage / "early").mkdir()
    (stage / "early" / "adapter").write_text("early")
    work.keep(1)
    (stage / "later").write_text("torn")
    again = Work(stage)
    again.resume(again.last())
    assert set(contents(stage)) == {
        "early/adapter",
        *(f"{UNFINISHED}/{1:012d}/{name}" for name in ("entry.json", "optimizer", "weights")),
        f"{UNFINISHED}/spent.json",
    }
    # Without the early adapter the entry is worth nothing: it would never be made again.
    (stage / "early" / "adapter").write_text("other")
    third = Work(stage)
    assert third.last() is None
    third.resume(None)
    assert not (stage / "early" / "adapter").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("full")])
def test_a_full_disk_ends_nothing_and_leaves_the_entry_before(
    stage: Path, error: Exception
) -> None:
    work = Work(stage)
    work.keep(1)

    def fill(folder: Path) -> None:
        (folder / "weights").write_text("a part")
        raise error

    assert not work.write(2, {}, fill, most=2)
    assert len(work.lines) == 1
    assert work.lines[0].startswith("nothing could be kept at step 2")
    assert [path.name for path in (stage / UNFINISHED).iterdir()] == [f"{1:012d}"]
    assert [entry.number for entry in Work(stage).entries()] == [1]


def test_entries_are_due_by_time_and_never_where_no_minutes_are_given(stage: Path) -> None:
    assert Work(stage).is_due
    assert not Work(stage, minutes=0).is_due
    slow = Work(stage, minutes=60)
    assert not slow.is_due
    slow._last -= 3599
    assert not slow.is_due
    slow._last -= 2
    assert slow.is_due
    slow.keep(1)
    assert not slow.is_due


class Killed(BaseException):
    """As good as a kill: what is done on errors is not done."""


def test_a_stage_goes_on_and_is_finished_without_what_it_went_on_from(tmp_path: Path) -> None:
    numbers: list[int] = []

    def build(folder: Path) -> None:
        work = Work(folder)
        entry = work.last()
        work.resume(entry)
        start = entry.number if entry else 0
        numbers.append(start)
        if not entry:
            work._begun -= 500  # so long has it taken
            work.keep(5)
            (folder / "torn").write_text("half")
            raise Killed
        (folder / "done").write_text("1")

    store = StageStore(tmp_path)
    with pytest.raises(Killed):
        store.stage("learn", {"seed": 1}, build)
    folder = store.stage("learn", {"seed": 1}, build)
    assert numbers == [0, 5]
    assert set(contents(folder)) == {"done", "stage.json"}
    record = json.loads((folder / "stage.json").read_text())
    assert record["files"] == {"done": 1}
    assert 500 <= record["seconds"] < 600  # what the first attempt brought to it counts too
    # Another key is another stage, which has nothing to go on from.
    with pytest.raises(Killed):
        store.stage("learn", {"seed": 2}, build)
    assert numbers == [0, 5, 0]


def test_a_stage_killed_when_all_was_made_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import forgetfilter.runs.stages as stages

    built: list[int] = []

    def build(folder: Path) -> None:
        built.append(1)
        Work(folder).keep(5)
        (folder / "done").write_text("1")

    def die(*_: object) -> None:
        raise Killed

    for damage in (False, True):
        with monkeypatch.context() as patched:
            patched.setattr(stages, "remove", lambda path: die() if path.name == UNFINISHED else 0)
            with pytest.raises(Killed):
                StageStore(tmp_path).stage("learn", {"damage": damage}, build)
        (part,) = tmp_path.glob("learn-*.part")
        if damage:
            (part / "done").write_text("2")
        folder = StageStore(tmp_path).stage("learn", {"damage": damage}, build)
        assert set(contents(folder)) == {"done", "stage.json"}
        assert (folder / "done").read_text() == "1"
    assert len(built) == 3  # the damaged one is


def test_a_stage_that_can_not_end_well_is_begun_again(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        work = Work(folder)
        assert work.last() is None
        work.keep(5)
        raise ModelError("diverged")

    store = StageStore(tmp_path)
    for _ in range(2):
        with pytest.raises(ModelError):
            store.stage("learn", {}, build)
