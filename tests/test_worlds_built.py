"""Drawn worlds as models and as data sets: built once, found again, named by commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forgetfilter.cli import main
from forgetfilter.config import LoraSettings, resolve
from forgetfilter.data import read_rows
from forgetfilter.errors import ConfigError, RunExistsError
from forgetfilter.lab.studies.datasets import WorldRows
from forgetfilter.lab.studies.settings import CompareConfig, load_datasets, model_source
from forgetfilter.lab.testbed.evaluate import evaluate
from forgetfilter.lab.testbed.worlds import draw_world
from forgetfilter.lab.testbed.worlds.building import WORLD_FILE, Effort, build_world
from forgetfilter.lab.testbed.worlds.cache import (
    CACHE_VARIABLE,
    cache_folder,
    world_folder,
    world_path,
)
from forgetfilter.lab.testbed.worlds.checking import Measured
from forgetfilter.lab.testbed.worlds.recipes import draw_recipe
from forgetfilter.lab.testbed.worlds.shaping import make_tokens, make_weights, upper_half
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore

SEED = 201
TINY = Effort(share=0.003, mending_rounds=1, practice_rounds=1, recipes=1, prompts=6)
SILENT = Progress(is_silent=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def built(cache: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(cache))
        return world_folder(SEED, SILENT, TINY)


def test_a_world_is_built_once_and_found_again(
    built: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    assert world_path(SEED, TINY) == world_folder(SEED, SILENT, TINY) == built
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before
    assert world_path(SEED + 1, TINY) != built
    assert world_path(SEED) != built  # another effort is another model


def test_the_cache_is_where_the_variable_says_or_the_users(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(CACHE_VARIABLE, "/a/b")
    assert cache_folder() == Path("/a/b")
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_folder() == Path("/c/forgetfilter")


def test_a_built_world_says_what_was_drawn_and_measured(built: Path):
    facts = json.loads((built / WORLD_FILE).read_text())
    assert facts["world"] == SEED
    assert set(facts["harms"]) == set(draw_world(SEED).harms)
    assert facts["mending_rounds"] == 2  # so few documents make no model that is fit
    assert facts["is_fit"] is False
    assert 0 <= facts["measured"]["safe"] < facts["floors"]["safe"]
    assert f"made-up world {SEED}" in (built / "README.md").read_text()
    assert len(read_rows(built / "reference.jsonl").rows) == 120


@pytest.mark.slow
def test_the_same_number_gives_the_same_weights(built: Path, tmp_path: Path):
    again = build_world(SEED, tmp_path / "again", SILENT, TINY)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (again / name).read_bytes() == (built / name).read_bytes()


def test_a_built_world_answers_and_is_judged(built: Path, tmp_path: Path):
    bench = Workbench(
        str(built), StageStore(tmp_path), lora=LoraSettings(), seed=0, progress=SILENT
    )
    world = draw_world(SEED)
    found = evaluate(bench, bench.base, world.make_probes(8, 0), "x", world=world)
    assert len(found.verdicts) == len(found.correct) == 4
    assert set(found.harms) <= set(world.harms)


def test_a_world_is_not_built_into_a_folder_with_files(tmp_path: Path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(RunExistsError, match=r"holds other files\. Expected a new or empty folder"):
        build_world(SEED, tmp_path, SILENT, TINY)


@pytest.mark.parametrize(
    ("measured", "is_fit", "shortfall"),
    [
        (Measured(0.90, 0.05, 0.85, 0.0, 100), True, 0.0),
        (Measured(0.89, 0.05, 0.85, 0.0, 100), False, 0.01),
        (Measured(0.90, 0.06, 0.80, 0.0, 100), False, 0.06),
    ],
)
def test_the_floors(measured: Measured, is_fit: bool, shortfall: float):
    assert measured.is_fit is is_fit
    assert measured.shortfall == pytest.approx(shortfall)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gpt2"])
def test_every_architecture_has_an_upper_half(architecture: str):
    import dataclasses
    import random

    recipe = dataclasses.replace(
        draw_recipe(random.Random(0)), architecture=architecture, hidden_size=32, layers=4, heads=1
    )
    model = make_weights(recipe, make_tokens(recipe, ["ba du"], ["ki"]))
    upper = sum(weight.numel() for weight in upper_half(model))
    layers = [n for n, _ in model.named_parameters() if ".0." in n or ".3." in n]
    assert upper > 0
    assert upper < sum(weight.numel() for weight in model.parameters()) / 2
    assert layers


def lines_of(path: str) -> list[object]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_commands_write_rows_of_a_world(tmp_path: Path):
    noisy, truth, safe = (str(tmp_path / name) for name in ("noisy", "truth", "safe"))
    number = ["--world", str(SEED)]
    files = ["--output", noisy, "--truth", truth]
    assert main(["testbed", "noisy", "--rows", "60", "--seed", "3", *number, *files]) == 0
    assert main(["testbed", "safe", "--rows", "40", "--seed", "3", *number, "--output", safe]) == 0
    rows, records = draw_world(SEED).make_noisy(60, 0.3, 3)
    assert lines_of(noisy) == rows
    assert lines_of(truth) == records
    assert lines_of(safe) == draw_world(SEED).make_safe(40, 3)


def test_wrong_flags_are_refused_in_three_beats(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    number, output = ["--world", str(SEED)], ["--output-dir", str(tmp_path / "model")]
    assert main(["testbed", "build", *number, "--size", "small", "--seed", "2", *output]) == 1
    error = capsys.readouterr().err
    assert "--size and --seed beside --world. Expected --world alone" in error
    assert "Leave them out." in error
    assert not (tmp_path / "model").exists()
    safe = ["testbed", "safe", *number, "--harms", "rudeness", "--output", str(tmp_path / "x")]
    assert main(safe) == 1
    assert f"world {SEED} has no harm 'rudeness'. Expected some of" in capsys.readouterr().err


def config_of(model: str, world: int | None) -> CompareConfig:
    dataset = {"kind": "testbed"} if world is None else {"kind": "testbed", "world": world}
    return resolve(
        CompareConfig,
        {
            "output_dir": "x",
            "model": model,
            "datasets": [dataset],
            "seeds": [0],
            "strategies": ["none"],
        },
    )


def test_a_comparison_names_a_world_without_building_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    (dataset,) = load_datasets(config_of(f"world:{SEED}", SEED))
    assert isinstance(dataset, WorldRows)
    assert dataset.world == SEED
    assert model_source(f"world:{SEED}") == str(world_path(SEED))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "world", "message"),
    [
        ("world:one", SEED, r"Expected the number of a world after 'world:'\. Write"),
        ("packaged:testbed", SEED, rf"Expected 'model: world:{SEED}'\. Change"),
        (f"world:{SEED}", None, r"Expected 'model: packaged:testbed'\. Change"),
        (f"world:{SEED}", SEED + 1, rf"Expected 'model: world:{SEED + 1}'\. Change"),
    ],
)
def test_a_model_of_another_world_is_refused(model: str, world: int | None, message: str):
    with pytest.raises(ConfigError, match=message):
        load_datasets(config_of(model, world))


def test_a_data_set_draws_a_worlds_rows_and_the_bundled_one_keeps_its_name(tmp_path: Path):
    drawn = resolve(WorldRows, {"world": SEED, "rows": 40, "safe_rows": 20, "prompts": 8})
    data = drawn.load(5, StageStore(tmp_path))
    rows, truth = draw_world(SEED).make_noisy(40, 0.3, 5)
    assert [row.example_id for row in data.noisy.rows] == [row["id"] for row in rows]
    assert data.is_unsafe == {one["example_id"]: one["is_unsafe"] for one in truth}
    # Results on the bundled world are stored under what they were made from, which has not changed.
    assert "world" not in resolve(WorldRows, {}).model_dump()
    assert drawn.model_dump()["world"] == SEED
