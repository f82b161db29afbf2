"""compare: strategies side by side."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add(commands: Any) -> None:
    """The command of this group."""
    compare = commands.add_parser(
        "compare",
        help="run a grid of strategies, data sets and seeds, and show what became of each",
        description="Runs every strategy on every data set and seed of a YAML file. Finished cells "
        "are skipped when the command is repeated; failed ones are shown and tried again.",
    )
    compare.add_argument("config", metavar="FILE.yaml", help="the grid; see docs/compare.md")
    compare.add_argument("--output-dir", metavar="RUN", help="run folder (else as in the file)")
    compare.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of the file, for example settings.learn.num_train_epochs=5",
    )
    compare.add_argument("--overwrite", action="store_true", help="replace a run that differs")
    compare.add_argument("--quiet", action="store_true", help="show no progress")
    compare.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from forgetfilter.config import load_yaml, parse_assignments, resolve
    from forgetfilter.progress import Progress
    from forgetfilter.studies.settings import CompareConfig

    flags = {} if options.output_dir is None else {"output_dir": options.output_dir}
    layers = load_yaml(options.config), parse_assignments(options.set), flags
    config = resolve(CompareConfig, *layers)
    from forgetfilter.studies.compare import PAGE_FILE, compare
    from forgetfilter.studies.tables import markdown

    progress = Progress(is_silent=options.quiet)
    comparison = compare(config, progress, overwrite=options.overwrite)
    print(markdown(comparison.results))
    print(f"Page: {comparison.output_dir / PAGE_FILE}")
    failed = comparison.failed
    for cell in failed:
        print(
            f"forgetfilter: failed: {cell.strategy} on {cell.dataset}, seed {cell.seed}: "
            f"{(cell.error() or '').strip().splitlines()[0]} ({cell.folder})",
            file=sys.stderr,
        )
    return 1 if failed else 0
