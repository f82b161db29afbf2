"""What others have put into a run folder: nothing outside of it is touched, and theirs stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import contents
from damaged_files import forget_digests
from decided_run import make_run, plain_rows
from forgetfilter.config import ScreenConfig
from forgetfilter.errors import DataError, RunExistsError
from forgetfilter.files import sha256_file
from forgetfilter.progress import Progress
from forgetfilter.review.table import ReviewTable
from forgetfilter.runs.adapter_folder import Origin, read_origin, write_adapter
from forgetfilter.runs.reading import read_rejected
from forgetfilter.runs.report.page import render_report
from forgetfilter.runs.stages import StageStore
from forgetfilter.runs.unfinished import UNFINISHED, UnfinishedWork
from forgetfilter.screening.deciding.decide import filter_run, finished_run
from forgetfilter.screening.deciding.masks import digest_of_masks, masked_rows
from forgetfilter.screening.finetune import finetune
from forgetfilter.screening.inputs.setup import fingerprints
from forgetfilter.screening.screen import screen


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of somebody's own."""
    folder = tmp_path / "theirs"
    (folder / "more" / UNFINISHED).mkdir(parents=True)
    (folder / "letter").write_text("dear")
    (folder / "more" / UNFINISHED / "000000000001").mkdir()
    (folder / "more" / "letter").write_text("dear")
    return folder


@pytest.mark.parametrize("place", ["report_rows", "stages/readings-0123456789abcdef.part"])
def test_a_link_to_a_folder_is_refused_and_nothing_there_is_deleted(
    tmp_path: Path, theirs: Path, place: str
):
    """Beside the page of many rows lie files, and those that it doesn't load are deleted."""
    long = [{**row, "id": "x" * 190 + str(at)} for at, row in enumerate(plain_rows(4))]
    run, before = make_run(tmp_path / "run", long), contents(theirs)
    (run / place).parent.mkdir(exist_ok=True)
    (run / place).symlink_to(theirs / "more")
    with pytest.raises(RunExistsError, match=r"is a link\. Expected a folder of the run's own"):
        filter_run(run, "fraction:0.3")
    with pytest.raises(RunExistsError), finished_run(run) as folder:
        render_report(folder.path)
    assert contents(theirs) == before


def test_an_unfinished_stage_by_way_of_a_link_is_begun_anew(tmp_path: Path, theirs: Path):
    """What an unfinished stage can't go on from is deleted."""
    store, before = StageStore(tmp_path / "stages"), contents(theirs)
    folder = store.folder_of("s", {})
    folder.parent.mkdir()
    folder.with_name(f"{folder.name}.part").symlink_to(theirs / "more")
    store.stage("s", {}, lambda part: (part / "made").write_text("x") and None)
    assert contents(theirs) == before
    assert (folder / "made").read_text() == "x"
    assert not folder.is_symlink()


THEIRS = (
    *("kept.jsonl.bak", "kept.jsonl~", "removed.md", "rejected.jsonl.orig", "kept.txt"),
    *("flagged.xlsx", "weighted.txt", "input.txt", "input-notes.md", "undecided.2.jsonl"),
)


@pytest.mark.parametrize("action", ["remove", "flag"])
def test_files_of_others_with_names_like_ours_stay(tmp_path: Path, action: str):
    run = make_run(tmp_path / "run", 8)
    for name in THEIRS:
        (run / name).write_text(f"mine: {name}")
    (run / "flagged.csv").write_text("of an earlier decision")
    filter_run(run, "fraction:0.3", action=action)
    assert [name for name in THEIRS if not (run / name).is_file()] == []
    assert not (run / "flagged.csv").exists()


def test_a_journal_that_became_a_link_is_not_written_through(tmp_path: Path):
    run = make_run(tmp_path / "run", 8)
    table = ReviewTable(run)
    other = tmp_path / "theirs.txt"
    other.write_text("")
    (run / "decisions.jsonl").symlink_to(other)
    with pytest.raises(RunExistsError, match="is a link"):
        table.decide(1, "keep", "", "Ada", 0)
    assert other.read_text() == ""


@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_list_of_an_adapters_files_names_nothing_outside_of_its_folder(
    tmp_path: Path, is_absolute: bool
):
    adapter, output, other = tmp_path / "adapter", tmp_path / "output", tmp_path / "letter"
    adapter.mkdir()
    output.mkdir()
    other.write_text("dear")
    (adapter / "adapter_model.safetensors").write_bytes(b"w")
    (adapter / "adapter_config.json").write_bytes(b"{}")
    origin = Origin("d", "", "", 1, 1.0, "")
    write_adapter(adapter, output, origin, "card")
    path = output / "forgetfilter.json"
    told = json.loads(path.read_text())
    told["files"][str(other) if is_absolute else "../letter"] = sha256_file(other)
    path.write_text(json.dumps(told))
    assert read_origin(output) is None
    write_adapter(adapter, output, origin, "card")
    assert other.read_text() == "dear"


def test_a_stage_whose_record_is_nested_deeply_is_made_again(tmp_path: Path):
    store = StageStore(tmp_path / "stages")
    folder = store.stage("s", {}, lambda part: None)
    (folder / "stage.json").write_bytes(b"[" * 200_000)
    made: list[Path] = []
    assert StageStore(tmp_path / "stages").stage("s", {}, made.append) == folder
    assert len(made) == 1


def test_notes_of_an_unfinished_stage_that_are_nested_deeply_are_set_aside(tmp_path: Path):
    said: list[str] = []
    work = UnfinishedWork(tmp_path / "s.part", "step", {}, 10, said.append)
    assert work.write(1, {}, lambda part: None, most=2)
    (tmp_path / "s.part" / UNFINISHED / "000000000001" / "entry.json").write_bytes(b"[" * 200_000)
    assert list(work.entries()) == []
    assert "isn't used" in said[0]


OLDER: dict[str, Callable[[pd.DataFrame], Any]] = {
    "readings.parquet": lambda table: [n for n in table.columns if n not in ("row", "example_id")],
    "scores.parquet": lambda table: ["forgetting_score"],
}


@pytest.mark.parametrize("name", OLDER)
def test_a_column_that_holds_nothing_is_an_error_of_our_own(tmp_path: Path, name: str):
    run = make_run(tmp_path / "run", 8)
    forget_digests(run)
    whole = (run / name).read_bytes()
    table = pq.read_table(run / name)
    for column in OLDER[name](table.to_pandas()):
        at = table.schema.get_field_index(column)
        pq.write_table(table.set_column(at, column, pa.nulls(len(table))), run / name)
        before = contents(run)
        with pytest.raises(DataError, match=f"{name}.*{column}.*Expected"):
            filter_run(run, "fraction:0.3")
        assert contents(run) == before
        (run / name).write_bytes(whole)
    filter_run(run, "fraction:0.3")


def test_a_run_of_a_version_that_named_no_unit_is_decided_again(tmp_path: Path):
    run = make_run(tmp_path / "run", 8)
    summary = json.loads((run / "summary.json").read_text())
    unit = summary.pop("unit")
    (run / "summary.json").write_text(json.dumps(summary))
    assert unit == "nats per token"
    assert filter_run(run, "phi:0.4")["removed"] == 4


def test_numbers_that_are_none_in_rejected_rows_are_damage(tmp_path: Path):
    (tmp_path / "rejected.jsonl").write_text('{"row": 1, "line": Infinity, "reason": "x"}\n')
    with pytest.raises(DataError, match="is damaged"):
        read_rejected(tmp_path, 5)


@pytest.mark.parametrize("name", ["safe_data", "reference_data"])
def test_a_file_that_changes_while_it_is_read_is_not_recorded_as_what_it_was(
    quick_config: Callable[..., ScreenConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
):
    """Between its sha256 and its rows: the file is written at that very moment."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(Path(quick_config(tmp_path / "run").safe_data).read_bytes())

    def and_then_write(*given: Any) -> dict[str, str]:
        found = fingerprints(*given)
        path.write_bytes(path.read_bytes() + b'{"prompt": "q", "completion": "a"}\n')
        return found

    monkeypatch.setattr("forgetfilter.screening.screen.fingerprints", and_then_write)
    with pytest.raises(DataError, match=f"{name} .* changed while it was read"):
        screen(quick_config(tmp_path / "run", **{name: str(path)}), Progress(is_silent=True))


def test_masks_that_are_not_those_of_the_decision_are_not_trained_on(tmp_path: Path):
    run = make_run(tmp_path / "run", 8)
    path = run / "masks.parquet"
    pd.DataFrame({"row": [0], "input_ids": [[1]], "loss_mask": [[True]]}).to_parquet(path)
    summary = json.loads((run / "summary.json").read_text()) | {"action": "mask"}
    summary["written"]["masks.parquet"] = sha256_file(path)
    (run / "summary.json").write_text(json.dumps(summary))
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    with pytest.raises(DataError, match=r"masks\.parquet .* has changed.*Expected"):
        finetune(run, tmp_path / "adapter", Progress(is_silent=True))
    path.write_bytes(whole[:100])
    with pytest.raises(DataError, match=r"masks\.parquet can't be read.*Expected"):
        masked_rows(run, [])
    path.unlink()
    with pytest.raises(DataError, match=r"masks\.parquet.*Expected"):
        digest_of_masks(run)
