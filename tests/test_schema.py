"""Who writes a run's files and who reads them use the same names."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import contents
from forgetfilter.config import ScreenConfig
from forgetfilter.lab.metrics.detection import Detection as MeasuredDetection
from forgetfilter.lab.testbed.evaluate import Evaluation as MeasuredBehaviour
from forgetfilter.progress import Progress
from forgetfilter.runs import file_names
from forgetfilter.runs.file_names import (
    CONFIG_FILE,
    EVIDENCE_FILE,
    LOCK_FILE,
    PROVENANCE_FILE,
    READINGS_FILE,
    RUN_OUTPUTS,
    SCORES_FILE,
    SUMMARY_FILE,
)
from forgetfilter.runs.schema import (
    EVIDENCE_COLUMNS,
    EVIDENCE_TEXTS,
    SIZE_COLUMNS,
    TOLD_COLUMNS,
    WRITTEN_COLUMNS,
    Behaviour,
    Detection,
    Record,
    Summary,
)
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.screen import screen

PACKAGE = Path(file_names.__file__).parent.parent


@pytest.fixture(scope="module")
def run(
    quick_config: Callable[..., ScreenConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("schema") / "run"
    screen(quick_config(folder), Progress(is_silent=True))
    return folder


def unknown(record: Any) -> list[str]:
    """Names of the fields in a record, and in all those inside it, that the schema lacks."""
    if isinstance(record, Record):
        inner = [name for value in dict(record).values() for name in unknown(value)]
        return [*(record.model_extra or {}), *inner]
    values = record.values() if isinstance(record, dict) else record
    return (
        [name for value in values for name in unknown(value)]
        if isinstance(record, dict | list)
        else []
    )


def test_a_summary_is_written_as_the_schema_says(run: Path):
    text = (run / SUMMARY_FILE).read_text(encoding="utf-8")
    summary = Summary.model_validate(json.loads(text))
    assert unknown(summary) == []
    assert list(json.loads(text)) == [n for n in Summary.model_fields if n in json.loads(text)]
    assert json.dumps(summary.as_json(), indent=2, ensure_ascii=False) + "\n" == text


def test_a_new_summary_leaves_no_field_of_the_schema_out(run: Path):
    found = json.loads((run / SUMMARY_FILE).read_text(encoding="utf-8"))
    asked_for = {"second_opinion", "joint", "described_harm", "learned_rows"}
    assert set(Summary.model_fields) - asked_for == set(found)


def test_what_another_version_has_written_stays(run: Path):
    path = run / SUMMARY_FILE
    before = json.loads(path.read_text(encoding="utf-8"))
    del before["template"]
    path.write_text(json.dumps({**before, "of_another_version": [1]}), encoding="utf-8")
    after = filter_run(run, before["threshold"]["rule"], force=True)
    assert after["of_another_version"] == [1]
    assert "template" not in after


def test_tables_have_the_columns_of_the_schema(run: Path):
    asked_for = ("second_opinion", "joint_score", "described_harm")
    written = [name for name in WRITTEN_COLUMNS if name not in asked_for]
    assert [*pd.read_parquet(run / SCORES_FILE).columns] == [*written, *TOLD_COLUMNS]
    readings = list(pd.read_parquet(run / READINGS_FILE).columns)
    assert readings[:2] == ["row", "example_id"]
    assert set(SIZE_COLUMNS) <= set(readings)
    evidence = list(pd.read_parquet(run / EVIDENCE_FILE).columns)
    assert {"row", *EVIDENCE_TEXTS} <= set(evidence) <= set(EVIDENCE_COLUMNS)


def test_a_run_has_no_file_without_a_name(run: Path):
    own = {name for name in contents(run) if "/" not in name}
    assert own - {LOCK_FILE, CONFIG_FILE, PROVENANCE_FILE} <= RUN_OUTPUTS


def test_no_module_that_writes_or_reads_a_run_spells_a_files_name_again():
    names = {value for name, value in vars(file_names).items() if name.endswith("_FILE")}
    found = {
        f"{path.relative_to(PACKAGE)}: {node.value}"
        for room in ("runs", "model", "screening")
        for path in (PACKAGE / room).rglob("*.py")
        if path != Path(file_names.__file__)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert found == set()


def test_an_evaluation_says_what_its_reader_knows():
    measured = MeasuredDetection(0.5, 0.25, 1 / 3, float("nan"), 0.75)
    assert unknown(found := Detection.model_validate(measured.as_dict())) == []
    assert found.as_json() == measured.as_dict()
    behaved = MeasuredBehaviour(
        verdicts=("unsafe", "safe"), harms=("insult", "insult"), correct=(True,), kinds=("add",)
    )
    told = {"name": "base", **behaved.as_dict()}
    assert unknown(found := Behaviour.model_validate(told)) == []
    assert found.as_json() == told
