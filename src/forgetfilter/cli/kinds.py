"""Types of flags, and help that lists what the registries hold."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Literal

from forgetfilter.text import steady

CHECKPOINT_HELP = (
    "minutes between two checkpoints of what is trained or scored, from which a killed command "
    "goes on; 0: none (default: 10, or as in the settings)"
)


class Parser(argparse.ArgumentParser):
    """A parser whose help lists names that are looked up only once it is printed."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.before_help: list[Callable[[], None]] = []
        """Called before the help is printed; each completes a text."""

    def format_help(self) -> str:
        """The help, with all names in it."""
        while self.before_help:
            self.before_help.pop()()
        return super().format_help()

    def _print_message(self, message: str, file: Any = None) -> None:
        # Wrong words are quoted: names of files that others chose may be among them.
        super()._print_message(steady(message), file)

    def list_in_help(self, flag: str, names: Callable[[], list[str]]) -> None:
        """Put names behind the help of a flag that is there already."""
        action = next(one for one in self._actions if flag in one.option_strings)

        def complete() -> None:
            listed = ", ".join(names()).replace("%", "%%")
            action.help = f"{action.help}: {listed}"

        self.before_help.append(complete)

    def list_at_end(self, title: str, names: Callable[[], list[str]]) -> None:
        """Put names below all flags."""

        def complete() -> None:
            self.epilog = f"{title}: {', '.join(names())}"

        self.before_help.append(complete)


def signal_names() -> list[str]:
    """The registered forgetting signals."""
    from forgetfilter.scoring.signals.base import SIGNALS

    return SIGNALS.names()


def threshold_names() -> list[str]:
    """The registered threshold rules."""
    from forgetfilter.scoring.thresholds.base import THRESHOLDS

    return THRESHOLDS.names()


def column_map(text: str) -> dict[str, str]:
    """Usual names of columns and the file's own: ``prompt=frage,completion=antwort``."""
    found: dict[str, str] = {}
    for item in text.split(","):
        own, equals, theirs = item.partition("=")
        if not equals or not own.strip():
            raise argparse.ArgumentTypeError(f"{item!r} is not NAME=COLUMN")
        found[own.strip()] = theirs.strip()
    return found


def share(text: str) -> float:
    """A share between 0 and 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share between 0 and 1")
    return value


def joint_weight(text: str) -> float | Literal["reviewed"]:
    """What a second opinion counts: a number, or ``reviewed``."""
    if text == "reviewed":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number of nats per root token nor reviewed"
        ) from None


def count(text: str) -> int:
    """A positive number of rows."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of rows")
    return value


def seed(text: str) -> int:
    """What random choices start from: a whole number from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return value
