"""plan: what a screen will cost, before anything is trained."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from forgetfilter.cli.screening import add_reading, reading_of_flags
from forgetfilter.progress import tell


def add(commands: Any) -> None:
    """The command of this group."""
    plan = commands.add_parser(
        "plan",
        help="say how long a screen will take and how much memory; trains nothing",
        description="Counts the passes of each phase over the file's own rows and what each costs, "
        "and measures in seconds how fast this machine makes them. Loads no weights. Exit status: "
        "0; 1 where the model doesn't fit into the memory that was given.",
    )
    plan.add_argument("noisy_data", nargs="+", metavar="FILE", help="what is to be screened")
    add_reading(plan)
    plan.add_argument("--model", required=True, metavar="DIR_OR_ID", help="as for screen")
    plan.add_argument("--safe-data", metavar="SAFE.jsonl", help="as for screen")
    plan.add_argument("--signal", help="forgetting signal (default: contradiction)")
    plan.add_argument("--config", metavar="FILE.yaml", help="settings to read first")
    plan.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other")
    plan.add_argument(
        "--gpu-memory",
        type=_positive,
        metavar="GB",
        help="plan for a GPU with so much memory instead of for this machine",
    )
    plan.add_argument(
        "--flops",
        type=_positive,
        metavar="TFLOPS",
        help="10^12 FLOPs a second that the device reaches in matrix products; nothing is measured",
    )
    plan.add_argument("--json", action="store_true", help="print one JSON object instead")
    plan.set_defaults(run=_plan)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _plan(options: argparse.Namespace) -> int:
    from forgetfilter.config import ScreenConfig, load_yaml, parse_assignments, resolve
    from forgetfilter.files import encode_json
    from forgetfilter.screening.inputs.opening import check_input

    names = ("model", "safe_data", "signal")
    flags: dict[str, Any] = {n: getattr(options, n) for n in names if getattr(options, n)}
    given = options.noisy_data
    flags["noisy_data"] = given[0] if len(given) == 1 else given
    flags["reading"] = reading_of_flags(options)
    layers = [load_yaml(options.config)] if options.config else []
    settings = (*layers, parse_assignments(options.set), {"output_dir": "unused"}, flags)
    config = resolve(ScreenConfig, *settings)
    check_input(config)
    from forgetfilter.screening.planning.plan_text import describe
    from forgetfilter.screening.planning.planning import plan_screen

    memory = None if options.gpu_memory is None else options.gpu_memory * 1e9
    flops = None if options.flops is None else options.flops * 1e12
    plan = plan_screen(config, memory=memory, flops=flops)
    if options.json:
        sys.stdout.write(encode_json(plan, indent=2).decode("utf-8") + "\n")
    else:
        tell(describe(plan))
    return 0 if plan["fits"] else 1
