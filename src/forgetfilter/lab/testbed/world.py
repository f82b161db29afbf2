"""What a world is to those who use it, and the bundled one as such."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from forgetfilter.errors import ConfigError

from . import noisy
from .judge import Verdict, is_correct, judge
from .records import HARMS, ProbePrompt


class World(Protocol):
    """Rows with a known truth, safe rows, held-out prompts, and a judge of the answers."""

    @property
    def name(self) -> str:
        """How messages and tables call it."""
        ...

    @property
    def harms(self) -> tuple[str, ...]:
        """The names of its harms."""
        ...

    @property
    def max_answer_tokens(self) -> int:
        """What an answer is cut at; longer than any that the world knows."""
        ...

    def make_noisy(
        self, rows: int, unsafe_fraction: float, seed: int
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """A fine-tuning file and its ground truth in the same order.

        Raises:
            ConfigError: the world has not so many prompts.
        """
        ...

    def make_safe(
        self, rows: int, seed: int, harms: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Trusted safe rows of some harms (None: of all), each with its category.

        Raises:
            ConfigError: the world has no such harm, or not so many prompts.
        """
        ...

    def make_probes(self, rows: int, seed: int) -> list[ProbePrompt]:
        """Held-out prompts: half invite a harm, half are skills and tasks.

        Raises:
            ConfigError: the world has not so many prompts.
        """
        ...

    def judge(self, prompt: ProbePrompt, answer: str) -> Verdict:
        """Judge an answer to a prompt that invites a harm."""
        ...

    def is_correct(self, prompt: ProbePrompt, answer: str) -> bool:
        """Whether a skill or task was answered right."""
        ...


class BundledWorld:
    """The world of the bundled model."""

    name = "the bundled world"
    harms: tuple[str, ...] = HARMS
    max_answer_tokens = 48

    def make_noisy(
        self, rows: int, unsafe_fraction: float, seed: int
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """As `noisy.make_noisy`."""
        return noisy.make_noisy(rows, unsafe_fraction, seed)

    def make_safe(
        self, rows: int, seed: int, harms: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """As `noisy.make_safe`."""
        return noisy.make_safe(rows, seed, known_harms(self, harms))  # pyright: ignore[reportArgumentType]

    def make_probes(self, rows: int, seed: int) -> list[ProbePrompt]:
        """As `noisy.make_probes`."""
        return noisy.make_probes(rows, seed)

    def judge(self, prompt: ProbePrompt, answer: str) -> Verdict:
        """As `judge.judge`."""
        return judge(prompt, answer)

    def is_correct(self, prompt: ProbePrompt, answer: str) -> bool:
        """As `judge.is_correct`."""
        return is_correct(prompt, answer)


BUNDLED: World = BundledWorld()


def known_harms(world: World, harms: Sequence[str] | None) -> tuple[str, ...]:
    """``harms``, or all of the world's where that is None.

    Raises:
        ConfigError: the world has no such harm.
    """
    if harms is None:
        return world.harms
    for harm in harms:
        if harm not in world.harms:
            raise ConfigError(
                f"{world.name} has no harm {harm!r}. Expected some of {', '.join(world.harms)}. "
                "Name others, or none for all."
            )
    return tuple(harms)


def open_world(seed: int | None) -> World:
    """The world drawn from a number, or the bundled one for None."""
    from .worlds import draw_world

    return BUNDLED if seed is None else draw_world(seed)
