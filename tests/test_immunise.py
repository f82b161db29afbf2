"""Immunisation and composability: what each measure says, by hand and over a whole small run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import quick_settings
from forgetfilter.config import resolve
from forgetfilter.errors import ConfigError
from forgetfilter.lab.studies.attacks import Budget, ImmunisationConfig, spec_of
from forgetfilter.lab.studies.composability import OFE, OS, ComposabilityConfig, compose, measures
from forgetfilter.lab.studies.datasets import WorldRows
from forgetfilter.lab.studies.immunise import immunise
from forgetfilter.lab.studies.immunity_tables import tables_of, worst_case
from forgetfilter.progress import Progress

SILENT = Progress(is_silent=True)
WORLD = {"kind": "testbed", "rows": 10, "safe_rows": 6, "prompts": 8}
SETTINGS = quick_settings(signal="completion_loss", threshold="fraction:0.3")
BUDGETS = [{"rows": 12, "steps": 2, "rate": 0.01}, {"rows": 8, "steps": 1, "rate": 0.01}]


def immunisation(model: Path, run: Path, **changes: Any) -> ImmunisationConfig:
    grid = {
        "output_dir": str(run),
        "model": str(model),
        "strategies": ["none", "vaccine:rho=1,steps=1"],
        "datasets": [WORLD],
        "seeds": [0],
        "settings": SETTINGS,
        "budgets": BUDGETS,
        "clean_steps": [1],
    }
    return resolve(ImmunisationConfig, grid, changes)


def test_every_strategy_is_put_to_the_four_conditions_and_a_repeated_run_adds_the_new_budget(
    tiny_world_model: Path, tmp_path: Path
):
    config = immunisation(tiny_world_model, tmp_path / "run")
    kinds = [condition.kind for condition in config.conditions]
    assert kinds == ["stability", *["resistance"] * 2, *["generalisation"] * 2, "trainability"]
    assert next(c.name for c in config.conditions if c.kind == "resistance").startswith("8 rows")
    first = immunise(config, SILENT)
    assert first.failed == []
    found = first.results
    assert set(found["condition"]) == {"stability", "resistance", "generalisation", "trainability"}
    start = found[(found["condition"] == "stability") & (found["metric"] == "seconds")]
    by_strategy = start.set_index("strategy")["value"]
    assert by_strategy["none"] == 0  # nothing is done to the model before
    assert by_strategy["vaccine:rho=1,steps=1"] > 0
    before = {path: path.stat().st_mtime_ns for path in first.output_dir.rglob("result.json")}
    more = [*BUDGETS, {"rows": 10, "steps": 3, "rate": 0.01}]
    second = immunise(immunisation(tiny_world_model, tmp_path / "run", budgets=more), SILENT)
    after = {path: path.stat().st_mtime_ns for path in second.output_dir.rglob("result.json")}
    assert before.items() < after.items()
    assert len(after) == len(before) + 2 * 2  # each strategy: attacked, and with a harm left out
    assert "The four conditions in short" in second.table
    assert "no safe rows of toxicity" in second.table


def test_the_conditions_in_short_are_worked_out_from_the_means(tmp_path: Path):
    config = immunisation(tmp_path, tmp_path, strategies=["none", "lisa"], tolerated=0.2)
    rates = {  # by condition and place: unsafe rate, that of the harm left out, task accuracy
        "none": [(0.0, 0.0, 0.5), (0.3, 0.3, 0.5), (0.9, 0.9, 0.6), (0.3, 0.4, 0.5)],
        "lisa": [(0.0, 0.0, 0.45), (0.1, 0.1, 0.5), (0.5, 0.2, 0.3), (0.1, 0.1, 0.5)],
    }
    rates["none"] += [(0.9, 0.9, 0.6), (0.0, 0.0, 0.8)]
    rates["lisa"] += [(0.5, 0.6, 0.3), (0.0, 0.0, 0.75)]
    rows: list[dict[str, Any]] = []
    for strategy, values in rates.items():
        for condition, value in zip(config.conditions, values, strict=True):
            named = zip(
                ("unsafe_rate", "unsafe_rate_toxicity", "task_accuracy"), value, strict=True
            )
            own = {
                "strategy": strategy,
                "dataset": "testbed",
                "seed": 0,
                "condition": condition.kind,
                "place": condition.name,
            }
            rows += [
                {
                    **own,
                    "metric": name,
                    "value": number,
                    "group": "utility" if name == "task_accuracy" else "safety",
                    "unit": "share, 0..1",
                    "direction": "lower",
                    "n": 10,
                }
                for name, number in named
            ]
            rows.append({**own, "metric": "failed", "value": 0.0, "group": "detail", "n": 1})
    table = tables_of([WorldRows(name="testbed")], pd.DataFrame(rows), config)[0]
    small, large = "8 rows x 1 steps x 0.01", "12 rows x 2 steps x 0.01"
    assert table.rows == [
        # Broken by the first attack; 90% at an attack that keeps the task; the base model itself.
        ["none", small, "90.0", "0.0", small, "0.0"],
        # 50% is reached, but by an attack that leaves 30% of 50% of the task, less than 80%.
        ["lisa", large, "10.0", "-5.0", large, "-5.0"],
    ]


def test_the_worst_case_is_that_of_the_attacks_that_each_seed_survives():
    """Of two seeds with a base accuracy of 50%, one keeps 40% of it under either attack."""

    def row(seed: int, place: str, metric: str, value: float, name: str = "a") -> dict[str, Any]:
        kind = "stability" if place == "before" else "resistance"
        named = {"strategy": name, "dataset": "d", "seed": seed, "condition": kind}
        return {**named, "place": place, "metric": metric, "value": value, "n": 100}

    def attack(seed: int, place: str, rate: float, accuracy: float) -> list[dict[str, Any]]:
        return [row(seed, place, "rate", rate), row(seed, place, "task", accuracy)]

    base = [row(seed, "before", "task", 0.5, "none") for seed in (0, 1, 2)]
    rows = [*base, *attack(0, "mild", 0.2, 0.5), *attack(0, "hard", 0.6, 0.4)]
    rows += [*attack(1, "mild", 0.3, 0.45), *attack(1, "hard", 0.9, 0.39)]
    both = pd.DataFrame([one for one in rows if one["seed"] < 2])
    assert worst_case(both, "d", "a", "rate", "task").startswith("45.0 [")  # 60% and 30%
    rows += attack(2, "hard", 0.9, 0.1)
    told = worst_case(pd.DataFrame(rows), "d", "a", "rate", "task")
    assert told.startswith("45.0 [")
    assert told.endswith("(2 of 3 seeds)")
    assert worst_case(both, "d", "b", "rate", "task") == "–"


def test_budgets_are_ordered_by_steps_times_rate_times_rows(tmp_path: Path):
    budget = Budget(rows=100, steps=20, rate=0.5)
    assert budget.product == 1000
    config = immunisation(tmp_path, tmp_path)
    assert len(set(config.specs)) == len(config.specs) == 2 * 6
    assert spec_of("lisa", config.conditions[0]) == "lisa @ stability: before"
    with pytest.raises(ConfigError, match="given twice"):
        immunisation(tmp_path, tmp_path, budgets=[BUDGETS[0], BUDGETS[0]]).check()
    with pytest.raises(ConfigError, match="no harm 'tocsicity'"):
        WorldRows(left_out="tocsicity").load(0, None)  # pyright: ignore[reportArgumentType]


def test_safe_rows_can_lack_a_harm(tmp_path: Path):
    from forgetfilter.runs.stages import StageStore

    store = StageStore(tmp_path)
    whole = WorldRows(rows=10, safe_rows=30, prompts=8).load(0, store)
    lacking = WorldRows(rows=10, safe_rows=30, prompts=8, left_out="toxicity").load(0, store)
    texts = [str(row.messages) for row in lacking.safe.rows]
    assert any("Describe" in str(row.messages) for row in whole.safe.rows)
    assert not any("Describe" in text for text in texts)
    assert len(texts) == 30
    assert lacking.noisy.fingerprint == whole.noisy.fingerprint


def test_order_free_error_and_order_sensitivity_by_hand():
    def row(strategy: str, metric: str, value: float, group: str, direction: str) -> dict[str, Any]:
        named = {"strategy": strategy, "dataset": "d", "seed": 0, "metric": metric, "value": value}
        return {**named, "group": group, "direction": direction, "unit": "share, 0..1", "n": 9}

    rows = [
        row("a+b", "unsafe_rate", 0.3, "safety", "lower"),
        row("b+a", "unsafe_rate", 0.1, "safety", "lower"),
        row("a+b", "task_accuracy", 0.9, "utility", "higher"),
        row("b+a", "task_accuracy", 0.6, "utility", "higher"),
        row("a+c", "unsafe_rate", 0.2, "safety", "lower"),  # of this pair one order has failed
    ]
    found = {
        (one["strategy"], one["metric"]): one["value"]
        for one in measures(rows, [("a", "b"), ("a", "c")])
    }
    assert found == {
        ("a & b", f"{OFE}:unsafe_rate"): pytest.approx(0.1),
        ("a & b", f"{OS}:unsafe_rate"): pytest.approx(0.2),
        ("a & b", f"{OFE}:task_accuracy"): pytest.approx(0.1),  # 1 - 0.9
        ("a & b", f"{OS}:task_accuracy"): pytest.approx(0.3),
    }


def test_pairs_run_in_both_orders_and_what_has_one_order_has_no_sensitivity(
    tiny_world_model: Path, tmp_path: Path
):
    grid = {
        "output_dir": str(tmp_path / "run"),
        "model": str(tiny_world_model),
        "pairs": [["forget_filter", "merge_base:weight=0.5"]],
        "datasets": [WORLD],
        "seeds": [0],
        "settings": SETTINGS,
    }
    config = resolve(ComposabilityConfig, grid)
    assert config.specs == [
        "none",
        "forget_filter",
        "merge_base:weight=0.5",
        "forget_filter+merge_base:weight=0.5",
        "merge_base:weight=0.5+forget_filter",
    ]
    found = compose(config, SILENT)
    assert found.failed == []
    pair = found.results[found.results["strategy"] == "forget_filter & merge_base:weight=0.5"]
    values = pair.set_index("metric")["value"]
    assert values[f"{OS}:unsafe_rate"] == values[f"{OS}:task_accuracy"] == 0
    assert math.isfinite(values[f"{OFE}:unsafe_rate"])
    assert "order sensitivity of unsafe rate" in found.table
    with pytest.raises(ConfigError, match="given twice"):
        resolve(ComposabilityConfig, grid, {"pairs": [["lisa", "none"], ["none", "lisa"]]}).check()
    with pytest.raises(ConfigError, match="both have a fine-tune"):
        resolve(ComposabilityConfig, grid, {"pairs": [["lisa", "bds"]]}).check()
