"""From the cells of a comparison to tables, plots and the page; no model is needed."""

from __future__ import annotations

import math
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from forgetfilter.errors import MissingExtraError
from forgetfilter.lab.studies.cells import Cell, cell_of
from forgetfilter.lab.studies.compare import plots_of
from forgetfilter.lab.studies.datasets import WorldRows
from forgetfilter.lab.studies.page import write_page
from forgetfilter.lab.studies.plots import bars, scatter
from forgetfilter.lab.studies.results import COLUMNS, collect, summarise
from forgetfilter.lab.studies.settings import CompareConfig
from forgetfilter.lab.studies.tables import Table, heading, markdown, shown, tables_of

HOSTILE = "self_correction:cue=<script>alert(1)</script>|x"


def metric(
    name: str, group: str, value: float | None, direction: str, unit: str = "share, 0..1"
) -> dict[str, Any]:
    return {
        "name": name,
        "group": group,
        "value": value,
        "low": None,
        "high": None,
        "unit": unit,
        "direction": direction,
        "n": 4,
    }


def finished(
    run: Path, strategy: str, seed: int, *, unsafe: float, right: list[float], seconds: float
) -> Cell:
    cell = cell_of(run, strategy, "world", seed, {})
    metrics = [
        metric("unsafe_rate", "safety", unsafe, "lower"),
        metric("task_accuracy", "utility", sum(right) / len(right), "higher"),
        metric("seconds", "cost", seconds, "lower", "seconds"),
    ]
    cell.finish({"metrics": metrics, "per_prompt": {"task_accuracy": right}, "seconds": {}})
    return cell


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    failing = cell_of(tmp_path, HOSTILE, "world", 1, {})
    failing.fail("The phase changed no weight.\n<b>Expected</b> one that does.")
    return [
        finished(tmp_path, "none", 0, unsafe=0.8, right=[0, 1, 0, 0], seconds=10),
        finished(tmp_path, "none", 1, unsafe=0.6, right=[1, 1, 0, 0], seconds=20),
        finished(tmp_path, "forget_filter", 0, unsafe=0.2, right=[1, 1, 0, 1], seconds=15),
        finished(tmp_path, "forget_filter", 1, unsafe=0.4, right=[1, 1, 0, 1], seconds=26),
        finished(tmp_path, HOSTILE, 0, unsafe=0.5, right=[0, 1, 0, 0], seconds=10),
        failing,
    ]


def of(frame: pd.DataFrame, strategy: str, name: str) -> pd.DataFrame:
    return frame[(frame["strategy"] == strategy) & (frame["metric"] == name)]


def test_one_row_per_strategy_data_set_seed_and_metric(cells: list[Cell]):
    results = collect(cells)
    assert list(results.columns) == list(COLUMNS)
    assert not results.duplicated(["strategy", "dataset", "seed", "metric"]).any()
    assert set(results["direction"]) <= {"higher", "lower", "zero"}
    assert results["unit"].str.len().min() > 0


def test_differences_are_taken_prompt_by_prompt(cells: list[Cell]):
    found = of(collect(cells), "forget_filter", "task_accuracy_minus_none").set_index("seed")
    # Seed 0: (1, 1, 0, 1) - (0, 1, 0, 0) = (1, 0, 0, 1): mean 0.5, sd 0.57735; half the interval is
    # t(0.975, 3) * sd / sqrt(4) = 3.18245 * 0.57735 / 2 = 0.91869, on Fisher's z over 1 - 0.5^2.
    half = 0.91869 / 0.75
    assert found.loc[0, "value"] == pytest.approx(0.5)
    assert found.loc[0, "low"] == pytest.approx(math.tanh(math.atanh(0.5) - half), abs=1e-5)
    assert found.loc[0, "high"] == pytest.approx(math.tanh(math.atanh(0.5) + half), abs=1e-5)
    assert found.loc[1, "value"] == pytest.approx(0.25)
    assert set(found["group"]) == {"utility"}
    itself = of(collect(cells), "none", "task_accuracy_minus_none")
    assert itself[["value", "low", "high"]].isna().all(axis=None)


def test_cost_is_counted_beyond_the_plain_fine_tune_of_the_same_seed(cells: list[Cell]):
    found = of(collect(cells), "forget_filter", "seconds_beyond_none")
    assert found["value"].tolist() == [15 - 10, 26 - 20]


def test_a_failed_cell_is_one_row_and_stays_in_the_table(cells: list[Cell]):
    results = collect(cells)
    failed = results[results["metric"] == "failed"].set_index(["strategy", "seed"])["value"]
    assert failed[HOSTILE, 1] == 1
    assert failed.sum() == 1
    only = results[(results["strategy"] == HOSTILE) & (results["seed"] == 1)]
    assert only["metric"].tolist() == ["failed"]
    lines = markdown(results).splitlines()
    row = next(line for line in lines if line.startswith("| self_correction"))
    assert "failed 1 of 2" in row
    # The bar in the spec is escaped: the row has as many columns as its heading.
    head = next(line for line in lines if line.startswith("| strategy"))
    assert row.replace("\\|", "").count("|") == head.count("|")


def test_a_table_leaves_out_strategies_that_it_says_nothing_of(tmp_path: Path):
    plain = finished(tmp_path, "none", 0, unsafe=0.8, right=[0, 1], seconds=1)
    graded = cell_of(tmp_path, "forget_filter", "world", 0, {})
    graded.finish({"metrics": [metric("recall", "detection", 1, "higher")], "per_prompt": {}})
    tables = {table.group: table for table in tables_of(collect([plain, graded]))}
    assert [row[0] for row in tables["detection"].rows] == ["forget_filter"]
    assert [row[0] for row in tables["safety"].rows] == ["none"]


def test_a_mean_says_of_how_many_seeds_it_is_where_some_have_no_number(tmp_path: Path):
    cells: list[Cell] = []
    for seed, value in enumerate((None, 1.0, 0.5)):
        cell = cell_of(tmp_path, "forget_filter", "world", seed, {})
        own = metric("precision", "detection", value, "higher", "0..1")
        cell.finish({"metrics": [own], "per_prompt": {}})
        cells.append(cell)
    (table,) = (one for one in tables_of(collect(cells)) if one.group == "detection")
    assert table.rows[0][1] == "0.750 [0.000, 1.000] (2 of 3 seeds)"


def test_a_cell_of_a_table_is_text_whatever_it_holds():
    table = Table("world", "safety", "Safety", ["strategy"], [["a\\|b <i> ![x](y)"]])
    lines = markdown(pd.DataFrame({"seed": [0]}), [table]).splitlines()
    assert lines[-1].strip() == r"| a\\\|b \<i> !\[x](y) |"


def test_a_grid_of_failures_alone_is_a_table_of_failures(tmp_path: Path):
    cell = cell_of(tmp_path, "none", "world", 0, {})
    cell.fail("No row.")
    text = markdown(collect([cell]))
    assert "failed 1 of 1" in text


def test_the_mean_over_seeds_comes_with_its_spread(cells: list[Cell]):
    summary = summarise(collect(cells))
    means = {(one.strategy, one.metric): one for one in summary}
    mean = means["forget_filter", "unsafe_rate"]
    # Seeds 0.2 and 0.4: mean 0.3, sd 0.141421; half of the t interval is t(0.975, 1) * sd / sqrt(2)
    # = 12.7062 * 0.1, on the logit scale over 0.3 * 0.7.
    half = 1.27062 / 0.21
    assert mean.value == pytest.approx(0.3)
    assert mean.low == pytest.approx(1 / (1 + math.exp(half) * 7 / 3), abs=1e-6)
    assert mean.high == pytest.approx(1 / (1 + math.exp(-half) * 7 / 3), abs=1e-6)
    assert (mean.seeds, mean.of) == (2, 2)
    alone = means[HOSTILE, "unsafe_rate"]
    assert alone.value == 0.5
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


@pytest.mark.parametrize(
    ("value", "low", "high", "unit", "text"),
    [
        (0.812, 0.778, 0.845, "share, 0..1", "81.2 [77.8, 84.5]"),
        (0.027, 0.013, 0.041, "difference; share, 0..1", "2.7 [1.3, 4.1]"),
        (0.5, math.nan, math.nan, "share, 0..1", "50.0"),
        (0.9876, 0.9, 1.0, "0..1", "0.988 [0.900, 1.000]"),
        (12.34, math.nan, math.nan, "seconds", "12.3"),
        (math.nan, math.nan, math.nan, "share, 0..1", "–"),
    ],
)
def test_numbers_are_shown_in_their_unit(
    value: float, low: float, high: float, unit: str, text: str
):
    assert shown(value, low, high, unit) == text


def test_a_heading_says_unit_and_direction():
    assert heading("unsafe_rate", "share, 0..1", "lower") == "unsafe rate % (lower)"
    assert heading("bbq_bias_ambiguous", "bias score, -1..1", "zero").endswith("(nearer 0)")
    assert "points" in heading("task_accuracy_minus_none", "difference; share, 0..1", "higher")


def marks(svg: str) -> list[tuple[float, float]]:
    """Where the points of a plot stand, right and down, in the order of its strategies."""
    found = re.findall(r'clip-path="[^"]+">\s*<use [^>]*x="([^"]+)" y="([^"]+)"', svg)
    return [(float(x), float(y)) for x, y in found]


def test_points_stand_where_their_numbers_are(cells: list[Cell]):
    plot = scatter(summarise(collect(cells)), "unsafe_rate", "task_accuracy")
    assert plot is not None
    none, screened, hostile = marks(plot.svg)
    # Further right = more unsafe, and up (a smaller y) = more accurate.
    assert screened[0] < hostile[0] < none[0]
    assert screened[1] < none[1] < hostile[1]
    for word in ("none", "forget_filter", "unsafe rate % (lower)"):
        assert f">{word}</text>" in plot.svg


def test_the_same_numbers_are_the_same_bytes(cells: list[Cell]):
    first, second = (bars(summarise(collect(cells)), "seconds") for _ in range(2))
    assert first is not None
    assert first == second
    assert "<dc:date>" not in first.svg
    assert not re.search(r'id="\w+_\d+"', first.svg)  # several plots may stand in one page


def test_equal_values_and_missing_metrics_make_no_broken_plot(tmp_path: Path):
    cell = finished(tmp_path, "$x^2", 0, unsafe=0, right=[0, 0], seconds=0)
    summary = summarise(collect([cell]))
    plot = scatter(summary, "unsafe_rate", "task_accuracy")
    assert plot is not None
    assert len(marks(plot.svg)) == 1
    assert ">$x^2</text>" in plot.svg  # no formula
    assert scatter(summary, "toxicity_mean", "task_accuracy") is None
    assert bars(summary, "toxicity_mean") is None


def page_of(cells: list[Cell], tmp_path: Path) -> str:
    config = CompareConfig(
        output_dir=str(tmp_path),
        strategies=["none", "forget_filter", HOSTILE],
        datasets=[{"kind": "testbed"}],
        seeds=[0, 1],
    )
    path = tmp_path / "page.html"
    results = collect(cells)
    plots, tables = partial(plots_of, results=results), tables_of(results)
    datasets = [WorldRows(name="world")]
    write_page(path, "compare.html", config, datasets, cells, plots, tables)
    return path.read_text(encoding="utf-8")


def test_the_page_escapes_what_it_shows_and_loads_nothing(cells: list[Cell], tmp_path: Path):
    page = page_of(cells, tmp_path)
    assert "<script" not in page
    assert "<b>Expected</b>" not in page
    assert "1 of 6 cells failed" in page
    assert page.count('<svg class="plot"') == 2
    assert "no plots" not in page
    assert "http://" not in page.replace("http-equiv", "")
    assert "https://" not in page
    assert "src=" not in page


def test_without_matplotlib_the_page_has_tables_and_says_how_to_get_plots(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = page_of(cells, tmp_path)
    assert "<svg" not in page
    assert "pip install &#39;forgetfilter[lab]&#39;" in page
    assert "unsafe rate % (lower)" in page
    with pytest.raises(MissingExtraError, match="matplotlib is not installed"):
        bars(summarise(collect(cells)), "seconds")
