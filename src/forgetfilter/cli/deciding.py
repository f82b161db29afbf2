"""filter, show, review: decide again, look at one row, overrule."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from forgetfilter.cli.fail_on import add_fail_on, parse_conditions
from forgetfilter.cli.kinds import joint_weight, threshold_names
from forgetfilter.cli.screening import add_force, print_counts, status_of
from forgetfilter.errors import ConfigError
from forgetfilter.progress import tell
from forgetfilter.text import printable

_SHOWN_MOVES = 50


def add(commands: Any) -> None:
    """The commands of this group."""
    decide = commands.add_parser(
        "filter",
        help="decide a finished run again, by another rule or row by row; loads no model",
        description="Without --threshold the present rule decides. Decisions on single rows are "
        "written to RUN/decisions.jsonl and hold whatever rule or signal decides later.",
    )
    decide.add_argument("run_dir", metavar="RUN")
    decide.add_argument("--threshold", metavar="RULE", help="threshold rule")
    decide.list_in_help("--threshold", threshold_names)
    for choice in ("keep", "remove"):
        decide.add_argument(
            f"--{choice}-row",
            type=int,
            nargs="+",
            action="extend",
            default=[],
            metavar="N",
            help=f"{choice} these rows, whatever the rule says (numbers of the column `row`)",
        )
    decide.add_argument("--reason", default="", metavar="TEXT", help="why, for the record")
    decide.add_argument("--reviewer", default="", metavar="NAME", help="who (default: login name)")
    edits = decide.add_mutually_exclusive_group()
    edits.add_argument(
        "--adopt-edits",
        action="store_const",
        const="adopt",
        dest="edits",
        help="take edits by hand of kept and removed rows over as decisions",
    )
    edits.add_argument(
        "--discard-edits",
        action="store_const",
        const="discard",
        dest="edits",
        help="write the files as they are decided, over edits by hand",
    )
    decide.add_argument(
        "--action",
        choices=("remove", "flag", "weight", "mask"),
        help="what to write beside kept and removed rows (default: as before)",
    )
    decide.add_argument(
        "--joint",
        type=joint_weight,
        metavar="WEIGHT",
        help="cut the forgetting score plus WEIGHT times the run's second opinion; 0: the "
        "forgetting score alone; reviewed: the weight that what people decided says (default: as "
        "before)",
    )
    decide.add_argument("--dry-run", action="store_true", help="only say what would change")
    add_force(decide)
    add_fail_on(decide)
    decide.set_defaults(run=_filter)

    show = commands.add_parser("show", help="all that a run knows of one row")
    show.add_argument("run_dir", metavar="RUN")
    which = show.add_mutually_exclusive_group(required=True)
    which.add_argument("--row", type=int, metavar="N", help="number of the row, from 0")
    which.add_argument("--id", metavar="ID", help="its example_id")
    show.add_argument("--json", action="store_true", help="as JSON, with texts as they are")
    show.set_defaults(run=_show)

    review = commands.add_parser(
        "review",
        help="open a page on this machine to look through rows and overrule the filter",
        description="Needs the extra: pip install 'forgetfilter[review]'. Listens on 127.0.0.1 "
        "alone; only who has the whole address can use it. End it with Ctrl-C.",
    )
    review.add_argument("run_dir", metavar="RUN")
    review.add_argument("--reviewer", default="", metavar="NAME", help="who (default: login name)")
    review.add_argument("--port", type=int, default=0, help="(default: a free one)")
    review.add_argument("--no-browser", action="store_true", help="only print the address")
    review.set_defaults(run=_review)


def _filter(options: argparse.Namespace) -> int:
    from forgetfilter.screening.deciding.decide import filter_run
    from forgetfilter.screening.deciding.overruling import Overruling

    conditions = parse_conditions(options.fail_on)
    asked = Overruling(
        keep=tuple(options.keep_row),
        remove=tuple(options.remove_row),
        reason=options.reason,
        reviewer=options.reviewer,
        edits=options.edits or "refuse",
    )
    force = bool(options.force)
    if options.dry_run and conditions:
        raise ConfigError(
            "--fail-on was given with --dry-run: it asks of a decision that is made, and none is. "
            "Expected one of them. Repeat without --fail-on, or without --dry-run."
        )
    if options.dry_run:
        return _preview(options, asked, force)
    summary = filter_run(
        options.run_dir,
        options.threshold,
        force=force,
        overruling=asked,
        action=options.action,
        joint=options.joint,
    )
    _tell_weight(options, summary.get("joint", 0.0))
    print_counts(summary, Path(options.run_dir))
    return status_of(conditions, summary)


def _tell_weight(options: argparse.Namespace, weight: float) -> None:
    if options.joint == "reviewed":
        tell(f"Joint weight by what people decided: {weight:g}.")


def _preview(options: argparse.Namespace, asked: Any, force: bool) -> int:
    from forgetfilter.screening.deciding.preview import preview

    found = preview(
        options.run_dir, options.threshold, force=force, overruling=asked, joint=options.joint
    )
    _tell_weight(options, found.joint)
    for move in found.moves[:_SHOWN_MOVES]:
        tell(
            f"  row {move.row} ({printable(move.example_id, 60)}): {move.before} -> {move.after}, "
            f"score {move.score:.4g}, {printable(move.reason, 60)}"
        )
    if len(found.moves) > _SHOWN_MOVES:
        tell(f"  and {len(found.moves) - _SHOWN_MOVES:,} more")
    counts = ", ".join(
        f"{name} {found.before[name]:,} -> {now:,}" for name, now in found.after.items()
    )
    moved = "1 row would move" if len(found.moves) == 1 else f"{len(found.moves):,} rows would move"
    made = "1 decision" if found.recorded == 1 else f"{found.recorded:,} decisions"
    tell(f"{moved}, {made} would be recorded ({found.rule}): {counts}. Nothing was written.")
    return 0


def _show(options: argparse.Namespace) -> int:
    from forgetfilter.files import encode_json
    from forgetfilter.runs.one_row import describe_row, tell_row

    told = tell_row(Path(options.run_dir), options.row, options.id)
    if options.json:
        sys.stdout.write(encode_json(told, indent=2).decode("utf-8") + "\n")
    else:
        tell(describe_row(told))
    return 0


def _review(options: argparse.Namespace) -> int:
    from forgetfilter.review import review

    summary = review(
        options.run_dir,
        reviewer=options.reviewer,
        port=options.port,
        opens_browser=not options.no_browser,
        tell=tell,
    )
    print_counts(summary, Path(options.run_dir))
    return 0
