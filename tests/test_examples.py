"""Every example file: it is parsed whole, and run on a tiny model with a handful of rows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from conftest import rows_of, write_rows
from forgetfilter.cli import main
from forgetfilter.config import ScreenConfig, load_yaml, resolve
from forgetfilter.lab.strategies import check_spec
from forgetfilter.lab.studies.attacks import ImmunisationConfig
from forgetfilter.lab.studies.composability import ComposabilityConfig
from forgetfilter.lab.studies.points import CurvesConfig
from forgetfilter.lab.studies.robustness import RobustnessConfig
from forgetfilter.lab.studies.settings import (
    CompareConfig,
    GridConfig,
    InterleaveConfig,
    LeaderboardConfig,
    check_rounds,
    load_datasets,
)
from test_compare_data import TEST_LINES

ROOT = Path(__file__).parent.parent
# Files to launch with are no settings of ours; test_launch_files.py reads them.
EXAMPLES = sorted(p for p in (ROOT / "examples").rglob("*.yaml") if p.parent.name != "launch")
HARMS = ("bias", "harmfulness")
FEW = 2
"""Values of each list that are run."""
MANY = frozenset({"paper/compare_mixed.yaml"})
"""Files of which every strategy is run."""

SLOW = frozenset(
    {
        *("composability.yaml", "defences_compare.yaml", "defences_validation.yaml"),
        "described_harm.yaml",
        "immunisation.yaml",
        *("real_compare.yaml", "realtext_compare.yaml", "testbed_compare.yaml"),
        *("robustness.yaml", "robustness_counts.yaml", "robustness_several.yaml"),
        *("testbed_curves.yaml", "testbed_validation.yaml", "tiny_curves.yaml"),
        # One of a few files that differ in their rows alone is run each time.
        *("compare_bias.yaml", "compare_harmfulness.yaml", "compare_toxicity.yaml"),
        *("leaderboard_real.yaml", "testbed_interleave.yaml", "world_contamination.yaml"),
    }
)
"""Files whose small run takes ten seconds or so; others of their kind run each time."""

examples = pytest.mark.parametrize(
    "path", EXAMPLES, ids=[str(path.relative_to(ROOT / "examples")) for path in EXAMPLES]
)


def command_of(settings: Mapping[str, Any]) -> str:
    if "rounds" in settings:
        return "interleave"
    if "budgets" in settings:
        return "immunise"
    if "pairs" in settings:
        return "compose"
    if "scorers" in settings:
        return "leaderboard"
    if "attacks" in settings:
        return "robustness"
    if "course" in settings or "sweeps" in settings:
        return "curves"
    return "compare" if "strategies" in settings else "screen"


@examples
def test_an_example_is_a_valid_configuration(path: Path):
    settings = load_yaml(path)
    if command_of(settings) == "screen":
        assert resolve(ScreenConfig, settings).noisy_data
        return
    kinds: dict[str, type[GridConfig]] = {
        "interleave": InterleaveConfig,
        "curves": CurvesConfig,
        "leaderboard": LeaderboardConfig,
        "compare": CompareConfig,
        "immunise": ImmunisationConfig,
        "compose": ComposabilityConfig,
        "robustness": RobustnessConfig,
    }
    config = resolve(kinds[command_of(settings)], settings)
    assert load_datasets(config)
    if isinstance(config, InterleaveConfig):
        check_rounds(config)


@examples
def test_an_example_names_its_own_command(path: Path):
    command = f"forgetfilter {command_of(load_yaml(path))}"
    stated = path.read_text(encoding="utf-8")
    assert command in stated
    assert str(path.relative_to(ROOT)) in stated


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files such as `forgetfilter mix` writes, of a few rows."""
    folder = tmp_path_factory.mktemp("mix")
    write_rows(
        folder / "noisy.jsonl", [{**row, "id": f"r{at}"} for at, row in enumerate(rows_of(12))]
    )
    safe = [{**row, "category": HARMS[at % 2]} for at, row in enumerate(rows_of(8, start=100))]
    write_rows(folder / "safe.jsonl", safe)
    reference = [{**row, "category": "bias"} for row in rows_of(6, start=200)]
    write_rows(folder / "reference.jsonl", reference)
    write_rows(folder / "test.jsonl", TEST_LINES)
    truth = [
        {
            "example_id": f"r{at}",
            "is_unsafe": at % 3 == 1,
            "kind": "squad",
            "harm": HARMS[at % 2] if at % 3 == 1 else None,
        }
        for at in range(12)
    ]
    write_rows(folder / "truth.jsonl", truth)
    names = ("noisy", "safe", "reference", "test", "truth")
    return {name: str(folder / f"{name}.jsonl") for name in names}


def small(settings: dict[str, Any], name: str, model: str, files: dict[str, str]) -> list[str]:
    """Assignments that make an example small: its model, rows, steps, seeds and lists."""
    phase = {"max_steps": 1, "batch_size": 4}
    steps: dict[str, Any] = {
        **{f"{one}.{key}": value for one in ("learn", "forget") for key, value in phase.items()},
        "restore.steps": 1,
        "restore.early_steps": 1,
        "generation.max_new_tokens": 2,
        "device": "cpu",
    }
    given: dict[str, Any] = {"model": model}
    if command_of(settings) == "screen":
        given |= {f"{one}_data": files[one] for one in ("noisy", "safe", "reference")} | steps
        given["force"] = True  # the tiny model knows no language
    else:
        given |= {f"settings.{key}": value for key, value in steps.items()}
        given["seeds"] = settings["seeds"][:1]
        given["datasets"] = [smaller(one, files) for one in settings["datasets"]]
        strategies = settings.get("strategies", [])
        if strategies:  # answers of other worlds don't fit into the tiny model's context
            worlds = [one for one in given["datasets"] if "world" in one]
            for one in worlds:
                one["world"] = None
        if strategies and name not in MANY:
            # A step that an option asks for can't be taken away.
            given["strategies"] = [one for one in strategies if "steps=" not in one][: FEW + 1]
        if "scorers" in settings:
            given["scorers"] = settings["scorers"][:FEW]
        if "attacks" in settings:
            # There are two unsafe rows.
            fewer = [re.sub(r"count=\d+", "count=1", one) for one in settings["attacks"]]
            given["attacks"] = list(dict.fromkeys(fewer))[:FEW]
            given["seconds"] = settings.get("seconds", [])[:FEW]
        if "rounds" in settings:
            given["rounds"] = 1
        if "budgets" in settings:
            given["budgets"] = [{**one, "rows": 10, "steps": 1} for one in settings["budgets"][:1]]
            given["clean_steps"] = [1]
            given["strategies"] = strategies[:1]
        if "pairs" in settings:
            given["pairs"] = settings["pairs"][-1:]
    if settings.get("course"):
        given |= {"course.learning_steps": [1], "course.forgetting_steps": [1]}
    sweeps = settings.get("sweeps", {})
    for key, values in sweeps.items():
        if key == "signal_settings":
            continue
        if key == "signals":
            # One, and those that have settings of their own.
            given["sweeps.signals"] = [
                *dict.fromkeys([values[0], *sweeps.get("signal_settings", ())])
            ]
        elif key == "model":
            given |= {f"sweeps.model.{size}": model for size in values}
        elif key == "forget_steps":
            given[f"sweeps.{key}"] = [1]
        else:
            given[f"sweeps.{key}"] = values[:FEW] if key != "safe_rows" else [3]
    return [part for key, value in given.items() for part in ("--set", f"{key}={flow(value)}")]


def smaller(dataset: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
    if dataset["kind"] == "testbed":
        return {**dataset, "rows": 10, "safe_rows": 4, "prompts": 8}
    if dataset["kind"] == "labelled":
        own = {name: files[name] for name in ("noisy", "safe", "truth")}
        return {**dataset, **own, "exemplars": files["reference"], "unsafe_count": 2}
    own = {name: files[name] for name in ("noisy", "safe", "test", "truth")}
    bad = {"exemplars": files["reference"], "exemplars_truth": None}
    return {**dataset, **own, **(bad if "exemplars" in dataset else {}), "max_new_tokens": 2}


def flow(value: Any) -> str:
    """A value as one line of YAML, of which JSON is a part."""
    text = json.dumps(value)
    assert yaml.safe_load(text) == value
    return text


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] if path.name in SLOW else [])
        for path in EXAMPLES
    ],
    ids=[str(path.relative_to(ROOT / "examples")) for path in EXAMPLES],
)
def test_an_example_runs(
    path: Path, tiny_model: Any, tiny_world_model: Path, files: dict[str, str], tmp_path: Path
):
    settings = load_yaml(path)
    name = str(path.relative_to(ROOT / "examples"))
    is_world = any(one["kind"] == "testbed" for one in settings.get("datasets", []))
    model = tiny_world_model if is_world else tiny_model("llama")
    command, run = command_of(settings), tmp_path / "run"
    given = [str(path)] if command != "screen" else ["--config", str(path)]
    given += ["--output-dir", str(run), "--quiet", *small(settings, name, str(model), files)]
    assert main([command, *given]) == 0
    if command == "screen":
        scores = pd.read_parquet(run / "scores.parquet")
        assert len(scores) == len(rows_of(12))
        assert scores["forgetting_score"].notna().all()
        return
    results = pd.read_parquet(run / "results.parquet")
    assert not results[results["metric"] == "failed"]["value"].any()
    assert len(results) > 10
    if name in MANY:
        assert set(results["strategy"]) == set(settings["strategies"])
        for spec in settings["strategies"]:
            check_spec(spec)
