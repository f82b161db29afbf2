"""The packaged general-purpose safe set, and what ``safe_data`` means where none was given.

The rows are ``general.jsonl`` beside this file; ``README.md`` is their data card. These are rows in
English for any model; those of the made-up world come from `forgetfilter.lab.testbed`.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from forgetfilter.config import PACKAGED_SAFE
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.files import write_bytes_atomic
from forgetfilter.text import printable

CATEGORIES = (
    "bias",
    "toxicity",
    "harmful_requests",
    "privacy",
    "self_harm",
    "deception",
    "looks_dangerous",
)
"""What the rows cover, in the order of the file; the value of each row's ``category``."""

_FILE = Path(__file__).parent / "general.jsonl"


def safe_path(safe_data: str) -> Path:
    """The file that a ``safe_data`` setting means; the packaged one, wherever it is installed."""
    return _FILE if safe_data == PACKAGED_SAFE else Path(safe_data)


def safe_name(safe_data: str) -> str:
    """What a ``safe_data`` setting means, for people: in words, or else the path as given."""
    return "the packaged general-purpose set" if safe_data == PACKAGED_SAFE else safe_data


def write_safe(
    output: Path, categories: Collection[str] | None = None, *, overwrite: bool = False
) -> int:
    """Write the packaged rows, or those of some categories, byte for byte and in their order.

    Returns:
        The number of rows written.

    Raises:
        ConfigError: an unknown category, or none.
        DataError: ``output`` can't be written, or holds something else, perhaps edited rows.
    """
    wanted = CATEGORIES if categories is None else categories
    unknown = [name for name in wanted if name not in CATEGORIES]
    if unknown or not wanted:
        raise ConfigError(
            f"The categories are {', '.join(map(printable, wanted)) or 'none'}; expected some of "
            f"{', '.join(CATEGORIES)}. Name those, or leave them out for all."
        )
    lines = [
        line
        for line in _FILE.read_bytes().splitlines(True)
        if json.loads(line)["category"] in wanted
    ]
    data = b"".join(lines)
    shown = printable(str(output))
    try:
        if output.exists() and not overwrite and output.read_bytes() != data:
            raise DataError(
                f"{shown} exists and differs from what would be written. Expected a new file. "
                "Choose another --output, or use --overwrite to replace it."
            )
        write_bytes_atomic(output, data)
    except OSError as error:
        raise DataError(
            f"Can't write {shown}: {error.strerror}. Expected a path for a file. Check the folder "
            "and its permissions."
        ) from None
    return len(lines)
