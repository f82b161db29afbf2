"""What lies on disk is checked: every file of a run that has changed is found before it is used."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import contents
from decided_run import lines_of, make_run, summary_of
from forgetfilter.config import ScreenConfig, load_yaml, resolve
from forgetfilter.errors import DataError, RunExistsError
from forgetfilter.progress import Progress
from forgetfilter.runs import pending
from forgetfilter.runs.decisions import Journal
from forgetfilter.runs.folder import RunFolder
from forgetfilter.runs.intact import MEASURED
from forgetfilter.runs.one_row import tell_row
from forgetfilter.runs.stages import StageStore
from forgetfilter.screening.deciding import decide
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.deciding.overruling import Overruling
from forgetfilter.screening.screen import screen

SILENT = Progress(is_silent=True)
THREE_BEATS = r"(?s)\. Expected .*\. (Put|Repeat|Choose|Move|Delete|Mend|Take)"


def permute(path: Path) -> None:
    """Another order of the same lines: no size changes."""
    lines = path.read_bytes().splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    path.write_bytes(b"".join(lines))


def swap_scores(path: Path, column: str) -> None:
    frame = pd.read_parquet(path)
    frame[column] = frame[column].to_numpy()[::-1]
    frame.to_parquet(path, index=False)


def outputs_of(run: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(run).items() if not name.endswith(".lock")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("intact") / "run", 20, too_long=[3])


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def damage(run: Path, fault: str) -> None:
    """One fault, with the tools that people and disks have."""
    match fault:
        case "permuted input":
            permute(run / "input.jsonl")
        case "changed text":
            path = run / "input.jsonl"
            path.write_bytes(path.read_bytes().replace(b"number 1?", b"number 7?"))
        case "cut input":
            path = run / "input.jsonl"
            path.write_bytes(path.read_bytes()[:-40])
        case "no input":
            (run / "input.jsonl").unlink()
        case "other readings":
            swap_scores(run / "readings.parquet", "loss_sum_learned")
            frame = pd.read_parquet(run / "readings.parquet")
            frame["row"] = frame["row"].to_numpy()[::-1]
            frame.to_parquet(run / "readings.parquet", index=False)
        case "other scores":
            swap_scores(run / "scores.parquet", "forgetting_score")
        case "flipped bit":
            data = bytearray((run / "scores.parquet").read_bytes())
            data[len(data) // 3] ^= 4
            (run / "scores.parquet").write_bytes(data)
        case "cut scores" | "cut readings":
            path = run / f"{fault.removeprefix('cut ')}.parquet"
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "no provenance":
            (run / "provenance.json").write_bytes(b'{"inputs"')
        case _:
            (run / "summary.json").write_text("[]")


FAULTS = [
    "permuted input",
    "changed text",
    "cut input",
    "no input",
    "other readings",
    "other scores",
    "flipped bit",
    "cut scores",
    "cut readings",
    "no provenance",
    "summary of another kind",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_decided_from_changed_files_and_nothing_is_written(run: Path, fault: str):
    damage(run, fault)
    before = outputs_of(run)
    with pytest.raises(DataError, match=THREE_BEATS):
        filter_run(run, "phi:0.1")
    assert outputs_of(run) == before
    with pytest.raises(DataError, match=THREE_BEATS):  # nor is the folder wedged by a first try
        filter_run(run)


def test_every_measured_file_is_known_by_its_content(run: Path):
    told = json.loads((run / "provenance.json").read_text())["files"]
    assert set(told) == {name for name in MEASURED if (run / name).exists()} != set()
    assert "scores.parquet" in summary_of(run)["written"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_are_known_by_their_content_too(tmp_path: Path, suffix: str):
    frame = pd.DataFrame({"prompt": [f"Say {i}" for i in range(9)], "completion": ["It is."] * 9})
    source = tmp_path / f"rows.{suffix}"
    frame.to_csv(source, index=False) if suffix == "csv" else frame.to_parquet(source)
    run = make_run(tmp_path / "run", source)
    filter_run(run)
    other = frame.iloc[::-1]
    (copy,) = run.glob("input-1.*")
    other.to_csv(copy, index=False) if suffix == "csv" else other.to_parquet(copy)
    with pytest.raises(DataError, match="not what was screened"):
        filter_run(run)


def test_a_row_of_a_permuted_input_is_not_shown_under_anothers_score(run: Path):
    permute(run / "input.jsonl")
    with pytest.raises(DataError, match="not what was screened"):
        tell_row(run, 4)


def test_runs_of_earlier_versions_are_known_by_their_input(run: Path):
    told = json.loads((run / "provenance.json").read_text())
    del told["files"]
    (run / "provenance.json").write_text(json.dumps(told))
    summary = summary_of(run)
    del summary["written"]
    (run / "summary.json").write_text(json.dumps(summary))
    filter_run(run)
    (run / "readings.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=THREE_BEATS):
        filter_run(run)


@pytest.fixture(scope="module")
def finished(
    quick_config: Callable[..., ScreenConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run that a real screen made; a test that changes it works on a copy."""
    run = tmp_path_factory.mktemp("finished") / "run"
    screen(quick_config(run, threshold="fraction:0.25"), SILENT)
    return run


@pytest.fixture
def screened(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def again(run: Path) -> Any:
    config = resolve(ScreenConfig, load_yaml(run / "config.yaml"), {"output_dir": str(run)})
    return screen(config, SILENT)


def stable(run: Path) -> dict[str, bytes]:
    """What a repeated screen has to give back byte for byte."""
    varying = ("provenance.json", "config.yaml", "summary.json", "report", "dataset_card", ".")
    return {
        name: data
        for name, data in contents(run).items()
        if not name.startswith(varying) and "/." not in name
    }


@pytest.mark.parametrize(
    "fault",
    [
        "permuted input",
        "no input",
        "other readings",
        "other scores",
        "cut scores",
        "cut readings",
        "summary of another kind",
    ],
)
def test_the_advised_screen_mends_the_run_without_training(
    screened: Path, fault: str, monkeypatch: pytest.MonkeyPatch
):
    before = stable(screened)
    damage(screened, fault)
    monkeypatch.setattr(StageStore, "_build", None)  # any stage that was made would fail
    assert not again(screened).was_finished
    assert stable(screened) == before
    assert again(screened).was_finished
    filter_run(screened, "fraction:0.5")


@pytest.mark.parametrize("name", ["rejected.jsonl", "report.html"])
def test_a_screen_of_a_finished_run_looks_at_what_it_wrote(screened: Path, name: str):
    path = screened / name
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2] if before else b"{}")
    assert again(screened).was_decided_again
    if name == "report.html":  # it names the folder that it lies in
        assert path.read_bytes().endswith(b"</html>")
    else:
        assert path.read_bytes() == before
    assert again(screened).was_finished


def test_a_stage_whose_bytes_changed_is_made_again(screened: Path):
    before = stable(screened)
    (stage, *_) = (screened / "stages").glob("learn-*")
    path = next(stage.rglob("adapter_model.safetensors"))
    data = bytearray(path.read_bytes())
    data[-3] ^= 255
    path.write_bytes(data)  # the size is as it was
    (screened / "input.jsonl").unlink()
    again(screened)
    after = stable(screened)
    assert after[str(path.relative_to(screened))] == before[str(path.relative_to(screened))]


@pytest.mark.parametrize("fault", ["record", "input"])
def test_a_decision_that_cannot_be_completed_is_replaced_by_a_screen(
    screened: Path, fault: str, monkeypatch: pytest.MonkeyPatch
):
    before = stable(screened)
    with monkeypatch.context() as patched:
        patched.setattr(decide, "write_decision", interrupt)
        with pytest.raises(KeyboardInterrupt):
            filter_run(screened, "fraction:0.5")
    if fault == "record":
        record = screened / ".deciding" / "decision.json"
        record.write_bytes(record.read_bytes()[:30])
    else:
        permute(screened / "input.jsonl")
    with pytest.raises(DataError, match=THREE_BEATS):
        filter_run(screened, "fraction:0.5")
    again(screened)
    assert stable(screened) == before
    assert pending.committed(screened) is None
    filter_run(screened, "fraction:0.5")


def interrupt(*arguments: Any, **named: Any) -> None:
    raise KeyboardInterrupt


def test_mending_does_not_undo_edits_by_hand(screened: Path):
    permute(screened / "input.jsonl")
    kept = screened / "kept.jsonl"
    kept.write_bytes(b"".join(line + b"\n" for line in lines_of(kept)[1:]))
    before = outputs_of(screened)
    with pytest.raises(DataError, match=r"kept.jsonl there changed too.*Move what"):
        again(screened)
    assert outputs_of(screened) == before
    kept.unlink()
    again(screened)


def overruled(run: Path) -> Path:
    """A run with two decisions in its journal, both honoured."""
    filter_run(run, overruling=Overruling(keep=(17, 18), reason="checked", reviewer="Ada"))
    return run / "decisions.jsonl"


def test_a_decision_that_was_honoured_is_not_lost_with_the_end_of_the_journal(run: Path):
    journal = overruled(run)
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    before = outputs_of(run)
    with pytest.raises(DataError, match=r"cut off within line 2.*honours 2.*Expected .*delete"):
        filter_run(run)
    assert outputs_of(run) == before
    journal.write_bytes(whole.splitlines(keepends=True)[0])  # as it is advised
    filter_run(run)
    assert summary_of(run)["overruled"]["keep"] == 1


def test_a_line_that_nobody_was_told_of_may_be_cut(run: Path):
    journal = overruled(run)
    journal.write_bytes(journal.read_bytes() + b'{"row": 3, "exam')
    filter_run(run)
    assert summary_of(run)["overruled"]["keep"] == 2


def test_a_journal_that_is_no_file_has_an_error_of_its_own(run: Path):
    (run / "decisions.jsonl").mkdir()
    with pytest.raises(DataError, match=THREE_BEATS):
        Journal(run).read()


@pytest.mark.parametrize(
    "name", [".lock", "stages", "stages/.locks", ".deciding", "decisions.jsonl", ".decisions.lock"]
)
def test_nothing_is_written_by_way_of_a_link(run: Path, tmp_path: Path, name: str):
    theirs = tmp_path / "theirs"
    is_file = name.endswith((".lock", "jsonl"))
    if is_file:
        theirs.write_bytes(b"not ours")
    else:
        theirs.mkdir()
    path = run / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(theirs)
    before = outputs_of(run)
    with pytest.raises(RunExistsError, match=r"is a link\. Expected .*Move it away"):
        filter_run(run, overruling=Overruling(keep=(18,), reviewer="Ada"))
    assert outputs_of(run) == before
    assert theirs.read_bytes() == b"not ours" if is_file else not list(theirs.iterdir())
    path.unlink()  # as it is advised
    filter_run(run, overruling=Overruling(keep=(18,), reviewer="Ada"))


def test_a_lock_that_is_a_folder_has_an_error_of_its_own(run: Path):
    (run / ".lock").unlink()
    (run / ".lock").mkdir()
    with pytest.raises(RunExistsError, match=r"is a folder\. Expected a plain file"):
        filter_run(run)


def test_a_folder_that_everybody_can_write_into_is_refused(run: Path):
    run.chmod(0o777)
    with pytest.raises(RunExistsError, match=r"chmod o-w"):
        filter_run(run)
    run.chmod(0o775)
    filter_run(run)


def test_a_new_run_folder_is_not_open_to_all_whatever_the_mask(tmp_path: Path):
    old = os.umask(0)
    try:
        with RunFolder(tmp_path / "new").lock():
            pass
    finally:
        os.umask(old)
    assert not (tmp_path / "new").stat().st_mode & 0o002
