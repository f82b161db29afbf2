"""Which version of a formula made scores and decisions, so that a changed one is not missed.

Readings are named by what they were made from. What a signal or a rule makes of them is code, which
no key names; so each says which version of its formula it is, and a run records both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import THRESHOLDS

FIRST_VERSION = 1
"""Of a part that names none, and of what runs of earlier versions recorded nothing of."""


def version_of(part: Any) -> int:
    """The version of a signal's or a rule's formula: raised whenever its results change."""
    return int(getattr(part, "version", FIRST_VERSION))


def signal_version(signal: str) -> int:
    """That of a signal by its spec."""
    return version_of(SIGNALS.build(signal))


def rule_version(rule: str) -> int:
    """That of a threshold rule by its spec."""
    return version_of(THRESHOLDS.build(rule))


def formulas_named(*texts: str) -> dict[str, int]:
    """Versions of all signals and rules that ``texts`` name, such as the spec of a strategy.

    Those whose formula never changed are left out. For keys of what was made with them: a name in
    it that means something else costs a repetition at most.
    """
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    found = {
        name: version_of(registry.factory(name))
        for registry in (SIGNALS, THRESHOLDS)
        for name in registry.names()
        if name in words
    }
    return {name: version for name, version in found.items() if version != FIRST_VERSION}


def changed_formulas(summary: Mapping[str, Any], signal: str, rule: str) -> dict[str, str]:
    """What has changed of the formulas that a finished run was decided by.

    Args:
        summary: of the run.
        signal: spec of the present signal.
        rule: spec of the present rule.

    Returns:
        A line for ``signal`` and for ``rule``, where the run was decided by the same one but by
        another version of it.
    """
    known: Mapping[str, Any] = summary.get("formulas") or {}
    now = {
        "signal": (signal, str(summary.get("signal")), signal_version(signal)),
        "rule": (rule, str(summary["threshold"]["rule"]), rule_version(rule)),
    }
    return {
        name: f"formula of {asked}: version {known.get(name, FIRST_VERSION)} -> {version}"
        for name, (asked, was, version) in now.items()
        if asked == was and known.get(name, FIRST_VERSION) != version
    }
