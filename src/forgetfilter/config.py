"""Typed settings. One small model per phase; unknown keys and wrong types are refused.

What a field means stands in its description, which ``--help`` and the documentation read.
Presets are plain differences from these defaults, in ``PRESETS``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import Field, ValidationError, field_validator

from forgetfilter.errors import ConfigError
from forgetfilter.settings import (
    GenerationSettings,
    LearnSettings,
    LoadSettings,
    LoraSettings,
    PhaseSettings,
    ReadingSettings,
    RestoreSettings,
    Settings,
)
from forgetfilter.yaml_text import parse_yaml, read_text

M = TypeVar("M", bound="Settings")

PACKAGED_SAFE = "packaged:general"
"""The ``safe_data`` that stands for the set that comes with the package.

A name, not a path, so that settings replay on another machine; hardly any file is called so."""

WORDS = "words"
"""The ``second_opinion`` that stands for the packaged word scorer of toxicity."""

KNOWN_UNSAFE = "known_unsafe:"
"""Before the file of rows whose likeness is the ``second_opinion``."""

RECORDED_HEADER = "# Written by forgetfilter; replay with --config.\n"
"""The first line of the settings that a run records."""


class ScreenConfig(Settings):
    """Everything that decides the outcome of a screen."""

    noisy_data: str | list[str] = Field(
        description="what to screen: a file, a pattern, a saved data set, "
        "hub:owner/name[@revision][:split], or a list of these"
    )
    reading: ReadingSettings = Field(default_factory=lambda: ReadingSettings())
    model: str = Field(description="causal language model: a folder, a GGUF file or a hub id")
    safe_data: str = Field(
        default=PACKAGED_SAFE,
        description="file of rows that are known to be safe; packaged:general = the "
        "general-purpose set that comes with the package",
    )
    trusted_data: str | list[str] | None = Field(
        default=None,
        description="rows of your own that are known to be harmless, of the kinds that are to be "
        "kept: screened with the others, always kept, and the measure of where to cut (the rule "
        "conformal, where no other is named)",
    )
    reference_data: str | None = Field(
        default=None,
        description="file of safe rows with a `category` each, on which is measured what the "
        "safe rows can judge; null = reference.jsonl in the model's folder, else packaged:general",
    )
    coverage: Literal["off", "quick", "full"] = Field(
        default="quick",
        description="how to measure which harms the safe rows can judge. quick: at most a quarter "
        "of the scoring's cost; full: second looks at all rows, which may cost more than the "
        "scoring; off: not at all",
    )
    output_dir: str = Field(description="run folder")
    preset: Literal["default", "paper"] = Field(
        default="default", description="settings to start from"
    )
    signal: str = Field(default="contradiction", description="forgetting signal")
    threshold: str | None = Field(
        default=None, description="threshold rule; null = the signal's own"
    )
    second_opinion: str | None = Field(
        default=None,
        description="whose score stands beside ours: a text classifier's, words (packaged, of "
        "toxicity) or a folder or hub id, with :LABEL where its unsafe label can't be told; or "
        "known_unsafe:FILE, the likeness to rows that are known to be unsafe",
    )
    joint: float = Field(
        default=0.0,
        ge=0,
        description="what is cut is the forgetting score plus this many nats per root token times "
        "the second opinion; 0 = the second opinion decides nothing",
    )
    describe_harm: str | None = Field(
        default=None,
        description="a harm named in words, whose score stands beside ours and decides nothing: a "
        "sentence that is true of a harmful answer, or a JSON Lines file of contrasts (harmful, "
        "harmless)",
    )
    force: bool = Field(
        default=False,
        description="decide although a severe finding says that the scores can't be trusted",
    )
    action: Literal["remove", "flag", "weight", "mask"] = Field(
        default="remove",
        description="what to write beside kept and removed rows. flag: all rows with columns "
        "forgetfilter_score and forgetfilter_decision; weight: all rows with weight 0 if removed",
    )
    learned_from: str | None = Field(
        default=None,
        description="folder of a training that the callback record_training has recorded; it takes "
        "the place of the learn phase, with its own settings of learn and lora",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="seeds adapters, order and dropout")
    template: Literal["auto", "paper"] = Field(
        default="auto",
        description="auto: the tokenizer's chat template, or the paper's Input/Response blocks if "
        "it has none; paper: always the blocks",
    )
    max_length_tokens: int | None = Field(
        default=None, ge=8, description="longer rows are rejected; null = the model's context"
    )
    max_batch_tokens: int = Field(
        default=8192,
        ge=1,
        description="tokens per forward pass, padding included; bounds memory. In float32 it moves "
        "nothing else; in bfloat16 it moves losses by up to 0.06 nats a token, so another value "
        "measures again",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="where to compute"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="auto: bfloat16 on a GPU that has it, and on a CPU that has it for models at "
        "least 512 wide; float32 elsewhere, where readings are exact. Adapters are in float32",
    )
    checkpoint_minutes: float = Field(
        default=10.0,
        ge=0,
        allow_inf_nan=False,
        description="an unfinished stage is kept every so many minutes, and a killed command goes "
        "on from there; 0 = never, so that it begins that stage again",
    )
    trust_remote_code: bool = Field(
        default=False, description="run Python code that a model repository brings along"
    )
    loading: LoadSettings = Field(default_factory=lambda: LoadSettings())
    lora: LoraSettings = Field(default_factory=lambda: LoraSettings())
    learn: LearnSettings = Field(default_factory=lambda: LearnSettings())
    forget: PhaseSettings = Field(
        default_factory=lambda: PhaseSettings(
            max_steps=20,
            stop="epochs",
            batch_size=32,
            lr_scheduler_type="constant",
            warmup_ratio=0,
        )
    )
    restore: RestoreSettings = Field(default_factory=lambda: RestoreSettings())
    generation: GenerationSettings = Field(default_factory=lambda: GenerationSettings())

    @field_validator("coverage", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        """YAML reads a bare ``off`` as false."""
        return "off" if value is False else value

    @field_validator("second_opinion", mode="before")
    @classmethod
    def _asked_for_without_a_name(cls, value: Any) -> Any:
        """``True`` is the packaged scorer; ``False`` and an empty name are none."""
        return WORDS if value is True else (value or None)


_PAPER_PHASE: dict[str, Any] = {
    "learning_rate": 2e-4,
    "num_train_epochs": 10,
    "stop": "epochs",
    "batch_size": 32,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0.0,
    "loss_on": "all",
}

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # arXiv 2312.12736 and its published code; docs/lab/paper.md has each value and mended bug.
    "paper": {
        "signal": "rouge1:postprocess=paper",  # its own threshold is the paper's phi of 0.1
        "template": "paper",
        "lora": {"r": 8, "alpha": 16, "dropout": 0.05, "targets": "attention_qv"},
        "learn": _PAPER_PHASE,
        "forget": {**_PAPER_PHASE, "max_steps": 1000},
        "generation": {"max_new_tokens": 500},
    },
}


def resolve(model: type[M], *layers: Mapping[str, Any], preset: str | None = None) -> M:
    """Merge setting layers, later ones winning, over a preset and the defaults.

    Raises:
        ConfigError: an unknown preset or key, a missing or mistyped value; all found at once.
    """
    merged: dict[str, Any] = {}
    if "preset" in model.model_fields:
        chosen = preset or next(
            (layer["preset"] for layer in reversed(layers) if layer.get("preset")), "default"
        )
        if not isinstance(chosen, str) or chosen not in PRESETS:
            raise ConfigError(f"preset is {chosen!r}; expected one of {', '.join(PRESETS)}.")
        # A settings group with defaults of its own must keep them under a partial override.
        merged = _defaults(model)
        _merge(merged, PRESETS[chosen])
        merged["preset"] = chosen
    for layer in layers:
        _merge(merged, layer)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(model, error)) from None


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Setting layers as one, later ones winning, group by group; none is changed."""
    found: dict[str, Any] = {}
    for layer in layers:
        _merge(found, layer)
    return found


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a mapping of settings from a YAML file; from a recorded one without retired settings."""
    try:
        text = read_text(path)
        loaded = parse_yaml(text)
    except OSError as error:
        raise ConfigError(
            f"Can't read the settings file {path}: {error.strerror}. Check --config."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}. Mend the file.") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} holds no settings; expected lines like 'seed: 0'.")
    return without_retired(loaded) if text.startswith(RECORDED_HEADER) else loaded


def without_retired(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings without those that earlier versions wrote down and nothing ever read."""
    kept = dict(recorded)
    forget = kept.get("forget")
    if isinstance(forget, Mapping):
        kept["forget"] = {name: forget[name] for name in forget if name != "early_epochs"}
    return kept


def parse_assignments(
    assignments: list[str], model: type[Settings] = ScreenConfig
) -> dict[str, Any]:
    """Turn ``learn.num_train_epochs=5`` items into a nested mapping.

    A setting of ``model`` that holds text takes it as typed; other values are read as YAML.
    """
    nested: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        *parents, leaf = path.strip().split(".")
        target: Any = nested
        for parent in parents:
            target = target.setdefault(parent, {}) if isinstance(target, dict) else None
        loaded: Any = None
        try:
            loaded = _read_value(value, _annotation(model, [*parents, leaf]))
        except yaml.YAMLError:
            target = None
        if not equals or not all([*parents, leaf]) or not isinstance(target, dict):
            raise ConfigError(
                f"--set was given {assignment!r}; expected NAME=VALUE, "
                "for example --set learn.num_train_epochs=5."
            )
        target[leaf] = loaded
    return nested


def _annotation(model: type[Settings], path: Sequence[str]) -> Any:
    """The type of the setting at ``path``; None where there is no such setting."""
    info = model.model_fields.get(path[0])
    inner: Any = info.annotation if info else None
    if len(path) == 1:
        return inner
    is_group = isinstance(inner, type) and issubclass(inner, Settings)
    return _annotation(inner, path[1:]) if is_group else None


def _read_value(text: str, annotation: Any) -> Any:
    """What was typed for a setting of this type; raises YAMLError if it must be YAML and isn't."""
    is_container = get_origin(annotation) in (list, dict)  # of text, perhaps, but no text itself
    kinds = (annotation,) if is_container else get_args(annotation) or (annotation,)
    if not any(kind is str or isinstance(kind, str) for kind in kinds):
        loaded = parse_yaml(text)
        # YAML 1.1 reads 2e-4 as text; a number was meant.
        return _number(loaded) if isinstance(loaded, str) else loaded
    if type(None) in kinds and text.strip() in ("", "~", "null"):
        return None
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if is_quoted else text


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _defaults(model: type[Settings]) -> dict[str, Any]:
    """The defaults of all fields that have one, settings groups as plain mappings."""
    defaults: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        if not info.is_required():
            value = info.get_default(call_default_factory=True)
            defaults[name] = value.model_dump() if isinstance(value, Settings) else deepcopy(value)
    return defaults


def _merge(target: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Merge ``layer`` into ``target`` in place, group by group."""
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = deepcopy(value)


def _explain(model: type[Settings], error: ValidationError) -> str:
    """All problems of one validation in the three beats, one line each."""
    known = list(_dotted_names(model))
    lines: list[str] = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "remove it."
            lines.append(f"Unknown setting {name!r}; {hint}")
        elif problem["type"] == "missing":
            lines.append(f"Setting {name!r} is missing; give it as a flag or in the YAML file.")
        else:
            lines.append(f"Setting {name!r} is {problem['input']!r}: {problem['msg']}.")
    return "\n".join(lines)


def _dotted_names(model: type[Settings], prefix: str = "") -> Iterator[str]:
    """All setting names, nested ones with dots."""
    for name, info in model.model_fields.items():
        yield prefix + name
        if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
            yield from _dotted_names(info.annotation, f"{prefix}{name}.")
