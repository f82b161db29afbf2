"""validate: look through a file before it is screened."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from forgetfilter.cli.kinds import count
from forgetfilter.cli.screening import add_reading, reading_of_flags
from forgetfilter.errors import ConfigError
from forgetfilter.progress import tell


def add(commands: Any) -> None:
    """The command of this group."""
    validate = commands.add_parser(
        "validate",
        help="say which rows of a file can't be used, where and why; trains nothing",
        description="Reads every row and names each problem with file, line, field, rule, the "
        "value found and what to do. Without --model in seconds. Exit status: 0 all rows can be "
        "used, 1 some can't, or a file can't be read.",
    )
    validate.add_argument(
        "file", nargs="*", metavar="FILE", help="files, patterns or hub: names, as for screen"
    )
    add_reading(validate)
    validate.add_argument(
        "--model",
        metavar="DIR_OR_ID",
        help="also check lengths, control tokens and the chat template; loads no weights",
    )
    validate.add_argument(
        "--template", choices=("auto", "paper"), default="auto", help="as for screen (%(default)s)"
    )
    validate.add_argument(
        "--max-length-tokens", type=count, help="reject longer rows (default: the model's context)"
    )
    validate.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code of the model's repository"
    )
    validate.add_argument(
        "--show-row",
        type=int,
        metavar="N",
        help="instead, print the tokens of row N (from 0) and which of them carry loss",
    )
    validate.add_argument(
        "--max-problems",
        type=int,
        metavar="N",
        help="list the first N problems (default: 20); all are counted",
    )
    validate.add_argument("--json", action="store_true", help="print one JSON object instead")
    validate.set_defaults(run=_validate)


def _validate(options: argparse.Namespace) -> int:
    from forgetfilter.data.validation.text import describe, describe_row
    from forgetfilter.files import encode_json
    from forgetfilter.screening.inputs.validating import Against, show_row, validate_files

    reading = reading_of_flags(options)
    against = None
    if options.model is not None:
        against = Against(
            options.model, options.template, options.max_length_tokens, options.trust_remote_code
        )
    if options.show_row is not None:
        if against is None:
            raise ConfigError(
                "--show-row is given without --model. Expected the model whose tokens are to be "
                "shown. Add --model DIR_OR_ID."
            )
        told = show_row(options.file, options.show_row, reading, against)
        text = describe_row
    else:
        most = 20 if options.max_problems is None else max(0, options.max_problems)
        told = validate_files(options.file, reading, against, most)
        text = describe
    if options.json:
        sys.stdout.write(encode_json(told, indent=2).decode("utf-8") + "\n")
    else:
        tell(text(told))
    return int(told["status"])
