"""The command line: parse, call one function, print. Heavy imports happen inside commands.

A group of commands is one file, which adds its parsers and runs them.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from forgetfilter import __version__
from forgetfilter.cli import safe_rows, screening
from forgetfilter.cli.failing import explain, let_go_of_output
from forgetfilter.cli.kinds import Parser
from forgetfilter.errors import ForgetFilterError, UnfitError
from forgetfilter.lab.cli import mixing, studies, testbed


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status.

    0 done; 1 setup or input wrong; 2 wrong words; 3 the scores can't be trusted, so nothing was
    decided; 130 interrupted.
    """
    try:
        options = build_parser().parse_args(arguments)
        status = options.run(options)
        sys.stdout.flush()
    except UnfitError as error:
        _fail(str(error))
        return 3
    except ForgetFilterError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; the same command resumes.")
        return 130
    except SystemExit:  # --help, or wrong words
        let_go_of_output()
        raise
    except Exception as error:
        said = explain(error)
        if said is None:  # a mistake of ours: its traceback is what helps
            raise
        return _fail(said)
    return status


def _fail(said: str) -> int:
    """Say why a command ends; the exit status."""
    let_go_of_output()
    with contextlib.suppress(OSError):
        print(f"forgetfilter: {said}", file=sys.stderr, flush=True)
    let_go_of_output()
    return 1


def build_parser() -> argparse.ArgumentParser:
    """All commands and flags."""
    parser = Parser(
        prog="forgetfilter",
        description="Screen fine-tuning data for unsafe rows by how much a language model "
        "forgets them.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for part in (screening, safe_rows, mixing, studies, testbed):
        part.add(commands)
    return parser
