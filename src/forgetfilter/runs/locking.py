"""One process at a time: a lock file that the kernel lets go of when its holder dies."""

from __future__ import annotations

import errno
import shlex
import stat
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
        RunExistsError: the file is a link or a folder, can't be opened for writing, or its file
            system has no locks. A file that merely exists is no substitute: a killed process would
            leave it behind.
    """
    refuse_other_than_file(path)
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


def refuse_other_than_file(path: Path) -> None:
    """Raise where something else stands in the place of a file that is written in place.

    Raises:
        RunExistsError: it is a link, by which another file would be written, or no plain file.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise misplaced(path, "a plain file")


def refuse_other_than_folder(path: Path) -> None:
    """Raise where something else stands in the place of a folder of the run's own.

    Raises:
        RunExistsError: it is a link, by which files elsewhere would be written and deleted, or no
            folder.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise misplaced(path, "a folder of the run's own")


def refuse_open_to_all(folder: Path, lock: Path) -> None:
    """Raise where everybody may write into a run folder; its lock has to be held.

    A disk that has no permissions shows them for the lock file too, and says nothing.

    Raises:
        RunExistsError: everybody may.
    """
    if not folder.stat().st_mode & stat.S_IWOTH or lock.stat().st_mode & stat.S_IWOTH:
        return
    shown = printable(str(folder), 300)
    raise RunExistsError(
        f"Everybody on this machine can write into the run folder {shown!r}. Expected a folder "
        "that only you, or your group, can write into, because rows are decided by what lies "
        f"there. Take the right from others with `chmod o-w {shlex.quote(shown)}`, or choose "
        "another --output-dir, such as a new folder in it."
    )


def misplaced(path: Path, expected: str) -> RunExistsError:
    """What to say of something else in the place of a file or folder of the run."""
    found = "a link" if path.is_symlink() else "a folder" if path.is_dir() else "no such thing"
    return RunExistsError(
        f"{path.name} in {printable(str(path.parent), 300)!r} is {found}. Expected {expected}. "
        "Move it away, or choose another --output-dir."
    )
