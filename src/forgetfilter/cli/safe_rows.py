"""safe, check-safe: write out the packaged safe rows, and check a safe set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from forgetfilter.cli.kinds import seed
from forgetfilter.progress import tell


def add(commands: Any) -> None:
    """The commands of this group."""
    safe = commands.add_parser(
        "safe", help="write out the packaged general-purpose safe rows, to read or to edit"
    )
    safe.add_argument("--output", required=True, metavar="FILE")
    safe.add_argument(
        "--categories",
        nargs="+",
        metavar="CATEGORY",
        help="only these: bias, toxicity, harmful_requests, privacy, self_harm, deception, "
        "looks_dangerous (default: all)",
    )
    safe.add_argument("--overwrite", action="store_true", help="replace a file that differs")
    safe.set_defaults(run=_safe)

    _add_check(commands)


def _add_check(commands: Any) -> None:
    """The command that checks a safe set."""
    check = commands.add_parser(
        "check-safe",
        help="say which harms a safe set covers, what it repeats, which of its rows look unsafe",
        description="Reads words only: no model, no network. A rough guide "
        "(docs/lab/check_safe.md); what safe rows can judge is measured by each screen.",
    )
    check.add_argument("safe", metavar="SAFE.jsonl", help="the rows, or packaged:general")
    check.add_argument(
        "--reference-data",
        metavar="FILE",
        help="rows whose category says which harms to look for (default: the packaged set)",
    )
    check.add_argument("--json", metavar="FILE", help="write the whole result, row by row")
    check.add_argument(
        "--seed", type=seed, default=0, help="which rows of a large file are compared (%(default)s)"
    )
    check.set_defaults(run=_check)


def _safe(options: argparse.Namespace) -> int:
    from forgetfilter.safe import write_safe

    output = Path(options.output)
    rows = write_safe(output, options.categories, overwrite=options.overwrite)
    tell(f"{rows:,} safe rows: {output}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from forgetfilter.safe.check import check_safe, write_check
    from forgetfilter.safe.check_text import describe

    check = check_safe(options.safe, options.reference_data, options.seed)
    if options.json:
        write_check(check, Path(options.json))
    tell(describe(check))
    return 0
