"""An error of the operating system in a sentence instead of a traceback."""

from __future__ import annotations

import errno
import os
import re
import sys

from forgetfilter.text import printable

_RETRY = "the same command goes on where it stopped."
_ADVICE = {
    errno.ENOSPC: "Expected room to write. Free some, or choose a folder on another disk; "
    + _RETRY,
    errno.EDQUOT: "Expected room to write. Free some, or choose another folder; " + _RETRY,
    errno.EFBIG: "Expected to write files of any size. Raise the limit (ulimit -f); " + _RETRY,
    errno.EMFILE: "Expected to open more files. Raise the limit (ulimit -n); " + _RETRY,
    errno.EACCES: "Expected to be allowed to. Change its permissions, or choose another path.",
    errno.EPERM: "Expected to be allowed to. Change its permissions, or choose another path.",
    errno.EROFS: "Expected a disk that can be written to. Choose another path.",
    errno.ENAMETOOLONG: "Expected a shorter name. Choose another path.",
    errno.ENOTDIR: "Expected a folder where a file is. Move the file, or choose another path.",
    errno.EEXIST: "Expected a folder where a file is. Move the file, or choose another path.",
    errno.EISDIR: "Expected a file where a folder is. Choose another path.",
    errno.ENOENT: "Expected it to be there. Check the path.",
    errno.EPIPE: "Expected the output to be read to its end. What was written to disk is whole.",
}
_MEMORY = (
    "Memory ran out. Expected the input and the model to fit into it. Name smaller files, or "
    "end other programs; " + _RETRY
)
_ANY = "Expected the system to allow it. Check the path, the disk and the connection, then repeat."
# How the library that writes weights, which is not Python, reports errors of the system.
_FOREIGN = re.compile(r"\(os error (\d+)\)")


def explain(error: Exception) -> str | None:
    """What was found, expected and to do, where the system refused or lacks memory; else None."""
    if isinstance(error, MemoryError):
        return _MEMORY
    if not isinstance(error, OSError):
        found = _FOREIGN.search(str(error)) if type(error).__name__ == "SafetensorError" else None
        if found is None:
            return None
        error = OSError(int(found[1]), os.strerror(int(found[1])))
    said = error.strerror or next(iter(str(error).strip().splitlines()), type(error).__name__)
    where = f": {printable(os.fsdecode(error.filename), 300)!r}" if _is_path(error) else ""
    return f"{said.rstrip('.')}{where}. {_ADVICE.get(error.errno or 0, _ANY)}"


def _is_path(error: OSError) -> bool:
    return isinstance(error.filename, str | bytes)


def let_go_of_output() -> None:
    """Point streams that nobody reads, or that have no room, elsewhere.

    Python flushes them once more as it ends, and would report the same error with a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
