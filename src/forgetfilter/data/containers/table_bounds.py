"""How far a Parquet or Arrow file may expand: found out before this process decodes it."""

from __future__ import annotations

import hashlib
from typing import Any

from forgetfilter.data.containers import compression
from forgetfilter.data.containers.table_process import ask
from forgetfilter.errors import DataError
from forgetfilter.text import printable

MAX_DEPTH = 32
"""How deeply types may be nested. Conversations need 3."""
_BYTES_A_SECOND = 20 * 2**20
_LEAST_SECONDS = 120
_SHOWN = {"parquet": "Parquet", "file": "Arrow", "stream": "Arrow"}
_known: dict[tuple[str, str, int], int] = {}
"""Weights by kind, sha256 and bound of what was found to be fine."""
_AS_LINES = (
    "If you know what is in it, read it where it was made, write it as JSON Lines and name that."
)


def check_table(data: bytes, kind: str) -> int:
    """See that a file decodes within bounds, in a process of its own; once for the same bytes.

    Args:
        data: the file.
        kind: parquet, or file or stream for those of Arrow.

    Returns:
        Bytes that its values are, each for itself, once they are decoded.

    Raises:
        DataError: it is damaged, nested too deeply, or expands beyond what is read.
    """
    most = most_of(len(data))
    name = (kind, hashlib.sha256(data).hexdigest(), most)
    if name not in _known:
        _known[name] = _checked(data, kind, most)
    return _known[name]


def most_of(size: int) -> int:
    """Bytes that a file of ``size`` bytes may expand to; the same as for compressed files."""
    most = max(compression.LEAST_BYTES, compression.MAX_RATIO * size)
    return min(compression.MAX_BYTES, most)


def too_large(what: str, size: int, most: int) -> DataError:
    """What is said of tables that expand too far."""
    return DataError(
        f"{what} has {size:,} bytes and expands to more than {most:,}. Expected at most "
        f"{compression.MAX_RATIO} times its size ({compression.LEAST_BYTES:,} bytes are always "
        f"read, {compression.MAX_BYTES:,} at most). {_AS_LINES}"
    )


def _checked(data: bytes, kind: str, most: int) -> int:
    told = _weigh(data, kind, most)
    found = told.get("error")
    if found == "size":
        raise too_large(f"The {_SHOWN[kind]} file", len(data), most)
    if found == "depth":
        raise DataError(
            f"The {_SHOWN[kind]} file has types nested more than {MAX_DEPTH} deep. Expected rows "
            f"of texts and turns. {_AS_LINES}"
        )
    if found is not None:
        raise damaged_table(_SHOWN[kind], str(told.get("reason", "")))
    return int(told["weight"])


def damaged_table(kind: str, reason: str) -> DataError:
    """What is said of a Parquet or Arrow file that is cut off or broken."""
    return DataError(
        f"It starts like {kind}, but can't be read ({printable(reason, 120)}). Expected a "
        f"whole {kind} file. Copy or download it again."
    )


def _weigh(data: bytes, kind: str, most: int) -> dict[str, Any]:
    """What the worker says of a file; nothing, where that has ended it, is damage."""
    seconds = _LEAST_SECONDS + (len(data) + most) // _BYTES_A_SECOND
    request = {"kind": kind, "size": len(data), "most": most, "depth": MAX_DEPTH}
    told = ask({**request, "seconds": seconds}, data)
    if told is not None:
        return told
    return {"error": "damage", "reason": "the library that decodes it crashes or takes too long"}
