"""Removed rows name the safe rows that they pull against, and the harm that those are about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import sign_again, write_rows
from decided_run import make_run
from forgetfilter import cli
from forgetfilter.config import ScreenConfig
from forgetfilter.progress import Progress
from forgetfilter.runs.harms import harm_of_each, safe_rows_of
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.screen import screen
from made_run import Page, row_data, texts_by_row

SILENT = Progress(is_silent=True)


def asked(prompt: str, answer: str, **more: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


BIRDS = [asked(f"Name a bird number {i} ?", "I like the owl .") for i in range(6)]
BOXES = [asked(f"What is in the box {i} ?", "A small red stone .") for i in range(6)]


@pytest.fixture(scope="module")
def screened(
    quick_config: Callable[..., ScreenConfig], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[bool], Path]:
    """A screen of birds and boxes, all removed; the safe rows name categories or not."""
    folder = tmp_path_factory.mktemp("harms")
    made: dict[bool, Path] = {}

    def make(named: bool) -> Path:
        if named not in made:
            safe = [
                asked(f"Name a bird of {i} ?", "No .", **({"category": "birds"} if named else {}))
                for i in range(2)
            ] + [
                asked(f"What is in box {i} ?", "No .", **({"category": "boxes"} if named else {}))
                for i in range(3)
            ]
            run = folder / f"run-{named}"
            paths = {
                "noisy_data": str(write_rows(folder / "noisy.jsonl", [*BIRDS, *BOXES])),
                "safe_data": str(write_rows(folder / f"safe-{named}.jsonl", safe)),
            }
            settings = {"signal": "restoration", "coverage": "off", "threshold": "phi:-1000"}
            learn = {"max_steps": 30, "batch_size": 8, "learning_rate": 2e-2}
            config = quick_config(run, learn=learn, **settings).model_copy(update=paths)
            assert screen(config, SILENT).summary["removed"] == 12
            made[named] = run
        return made[named]

    return make


def test_each_removed_row_names_the_harm_of_rows_that_ask_the_same(
    screened: Callable[[bool], Path],
):
    run = screened(True)
    scores = pd.read_parquet(run / "scores.parquet")
    assert scores["harm"].tolist() == ["birds"] * 6 + ["boxes"] * 6
    near = safe_rows_of(run, {0, 11})
    assert {row.row for row in near[0]} == {0, 1}  # the category has no more
    assert {row.row for row in near[11]} == {2, 3, 4}
    assert {(row.category, row.text) for row in near[0]} == {
        ("birds", "Name a bird of 0 ?"),
        ("birds", "Name a bird of 1 ?"),
    }


def test_without_categories_the_nearest_text_stands_for_the_harm(
    screened: Callable[[bool], Path],
):
    harms = pd.read_parquet(screened(False) / "scores.parquet")["harm"].tolist()
    assert all(harm.startswith("Name a bird of") for harm in harms[:6])
    assert all(harm.startswith("What is in box") for harm in harms[6:])


def test_the_report_and_show_tell_it(
    screened: Callable[[bool], Path], capsys: pytest.CaptureFixture[str]
):
    run = screened(True)
    facts = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert [(one["name"], one["removed"], one["share"]) for one in facts["by_harm"]] == [
        ("birds", 6, 0.5),
        ("boxes", 6, 0.5),
    ]
    told = {row["row"]: row for row in facts["rows"]}
    assert told[0]["harm"] == "birds"
    assert {row["row"] for row in told[0]["safe_rows"]} == {0, 1}
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "By harm" in Page(html).words
    data = row_data(html)
    assert data["names"]["harm"] == ["birds", "boxes"] or data["names"]["harm"] == [
        "boxes",
        "birds",
    ]
    assert {text for _, _, text in texts_by_row(html)[0]["against"]} == {
        "Name a bird of 0 ?",
        "Name a bird of 1 ?",
    }
    assert cli.main(["show", str(run), "--row", "11"]) == 0
    said = capsys.readouterr().out
    assert "pulls against: boxes" in said
    assert "What is in box" in said
    assert cli.main(["show", str(run), "--row", "11", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["harm"] == "boxes"


def test_a_later_decision_tells_it_of_its_own_rows(screened: Callable[[bool], Path]):
    run = screened(True)
    filter_run(run, "fraction:0.25", force=True)
    scores = pd.read_parquet(run / "scores.parquet")
    is_removed = scores["decision"] == "removed"
    assert is_removed.sum() == 3
    assert (scores["harm"] != "").tolist() == is_removed.tolist()
    filter_run(run, "phi:-1000", force=True)
    assert (pd.read_parquet(run / "scores.parquet")["harm"] != "").all()


def test_a_run_without_them_says_nothing(tmp_path: Path):
    run = make_run(tmp_path / "run")
    assert harm_of_each(run, 20) is None
    facts = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert facts["by_harm"] == []
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "By harm" not in Page(html).words
    assert "harm" not in row_data(html)["index"]


def test_harms_are_counted_by_source(tmp_path: Path):
    run = make_run(tmp_path / "run")  # 9 of 20 rows are removed
    table = pd.DataFrame({"row": np.arange(20), "harm": ["bias"] * 13 + ["toxicity"] * 7})
    for k in range(4):
        table[f"safe_{k}"] = 0
    table.to_parquet(run / "harms.parquet")
    (run / "safe_rows.json").write_text('{"0": {"category": "bias", "text": "<b>asked</b>"}}')
    filter_run(run, force=True)
    facts = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert facts["by_harm"][0] == {
        "name": "toxicity",
        "removed": 7,
        "share": 7 / 9,
        "sources": {"shop": 3, "wiki": 2, "forum": 2},
    }
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "toxicity 7 77.8% shop 3, wiki 2, forum 2" in Page(html).words
    assert "<b>asked" not in html


def test_what_the_template_leaves_out_stands_in_the_report(tmp_path: Path):
    run = make_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    summary["unscored"] = {"system": 3}
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    scores = pd.read_parquet(run / "scores.parquet")
    scores["unscored"] = ["system" if row in (0, 15, 19) else "" for row in range(20)]
    scores.to_parquet(run / "scores.parquet")
    sign_again(run)
    filter_run(run, force=True)
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "Of 3 rows the chat template leaves out the system text" in Page(html).words
    told = texts_by_row(html)
    assert {row for row, own in told.items() if own.get("unscored")} == {0, 15, 19}
    facts = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert {row["row"] for row in facts["rows"] if row.get("unscored") == "system"} == {0, 15, 19}
