"""A command that a launcher has started several times, as torchrun and accelerate launch do.

Process 0 runs it. Where it trains or reads a model, the others help; else they end at once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from forgetfilter.cli import laboratory
from forgetfilter.errors import ConfigError

_OF_SEVERAL = frozenset({"screen", "finetune", *laboratory.NAMES})
"""First words of command lines that train or read a model."""


def is_launched() -> bool:
    """Whether this is one of several processes that a launcher has started."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1 and "RANK" in os.environ


_was_launched = False  # what says so is taken out of the environment once the processes are joined


def why() -> str:
    """What may have interrupted one of several processes, for a message; nothing where alone."""
    return " (a launcher ends all processes where one is lost)" if _was_launched else ""


@contextmanager
def reading_by(engine: str | None) -> Generator[None]:
    """What reads rows while this lasts: this process and those beside it, or workers of Ray.

    Args:
        engine: ``ray``, ``ray:N`` for N workers, or None.

    Raises:
        ConfigError: it is neither, or several processes were started as well.
    """
    if engine is None:
        yield
        return
    name, _, count = engine.partition(":")
    is_count = count.isdecimal() and int(count) > 0
    if name != "ray" or (":" in engine and not is_count):
        raise ConfigError(
            f"--engine is {engine!r}; expected ray, or ray:N with the number of workers."
        )
    from forgetfilter.model.processes.joining import joined
    from forgetfilter.model.team.on_ray import reading_on_ray

    if group := joined():
        raise ConfigError(
            f"--engine {engine} was given to one of {group.size} processes. Expected one process, "
            "whose rows the workers read. Start it without a launcher, or leave --engine out."
        )

    with reading_on_ray(int(count) if count else None):
        yield


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Run a command, in as many processes as there are; the exit status."""
    global _was_launched
    if not is_launched():
        return options.run(options)
    _was_launched = True
    uses_all = bool(words) and words[0] in _OF_SEVERAL
    if int(os.environ["RANK"]) > 0:
        if not uses_all:
            return 0
        from forgetfilter.model.team.serving import serve

        return serve()
    if not uses_all:
        return options.run(options)
    from forgetfilter.model.team.leading import leading

    with leading():
        return options.run(options)
