"""What a repeated command changes of a finished run, and which settings a run reads at all.

Stages are named by what they are made from, so a change only costs what depends on it. Whether a
change may replace the outputs without being asked for is decided by `Changes.must_be_asked_for`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from forgetfilter.scoring.records import HALVES, WHOLE
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.text import printable

_ABSENT = object()
_RESTORED = frozenset(name for own in (WHOLE, *HALVES) for name in own[2:])
_LATER_STATES = frozenset({"forgotten", *_RESTORED})
# They don't move the outcome: where it lies, how much memory it takes, where settings came from,
# what a killed command loses.
_FREE = frozenset(
    {
        "output_dir",
        "max_batch_tokens",
        "preset",
        "checkpoint_minutes",
        "loading.gradient_checkpointing",
        "loading.device_map",
    }
)
# Compared by the content of what they name, so that a moved file changes nothing.
# How rows are read is part of what identifies them.
_NAMES_OF_INPUTS = frozenset(
    {
        "noisy_data",
        "trusted_data",
        "reading",
        "safe_data",
        "reference_data",
        "model",
        "learned_from",
        "second_opinion",
        "describe_harm",
    }
)
# Nothing but the decision depends on them.
_DECIDING = frozenset({"threshold", "force", "action", "joint"})
# What earlier versions did not have.
_ADDED: Mapping[str, Any] = {
    "learned_from": None,
    "second_opinion": None,
    "joint": 0.0,
    "trusted_data": None,
    "loading.bits": None,
    "learn.max_rows": None,
    "learn.keep_losses": False,
    "describe_harm": None,
}
# Neither the learn phase nor the readings of the base model depend on them.
_AFTER_LEARNING = frozenset(
    {
        "signal",
        "forget",
        "restore",
        "generation",
        "coverage",
        "input reference_data",
        "input second_opinion",
        "input describe_harm",
    }
)


@dataclass(frozen=True)
class Changes:
    """Differences between a finished run and a command, one line each, by what depends on them."""

    learning: tuple[str, ...] = ()
    """Inputs and settings on which the whole run depends."""
    scoring: tuple[str, ...] = ()
    """Settings that only matter after the learn phase."""
    threshold: tuple[str, ...] = ()
    """The rule that decides, and whether it decides in spite of a severe finding."""
    unread: tuple[str, ...] = ()
    """What no score of this run depends on."""

    @property
    def must_be_asked_for(self) -> bool:
        """Whether other inputs or another learn phase would replace the outputs."""
        return bool(self.learning)

    @property
    def only_decides(self) -> bool:
        """Whether the stored scores are all that is needed."""
        return bool(self.threshold) and not self.learning and not self.scoring

    @property
    def is_none(self) -> bool:
        """Whether the finished run is what the command asks for."""
        return not (self.learning or self.scoring or self.threshold)


def changes_of_screen(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    old_inputs: Mapping[str, Any],
    new_inputs: Mapping[str, str],
) -> Changes:
    """What differs between two screens.

    Args:
        old: settings of the finished run, as plain values read back from its YAML.
        new: settings of the command, likewise through YAML.
        old_inputs: sha256 by name of each input of the finished run.
        new_inputs: the same for the command.

    Raises:
        ConfigError: the command's signal is unknown.
    """
    unread = _NAMES_OF_INPUTS | unread_groups(str(new.get("signal")))
    found: dict[str, list[str]] = {"learning": [], "scoring": [], "threshold": [], "unread": []}
    lines = {
        **difference_lines({**_ADDED, **flatten(old)}, {**_ADDED, **flatten(new)}, ignore=_FREE),
        **input_difference_lines(old_inputs, new_inputs),
    }
    for name, line in lines.items():
        group = name.partition(".")[0]
        if group in unread:
            kind = "unread"
        elif group in _DECIDING:
            kind = "threshold"
        else:
            kind = "scoring" if group in _AFTER_LEARNING else "learning"
        found[kind].append(line)
    return Changes(**{kind: tuple(lines) for kind, lines in found.items()})


def unread_groups(signal: str) -> frozenset[str]:
    """Groups of settings, and inputs, that no score of ``signal`` depends on.

    The texts that a report shows as evidence are generated with ``generation`` whatever the signal;
    they are no reason to work on a finished run.

    Raises:
        ConfigError: the signal is unknown.
    """
    probes = SIGNALS.build(signal).probes
    states = {probe.state for probe in probes}
    kinds = {probe.kind for probe in probes}
    is_read = {
        "forget": "forgotten" in states,
        "restore": bool(states & _RESTORED),
        "generation": "generation" in kinds,
        "input safe_data": bool(states & _LATER_STATES) or "rate" in kinds,
    }
    return frozenset(name for name, read in is_read.items() if not read)


def difference_lines(
    old: Mapping[str, Any], new: Mapping[str, Any], ignore: Iterable[str] = ()
) -> dict[str, str]:
    """One line for each setting that differs between two flat mappings, by dotted name.

    ``ignore`` names settings, or whole sections, that may differ.
    """
    skipped = tuple(ignore)
    return {
        name: f"{printable(name, 80)}: {_value(old, name)} -> {_value(new, name)}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name, _ABSENT) != new.get(name, _ABSENT)
        and not any(name == own or name.startswith(f"{own}.") for own in skipped)
    }


def input_difference_lines(old: Mapping[str, Any], new: Mapping[str, str]) -> dict[str, str]:
    """One line for each input whose fingerprint differs, by ``input NAME``."""
    return {
        f"input {name}": f"input {printable(name, 80)}: "
        f"{_value(old, name, 15)} -> {_value(new, name, 15)}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    }


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one of dotted keys; lists and empty mappings are values."""
    if not isinstance(value, dict) or not value:
        return {prefix: value} if prefix else {}
    flat: dict[str, Any] = {}
    for name, item in cast(dict[Any, Any], value).items():
        flat |= flatten(item, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _value(values: Mapping[str, Any], name: str, limit: int = 60) -> str:
    """A setting's value for a message."""
    if name not in values:
        return "(absent)"
    value = values[name]
    return printable(value if isinstance(value, str) else repr(value), limit)
