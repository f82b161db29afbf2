"""Rows that a benchmark screens: one's own, or the made-up world's."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from forgetfilter.data.writing import write_records
from forgetfilter.lab.testbed import make_noisy, make_safe


def add_inputs(parser: argparse.ArgumentParser, rows: int) -> None:
    """Options that say which rows, and how many of them."""
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--noisy", type=Path, help="rows to screen (default: of the made-up world)")
    parser.add_argument("--safe", type=Path, help="the safe rows that go with them")


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options; ``--noisy`` and ``--safe`` are given together."""
    options = parser.parse_args()
    if (options.noisy is None) != (options.safe is None):
        parser.error("--noisy and --safe go together")
    return options


def write_inputs(folder: Path, options: argparse.Namespace) -> None:
    """Write ``noisy.jsonl`` and ``safe.jsonl``: the first rows of the files, or made-up ones."""
    if options.noisy:
        lines = options.noisy.read_bytes().splitlines(keepends=True)[: options.rows]
        (folder / "noisy.jsonl").write_bytes(b"".join(lines))
        shutil.copyfile(options.safe, folder / "safe.jsonl")
    else:
        write_records(folder / "noisy.jsonl", make_noisy(options.rows, 0.3, 0)[0])
        write_records(folder / "safe.jsonl", make_safe(400, 0))
