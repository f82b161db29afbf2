"""Inputs that can be read only once: pipes, standard input and other streams without an end mark.

A command looks at its input several times: to refuse it early, to name it, to read its rows. What
came through a pipe is therefore kept while the command runs.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from forgetfilter.errors import DataError
from forgetfilter.text import printable

STANDARD_INPUT = "-"
"""What names the rows that come in through standard input."""
MAX_BYTES = 2 * 2**30
"""So much of a stream is kept, in memory; nothing limits a file."""
_CHUNK = 2**20

_kept: ContextVar[dict[Path, bytes] | None] = ContextVar("kept", default=None)


@contextmanager
def pipes_read_once() -> Generator[None]:
    """While this lasts, a stream that is named again gives what it gave before."""
    if _kept.get() is not None:
        yield
        return
    before = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(before)


def is_pipe(path: Path) -> bool:
    """Whether a path names a stream: neither a file nor a folder, but there."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # told where it is opened
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def read_pipe(path: Path) -> bytes:
    """All that a stream gives until it ends.

    Raises:
        DataError: it gives more than is kept.
        OSError: it can't be read.
    """
    kept = _kept.get()
    if kept is not None and path in kept:
        return kept[path]
    whole = io.BytesIO()
    with open(path, "rb", buffering=0) as stream:
        while piece := stream.read(_CHUNK):
            whole.write(piece)
            if whole.tell() > MAX_BYTES:
                raise DataError(
                    f"{printable(str(path), 300)!r} is a stream that has given more than "
                    f"{MAX_BYTES:,} bytes and goes on. Expected one that ends before, since it "
                    "can be read only once and is kept in memory. Write it to a file and name that."
                )
    found = whole.getvalue()
    if kept is not None:
        kept[path] = found
    return found
