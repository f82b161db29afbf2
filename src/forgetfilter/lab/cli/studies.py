"""The studies: of strategies, rounds, settings, attacks, pairs of strategies and row scorers."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from forgetfilter.cli.kinds import CHECKPOINT_HELP
from forgetfilter.progress import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from forgetfilter.lab.studies.grid import Comparison

_AGAIN = (
    "Finished cells{also} are skipped when the command is repeated; failed ones are shown and "
    "tried again."
)


@dataclass(frozen=True)
class _Command:
    """One kind of study as a command: a file in, a run folder out."""

    name: str
    help: str
    does: str
    page: str
    """Where its settings are described."""
    config: str
    """Module and name of its settings, imported once it is called."""
    run: str
    """Module and name of the function that runs it."""
    names: tuple[str, Callable[[], list[str]]] | None = None
    """What is listed at the end of its help."""
    reuses_stages: bool = False


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


_STRATEGIES = ("strategies", strategy_names)
_COMMANDS = (
    _Command(
        "compare",
        "run a grid of strategies, data sets and seeds, and compare the results",
        "Runs every strategy on every data set and seed of a YAML file.",
        "docs/lab/compare.md",
        "settings:CompareConfig",
        "compare:compare",
        _STRATEGIES,
    ),
    _Command(
        "interleave",
        "run strategies through rounds of noisy and safe training",
        "Takes every strategy of a YAML file through rounds of fresh noisy rows, each phase from "
        "the state of the last, and judges it at every phase boundary.",
        "docs/lab/study.md",
        "settings:InterleaveConfig",
        "interleave:interleave",
        _STRATEGIES,
        reuses_stages=True,
    ),
    _Command(
        "curves",
        "draw learning and forgetting by kind of row, and screens along one setting",
        "Follows kinds of row through learning and forgetting, and screens with one setting varied "
        "at a time (threshold, forgetting steps, safe rows, unsafe fraction, model), on every seed "
        "of every data set of a YAML file.",
        "docs/lab/study.md",
        "points:CurvesConfig",
        "curves:curves",
        reuses_stages=True,
    ),
    _Command(
        "immunise",
        "attack strategies with growing budgets, and train them on clean rows",
        "Puts every strategy of a YAML file to the four conditions of immunisation: resistance, "
        "stability, generalisation and trainability.",
        "docs/lab/defences.md",
        "attacks:ImmunisationConfig",
        "immunise:immunise",
        _STRATEGIES,
    ),
    _Command(
        "compose",
        "run pairs of strategies in both orders, and measure how they go together",
        "Runs every pair of a YAML file in both orders, and each strategy alone: order-free error "
        "and order sensitivity.",
        "docs/lab/defences.md",
        "composability:ComposabilityConfig",
        "composability:compose",
        _STRATEGIES,
    ),
    _Command(
        "leaderboard",
        "rank rows by every row scorer, and compare what each finds and costs",
        "Has every row scorer of a YAML file score the rows of every labelled mix and seed: "
        "average precision, AUROC, recall at 1% false removals, passes and seconds.",
        "docs/lab/leaderboard.md",
        "settings:LeaderboardConfig",
        "leaderboard:leaderboard",
        ("row scorers", scorer_names),
        reuses_stages=True,
    ),
    _Command(
        "robustness",
        "attack the filter in every way, and see which rows slip through",
        "Has every attack of a YAML file change the rows of every labelled mix and seed, screens "
        "them, and grades what is caught, what fine-tuning on the kept rows then does, and which "
        "second signal sees the rows.",
        "docs/robustness.md",
        "robustness:RobustnessConfig",
        "robustness:robustness",
        ("attacks", attack_names),
        reuses_stages=True,
    ),
)


def add(commands: Any) -> None:
    """The commands of this group."""
    for command in _COMMANDS:
        again = _AGAIN.format(also=" and stages" if command.reuses_stages else "")
        parser = commands.add_parser(
            command.name, help=command.help, description=f"{command.does} {again}"
        )
        _add_options(parser, command.page)
        if command.name == "curves":
            parser.add_argument(
                "--from-results",
                nargs="+",
                default=[],
                metavar="FILE.parquet",
                help="results of earlier runs; a cell that one of them holds is not run again",
            )
        if command.names is not None:
            parser.list_at_end(*command.names)
        parser.set_defaults(run=_runner(command))


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


def _runner(command: _Command) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        from forgetfilter.progress import Progress

        # The settings are checked before what works a model is imported.
        config = _config(_imported(command.config), options)
        study: Callable[..., Comparison] = _imported(command.run)
        progress = Progress(is_silent=options.quiet)
        own = {"from_results": options.from_results} if "from_results" in options else {}
        return _show(study(config, progress, overwrite=options.overwrite, **own))

    return run


def _imported(place: str) -> Any:
    """What a module of the studies calls so."""
    module, _, name = place.partition(":")
    return getattr(import_module(f"forgetfilter.lab.studies.{module}"), name)


def _config(model: Any, options: argparse.Namespace) -> Any:
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
