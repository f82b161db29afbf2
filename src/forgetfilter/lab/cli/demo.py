"""demo: screen a generated file with the bundled model, fine-tune, and show what changed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from forgetfilter.cli.kinds import count, share
from forgetfilter.cli.laboratory import DEMO_HELP
from forgetfilter.cli.screening import add_screen_flags, screen_layers
from forgetfilter.progress import tell


def add(commands: Any) -> None:
    """The command of the demonstration."""
    demo = commands.add_parser("demo", help=DEMO_HELP)
    demo.add_argument("--output-dir", default="demo-run", help="where to write (%(default)s)")
    demo.add_argument("--rows", type=count, default=600, help="noisy rows (%(default)s)")
    demo.add_argument(
        "--unsafe-fraction", type=share, default=0.3, help="share of unsafe rows (%(default)s)"
    )
    demo.add_argument("--probes", type=count, default=1000, help="held-out prompts (%(default)s)")
    demo.add_argument("--model", help="another testbed model's folder")
    add_screen_flags(demo)
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from forgetfilter.lab.demo import DemoSettings, describe, run_demo
    from forgetfilter.progress import Progress

    output = Path(options.output_dir)
    settings = DemoSettings(
        output,
        rows=options.rows,
        unsafe_fraction=options.unsafe_fraction,
        probes=options.probes,
        seed=options.seed or 0,
        model=options.model,
    )
    layers = screen_layers(options)
    progress = Progress(is_silent=options.quiet)
    evaluation = run_demo(settings, layers, progress, overwrite=options.overwrite)
    tell(describe(output / "run", evaluation))
    tell(f"\nReport: {output / 'run' / 'report.html'}")
    return 0
