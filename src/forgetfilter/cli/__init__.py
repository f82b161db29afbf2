"""The command line: parse, call one function, print. Heavy imports happen inside commands.

A group of commands is one file, which adds its parsers and runs them.
"""

from __future__ import annotations

import argparse
import sys

from forgetfilter import __version__
from forgetfilter.cli import mixing, screening, studies, testbed
from forgetfilter.cli.kinds import Parser
from forgetfilter.errors import ForgetFilterError


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status (0 done, 1 setup or input wrong, 130 interrupted)."""
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options)
    except ForgetFilterError as error:
        print(f"forgetfilter: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("forgetfilter: interrupted; the same command resumes.", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """All commands and flags."""
    parser = Parser(
        prog="forgetfilter",
        description="Screen fine-tuning data for unsafe rows by how much a language model "
        "forgets them.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for part in (screening, mixing, studies, testbed):
        part.add(commands)
    return parser
