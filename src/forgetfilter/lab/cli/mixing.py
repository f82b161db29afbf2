"""mix: labelled noisy sets from real files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from forgetfilter.cli.kinds import count, share
from forgetfilter.progress import tell


def add(commands: Any) -> None:
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
        help="bias, toxicity, harmfulness (these three); also, to test a second style: "
        "harmfulness_xstest, harmfulness_gptfuzz, harmfulness_pku",
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
        "--max-answer-words",
        type=count,
        default=110,
        help="leave out rows with longer answers (%(default)s, about 150 tokens)",
    )
    mix.add_argument(
        "--safe-categories",
        dest="has_safe_categories",
        action="store_true",
        help="safe rows name their harm as category; the rows stay the same",
    )
    which = mix.add_mutually_exclusive_group()
    which.add_argument(
        "--part",
        choices=("choosing", "reporting"),
        help="only rows to choose methods on, or only rows to report on; safe rows of neither",
    )
    which.add_argument(
        "--held-out",
        dest="is_held_out",
        action="store_true",
        help="only rows that `testbed build --recipe realtext` leaves out",
    )
    mix.set_defaults(run=_mix)


def _mix(options: argparse.Namespace) -> int:
    from forgetfilter.lab.mix import MixSettings, data_folder, describe, make_mix, write_mix

    settings = MixSettings(
        harms=tuple(options.harms),
        tasks=tuple(options.tasks),
        unsafe_fraction=options.unsafe_fraction,
        rows=options.rows,
        safe_rows=options.safe_rows,
        test_rows=options.test_rows,
        seed=options.seed,
        max_characters=options.max_characters,
        max_answer_words=options.max_answer_words,
        part=options.part,
        is_held_out=options.is_held_out,
        has_safe_categories=options.has_safe_categories,
    )
    mix = make_mix(settings, None if options.hub else data_folder(options.data))
    write_mix(mix, Path(options.output_dir))
    tell(describe(mix))
    return 0
