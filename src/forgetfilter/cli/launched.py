"""A command that a launcher has started several times, as torchrun and accelerate launch do.

Process 0 runs it. Where it trains or reads a model, the others help; else they end at once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from forgetfilter.cli import laboratory

_OF_SEVERAL = frozenset({"screen", "finetune", *laboratory.NAMES})
"""First words of command lines that train or read a model."""


def is_launched() -> bool:
    """Whether this is one of several processes that a launcher has started."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1 and "RANK" in os.environ


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Run a command, in as many processes as there are; the exit status."""
    if not is_launched():
        return options.run(options)
    uses_all = bool(words) and words[0] in _OF_SEVERAL
    if int(os.environ["RANK"]) > 0:
        if not uses_all:
            return 0
        from forgetfilter.model.team import serve

        return serve()
    if not uses_all:
        return options.run(options)
    from forgetfilter.model.team import leading

    with leading():
        return options.run(options)
