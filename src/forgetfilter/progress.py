"""What is printed: results, and progress with the time left; no text of others can steer it."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from forgetfilter.text import steady


def tell(text: object, *, is_error: bool = False) -> None:
    """Print a result, or on the error stream what is wrong.

    Whatever steers a terminal is shown as an escape: results name files, rows and models of others.
    """
    print(steady(str(text)), file=sys.stderr if is_error else sys.stdout, flush=True)


class Bar(Protocol):
    """What a long stage reports to."""

    total: float | None
    """Units in all; may be lowered when a stage turns out to be shorter."""

    def update(self, n: float = 1) -> bool | None:
        """Say that ``n`` more units are done."""
        ...


class Progress:
    """Makes progress bars and says single lines; ``Progress(is_silent=True)`` says nothing."""

    def __init__(self, *, is_silent: bool = False, has_bars: bool = True, label: str = "") -> None:
        """``label`` begins every line; with ``has_bars=False`` a stage's bar is one such line."""
        self.is_silent = is_silent
        self.has_bars = has_bars
        self.label = label

    @contextmanager
    def bar(self, label: str, total: int, unit: str, done: int = 0) -> Generator[Bar]:
        """A bar of ``total`` units that shows how long is left; ``done`` were so before."""
        from tqdm import tqdm

        if not self.has_bars:
            self.say(f"{label}: {total:,} {unit}")
        with tqdm(
            total=total,
            initial=done,
            desc=steady(label),
            unit=f" {unit}",
            disable=self.is_silent or not self.has_bars,
            mininterval=0.5,
            dynamic_ncols=True,
            leave=True,
        ) as bar:
            yield bar

    def say(self, text: str) -> None:
        """One line that stays."""
        if not self.is_silent:
            from tqdm import tqdm

            tqdm.write(steady(self.label + text), file=sys.stderr)
