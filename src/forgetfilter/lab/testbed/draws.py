"""Drawing prompts that are new: no two alike, and none of the held-out ones among training rows.

Whether a prompt is held out depends on its text alone (`is_held_out`), so no seed of probes can
meet a seed of training rows.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from forgetfilter.errors import ConfigError

from .records import Example

_HELD_OUT_SHARE = 10
"""One prompt in so many belongs to the probes."""
_MAX_TRIES = 1000

Draw = Callable[[random.Random], Example]
T = TypeVar("T")


def is_held_out(example: Example) -> bool:
    """Whether a prompt belongs to the probes; depends on its text alone."""
    return zlib.crc32(example.text.encode()) % _HELD_OUT_SHARE == 0


class ExhaustedError(Exception):
    """The made-up world has no new prompt of a kind; ``share`` of those asked for were found."""

    def __init__(self, share: float) -> None:
        super().__init__(f"no new prompt after {share:.0%} of those asked for")
        self.share = share


def draw_unseen(
    rng: random.Random, draw: Draw, seen: set[str], *, is_probe: bool = False
) -> Example:
    """Draw until the prompt is new and on the wanted side of the held-out line.

    Raises:
        ExhaustedError: a thousand draws have found none.
    """
    for _ in range(_MAX_TRIES):
        example = draw(rng)
        if example.text not in seen and is_held_out(example) == is_probe:
            seen.add(example.text)
            return example
    raise ExhaustedError(0.0)


def draw_all(rng: random.Random, draws: Sequence[Draw], *, is_probe: bool = False) -> list[Example]:
    """One new example per draw, in order."""
    seen: set[str] = set()
    examples: list[Example] = []
    for at, draw in enumerate(draws):
        try:
            examples.append(draw_unseen(rng, draw, seen, is_probe=is_probe))
        except ExhaustedError:
            raise ExhaustedError(draws[:at].count(draw) / draws.count(draw)) from None
    return examples


def at_most(rows: int, make: Callable[[int], T]) -> T:
    """``make(rows)``, or an error that says how many rows it can make.

    Raises:
        ConfigError: the world has fewer prompts; the number that is named was made to see.
    """
    try:
        return make(rows)
    except ExhaustedError as error:
        share = error.share
    fitting = int(rows * share)
    while fitting:
        try:
            make(fitting)
            break
        except ExhaustedError as error:
            fitting = int(fitting * min(error.share, 0.98))
    raise ConfigError(
        f"{rows:,} different prompts were asked for, which the made-up world does not have. "
        f"Expected at most {fitting:,} with these options. Ask for so many or fewer."
    )


def spread(rows: int, draws: Sequence[Draw]) -> list[Draw]:
    """`rows` draws, as even over `draws` as they come."""
    return [draws[at % len(draws)] for at in range(rows)]
