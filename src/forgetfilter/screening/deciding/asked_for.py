"""What decides a run: the rule and the weight that are asked for, or else its own, and by force."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetfilter.runs.decisions import Decided
from forgetfilter.runs.schema import Finding
from forgetfilter.scoring.joint import JointWeight, check_joint
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import as_signal_has_it, check_unit, reads_decisions
from forgetfilter.screening.checks.fitness import is_severe
from forgetfilter.screening.deciding.by_rule import weight_by


def is_decided(summary: Mapping[str, Any]) -> bool:
    """Whether the rows of a finished run are kept or removed, not left undecided."""
    return bool(summary.get("is_decided", True))


def weight_asked_for(
    run: Path, summary: Mapping[str, Any], joint: JointWeight | None, decided: Decided
) -> float | None:
    """The weight as a number; None: that of ``summary``.

    Raises:
        ConfigError: see `with_joint` and `weight_by`.
    """
    if joint != "reviewed":
        return joint
    _check_weight(summary, joint)
    return weight_by(run, summary, decided)


def with_joint(summary: Mapping[str, Any], joint: float | None) -> dict[str, Any]:
    """A run's summary with another weight of its second opinion; None: with its own.

    Raises:
        ConfigError: the run has no second opinion, or its scores have another unit.
    """
    if joint is None:
        return dict(summary)
    _check_weight(summary, joint)
    return {**{n: v for n, v in summary.items() if n != "joint"}, **weight_of(joint)}


def _check_weight(summary: Mapping[str, Any], joint: JointWeight) -> None:
    has_opinion = summary.get("second_opinion") is not None
    check_joint(joint, has_opinion=has_opinion, signal=summary["signal"], unit=_unit_of(summary))


def weight_of(joint: float) -> dict[str, float]:
    """What a summary says of the joint rule: nothing where there is none."""
    return {"joint": float(joint)} if joint else {}


def rule_to_apply(
    summary: Mapping[str, Any],
    threshold: str | None,
    *,
    force: bool = False,
    present: Mapping[str, Any] | None = None,
) -> tuple[str, bool]:
    """The rule that is asked for or else the present one, and whether it decides by force.

    ``present`` is the summary as it stands, where ``summary`` has another weight (`with_joint`).

    Raises:
        ConfigError: the rule doesn't fit the run's signal.
    """
    own = str(summary["threshold"]["rule"])
    unit = _unit_of(summary)
    signal = summary["signal"]
    rule = own if threshold is None else as_signal_has_it(threshold, signal, unit)
    check_unit(rule, signal, unit)
    is_same = rule == own and (present or summary).get("joint") == summary.get("joint")
    # By what people decide in the meantime such a rule cuts elsewhere: nobody has forced that.
    may_differ = reads_decisions(rule) and not _was_forced(summary)
    return rule, force or (is_same and is_decided(summary) and not may_differ)


def _was_forced(summary: Mapping[str, Any]) -> bool:
    """Whether a run was decided in spite of a severe finding."""
    found = [Finding.model_validate(told) for told in summary.get("findings", [])]
    return is_decided(summary) and is_severe(found)


def _unit_of(summary: Mapping[str, Any]) -> str:
    """The unit of a run's scores; earlier versions left it to the signal."""
    return str(summary.get("unit") or SIGNALS.build(str(summary["signal"])).unit)
