"""One process at a time: a lock file that the kernel lets go of when its holder dies."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from forgetfilter.errors import RunExistsError
from forgetfilter.text import printable

_WITHOUT_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})


class InUseError(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, *, waits: bool) -> Generator[None]:
    """Hold the lock file at ``path``, which is made where it is not there and stays.

    Args:
        path: the lock file; its folder has to be there.
        waits: whether to wait for another process that holds it.

    Raises:
        InUseError: another process holds it, and ``waits`` is false.
        RunExistsError: the file can't be opened for writing, or its file system has no locks. A
            file that merely exists is no substitute: a killed process would leave it behind.
    """
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=-1 if waits else 0)
    except Timeout:
        raise InUseError from None
    except OSError as error:
        raise unusable(path.parent, error) from None
    try:
        yield
    finally:
        lock.release()


def unusable(folder: Path, error: OSError) -> RunExistsError:
    """What to say of a folder that can't be made, written to or locked."""
    shown = repr(printable(str(folder), 300))
    if error.errno in _WITHOUT_LOCKS:
        return RunExistsError(
            f"{shown} can't be locked: {error.strerror}. Expected a file system with locks. "
            "Choose another --output-dir, on a local disk."
        )
    return RunExistsError(
        f"{shown} can't be used as a run folder: {error.strerror}. Expected a folder that can be "
        "written to. Choose another --output-dir."
    )
