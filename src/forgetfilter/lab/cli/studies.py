"""The studies: of strategies, rounds, settings, attacks, pairs of strategies and row scorers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, TypeVar

from forgetfilter.cli.kinds import CHECKPOINT_HELP
from forgetfilter.progress import tell

if TYPE_CHECKING:
    from forgetfilter.lab.studies.grid import Comparison
    from forgetfilter.lab.studies.settings import GridConfig

    C = TypeVar("C", bound=GridConfig)


def add(commands: Any) -> None:
    """The commands of this group."""
    compare = commands.add_parser(
        "compare",
        help="run a grid of strategies, data sets and seeds, and compare the results",
        description="Runs every strategy on every data set and seed of a YAML file. Finished cells "
        "are skipped when the command is repeated; failed ones are shown and tried again.",
    )
    _add_options(compare, "docs/lab/compare.md")
    compare.list_at_end("strategies", strategy_names)
    compare.set_defaults(run=_compare)
    interleave = commands.add_parser(
        "interleave",
        help="run strategies through rounds of noisy and safe training",
        description="Takes every strategy of a YAML file through rounds of fresh noisy rows, each "
        "phase from the state of the last, and judges it at every phase boundary. Finished cells "
        "and stages are skipped when the command is repeated; failed cells are shown and tried "
        "again.",
    )
    _add_options(interleave, "docs/lab/study.md")
    interleave.list_at_end("strategies", strategy_names)
    interleave.set_defaults(run=_interleave)
    curves = commands.add_parser(
        "curves",
        help="draw learning and forgetting by kind of row, and screens along one setting",
        description="Follows kinds of row through learning and forgetting, and screens with one "
        "setting varied at a time (threshold, forgetting steps, safe rows, unsafe fraction, "
        "model), on every seed of every data set of a YAML file. Finished cells and stages are "
        "skipped when the command is repeated; failed cells are shown and tried again.",
    )
    _add_options(curves, "docs/lab/study.md")
    curves.add_argument(
        "--from-results",
        nargs="+",
        default=[],
        metavar="FILE.parquet",
        help="results of earlier runs; a cell that one of them holds is not run again",
    )
    curves.set_defaults(run=_curves)
    immunise = commands.add_parser(
        "immunise",
        help="attack strategies with growing budgets, and train them on clean rows",
        description="Puts every strategy of a YAML file to the four conditions of immunisation: "
        "resistance, stability, generalisation and trainability. Finished cells are skipped when "
        "the command is repeated; failed ones are shown and tried again.",
    )
    _add_options(immunise, "docs/lab/defences.md")
    immunise.list_at_end("strategies", strategy_names)
    immunise.set_defaults(run=_immunise)
    compose = commands.add_parser(
        "compose",
        help="run pairs of strategies in both orders, and measure how they go together",
        description="Runs every pair of a YAML file in both orders, and each strategy alone: "
        "order-free error and order sensitivity. Finished cells are skipped when the command is "
        "repeated; failed ones are shown and tried again.",
    )
    _add_options(compose, "docs/lab/defences.md")
    compose.list_at_end("strategies", strategy_names)
    compose.set_defaults(run=_compose)
    board = commands.add_parser(
        "leaderboard",
        help="rank rows by every row scorer, and compare what each finds and costs",
        description="Has every row scorer of a YAML file score the rows of every labelled mix and "
        "seed: average precision, AUROC, recall at 1% false removals, passes and seconds. Finished "
        "cells and stages are skipped when the command is repeated; failed cells are shown and "
        "tried again.",
    )
    _add_options(board, "docs/lab/leaderboard.md")
    board.list_at_end("row scorers", scorer_names)
    board.set_defaults(run=_leaderboard)
    robust = commands.add_parser(
        "robustness",
        help="attack the filter in every way, and see which rows slip through",
        description="Has every attack of a YAML file change the rows of every labelled mix and "
        "seed, screens them, and grades what is caught, what fine-tuning on the kept rows then "
        "does, and which second signal sees the rows. Finished cells and stages are skipped when "
        "the command is repeated; failed cells are shown and tried again.",
    )
    _add_options(robust, "docs/robustness.md")
    robust.list_at_end("attacks", attack_names)
    robust.set_defaults(run=_robustness)


def strategy_names() -> list[str]:
    """The registered strategies, and those that only a comparison can build."""
    from forgetfilter.lab.strategies.base import STRATEGIES
    from forgetfilter.lab.strategies.controls import ORACLES

    return sorted([*STRATEGIES.names(), *ORACLES])


def scorer_names() -> list[str]:
    """The registered row scorers."""
    from forgetfilter.lab.row_scorers.base import ROW_SCORERS

    return ROW_SCORERS.names()


def attack_names() -> list[str]:
    """The registered attacks."""
    from forgetfilter.lab.attacks.base import ATTACKS

    return ATTACKS.names()


def _add_options(command: argparse.ArgumentParser, page: str) -> None:
    command.add_argument("config", metavar="FILE.yaml", help=f"the grid; see {page}")
    command.add_argument("--output-dir", metavar="RUN", help="run folder (else as in the file)")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of the file, for example settings.learn.num_train_epochs=5",
    )
    command.add_argument(
        "--num-proc",
        type=int,
        metavar="N",
        help="processes, on other seeds where they can, sharing the cores (else as in the file: 1)",
    )
    command.add_argument("--checkpoint-minutes", type=float, help=CHECKPOINT_HELP)
    command.add_argument("--overwrite", action="store_true", help="replace a run that differs")
    command.add_argument("--quiet", action="store_true", help="show no progress")


def _compare(options: argparse.Namespace) -> int:
    from forgetfilter.lab.studies.settings import CompareConfig
    from forgetfilter.progress import Progress

    config = _config(CompareConfig, options)
    from forgetfilter.lab.studies.compare import compare

    progress = Progress(is_silent=options.quiet)
    return _show(compare(config, progress, overwrite=options.overwrite))


def _interleave(options: argparse.Namespace) -> int:
    from forgetfilter.lab.studies.settings import InterleaveConfig
    from forgetfilter.progress import Progress

    config = _config(InterleaveConfig, options)
    from forgetfilter.lab.studies.interleave import interleave

    progress = Progress(is_silent=options.quiet)
    return _show(interleave(config, progress, overwrite=options.overwrite))


def _curves(options: argparse.Namespace) -> int:
    from forgetfilter.lab.studies.points import CurvesConfig
    from forgetfilter.progress import Progress

    config = _config(CurvesConfig, options)
    from forgetfilter.lab.studies.curves import curves

    progress = Progress(is_silent=options.quiet)
    kept = options.from_results
    return _show(curves(config, progress, overwrite=options.overwrite, from_results=kept))


def _immunise(options: argparse.Namespace) -> int:
    from forgetfilter.lab.studies.attacks import ImmunisationConfig
    from forgetfilter.progress import Progress

    config = _config(ImmunisationConfig, options)
    from forgetfilter.lab.studies.immunise import immunise

    progress = Progress(is_silent=options.quiet)
    return _show(immunise(config, progress, overwrite=options.overwrite))


def _compose(options: argparse.Namespace) -> int:
    from forgetfilter.lab.studies.composability import ComposabilityConfig, compose
    from forgetfilter.progress import Progress

    config = _config(ComposabilityConfig, options)
    progress = Progress(is_silent=options.quiet)
    return _show(compose(config, progress, overwrite=options.overwrite))


def _leaderboard(options: argparse.Namespace) -> int:
    from forgetfilter.lab.studies.settings import LeaderboardConfig
    from forgetfilter.progress import Progress

    config = _config(LeaderboardConfig, options)
    from forgetfilter.lab.studies.leaderboard import leaderboard

    progress = Progress(is_silent=options.quiet)
    return _show(leaderboard(config, progress, overwrite=options.overwrite))


def _robustness(options: argparse.Namespace) -> int:
    from forgetfilter.lab.studies.robustness import RobustnessConfig, robustness
    from forgetfilter.progress import Progress

    config = _config(RobustnessConfig, options)
    progress = Progress(is_silent=options.quiet)
    return _show(robustness(config, progress, overwrite=options.overwrite))


def _config(model: type[C], options: argparse.Namespace) -> C:
    """The settings of a study: flags win over assignments, and those over the file."""
    from forgetfilter.config import load_yaml, parse_assignments, resolve

    flags = {"output_dir": options.output_dir, "num_proc": options.num_proc}
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    if options.checkpoint_minutes is not None:
        given["settings"] = {"checkpoint_minutes": options.checkpoint_minutes}
    return resolve(model, load_yaml(options.config), parse_assignments(options.set, model), given)


def _show(comparison: Comparison) -> int:
    """Print what came out; the exit status is 1 where a cell failed."""
    tell(comparison.table)
    tell(f"Page: {comparison.page}")
    from forgetfilter.text import printable

    failed = comparison.failed
    for cell in failed:
        first, _, _ = (cell.error() or "not tried").strip().partition("\n")
        tell(
            f"forgetfilter: failed: {printable(cell.strategy, 120)} on {cell.dataset}, seed "
            f"{cell.seed}: {printable(first, 500)} ({printable(str(cell.folder), 300)})",
            is_error=True,
        )
    return 1 if failed else 0
