"""export: kept rows in the shape of a trainer."""

from __future__ import annotations

import argparse
from typing import Any

from forgetfilter.text import printable

_TRAINERS = ("llama-factory", "axolotl")


def add(commands: Any) -> None:
    """The commands of this group."""
    export = commands.add_parser(
        "export",
        help="write the kept rows for LLaMA-Factory or axolotl, with their entry",
        description="Rows are written anew from the conversations that were judged, so that the "
        "trainer learns what was judged, whatever the screened file looked like. Of LLaMA-Factory "
        "the entry goes into dataset_info.json, whose other entries stay; of axolotl it is a file.",
    )
    export.add_argument("run_dir", metavar="RUN")
    export.add_argument("--to", required=True, choices=_TRAINERS, help="the trainer")
    export.add_argument(
        "--output-dir",
        required=True,
        metavar="DIR",
        help="where to write: LLaMA-Factory's data folder, or any folder for axolotl",
    )
    export.add_argument("--name", default="", help="of the data set (default: FILE_kept)")
    export.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an entry or file that is not this export's",
    )
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from forgetfilter.integrations import axolotl, llama_factory

    write = {"llama-factory": llama_factory.export, "axolotl": axolotl.export}[options.to]
    done = write(options.run_dir, options.output_dir, options.name, overwrite=options.overwrite)
    rows = "1 kept row" if done.rows == 1 else f"{done.rows:,} kept rows"
    print(f"{rows}: {printable(str(done.data), 300)}")
    if options.to == "llama-factory":
        entry = printable(str(done.entry), 300)
        print(f"Entry in {entry}. Train with `dataset: {done.name}`.")
    else:
        print(f"Entry for an axolotl file: {printable(str(done.entry), 300)}")
        print(done.entry.read_text(encoding="utf-8").partition("\n")[2].rstrip())
    if done.left_out:
        listed = printable(str(done.left_out_file), 300)
        print(f"Left out, because the trainer has no shape for them: {done.left_out:,} ({listed})")
    for note in done.notes:
        print(note)
    return 0
