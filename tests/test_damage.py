"""Every file of a finished run, damaged in every way: an error of our own, and nothing is lost."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from conftest import write_rows
from damaged_files import FAULTS, forget_digests, outputs_of, restore, tables_like
from decided_run import make_run, plain_rows
from forgetfilter.cli import main
from forgetfilter.config import ScreenConfig
from forgetfilter.errors import ForgetFilterError
from forgetfilter.progress import Progress
from forgetfilter.review.table import Query, ReviewTable
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.deciding.overruling import Overruling
from forgetfilter.screening.screen import screen

SEEDED = 60
"""Damages that the fast suite tries; `make slow` tries all."""


def review(run: Path) -> int:
    """What the review page reads of a run."""
    table = ReviewTable(run)
    for row in table.select(Query(search="a"))[:4]:
        table.known.tell(row, [])
    return 0


def commands(run: Path, elsewhere: Path) -> dict[str, Callable[[], int]]:
    export = ["export", str(run), "--output-dir", str(elsewhere / "out"), "--to"]
    return {
        "show": lambda: main(["show", str(run), "--row", "2"]),
        "report": lambda: main(["report", str(run)]),
        "filter": lambda: main(["filter", str(run), "--threshold", "fraction:0.3"]),
        "export": lambda: main([*export, "llama-factory"]),
        "axolotl": lambda: main([*export, "axolotl"]),
        "review": lambda: review(run),
    }


@dataclass(frozen=True)
class Damage:
    """One file that is damaged in one way."""

    name: str
    what: str
    apply: Callable[[Path, Path], None]


def damages(run: Path) -> Iterator[Damage]:
    for path in sorted(run.iterdir()):
        if path.is_file() and not path.name.endswith("lock"):
            yield from (Damage(path.name, fault.__name__, fault) for fault in FAULTS)
            if path.suffix == ".parquet":
                yield from (_other_table(path.name, *one) for one in tables_like(path))


def _other_table(name: str, what: str, table: Any) -> Damage:
    return Damage(name, what, lambda path, _: pq.write_table(table, path))


def check(whole: Path, run: Path, damage: Damage, command: str) -> str:
    """What is wrong with a command's answer to damage; empty where nothing is."""
    elsewhere = run.parent / "elsewhere"
    restore(run, whole)
    shutil.rmtree(elsewhere, ignore_errors=True)
    elsewhere.mkdir()
    damage.apply(run / damage.name, elsewhere)
    before, theirs = outputs_of(run), outputs_of(elsewhere)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            status = commands(run, elsewhere)[command]()
    except ForgetFilterError as error:
        status = 1
        errors.write(str(error))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    shutil.rmtree(elsewhere / "out", ignore_errors=True)
    if outputs_of(elsewhere) != theirs:
        return "a file outside of the run was written"
    if status not in (0, 1):
        return f"status {status}"
    if status and "Expected" not in errors.getvalue():
        return f"no three beats: {errors.getvalue()}"
    after = outputs_of(run)
    if status and after != before:
        changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        return f"failed, and changed {sorted(changed)}"
    if not status and any(after.get(name) != before[name] for name in ("input.jsonl",)):
        return "the input changed"
    return ""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with a journal, and the same as an older version would have left it."""
    folder = tmp_path_factory.mktemp("damaged")
    run = make_run(folder / "run", plain_rows(8), too_long=[3])
    filter_run(run, overruling=Overruling(keep=(6,), reason="checked", reviewer="Ada"))
    shutil.copytree(run, folder / "older")
    forget_digests(folder / "older")
    return {"new": run, "older": folder / "older"}


@pytest.mark.parametrize("version", ["new", "older"])
def test_damage_is_an_error_of_our_own_and_loses_nothing(
    made: dict[str, Path], tmp_path: Path, version: str
):
    whole, run = made[version], tmp_path / "run"
    every = [(damage, command) for damage in damages(whole) for command in commands(run, tmp_path)]
    found: list[str] = []
    for damage, command in random.Random(version).sample(every, SEEDED):
        said = check(whole, run, damage, command)
        found += [f"{command}, {damage.name}, {damage.what}: {said}"] if said else []
    assert found == []


@pytest.fixture(scope="module")
def screened(
    quick_config: Callable[..., ScreenConfig], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The same of a real screen, which leaves every kind of file."""
    folder = tmp_path_factory.mktemp("screened")
    config = quick_config(folder / "run", threshold="fraction:0.25", action="mask")
    screen(config, Progress(is_silent=True))
    keep = Overruling(keep=(4,), reason="checked", reviewer="Ada")
    filter_run(folder / "run", overruling=keep)
    shutil.rmtree(folder / "run" / "stages")  # which no command here reads
    shutil.copytree(folder / "run", folder / "older")
    forget_digests(folder / "older")
    return {"new": folder / "run", "older": folder / "older"}


KNOWN = [
    ("readings.parquet", "cut", "show"),
    ("readings.parquet", "deleted", "review"),
    ("readings.parquet", "of_another_type-2", "report"),
    ("readings.parquet", "without_column-3", "filter"),
    ("scores.parquet", "of_another_type-0", "show"),
    ("scores.parquet", "of_another_type-6", "review"),
    ("scores.parquet", "of_nothing-0", "report"),
    ("scores.parquet", "of_other_rows-3", "show"),
    ("evidence.parquet", "of_another_type-5", "report"),
    ("harms.parquet", "of_other_rows-4", "filter"),
    ("harms.parquet", "of_nothing-3", "filter"),
    ("evidence.parquet", "cut", "filter"),
    ("evidence.parquet", "of_another_type-5", "filter"),
    ("coverage.json", "other_values", "filter"),
    ("safe_rows.json", "deep", "show"),
    ("provenance.json", "deep", "show"),
    ("summary.json", "deleted", "review"),
    ("dataset_card.md", "folder_instead", "filter"),
    ("rejected.jsonl", "cut", "report"),
    ("kept.jsonl", "deleted", "report"),
]
"""What was found so, and mended: file, damage, command; all in runs without digests."""


@pytest.mark.parametrize(("name", "what", "command"), KNOWN)
def test_what_was_found_stays_mended(
    screened: dict[str, Path], tmp_path: Path, name: str, what: str, command: str
):
    whole = screened["older"]
    if name == "rejected.jsonl":  # the screen rejected no row
        whole = tmp_path / "whole"
        make_run(whole, write_rows(tmp_path / "rows.jsonl", plain_rows(8)), too_long=[3])
    (damage,) = (one for one in damages(whole) if (one.name, one.what) == (name, what))
    assert check(whole, tmp_path / "run", damage, command) == ""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["new", "older"])
def test_every_damage_to_every_file_before_every_command(
    screened: dict[str, Path], tmp_path: Path, version: str
):
    whole, run = screened[version], tmp_path / "run"
    found: list[str] = []
    count = 0
    for damage in damages(whole):
        for command in commands(run, tmp_path):
            said = check(whole, run, damage, command)
            count += 1
            found += [f"{command}, {damage.name}, {damage.what}: {said}"] if said else []
    print(f"{count} commands on damaged runs ({version})")
    assert found == []


@pytest.mark.parametrize("limit", [40, 400, 1_500, 4_000, 12_000, 40_000])
def test_a_filter_that_cannot_write_leaves_the_last_good_files_or_is_completed(
    made: dict[str, Path], tmp_path: Path, limit: int, capsys: pytest.CaptureFixture[str]
):
    """The system refuses the first write of a file that would be longer than so many bytes."""
    resource = pytest.importorskip("resource", reason="the system has no limit for files")
    run, new = tmp_path / "run", tmp_path / "new"
    shutil.copytree(made["new"], run)
    shutil.copytree(made["new"], new)
    filter_run(new, "fraction:0.3")
    before = outputs_of(run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        status = main(["filter", str(run), "--threshold", "fraction:0.3"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 1
    assert "Expected to write files of any size" in capsys.readouterr().err
    if not (run / ".deciding").exists():  # nothing was committed, so nothing has changed
        assert outputs_of(run) == before
    assert main(["report", str(run)]) == 0  # what every command begins with completes it
    files = ("kept.jsonl", "removed.jsonl", "rejected.jsonl", "scores.parquet")
    found = [(run / name).read_bytes() for name in files]
    assert found in (
        [before[name] for name in files],
        [(new / name).read_bytes() for name in files],
    )
    filter_run(run, "fraction:0.3")
    assert [(run / name).read_bytes() for name in files] == [
        (new / name).read_bytes() for name in files
    ]
