"""safe, check-safe, mix: rows to start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from forgetfilter.cli.kinds import count, seed, share


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
    _add_mix(commands)


def _add_check(commands: Any) -> None:
    """The command that looks at a safe set."""
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


def _add_mix(commands: Any) -> None:
    """The command that mixes labelled noisy sets from real files."""
    mix = commands.add_parser(
        "mix",
        help="write a labelled noisy set, a safe set and test prompts from real files",
        description="Writes noisy.jsonl, safe.jsonl, test.jsonl and, apart, truth.jsonl. The rows "
        "hold offensive and harmful text on purpose; heed the licences that are printed.",
    )
    mix.add_argument("--output-dir", required=True, metavar="DIR", help="where to write")
    where = mix.add_mutually_exclusive_group()
    where.add_argument("--data", metavar="DIR", help="data folder ($FORGETFILTER_DATA)")
    where.add_argument("--hub", action="store_true", help="read the public sets of the hub instead")
    mix.add_argument(
        "--harms",
        nargs="+",
        default=["bias", "toxicity", "harmfulness"],
        metavar="HARM",
        help="bias, toxicity, harmfulness (all)",
    )
    mix.add_argument(
        "--tasks",
        nargs="*",
        default=["squad", "alpaca"],
        metavar="TASK",
        help="squad, alpaca, dolly, gsm8k, sst2, agnews (squad alpaca)",
    )
    mix.add_argument("--unsafe-fraction", type=share, default=0.3, help="of the noisy rows (0.3)")
    mix.add_argument("--rows", type=count, default=1500, help="noisy rows (%(default)s)")
    mix.add_argument("--safe-rows", type=count, default=400, help="safe rows (%(default)s)")
    mix.add_argument("--test-rows", type=count, default=300, help="test prompts (%(default)s)")
    mix.add_argument("--seed", type=int, default=0, help="same seed, same bytes (%(default)s)")
    mix.add_argument(
        "--max-characters", type=count, default=4000, help="leave out longer rows (%(default)s)"
    )
    mix.add_argument(
        "--held-out",
        dest="is_held_out",
        action="store_true",
        help="only rows that `testbed build --recipe realtext` leaves out",
    )
    mix.set_defaults(run=_mix)


def _safe(options: argparse.Namespace) -> int:
    from forgetfilter.safe import write_safe

    output = Path(options.output)
    rows = write_safe(output, options.categories, overwrite=options.overwrite)
    print(f"{rows:,} safe rows: {output}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from forgetfilter.safe_check import check_safe, write_check
    from forgetfilter.safe_check_text import describe

    check = check_safe(options.safe, options.reference_data, options.seed)
    if options.json:
        write_check(check, Path(options.json))
    print(describe(check))
    return 0


def _mix(options: argparse.Namespace) -> int:
    from forgetfilter.mix import MixSettings, data_folder, describe, make_mix, write_mix

    settings = MixSettings(
        harms=tuple(options.harms),
        tasks=tuple(options.tasks),
        unsafe_fraction=options.unsafe_fraction,
        rows=options.rows,
        safe_rows=options.safe_rows,
        test_rows=options.test_rows,
        seed=options.seed,
        max_characters=options.max_characters,
        is_held_out=options.is_held_out,
    )
    mix = make_mix(settings, None if options.hub else data_folder(options.data))
    write_mix(mix, Path(options.output_dir))
    print(describe(mix))
    return 0
