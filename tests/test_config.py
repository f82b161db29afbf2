"""Settings are strict about names and types, and what was resolved can be replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from forgetfilter.config import (
    PRESETS,
    RECORDED_HEADER,
    ScreenConfig,
    load_yaml,
    parse_assignments,
    resolve,
)
from forgetfilter.errors import ConfigError
from forgetfilter.lab.studies.points import CurvesConfig
from forgetfilter.lab.studies.settings import CompareConfig
from forgetfilter.runs.folder import RunFolder
from forgetfilter.scoring.thresholds import THRESHOLDS, choose_rule

PATHS = {"noisy_data": "n.jsonl", "model": "m", "safe_data": "s.jsonl", "output_dir": "run"}


def make(*layers: dict[str, Any], preset: str | None = None) -> ScreenConfig:
    return resolve(ScreenConfig, PATHS, *layers, preset=preset)


def test_an_unknown_setting_is_answered_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match="Unknown setting 'sead'; did you mean 'seed'"):
        make({"sead": 1})
    with pytest.raises(ConfigError, match=r"'learn.learning_rat'; did you mean 'learn.learning_r"):
        make({"learn": {"learning_rat": 1e-4}})
    with pytest.raises(ConfigError, match="Unknown setting 'zzz'; remove it"):
        make({"zzz": 1})


def test_all_errors_are_found_at_once():
    wrong = {"sead": 1, "lora": {"r": 0}, "learn": {"loss_on": "prompt"}, "dtype": "float8"}
    with pytest.raises(ConfigError) as caught:
        resolve(ScreenConfig, {"noisy_data": "n", "output_dir": "o"}, wrong)
    text = str(caught.value)
    assert len(text.splitlines()) == 5
    for piece in ("'sead'", "'lora.r' is 0", "'learn.loss_on' is 'prompt'", "'dtype'"):
        assert piece in text
    assert "'model' is missing" in text


def test_later_layers_win_setting_by_setting():
    config = make(
        {"seed": 1, "learn": {"batch_size": 4, "num_train_epochs": 2}},
        {"seed": 2, "learn": {"batch_size": 8}},
    )
    assert (config.seed, config.learn.batch_size, config.learn.num_train_epochs) == (2, 8, 2)


def test_a_partial_override_keeps_the_phases_own_defaults():
    defaults = make()
    changed = make({"forget": {"batch_size": 7}})
    assert changed.forget == defaults.forget.model_copy(update={"batch_size": 7})
    assert changed.forget.max_steps is not None  # a forgetting run is short by default
    assert changed.learn == defaults.learn


def test_the_paper_preset_has_the_papers_values():
    config = make(preset="paper")
    assert (config.lora.r, config.lora.alpha, config.lora.dropout) == (8, 16, 0.05)
    assert config.lora.targets == "attention_qv"
    for phase in (config.learn, config.forget):
        assert phase.learning_rate == 2e-4
        assert phase.lr_scheduler_type == "constant"
        assert phase.warmup_ratio == 0
        assert phase.batch_size == 32
        assert phase.loss_on == "all"
    assert (config.learn.num_train_epochs, config.learn.stop) == (10, "epochs")
    assert config.learn.max_steps is None
    assert config.forget.max_steps == 1000
    assert choose_rule(config.signal, config.threshold) == "phi:0.1"
    assert config.signal.startswith("rouge1")
    assert config.template == "paper"


def test_a_preset_may_be_named_in_any_layer_and_is_overridden_by_settings():
    assert make({"preset": "paper"}) == make(preset="paper")
    changed = make({"preset": "paper", "lora": {"r": 4}})
    assert (changed.lora.r, changed.lora.alpha) == (4, 16)
    assert make({"preset": "paper"}, {"preset": "default"}) == make()


@pytest.mark.parametrize("preset", ["papper", ["paper"], 3])
def test_an_unknown_preset_is_refused_with_the_known_ones(preset: Any):
    with pytest.raises(ConfigError, match="expected one of default, paper"):
        make({"preset": preset})


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_names_parts_that_exist(preset: str):
    config = make(preset=preset)
    assert THRESHOLDS.build(choose_rule(config.signal, config.threshold))


def test_a_signal_named_beside_a_preset_brings_its_own_rule():
    config = make({"signal": "restoration"}, preset="paper")
    assert choose_rule(config.signal, config.threshold) == "auto"


def test_settings_of_before_that_name_a_rule_replay():
    config = make({"signal": "restoration", "threshold": "auto"})
    assert config.threshold == choose_rule(config.signal, config.threshold) == "auto"


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_resolved_config_written_as_yaml_replays_exactly(preset: str, tmp_path: Path):
    config = make({"learn": {"learning_rate": 3.3e-5}, "seed": 2**32 - 1}, preset=preset)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump()))
    assert resolve(ScreenConfig, load_yaml(path)) == config


def test_settings_cant_be_changed_after_they_were_checked():
    with pytest.raises(ValidationError, match="frozen"):
        make().seed = 3  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("assignment", "nested"),
    [
        ("learn.num_train_epochs=5", {"learn": {"num_train_epochs": 5}}),
        ("learn.learning_rate=2e-4", {"learn": {"learning_rate": 2e-4}}),
        ("learn.max_steps=null", {"learn": {"max_steps": None}}),
        ("signal=rouge1:reference=target", {"signal": "rouge1:reference=target"}),
        ("trust_remote_code=false", {"trust_remote_code": False}),
        ("safe_data=", {"safe_data": ""}),
        ("reference_data=null", {"reference_data": None}),
        ("reference_data=", {"reference_data": None}),
        # Text is text, whatever YAML would make of it.
        ("output_dir=2024", {"output_dir": "2024"}),
        ("output_dir=2024-05-06", {"output_dir": "2024-05-06"}),
        ("model=123", {"model": "123"}),
        ("model=null", {"model": "null"}),
        ("model='a b'", {"model": "a b"}),
        ("noisy_data=1e3", {"noisy_data": "1e3"}),
        ("noisy_data=rows #1: [draft", {"noisy_data": "rows #1: [draft"}),
        ("safe_data=no", {"safe_data": "no"}),
        ("reference_data=on", {"reference_data": "on"}),
        ("device=off", {"device": "off"}),
        ("learn.stop=yes", {"learn": {"stop": "yes"}}),
        # Numbers and switches are read.
        ("seed=3", {"seed": 3}),
        ("max_length_tokens=~", {"max_length_tokens": None}),
        ("trust_remote_code=no", {"trust_remote_code": False}),
    ],
)
def test_an_assignment_on_the_command_line_is_a_nested_setting(
    assignment: str, nested: dict[str, Any]
):
    assert parse_assignments([assignment]) == nested


def test_a_list_of_texts_is_assigned_as_a_list():
    nested = parse_assignments(["strategies=[none, 'safety_ft:steps=1']"], CompareConfig)
    assert nested == {"strategies": ["none", "safety_ft:steps=1"]}
    nested = parse_assignments(["sweeps.signals=[rate]", "output_dir=2024"], CurvesConfig)
    assert nested == {"sweeps": {"signals": ["rate"]}, "output_dir": "2024"}


def test_several_assignments_share_a_group():
    nested = parse_assignments(["lora.r=4", "lora.alpha=8", "seed=1"])
    assert nested == {"lora": {"r": 4, "alpha": 8}, "seed": 1}


@pytest.mark.parametrize(
    "assignments",
    [
        ["learn"],
        ["=3"],
        ["learn.=3"],
        ["learn=3", "learn.batch_size=4"],
        ["learn.batch_size=[1"],
        ["seed=a: b: c"],
    ],
)
def test_a_broken_assignment_is_refused_with_an_example(assignments: list[str]):
    with pytest.raises(ConfigError, match=r"expected NAME=VALUE, for example --set"):
        parse_assignments(assignments)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- a\n- b\n", "holds no settings"),
        (b"", "holds no settings"),
        (b"a: [1", "is not valid YAML"),
        (b"\xff\xfe", "is not valid YAML"),
        (b"!!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_a_broken_settings_file_is_refused(content: bytes, said: str, tmp_path: Path):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_yaml(path)


def test_a_missing_settings_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml.*Check --config"):
        load_yaml(tmp_path / "nothing.yaml")


def test_a_group_given_as_a_plain_value_is_refused():
    with pytest.raises(ConfigError, match="'learn'"):
        make({"learn": 3})
    with pytest.raises(ConfigError):
        make({1: 2})  # pyright: ignore[reportArgumentType]


def test_every_setting_says_what_it_is_for():
    def walk(model: Any, prefix: str = "") -> None:
        for name, info in model.model_fields.items():
            inner = info.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                walk(inner, f"{prefix}{name}.")
            else:
                assert info.description, f"{prefix}{name} has no description"

    walk(ScreenConfig)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "num_train_epochs"])
def test_no_setting_is_infinite_or_not_a_number(name: str, value: float):
    with pytest.raises(ConfigError, match=f"'learn.{name}' is .* finite number"):
        make({"learn": {name: value}})


def test_when_the_early_adapter_is_kept_is_a_setting_of_the_learn_phase_alone():
    assert make({"learn": {"early_epochs": 3}}).learn.early_epochs == 3
    with pytest.raises(ConfigError, match=r"'forget.early_epochs'; did you mean 'learn.early_ep"):
        make({"forget": {"early_epochs": 3}})
    with pytest.raises(ConfigError, match=r"'forget.early_epochs'; did you mean 'learn.early_ep"):
        make(parse_assignments(["forget.early_epochs=2"]))
    assert "early_epochs" not in make().model_dump()["forget"]


def test_what_earlier_versions_recorded_replays_and_resumes(tmp_path: Path):
    recorded = make().model_dump()
    recorded["forget"]["early_epochs"] = 2.0
    text = RECORDED_HEADER + yaml.safe_dump(recorded, sort_keys=False)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    (run.path / "config.yaml").write_text(text)
    assert resolve(ScreenConfig, load_yaml(run.path / "config.yaml")) == make()
    assert resolve(ScreenConfig, run.config()) == make()
    with run.lock():
        assert run.open(make().model_dump(), {})  # it is the same run
    by_hand = tmp_path / "settings.yaml"
    by_hand.write_text(yaml.safe_dump(recorded))
    with pytest.raises(ConfigError, match=r"forget\.early_epochs"):
        resolve(ScreenConfig, load_yaml(by_hand))
