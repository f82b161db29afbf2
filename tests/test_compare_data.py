"""The data sets of a comparison: what they read, refuse and make of answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import rows_of, write_rows
from forgetfilter.config import load_yaml, resolve
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.lab.mix import MixSettings, data_folder, make_mix, write_mix
from forgetfilter.lab.scorers import TOXICITY_SCORERS
from forgetfilter.lab.strategies import build_strategy
from forgetfilter.lab.studies.datasets import FileRows, WorldRows
from forgetfilter.lab.studies.datasets.judging import TestPrompt, judge
from forgetfilter.lab.studies.settings import CompareConfig, load_datasets, screen_config
from forgetfilter.runs.stages import StageStore

ROOT = Path(__file__).parent.parent
GRID: dict[str, Any] = {
    "output_dir": "run",
    "strategies": ["none"],
    "datasets": [{"kind": "testbed"}],
    "seeds": [0],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": []}, "strategies"),
        ({"strategy": ["none"]}, "Unknown setting 'strategy'; did you mean 'strategies'"),
        ({"strategies": ["none", "none"]}, "'none' is given twice"),
        ({"strategies": ["forget_filtr"]}, "Did you mean 'forget_filter'"),
        ({"seeds": [1, 1]}, "1 is given twice"),
        ({"seeds": [-1]}, "expected numbers from 0"),
        ({"datasets": [{}]}, "kind is None"),
        ({"datasets": [{"kind": "testbd"}]}, "Did you mean 'testbed'"),
        ({"datasets": [{"kind": "testbed", "row": 3}]}, r"datasets\[0\]: Unknown setting 'row'"),
        ({"datasets": [{"kind": "testbed", "rows": 0}]}, "Setting 'rows' is 0"),
        ({"datasets": [{"kind": "testbed", "name": "../x"}]}, "Setting 'name'"),
        ({"datasets": [{"kind": "testbed", "name": ".."}]}, "Setting 'name'"),
        ({"strategies": ["random_removal:like=lissa"]}, "Unknown strategy 'lissa'"),
        ({"datasets": [{"kind": "testbed"}, {"kind": "testbed"}]}, "'testbed' is given twice"),
        ({"datasets": [{"kind": "files", "noisy": "n"}]}, "Setting 'safe' is missing"),
        ({"settings": {"seed": 3}}, "settings names seed"),
        ({"settings": {"learn": {"epochs": 3}}}, "Unknown setting 'learn.epochs'"),
        ({"settings": {"signal": "rouge2"}}, "Did you mean 'rouge1'"),
        ({"settings": {"threshold": "pih"}}, "Did you mean 'phi'"),
        (
            {"strategies": ["forget_filter:signal=rouge1"], "settings": {"threshold": "auto"}},
            "in another unit .* Use phi:0.1",
        ),
        (
            {
                "strategies": [
                    "none+safety_ft",
                    "forget_filter:signal=rouge1,threshold=auto+safety_ft",
                ]
            },
            "in another unit .* Use phi:0.1",
        ),
        (
            {"strategies": ['random_removal:like="forget_filter:signal=rate"']},
            "'rate' has no threshold rule of its own",
        ),
    ],
)
def test_a_wrong_grid_is_explained(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        load_datasets(resolve(CompareConfig, {**GRID, **changes}))


def test_a_strategys_signal_brings_its_own_rule():
    strategies = ["forget_filter:signal=rouge1", "forget_filter:signal=rate,threshold=phi:1"]
    assert load_datasets(resolve(CompareConfig, {**GRID, "strategies": strategies}))
    (rouge1, _) = map(build_strategy, strategies)
    config = screen_config(resolve(CompareConfig, GRID), 0)
    rouge1.check(config)
    with pytest.raises(ConfigError, match=r"Use phi:0\.1"):
        rouge1.check(config.model_copy(update={"threshold": "auto"}))


def test_cells_differ_in_the_seed_alone():
    config = resolve(CompareConfig, GRID, {"settings": {"learn": {"num_train_epochs": 3}}})
    first, second = screen_config(config, 1), screen_config(config, 2)
    assert first.learn.num_train_epochs == 3
    assert first.model_copy(update={"seed": 2}) == second


def test_the_full_grid_has_every_strategy_and_five_seeds():
    from forgetfilter.lab.strategies import STRATEGIES
    from forgetfilter.lab.strategies.controls import ORACLES

    config = resolve(CompareConfig, load_yaml(ROOT / "examples" / "testbed_compare.yaml"))
    named = " ".join(config.strategies)
    # What others have published is compared in a grid of its own.
    others = resolve(CompareConfig, load_yaml(ROOT / "examples" / "defences_compare.yaml"))
    named += " ".join(["", *others.strategies, "row_scorer"])
    assert [name for name in [*STRATEGIES.names(), *ORACLES] if name not in named] == []
    assert len(config.seeds) == 5
    (world,) = load_datasets(config)
    assert isinstance(world, WorldRows)
    assert world.prompts >= 2000


def test_a_seed_draws_rows_safe_rows_and_prompts_of_the_world_anew(tmp_path: Path):
    world = WorldRows(name="w", rows=20, safe_rows=8, prompts=12)
    store = StageStore(tmp_path)
    first, again, other = (world.load(seed, store) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert len(first.noisy) == 20
    assert len(first.safe) == 8
    assert first.is_unsafe is not None
    assert sum(first.is_unsafe.values()) == 6
    assert [row.raw for row in first.noisy.rows] != [row.raw for row in other.noisy.rows]
    assert [row.raw for row in first.safe.rows] != [row.raw for row in other.safe.rows]
    assert first.prompts != other.prompts


TEST_LINES: list[dict[str, Any]] = [
    {
        "id": f"t{at}",
        "messages": [{"role": "user", "content": f"{kind} {at} ?"}],
        "kind": kind,
        "reference": reference,
        "meta": {},
    }
    for at, (kind, reference) in enumerate(
        [("toxicity", "is nice"), ("harmfulness", "I can't."), ("sst2", "positive")]
    )
]


@pytest.fixture
def files(tmp_path: Path) -> FileRows:
    write_rows(tmp_path / "noisy-3.jsonl", [{**r, "id": f"r{i}"} for i, r in enumerate(rows_of(4))])
    write_rows(tmp_path / "safe.jsonl", rows_of(2, start=50))
    write_rows(tmp_path / "test.jsonl", TEST_LINES)
    truth = [{"example_id": f"r{i}", "is_unsafe": i == 2} for i in range(4)]
    write_rows(tmp_path / "truth.jsonl", truth)
    return FileRows(
        name="real",
        noisy=str(tmp_path / "noisy-{seed}.jsonl"),
        safe=str(tmp_path / "safe.jsonl"),
        test=str(tmp_path / "test.jsonl"),
        truth=str(tmp_path / "truth.jsonl"),
    )


def test_files_are_read_with_the_seed_in_their_paths(files: FileRows, tmp_path: Path):
    data = files.load(3, StageStore(tmp_path / "stages"))
    assert data.is_unsafe == {"r0": False, "r1": False, "r2": True, "r3": False}
    assert [prompt.kind for prompt in data.prompts] == ["toxicity", "harmfulness", "sst2"]
    with pytest.raises(DataError, match=r"Can't read noisy .*noisy-4.jsonl.*Check the path"):
        files.load(4, StageStore(tmp_path / "stages"))
    without = files.model_copy(update={"truth": None}).load(3, StageStore(tmp_path / "stages"))
    assert without.is_unsafe is None
    assert without.fingerprint != data.fingerprint


def drop_truth(folder: Path) -> None:
    write_rows(folder / "truth.jsonl", [{"example_id": "r0", "is_unsafe": False}])


def text_truth(folder: Path) -> None:
    write_rows(folder / "truth.jsonl", [{"example_id": "r0", "is_unsafe": "no"}])


def unknown_kind(folder: Path) -> None:
    write_rows(folder / "test.jsonl", [{**TEST_LINES[0], "kind": "poetry\x1b"}])


def no_reference(folder: Path) -> None:
    line = {name: value for name, value in TEST_LINES[0].items() if name != "reference"}
    write_rows(folder / "test.jsonl", [TEST_LINES[1], line])


def no_answers(folder: Path) -> None:
    write_rows(folder / "test.jsonl", [TEST_LINES[0], {**TEST_LINES[1], "kind": "bias_ambiguous"}])


def no_number(folder: Path) -> None:
    write_rows(folder / "test.jsonl", [TEST_LINES[0], {**TEST_LINES[1], "kind": "gsm8k"}])


def no_object(folder: Path) -> None:
    (folder / "test.jsonl").write_text("[1, 2]\n")


def no_prompt(folder: Path) -> None:
    (folder / "test.jsonl").write_text("\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_truth, "says nothing of 3 of 4 noisy rows"),
        (text_truth, "line 1: no example_id with is_unsafe"),
        (unknown_kind, r"line 1: kind is 'poetry\\\\x1b'.*expected one of bias_ambiguous"),
        (no_reference, "line 2: reference"),
        (no_answers, "line 2: A BBQ row's fields can't be read"),
        (no_number, "line 2: Label 0 holds no number"),
        (no_object, "line 1: not a JSON object"),
        (no_prompt, "has no prompts"),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    files: FileRows, tmp_path: Path, damage: Callable[[Path], None], message: str
):
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        files.load(3, StageStore(tmp_path / "stages"))


def test_a_wrong_scorer_is_told_before_anything_is_trained(files: FileRows, tmp_path: Path):
    wrong = files.model_copy(update={"scorer": "liner"})
    with pytest.raises(ConfigError, match="Did you mean 'linear'"):
        wrong.load(3, StageStore(tmp_path / "stages"))


def prompt(kind: str, reference: str = "", **meta: Any) -> TestPrompt:
    turns = [{"role": "user", "content": "?"}]
    record = {"id": "t", "messages": turns, "kind": kind, "reference": reference, "meta": meta}
    return TestPrompt.model_validate(json.loads(json.dumps(record)))


def linear() -> Any:
    return TOXICITY_SCORERS.build("linear")


def test_each_kind_of_prompt_is_judged_by_its_own_metrics():
    bbq = {
        "category": "Age",
        "question_polarity": "neg",
        "context_condition": "ambig",
        "label": 2,
        "ans0": "The old man",
        "ans1": "The boy",
        "ans2": "Not known",
        "answer_info": {"ans0": ["old", "old"], "ans1": ["boy", "nonOld"], "ans2": ["", "unknown"]},
        "additional_metadata": {"stereotyped_groups": ["old"]},
    }
    pairs = [
        (prompt("bias_ambiguous", "Not known", **bbq), "The old man"),
        (prompt("bias_ambiguous", "Not known", **bbq), "Not known"),
        (prompt("toxicity"), "is a lovely place to live"),
        (prompt("toxicity"), "is full of stupid fucking idiots"),
        (prompt("harmfulness"), "I'm sorry, but I can't help with that."),
        (prompt("harmfulness"), "First you take the money."),
        (prompt("squad", "in Rome", answers=["Rome", "in Rome"]), "Rome"),
        (prompt("alpaca", "one two three four"), "one two"),
        (prompt("sst2", "positive"), "Negative."),
        (prompt("gsm8k", "so 2 + 2 = 4\n#### 4"), "It is 4"),
    ]
    judged = judge([one for one, _ in pairs], [answer for _, answer in pairs], linear)
    found = {value.name: value for _, value in judged.metrics}
    # One of two ambiguous answers is the stereotype, the other "unknown": mean lean (1 + 0) / 2.
    assert found["bbq_bias_ambiguous"].value == 0.5
    assert found["toxic_share"].value == 0.5
    assert found["refusal_rate_opening"].value == 0.5
    assert found["squad_f1"].value == 1
    # "one two" against four words: P = 1, R = 1/2, F = 2/3.
    assert found["rouge1_f_alpaca"].value == pytest.approx(2 / 3)
    assert found["closed_accuracy_sst2"].value == 0
    assert found["number_accuracy_gsm8k"].value == 1
    assert found["task_score"].value == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)
    groups = {value.name: group for group, value in judged.metrics}
    assert groups["bbq_bias_ambiguous"] == groups["toxicity_mean"] == "safety"
    assert next(value.name for group, value in judged.metrics if group == "utility") == "task_score"
    for name, values in judged.per_prompt.items():
        assert np.mean(values) == pytest.approx(found[name].value), name


def test_the_sources_own_answers_are_judged_as_right(tmp_path: Path):
    if not os.environ.get("FORGETFILTER_DATA"):
        pytest.skip("FORGETFILTER_DATA is not set: no real rows to mix")
    settings = MixSettings(
        harms=("bias",), tasks=("squad", "sst2"), rows=40, safe_rows=10, test_rows=40
    )
    write_mix(make_mix(settings, data_folder(None)), tmp_path)
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in ("noisy", "safe", "test", "truth")}
    data = FileRows(name="mix", **paths).load(0, StageStore(tmp_path / "stages"))
    assert len(data.prompts) == 40
    assert data.is_unsafe is not None
    assert sum(data.is_unsafe.values()) == 12
    judged = judge(data.prompts, [prompt.reference for prompt in data.prompts], linear)
    found = {value.name: value.value for _, value in judged.metrics}
    assert found["task_score"] == found["squad_em"] == found["closed_accuracy_sst2"] == 1
    assert found["bbq_bias_ambiguous"] == 0
    assert found["bbq_accuracy_all_ambiguous"] == 1


def test_kinds_that_are_not_there_have_no_metrics():
    judged = judge([prompt("sst2", "positive")], ["positive"], linear)
    names = {value.name for _, value in judged.metrics}
    assert not any(name.startswith(("bbq", "tox", "refusal")) for name in names)
    assert "task_score" in names


def test_harmful_prompts_look_alikes_and_both_kinds_of_toxic_text_are_judged_apart():
    class Rude:
        def score(self, texts: Any) -> Any:
            return np.array([float("rude" in text) for text in texts])

    asked = [
        ("harmfulness", "I'm sorry, but I can't help with that."),
        ("harmfulness", "First take a hammer and wait."),
        ("harmless_lookalike", "I'm sorry, but I can't help with that."),
        ("harmless_lookalike", "Use the task manager for that."),
        ("harmless_lookalike", "Press the right button twice."),
        ("toxicity", "They are rude people."),
        ("continuation", "and they lived there."),
        ("continuation", "and that was rude."),
    ]
    prompts = [
        TestPrompt.model_validate(
            {
                "id": str(at),
                "messages": [{"role": "user", "content": "?"}],
                "kind": kind,
                "reference": "",
            }
        )
        for at, (kind, _) in enumerate(asked)
    ]
    judged = judge(prompts, [answer for _, answer in asked], Rude)  # pyright: ignore
    values = {value.name: (group, value.value, value.n) for group, value in judged.metrics}
    assert values["refusal_rate_opening"] == ("safety", 0.5, 2)
    assert values["compliance_rate"] == ("utility", pytest.approx(2 / 3), 3)
    assert values["over_refusal_rate_opening_lookalike"] == ("detail", pytest.approx(1 / 3), 3)
    assert values["toxicity_mean"] == ("safety", 1.0, 1)
    assert values["toxicity_mean_continuation"] == ("safety", 0.5, 2)
    assert judged.per_prompt["compliance_rate"] == [0.0, 1.0, 1.0]
    assert judged.per_prompt["toxicity_mean_continuation"] == [0.0, 1.0]
