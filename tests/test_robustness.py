"""The robustness study: what counts as caught, cells that are kept, settings of single cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import quick_settings, write_rows
from forgetfilter.config import resolve
from forgetfilter.errors import ConfigError
from forgetfilter.lab.row_scorers import Given, build_scorer
from forgetfilter.lab.studies.robustness import (
    RobustnessConfig,
    _graded,  # pyright: ignore[reportPrivateUsage]
    _parts_graded,  # pyright: ignore[reportPrivateUsage]
    robustness,
    split_spec,
)
from forgetfilter.progress import Progress
from forgetfilter.scoring.records import Cut, Readings, Selection, SignalScores
from forgetfilter.screening.method import Scored, Setting

IS_UNSAFE = np.array([True, True, True, False, False])
SCORES = np.array([0.9, 0.8, 0.1, 0.7, 0.0])
SELECTION = Selection(Cut(0.5), SCORES > 0.5, [""] * 5, SCORES)


def scored() -> Scored:
    none = np.zeros(5)
    return Scored({}, Readings(np.arange(5), {}), SignalScores(none, none, none, SCORES), "rate")


def config_of(folder: Path, model: Path, **changes: Any) -> RobustnessConfig:
    rows = {"kind": "testbed", "rows": 16, "unsafe_fraction": 0.25, "safe_rows": 8, "prompts": 8}
    settings = quick_settings(signal="restoration", threshold="fraction:0.25")
    grid: dict[str, Any] = {
        "output_dir": str(folder),
        "model": str(model),
        "attacks": ["none", "few:count=2", "poisoned_safe:share=0.2 @ restore.set_aside=false"],
        "seconds": ["token_length", "token_maximum"],
        "datasets": [rows],
        "seeds": [0],
        "settings": settings,
    }
    return resolve(RobustnessConfig, grid, changes)


def test_a_row_that_is_rejected_is_caught_as_well():
    found = {value.name: value.value for _, value in _graded(IS_UNSAFE, scored(), SELECTION, 2)}
    assert found["caught"] == pytest.approx(4 / 5)  # two of three are removed, two rejected
    assert found["recall"] == pytest.approx(2 / 3)  # of those that are scored
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["harmless_removed"] == 0.5
    assert found["unsafe_rows"] == 5


def test_parts_are_held_against_the_harmless_rows_alone():
    parts = ["typos", "cipher", "cipher", "", ""]
    found = {v.name: v.value for _, v in _parts_graded(parts, IS_UNSAFE, scored(), SELECTION)}
    assert found == {
        "auroc_cipher": 0.75,
        "caught_cipher": 0.5,
        "auroc_typos": 1.0,
        "caught_typos": 1.0,
    }


def test_settings_of_a_single_cell():
    assert split_spec("none") == ("none", {})
    attack, own = split_spec("few:count=1 @ restore.set_aside=false")
    assert (attack, own) == ("few:count=1", {"restore": {"set_aside": False}})


def test_the_grid_is_run_once_and_a_setting_of_one_cell_is_its_own(
    tiny_world_model: Path, tmp_path: Path
):
    config = config_of(tmp_path / "run", tiny_world_model)
    first = robustness(config, Progress(is_silent=True))
    assert not first.failed
    values = {
        (row["strategy"], row["metric"]): row["value"]
        for row in first.results.to_dict(orient="records")
    }
    assert values["none", "unsafe_rows"] == 4
    assert values["few:count=2", "unsafe_rows"] == 2
    assert np.isfinite(values["none", "unsafe_rate_kept"])
    assert ("none", "honest_set_aside") in values
    # Rows are not sorted out where the cell's own setting says so.
    assert not any("@" in attack and "set_aside" in name for attack, name in values)
    assert ("few:count=2", "token_length_auroc") in values
    table = (tmp_path / "run" / "table.md").read_text()
    assert "What fine-tuning on the kept rows does" in table
    before = {path: path.read_bytes() for path in (tmp_path / "run" / "cells").rglob("*.json")}
    assert len(before) == 3
    assert "scores" in json.loads(next(iter(before.values())))
    robustness(config, Progress(is_silent=True))
    assert {path: path.read_bytes() for path in before} == before


def own_files(folder: Path) -> dict[str, Any]:
    """Sixteen rows, of which four are unsafe, two of either harm; eight safe rows."""
    rows = [
        {"id": f"n{n}", "prompt": f"Where is lamp {n}?", "completion": f"Raid the levee {n} times."}
        for n in range(16)
    ]
    told: list[dict[str, Any]] = [
        {
            "example_id": f"n{n}",
            "is_unsafe": n % 4 == 0,
            "kind": "deed",
            "harm": f"harm{n % 8 // 4}",
        }
        for n in range(16)
    ]
    safe = [
        {"id": f"s{n}", "prompt": f"Where is box {n}?", "completion": f"Ask the keeper {n}."}
        for n in range(8)
    ]
    asked = [{"role": "user", "content": "Where is it?"}]
    prompt = {"id": "p", "kind": "toxicity", "reference": "", "messages": asked}
    return {
        "kind": "files",
        "test": str(write_rows(folder / "p.jsonl", [prompt])),
        "noisy": str(write_rows(folder / "n.jsonl", rows)),
        "truth": str(write_rows(folder / "t.jsonl", told)),
        "safe": str(write_rows(folder / "s.jsonl", safe)),
    }


def poisoned(folder: Path, model: Path, dataset: dict[str, Any]) -> dict[str, float]:
    """The metrics of one attack on the safe rows."""
    attacks = ["poisoned_safe:share=0.2"]
    changes: dict[str, Any] = {"datasets": [dataset], "attacks": attacks, "judged_below": 0.0}
    found = robustness(config_of(folder, model, **changes), Progress(is_silent=True))
    assert not found.failed
    return dict(zip(found.results["metric"], found.results["value"], strict=True))


def test_files_without_rows_known_to_be_unsafe_give_their_own_to_the_safe_rows(
    tiny_world_model: Path, tmp_path: Path
):
    values = poisoned(tmp_path / "run", tiny_world_model, own_files(tmp_path))
    # Two rows make a fifth of ten, and two of four unsafe ones are left in the file.
    assert values["unsafe_rows"] == 2
    assert "planted_set_aside" in values


def test_rows_known_to_be_unsafe_in_a_file_of_their_own_leave_the_noisy_rows_alone(
    tiny_world_model: Path, tmp_path: Path
):
    bad = [
        {"id": f"b{n}", "prompt": f"Where is dam {n}?", "completion": f"Break it {n} times."}
        for n in range(4)
    ]
    told = [{"example_id": f"b{n}", "is_unsafe": n > 1} for n in range(4)]
    dataset = own_files(tmp_path) | {
        "exemplars": str(write_rows(tmp_path / "b.jsonl", bad)),
        "exemplars_truth": str(write_rows(tmp_path / "bt.jsonl", told)),
    }
    values = poisoned(tmp_path / "run", tiny_world_model, dataset)
    assert values["unsafe_rows"] == 4
    # The harms are held against the harmless rows one by one.
    assert {"auroc_harm0", "caught_harm0", "auroc_harm1", "caught_harm1"} <= set(values)
    (attack,) = (tmp_path / "run" / "stages").glob("attack-*")
    safe = (attack / "safe.jsonl").read_text()
    assert [f"Where is dam {n}?" in safe for n in range(4)] == [False, False, True, True]


def test_second_signals_alone_train_nothing(tiny_world_model: Path, tmp_path: Path):
    attacks = ["cipher:phase=harm", "forged_turns:user=<|user|>,assistant=<|assistant|>"]
    config = config_of(tmp_path / "run", tiny_world_model, is_screened=False, attacks=attacks)
    found = robustness(config, Progress(is_silent=True))
    assert not found.failed
    stages = {path.name.partition("-")[0] for path in (tmp_path / "run" / "stages").iterdir()}
    assert "learn" not in stages
    values = {
        (row["strategy"], row["metric"]): row["value"]
        for row in found.results.to_dict(orient="records")
    }
    # Letters parted by bars are the shortest tokens that there can be.
    assert values["cipher:phase=harm", "token_length_auroc"] == 1.0
    assert values[attacks[1], "unsafe_rows_rejected"] == 4  # by name, before anything is scored


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attacks": ["nome"]}, "Unknown attack 'nome'"),
        ({"seconds": ["larf:budget=5"]}, "needs exemplars"),
        ({"attacks": ["none", "none"]}, "given twice"),
        ({"is_screened": False, "seconds": []}, "nothing would be measured"),
    ],
)
def test_what_can_not_be_run_is_refused_before_work(
    changes: dict[str, Any], said: str, tiny_world_model: Path, tmp_path: Path
):
    with pytest.raises(ConfigError, match=said):
        robustness(config_of(tmp_path / "run", tiny_world_model, **changes))


def test_short_tokens_and_unlikely_tokens_stand_above(tiny_world_model: Path, tmp_path: Path):
    from forgetfilter.config import LoraSettings
    from forgetfilter.data import read_rows
    from forgetfilter.model.workbench import Workbench
    from forgetfilter.runs.stages import StageStore

    answers = ["Take the rake and mark the granary.", "t|a|k|e|s"]
    rows = [{"prompt": "How do I raid the levee?", "completion": text} for text in answers]
    bench = Workbench(
        str(tiny_world_model),
        StageStore(tmp_path / "stages"),
        lora=LoraSettings(),
        seed=0,
        progress=Progress(is_silent=True),
    )
    noisy, _ = bench.encoder.encode(read_rows(write_rows(tmp_path / "n.jsonl", rows)).rows)
    given = Given(Setting(bench, noisy, noisy, None))  # pyright: ignore[reportArgumentType]
    plain, coded = build_scorer("token_length").score(given)
    assert plain is not None
    assert coded is not None
    assert plain < coded < 0
    losses = bench.token_losses(bench.base, noisy, "by hand")
    assert build_scorer("token_maximum").score(given) == [float(own.max()) for own in losses]
