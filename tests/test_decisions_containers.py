"""Deciding, overruling, flags, report and review do the same whatever container was screened."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from datasets import load_from_disk

from decided_run import lines_of, make_run, summary_of
from forgetfilter.cli import main
from forgetfilter.data import read_rows
from forgetfilter.errors import DataError
from forgetfilter.review.table import Query, ReviewTable
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.deciding.overruling import Overruling
from made_files import LAYOUTS, write
from made_run import row_data, texts_by_row

SEVERAL = "several files"
TOO_LONG = 9
KEPT, REMOVED, OVERRULED_KEPT, OVERRULED_REMOVED = 0, 11, 10, 2


def flat_rows(count: int) -> list[dict[str, Any]]:
    """Rows that every container can hold, with characters that some of them escape."""
    return [
        {
            "id": f"own-{i}",
            "source": ("forum", "shop", "wiki")[i % 3],
            "instruction": f'Say "{i}", please',
            "output": f"Answer {i};\nthen\tmore, of it",
        }
        for i in range(count)
    ]


def screened(folder: Path, layout: str, action: str = "remove") -> Path:
    """A made-up run of 12 rows of which those from 7 on are removed, and one is rejected."""
    rows, files = flat_rows(12), [layout]
    if layout == SEVERAL:
        files = ["jsonl", "csv", "parquet"]
    parts = [rows[4 * n : 4 * n + 4] for n in range(3)] if layout == SEVERAL else [rows]
    paths = [write(folder, name, part) for name, part in zip(files, parts, strict=True)]
    given = paths if layout == SEVERAL else paths[0]
    return make_run(folder / "run", given, too_long=[TOO_LONG], action=action)


def ids_of(run: Path, decision: str) -> list[str]:
    """What the rows in the file, or the folder, of a decision call themselves."""
    path = run / summary_of(run)["outputs"][decision]
    if path.name == "rejected.jsonl":  # lines of reasons
        return [json.loads(json.loads(line)["raw"])["id"] for line in lines_of(path)]
    if path.is_dir() and (path / "state.json").is_file():
        return list(load_from_disk(str(path))["id"])
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [own for file in files if not is_empty(file) for own in ids_in(file)]
    return sorted(found, key=lambda own: int(own.removeprefix("own-")))


def ids_in(file: Path) -> list[str]:
    return [row.own_id for row in read_rows(file).rows]


def is_empty(file: Path) -> bool:
    """Whether there is no row in a file, which is an error to whoever reads rows."""
    if file.suffix == ".csv":
        return len(file.read_bytes().splitlines()) < 2
    return file.stat().st_size == 0 or (file.suffix == ".parquet" and pd.read_parquet(file).empty)


def own(*rows: int) -> list[str]:
    return [f"own-{row}" for row in rows]


OVERRULING = Overruling(keep=(OVERRULED_KEPT,), remove=(OVERRULED_REMOVED,), reviewer="Ada")
LEFT = [0, 1, 3, 4, 5, 6, 10]
GONE = [2, 7, 8, 11]


@pytest.mark.parametrize("layout", [*LAYOUTS, SEVERAL])
def test_rows_are_overruled_previewed_flagged_reported_and_reviewed(
    tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
):
    run = screened(tmp_path, layout)
    assert ids_of(run, "kept") == own(0, 1, 2, 3, 4, 5, 6)
    before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    flags = ["--keep-row", "10", "--remove-row", "2", "--reviewer", "Ada"]
    assert main(["filter", str(run), *flags, "--dry-run"]) == 0
    assert "2 rows would move, 2 decisions would be recorded" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in before}

    flags += ["--action", "flag", "--fail-on", "removed>3"]
    assert main(["filter", str(run), *flags]) == 4
    said = capsys.readouterr()
    summary = summary_of(run)
    assert str(run / summary["action_file"]) in said.out
    assert ids_of(run, "kept") == own(*LEFT)
    assert ids_of(run, "removed") == own(*GONE)
    assert ids_of(run, "rejected") == own(TOO_LONG)
    lines = [json.loads(line)["id"] for line in lines_of(run / "kept.jsonl")]
    assert lines == own(*LEFT)

    flagged = [json.loads(line) for line in lines_of(run / "flagged.jsonl")]
    assert [row["id"] for row in flagged] == own(*(n for n in range(12) if n != TOO_LONG))
    told = {row["id"]: row["forgetfilter_decision"] for row in flagged}
    assert {name for name, decision in told.items() if decision == "removed"} == {*own(*GONE)}

    listed = texts_by_row((run / "report.html").read_text(encoding="utf-8"))
    assert len(listed) == 12
    assert listed[OVERRULED_KEPT]["answer"][0] == "Answer 10;\nthen\tmore, of it"
    index = row_data((run / "report.html").read_text(encoding="utf-8"))["index"]
    people = dict(zip(index["row"], index["overruled"], strict=True))
    assert {row: choice for row, choice in people.items() if choice} == {10: "keep", 2: "remove"}

    assert main(["show", str(run), "--row", "10"]) == 0
    shown = capsys.readouterr().out.splitlines()[0]
    assert shown.endswith("rows.parquet" if layout == SEVERAL else " of the file")

    table = ReviewTable(run)
    assert sorted(table.select(Query())) == list(range(12))
    assert sorted(table.select(Query(review="overruled"))) == [2, 10]
    assert table.select(Query(search="answer 11")) == [11]
    facets = {facet["name"]: facet["values"] for facet in table.state()["facets"]}
    assert [(value, count) for value, _, count in facets["source"]] == [
        (name, 4) for name in ("forum", "shop", "wiki")
    ]
    files = {Path(value).name: count for value, _, count in facets.get("file", [])}
    several = {"rows.jsonl": 4, "rows.csv": 4, "rows.parquet": 4}
    assert files == (several if layout == SEVERAL else {})
    table.decide(REMOVED, "keep", "", "Eva", 0)
    assert main(["report", str(run)]) == 0
    assert ids_of(run, "kept") == own(*LEFT, REMOVED)
    counts = Counter(pd.read_parquet(run / "scores.parquet")["decision"])
    assert counts == {"kept": 8, "removed": 3, "rejected": 1}


@pytest.mark.parametrize("layout", ["json", "csv", "tsv", "parquet", "arrow"])
def test_flags_and_weights_are_columns_of_a_table(tmp_path: Path, layout: str):
    run = screened(tmp_path, layout, action="flag")
    name = f"flagged.{layout}"
    assert summary_of(run)["action_file"] == name
    frame = table_of(run / name)
    assert [*frame.columns] == [
        "id",
        "source",
        "instruction",
        "output",
        "forgetfilter_score",
        "forgetfilter_decision",
    ]
    rows = [n for n in range(12) if n != TOO_LONG]
    assert frame["id"].tolist() == own(*rows)
    assert frame["forgetfilter_score"].astype(float).tolist() == [row / 12 for row in rows]
    assert Counter(frame["forgetfilter_decision"]) == {"kept": 7, "removed": 4}
    given = flat_rows(12)
    assert frame["output"].tolist() == [given[row]["output"] for row in rows]

    filter_run(run, action="weight", overruling=OVERRULING)
    assert not (run / name).exists()
    frame = table_of(run / f"weighted.{layout}")
    weights = dict(zip(frame["id"], frame["weight"].astype(int), strict=True))
    assert {name for name, weight in weights.items() if not weight} == {*own(*GONE)}
    assert {*weights.values()} == {0, 1}
    filter_run(run, action="remove")
    assert not list(run.glob("weighted.*"))


@pytest.mark.parametrize("layout", ["json", "csv", "parquet", "arrow"])
def test_a_column_of_weights_is_replaced_where_a_row_is_removed(tmp_path: Path, layout: str):
    rows = [row | {"weight": 0.5 + n % 2} for n, row in enumerate(flat_rows(4))]
    run = make_run(tmp_path / "run", write(tmp_path, layout, rows), action="weight")
    frame = table_of(run / f"weighted.{layout}")
    assert [*frame.columns] == [*rows[0]]
    assert frame["weight"].astype(float).tolist() == [0.5, 1.5, 0.5, 0]
    assert frame["output"].tolist() == [row["output"] for row in rows]


def table_of(path: Path) -> pd.DataFrame:
    """A table as its usual reader reads it."""
    if path.suffix in (".csv", ".tsv"):
        return pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t")
    if path.suffix == ".json":
        return pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pa.ipc.open_stream(path.read_bytes()).read_pandas()


@pytest.mark.parametrize("layout", ["json", "csv", "parquet", "arrow", "folder", SEVERAL])
def test_an_edit_of_another_container_is_found_and_can_only_be_discarded(
    tmp_path: Path, layout: str
):
    run = screened(tmp_path, layout)
    output = run / summary_of(run)["outputs"]["kept"]
    edited = output if output.is_file() else next(p for p in output.iterdir() if p.is_file())
    name, written = edited.relative_to(run).as_posix(), edited.read_bytes()
    edited.write_bytes(written[: len(written) // 2])
    for edits in ("refuse", "adopt"):
        with pytest.raises(DataError, match=f"{name} in .*edited by hand.*--discard-edits"):
            filter_run(run, "phi:0.25", overruling=Overruling(edits=edits))
    assert main(["report", str(run)]) != 0
    filter_run(run, overruling=Overruling(keep=(OVERRULED_KEPT,), edits="discard"))
    assert ids_of(run, "kept") == own(0, 1, 2, 3, 4, 5, 6, 10)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_edit_of_the_lines_is_adopted_whatever_was_screened(tmp_path: Path, layout: str):
    run = screened(tmp_path, layout)
    path = run / "kept.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines_of(path)[1:]))
    filter_run(run, overruling=Overruling(edits="adopt"))
    assert ids_of(run, "kept") == own(1, 2, 3, 4, 5, 6)
    assert ids_of(run, "removed") == own(0, 7, 8, 10, 11)
