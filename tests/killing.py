"""Progress that kills what reports to it, so that a test can see whether that goes on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from forgetfilter.progress import Bar, Progress

EVERY_STEP = 1e-9
"""Minutes between checkpoints, so that each step has one."""


class Killed(BaseException):
    """As good as a kill: what is done on errors is not done."""


class Killing(Progress):
    """Kills a pass when it reports its ``steps``-th unit; remembers what is said."""

    def __init__(self, steps: int | None = None) -> None:
        super().__init__(is_silent=True)
        self.lines: list[str] = []
        self.begun: list[int] = []
        """Where the bars began."""
        self.updates: dict[str, int] = {}
        """How often each bar was moved."""
        self.left = steps

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def bar(self, label: str, total: int, unit: str, done: int = 0) -> Generator[Bar]:
        self.begun.append(done)
        with super().bar(label, total, unit, done) as bar:
            update = bar.update

            def counted(n: float = 1) -> bool | None:
                self.updates[label] = self.updates.get(label, 0) + 1
                if self.left is not None:
                    self.left -= 1
                    if not self.left:
                        raise Killed
                return update(n)

            bar.update = counted
            yield bar
