"""attack: transform labelled rows as an attacker on the filter would."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from forgetfilter.cli.kinds import seed
from forgetfilter.errors import ConfigError
from forgetfilter.lab.cli.studies import attack_names
from forgetfilter.progress import tell


def add(commands: Any) -> None:
    """The command that attacks rows that the user has."""
    attack = commands.add_parser(
        "attack",
        help="transform labelled rows as an attacker on the filter would",
        description="Changes some rows of a labelled file, or of a safe file, and writes them with "
        "a truth file that says which. It writes no harmful text of its own: it encodes, hides, "
        "copies, rewords or leaves out rows that are there. The other rows stay as they are, byte "
        "for byte. docs/robustness.md says which attacks the filter withstands.",
    )
    attack.add_argument("attack", metavar="ATTACK", help="an attack with its options: few:count=10")
    attack.add_argument("--noisy", required=True, metavar="FILE", help="rows to be screened")
    attack.add_argument(
        "--truth", required=True, metavar="FILE", help="example_id with is_unsafe, a line a row"
    )
    attack.add_argument("--safe", metavar="FILE", help="safe rows, for attacks on them")
    attack.add_argument("--pool", metavar="FILE", help="further unsafe rows, to plant")
    attack.add_argument(
        "--model", metavar="MODEL", help="model of the filter, for attacks that search with it"
    )
    attack.add_argument("--seed", type=seed, default=0, help="same seed, same bytes (%(default)s)")
    attack.add_argument("--output-dir", required=True, metavar="DIR", help="where to write")
    attack.list_at_end("attacks", attack_names)
    attack.set_defaults(run=_attack)


def _attack(options: argparse.Namespace) -> int:
    from forgetfilter.data import read_rows
    from forgetfilter.lab.attacks import Material, build_attack
    from forgetfilter.lab.attacks.files import (
        noisy_subjects,
        pool_subjects,
        safe_subjects,
        write_attacked,
    )
    from forgetfilter.lab.studies.datasets.base import read_kinds, read_truth

    attack = build_attack(options.attack)
    folder = Path(options.output_dir)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"The folder {str(folder)!r} is not empty. Expected a new one, or none. Name another."
        )
    noisy, truth = read_rows(options.noisy), Path(options.truth)
    safe = read_rows(options.safe) if options.safe else None
    pool = read_rows(options.pool) if options.pool else None
    facts = {
        "attack": options.attack,
        "seed": options.seed,
        "noisy": noisy.fingerprint,
        "safe": safe.fingerprint if safe else None,
    }
    with tempfile.TemporaryDirectory(prefix="forgetfilter-") as scratch:
        given = Material(
            noisy_subjects(noisy, read_truth(truth, noisy), read_kinds(truth)),
            safe_subjects(safe) if safe else (),
            pool_subjects(pool.rows) if pool else (),
            seed=options.seed,
            surrogate=_surrogate(options, Path(scratch)) if options.model and safe else None,
        )
        after = attack.apply(given)
    summary = write_attacked(folder, after, facts)
    tell(
        f"{summary['noisy_rows_changed']} of {summary['noisy_rows']} noisy rows and "
        f"{summary['safe_rows_changed']} of {summary['safe_rows']} safe rows changed, "
        f"{summary['rows_left_out']} left out: {folder}"
    )
    return 0


def _surrogate(options: argparse.Namespace, scratch: Path) -> Any:
    """Opens the attacker's copy of the filter when it is first asked."""

    def make() -> Any:
        from forgetfilter.config import ScreenConfig, resolve
        from forgetfilter.data import read_rows
        from forgetfilter.lab.attacks.surrogate import Surrogate
        from forgetfilter.progress import Progress
        from forgetfilter.runs.folder import RunFolder
        from forgetfilter.screening.inputs.setup import open_workbench
        from forgetfilter.screening.method import Setting

        own = {
            "noisy_data": options.noisy,
            "safe_data": options.safe,
            "model": options.model,
            "output_dir": str(scratch),
            "seed": options.seed,
        }
        config = resolve(ScreenConfig, own)
        bench = open_workbench(config, RunFolder(scratch, frozenset()), Progress())
        rows, _ = bench.encoder.encode(read_rows(options.noisy).rows)
        safe, _ = bench.encoder.encode_safe(read_rows(options.safe).rows)
        return Surrogate(Setting(bench, rows, safe, config))

    return make
