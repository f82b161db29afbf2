"""A whole screen of files that are not one file of JSON Lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset
from pyarrow import parquet

import forgetfilter
from conftest import quick_settings, rows_of
from forgetfilter.cli import main
from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.progress import Progress
from forgetfilter.runs.inputs import read_input
from forgetfilter.screening.deciding.decide import filter_run, finished_run
from forgetfilter.screening.finetune import stored_setting
from forgetfilter.screening.screen import screen

SILENT = Progress(is_silent=True)


def pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"frage": f"Where is the lamp {n} ?", "antwort": f"On table {n} .", "nr": n}
        for n in range(start, start + count)
    ]


def write_csv(path: Path, rows: list[dict[str, Any]], extra: str = "") -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        file.write(extra)
    return path


@pytest.fixture
def settings_for(
    tiny_model: Callable[..., Path], make_rows: Callable[..., Path], tmp_path: Path
) -> Callable[..., ScreenConfig]:
    def make(noisy: Any, **changes: Any) -> ScreenConfig:
        safe = str(make_rows(4, start=50))
        paths = {
            "noisy_data": [str(one) for one in noisy] if isinstance(noisy, list) else str(noisy),
            "model": str(tiny_model("llama")),
            "safe_data": safe,
            "reference_data": safe,
            "output_dir": str(tmp_path / "run"),
        }
        return resolve(ScreenConfig, paths, quick_settings(threshold="fraction:0.25", **changes))

    return make


def test_a_table_with_columns_of_its_own_is_screened_decided_again_and_fine_tuned(
    settings_for: Callable[..., ScreenConfig], tmp_path: Path
):
    path = write_csv(tmp_path / "rows.csv", pairs(8), "Lost ?\n")
    columns = {"prompt": "frage", "completion": "antwort", "id": "nr"}
    config = settings_for(path, reading={"columns": columns})
    result = screen(config, SILENT)
    run = result.output_dir
    assert result.summary["outputs"] == {
        "kept": "kept.csv",
        "removed": "removed.csv",
        "rejected": "rejected.csv",
    }
    original = path.read_bytes().splitlines()
    parts = [(run / f"{name}.csv").read_bytes().splitlines() for name in result.summary["outputs"]]
    assert all(part[0] == original[0] for part in parts)
    assert sorted(line for part in parts for line in part[1:]) == sorted(original[1:])
    assert json.loads((run / "rejected.jsonl").read_text())["reason"].startswith("1 fields")
    scores = result.scores
    assert scores["source"].tolist() == [str(path)] * 9
    assert scores["line"].tolist() == list(range(2, 11))
    assert scores["own_id"].tolist() == [*map(str, range(8)), ""]
    assert len(result.kept) == result.summary["kept"]
    assert result.kept.column_names == ["frage", "antwort", "nr"]
    assert (run / "report.html").is_file()
    lines = (run / "kept.jsonl").read_bytes().splitlines()
    assert len(lines) == len((run / "kept.csv").read_bytes().splitlines()) - 1

    path.unlink()  # the run has a copy of its own
    with pytest.raises(DataError, match="there is no such file"):
        screen(config, SILENT)
    filter_run(run, "fraction:0.5", force=True)
    assert len((run / "removed.csv").read_bytes().splitlines()) == 5
    with finished_run(run) as folder:
        _, is_kept = stored_setting(folder, config, SILENT)
    assert is_kept.sum() == 4

    # Read otherwise, they are other rows.
    write_csv(path, pairs(8), "Lost ?\n")
    assert screen(config, SILENT).was_finished
    swapped = {"prompt": "antwort", "completion": "frage", "id": "nr"}
    with pytest.raises(forgetfilter.ForgetFilterError, match="input noisy_data"):
        screen(settings_for(path, reading={"columns": swapped}), SILENT)
    # And a plain file in its place leaves nothing of the table behind.
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in rows_of(8)), encoding="utf-8")
    screen(settings_for(rows), SILENT, overwrite=True)
    assert not list(run.glob("*.csv"))
    assert (run / "input.jsonl").read_bytes() == rows.read_bytes()
    assert [row.raw for row in read_input(run).rows] == rows.read_bytes().splitlines()


def test_several_files_are_one_screen_that_knows_each_rows_source(
    settings_for: Callable[..., ScreenConfig],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.parquet"
    first.write_text("".join(json.dumps(row) + "\n" for row in rows_of(4)), encoding="utf-8")
    more = [{"id": f"p{n}", "question": f"Who is {n} ?", "answer": "A man ."} for n in range(4)]
    Dataset.from_list(more).to_parquet(str(second))
    config = settings_for([first, second])
    flags = ["--model", config.model, "--safe-data", config.safe_data, "--force", "--quiet"]
    flags += ["--reference-data", str(config.reference_data), "--threshold", "fraction:0.25"]
    for group, values in quick_settings().items():
        for name, value in values.items() if isinstance(values, dict) else ():
            flags += ["--set", f"{group}.{name}={value}"]
    run = tmp_path / "run"
    assert main(["screen", str(first), str(second), *flags, "--output-dir", str(run)]) == 0
    scores = pd.read_parquet(run / "scores.parquet")
    assert scores["source"].tolist() == [str(first)] * 4 + [str(second)] * 4
    assert scores["own_id"].tolist() == [""] * 4 + ["p0", "p1", "p2", "p3"]
    assert scores["example_id"].tolist()[4:] == ["p0", "p1", "p2", "p3"]
    kept = (run / "kept" / "a.jsonl").read_bytes().splitlines()
    assert set(kept) <= set(first.read_bytes().splitlines())
    table = parquet.read_table(run / "kept" / "b.parquet")
    assert table.schema.equals(parquet.read_schema(second), check_metadata=True)
    assert len(kept) + table.num_rows == (scores["decision"] == "kept").sum()
    assert "8 rows" in capsys.readouterr().out
    assert main(["report", str(run)]) == 0


def test_rows_given_in_python_are_screened_and_checked_in_the_constructor(
    settings_for: Callable[..., ScreenConfig], tmp_path: Path
):
    config = settings_for("unused")
    rows = [
        {
            "conversations": [
                {"from": "human", "value": f"Hi {n} ?"},
                {"from": "gpt", "value": "Yes ."},
            ]
        }
        for n in range(6)
    ]
    settings = quick_settings(threshold="fraction:0.25", reference_data=config.reference_data)
    result = forgetfilter.screen(
        Dataset.from_list(rows),
        tmp_path / "run",
        config.model,
        config.safe_data,
        is_silent=True,
        **settings,
    )
    assert result.summary["noisy_data"] == "<Dataset>"
    assert result.scores["source"].unique().tolist() == ["<Dataset>"]
    assert len(result.kept) + len(result.removed) == 6
    assert forgetfilter.filter(tmp_path / "run", "fraction:0.5", force=True).summary["removed"] == 3
    assert forgetfilter.report(tmp_path / "run").is_file()
    with pytest.raises(DataError, match="rows that were given in Python"):
        screen(resolve(ScreenConfig, {**config.model_dump(), "noisy_data": "<Dataset>"}), SILENT)


def test_wrong_arguments_are_found_in_the_constructor(tmp_path: Path):
    for arguments, says in (
        ({"model": 7}, "model is 7 of type int"),
        ({"model": "m", "safe_data": [{"prompt": "q"}]}, "of type list; expected the path"),
        ({"model": "m", "safe_data": ""}, "safe_data is ''"),
        ({"model": "m", "reading": {"format": "alpacca"}}, "expected auto or one of chat"),
        ({"model": "m", "reading": {"dataset_info": "none.json:x"}}, "No such file"),
        ({"model": "m", "formt": "x"}, "Unknown setting 'formt'"),
    ):
        with pytest.raises(ConfigError, match=says):
            forgetfilter.ForgetFilter(**arguments)
    with pytest.raises(DataError, match="No file at safe_data"):
        forgetfilter.ForgetFilter("m", tmp_path / "none.jsonl")
    assert callable(forgetfilter.check_safe)
