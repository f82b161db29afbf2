"""Whether results can be written to a place: found out before hours of work, not after."""

from __future__ import annotations

import tempfile
from pathlib import Path

from forgetfilter.errors import RunExistsError
from forgetfilter.text import printable


def require_writable_folder(path: Path, flag: str = "--output-dir") -> None:
    """Raise unless a folder is, or can be made, at ``path`` and takes files.

    It is tried out, because permissions say too little; nothing is left behind.

    Raises:
        RunExistsError: it is a file, or nothing can be written there.
    """
    path = path.absolute()
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            folder.mkdir()
            made.append(folder)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise RunExistsError(
            f"{shown(path)} can't be written to: {error.strerror}. Expected a folder that takes "
            f"files. Choose another {flag}."
        ) from None
    finally:
        for folder in reversed(made):
            folder.rmdir()


def require_empty_folder(path: Path, flag: str = "--output-dir") -> None:
    """Raise unless ``path`` is an empty folder that takes files, or one that can be made.

    Raises:
        RunExistsError: it has files, or nothing can be written there.
    """
    require_writable_folder(path, flag)
    if path.is_dir() and any(path.iterdir()):
        raise RunExistsError(
            f"{shown(path)} holds other files. Expected a new or empty folder. Choose another "
            f"{flag}."
        )


def shown(path: Path) -> str:
    """A path as messages show it."""
    return repr(printable(str(path), 300))
