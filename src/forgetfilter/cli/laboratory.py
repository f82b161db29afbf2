"""The lab's commands: named here, imported only when one of them is called."""

from __future__ import annotations

from typing import Any

DEMO_HELP = "screen a generated file with the bundled model, fine-tune, and show what changed"

_OTHERS = (
    "compare",
    "interleave",
    "curves",
    "immunise",
    "compose",
    "leaderboard",
    "attack",
    "robustness",
    "mix",
    "testbed",
)
"""Commands of the lab, beside the demonstration. They may be called without the word `lab`, as
documents and scripts do."""

NAMES = frozenset({"lab", "demo", *_OTHERS})
"""First words of a command line that call the lab."""


def name_demo(commands: Any) -> None:
    """List the demonstration, which people run first, where the product's commands are listed."""
    commands.add_parser("demo", help=DEMO_HELP)


def name_lab(commands: Any) -> None:
    """List the lab in one line; its commands' own names are known, but not listed."""
    commands.add_parser("lab", help=f"the research group's commands: {', '.join(_OTHERS)}")
    for name in _OTHERS:
        commands.add_parser(name)


def add(commands: Any) -> None:
    """Import the lab and add its commands, under `lab` and under their own names."""
    from forgetfilter.lab import cli

    lab = commands.add_parser("lab", description="The research group's commands.")
    cli.add(lab.add_subparsers(required=True, metavar="COMMAND"))
    cli.add(commands)
