"""--fail-on: an exit status of its own where a decision is not what a pipeline wants.

A condition is NAME, a comparison and a value: ``removed>0``. Nothing in it is run.
"""

from __future__ import annotations

import argparse
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forgetfilter.errors import ConfigError
from forgetfilter.text import printable

STATUS = 4
"""Exit status where a condition holds. 0 to 3 and 130 have other meanings."""

_COUNTS = ("rows", "kept", "removed", "rejected", "undecided", "judged")
_SHARES = ("kept_share", "removed_share", "rejected_share", "judged_share", "learned_share")
_VERDICTS = ("none", "some", "many", "cannot_tell")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"\s*([a-z_]+)\s*(>=|<=|!=|==|=|>|<)\s*(\S+)\s*")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?|\.[0-9]+")


@dataclass(frozen=True)
class Condition:
    """One comparison of a figure of the summary with a value."""

    text: str
    name: str
    comparison: str
    value: float | str

    def holds(self, summary: Mapping[str, Any]) -> bool:
        """Whether the figure is as the condition says; true of a figure that is not known.

        A check that can't be made is not a check that was passed.
        """
        found = _figure(summary, self.name)
        return found is None or _COMPARE[self.comparison](found, self.value)


def add_fail_on(parser: argparse.ArgumentParser) -> None:
    """The flag, which may be given several times."""
    parser.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="'NAME>VALUE'",
        help=f"end with status {STATUS} where this holds of the decision: 'removed>0', "
        "'removed_share>=0.05', 'rejected>0', 'verdict=many'; may be given several times. Write "
        "quotes, or the shell takes > for a file",
    )


def parse_conditions(texts: Sequence[str]) -> list[Condition]:
    """The conditions of a command line.

    Raises:
        ConfigError: one is not NAME, a comparison and a value that fits the name.
    """
    return [_parse(text) for text in texts]


def failed(conditions: Sequence[Condition], summary: Mapping[str, Any]) -> list[Condition]:
    """Those conditions that hold of a run's summary."""
    return [condition for condition in conditions if condition.holds(summary)]


def _parse(text: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise _refused(
            text,
            "Expected a name, one of > >= < <= = !=, and a value",
            "Write it in quotes, because a shell takes > for a file: --fail-on 'removed>0'",
        )
    name, comparison, value = found.groups()
    if name == "verdict":
        if value not in _VERDICTS or comparison not in ("=", "==", "!="):
            raise _refused(
                text,
                f"Expected verdict = or != one of {', '.join(_VERDICTS)}",
                "For some and many, give the flag twice: --fail-on verdict=some "
                "--fail-on verdict=many",
            )
        return Condition(f"{name}{comparison}{value}", name, comparison, value)
    if name not in (*_COUNTS, *_SHARES):
        raise _refused(
            text,
            f"Expected one of {', '.join((*_COUNTS, *_SHARES, 'verdict'))}",
            "Name one of them, for example --fail-on 'removed>0'",
        )
    if not _NUMBER.fullmatch(value) or (name in _SHARES and float(value) > 1):
        wanted = "a share between 0 and 1" if name in _SHARES else "a number"
        example = f"{name}>{'0.05' if name in _SHARES else '0'}"
        raise _refused(
            text, f"Expected {wanted} after {comparison}", f"For example --fail-on '{example}'"
        )
    return Condition(f"{name}{comparison}{value}", name, comparison, float(value))


def _refused(text: str, expected: str, remedy: str) -> ConfigError:
    return ConfigError(f"--fail-on was given {printable(text, 80)!r}. {expected}. {remedy}.")


def _figure(summary: Mapping[str, Any], name: str) -> Any:
    if name == "verdict":
        return (summary.get("verdict") or {}).get("level")
    if name == "learned_share" or name in _COUNTS:
        return summary.get(name)
    part, rows = summary.get(name.removesuffix("_share")), summary.get("rows")
    return None if part is None or not rows else part / rows
