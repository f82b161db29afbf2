"""Which threshold rule decides the scores of a signal: the one that is named, or the signal's own.

A rule with limits of its own reads scores in one unit; used on another, it would cut anywhere.
"""

from __future__ import annotations

from contextlib import suppress

from forgetfilter.errors import ConfigError
from forgetfilter.scoring.signals.base import NATS_PER_ROOT_TOKEN, SIGNALS
from forgetfilter.scoring.thresholds.base import THRESHOLDS, ThresholdRule

WITH_TRUSTED_ROWS = "conformal"
"""The rule of a screen with trusted rows, where none is named."""


def choose_rule(signal: str, threshold: str | None, *, has_trusted: bool = False) -> str:
    """The spec of the rule that decides the scores of ``signal``.

    Args:
        signal: spec of the signal.
        threshold: spec of the rule; None takes ``conformal`` where there are trusted rows, and else
            the signal's default rule.
        has_trusted: whether there are rows that are known to be harmless.

    Raises:
        ConfigError: either is wrong, the rule is made for another unit or reads decisions, or none
            is named and the signal has none of its own.
    """
    part = SIGNALS.build(signal)
    chosen = threshold or (WITH_TRUSTED_ROWS if has_trusted else part.default_rule)
    if chosen is None:
        raise ConfigError(
            f"Signal {signal!r} has no threshold rule of its own: none was found to fit its scores "
            f"({part.unit}) on every file. Expected a rule that you choose. {_advice(part.unit)}"
        )
    chosen = as_signal_has_it(chosen, signal, part.unit)
    check_unit(chosen, signal, part.unit)
    if reads_decisions(chosen):
        raise ConfigError(
            f"Threshold rule {chosen!r} cuts by what people decided of a run's rows, and before a "
            "screen there is nothing to decide on. Expected a rule that needs no decisions. Leave "
            "--threshold out, then read rows with `forgetfilter review RUN` and cut with "
            f"`forgetfilter filter RUN --threshold {chosen}`."
        )
    return chosen


def reads_decisions(threshold: str) -> bool:
    """Whether a rule cuts by what people decided of the rows.

    Raises:
        ConfigError: it is unknown.
    """
    return bool(getattr(THRESHOLDS.build(threshold), "reads_decisions", False))


def as_signal_has_it(threshold: str, signal: str, unit: str) -> str:
    """The rule that a name without options stands for with the scores of ``signal``.

    ``auto`` is the name of `valley` where scores are in nats per root token, and the signal's own
    rule by its bare name is that rule with the signal's own options: ``valley`` has another
    ``least`` with a signal whose harmless rows score lower. Any other rule is itself.

    Args:
        threshold: spec of the rule.
        signal: spec of the signal; it need not be installed any more.
        unit: unit of its scores.
    """
    if threshold == "auto" and unit == NATS_PER_ROOT_TOKEN:
        threshold = "valley"
    own = None
    with suppress(ConfigError):
        own = SIGNALS.build(signal).default_rule
    return own if own is not None and own.split(":")[0] == threshold else threshold


def check_unit(threshold: str, signal: str, unit: str) -> None:
    """Refuse a rule that is made for other scores.

    Args:
        threshold: spec of the rule.
        signal: spec of the signal; it need not be installed any more.
        unit: unit of its scores.

    Raises:
        ConfigError: the rule is unknown or made for another unit.
    """
    rule = THRESHOLDS.build(threshold)
    if _fits(rule, unit):
        return
    made_for = " or ".join(sorted(rule.units or ()))
    own = None
    with suppress(ConfigError):
        own = SIGNALS.build(signal).default_rule
    advice = _advice(unit)
    if own is not None and _fits(THRESHOLDS.build(own), unit):
        advice = f"Use {own}, this signal's own."
    raise ConfigError(
        f"Threshold rule {threshold!r} is made for scores in {made_for}, and those of signal "
        f"{signal!r} are in another unit ({unit}). Expected a rule that fits them. {advice}"
    )


def fits(threshold: str, signal: str) -> bool:
    """Whether a rule can decide the scores of a signal.

    Raises:
        ConfigError: either is unknown.
    """
    return _fits(THRESHOLDS.build(threshold), SIGNALS.build(signal).unit)


def _fits(rule: ThresholdRule, unit: str) -> bool:
    return rule.units is None or unit in rule.units


def _advice(unit: str) -> str:
    """Which rules can be named for scores in ``unit``, whatever rows there are."""
    fitting: list[str] = []
    for name in sorted(set(THRESHOLDS.names()) - {WITH_TRUSTED_ROWS}):
        try:
            rule = THRESHOLDS.build(name)
        except ConfigError:  # a package that can't be loaded
            continue
        if _fits(rule, unit) and not getattr(rule, "reads_decisions", False):
            fitting.append(name)
    return (
        f"Name one of {', '.join(fitting)}: for example fraction:0.1, which removes the tenth that "
        "scores highest."
    )
