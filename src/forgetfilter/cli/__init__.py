"""The command line: parse, call one function, print. Heavy imports happen inside commands.

A group of commands is one file, which adds its parsers and runs them.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys

from forgetfilter import __version__
from forgetfilter.cli import (
    deciding,
    exporting,
    laboratory,
    planning,
    safe_rows,
    screening,
    validating,
)
from forgetfilter.cli.failing import explain, let_go_of_output
from forgetfilter.cli.harmless import harmless_messages, show_traceback
from forgetfilter.cli.interrupts import Ended, signals_interrupt
from forgetfilter.cli.kinds import Parser
from forgetfilter.cli.launched import run, why
from forgetfilter.errors import ForgetFilterError, UnfitError
from forgetfilter.pipes import pipes_read_once
from forgetfilter.progress import tell


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status.

    0 done; 1 setup or input wrong; 2 wrong words; 3 the scores can't be trusted, so nothing was
    decided; 4 a condition of --fail-on holds; 130 interrupted, 143 by
    SIGTERM and 129 by SIGHUP.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        has_lab = any(word in laboratory.NAMES for word in words[:1])
        options = build_parser(has_lab=has_lab).parse_args(words)
        with signals_interrupt(), harmless_messages(), pipes_read_once():
            status = run(options, words)
        sys.stdout.flush()
    except UnfitError as error:
        _fail(str(error))
        return 3
    except ForgetFilterError as error:
        return _fail(str(error))
    except KeyboardInterrupt as error:
        _fail(f"interrupted{why()}; the same command resumes.")
        return 128 + (error.number if isinstance(error, Ended) else signal.SIGINT)
    except SystemExit:  # --help, or wrong words
        let_go_of_output()
        raise
    except Exception as error:
        said = explain(error)
        if said is None:  # a mistake of ours: its traceback is what helps
            sys.excepthook = show_traceback
            raise
        return _fail(said)
    return status


def _fail(said: str) -> int:
    """Say why a command ends; the exit status."""
    let_go_of_output()
    with contextlib.suppress(OSError):
        tell(f"forgetfilter: {said}", is_error=True)
    let_go_of_output()
    return 1


def build_parser(*, has_lab: bool = True) -> argparse.ArgumentParser:
    """All commands and flags; without the lab's, those are only named and nothing imports them."""
    parser = Parser(
        prog="forgetfilter",
        description="Screen fine-tuning data for unsafe rows by how much a language model "
        "forgets them.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    if not has_lab:
        laboratory.name_demo(commands)
    for part in (screening, planning, validating, deciding, exporting, safe_rows):
        part.add(commands)
    (laboratory.add if has_lab else laboratory.name_lab)(commands)
    return parser
