"""Files that are whole or absent, and what identifies them.

A write goes to a temporary file beside its target, is flushed to the disk and then renamed, so a
process killed at any instant leaves either the old content or the new, never a part of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from forgetfilter.text import HIDDEN

PART_SUFFIX = ".part"
"""Ends the name of everything unfinished, file or folder."""

_TEMPORARY_PREFIX = ".forgetfilter-"
_UNSETTLED_NS = 2_000_000_000
"""File systems note the time of a change in steps of up to two seconds."""


def write_chunks_atomic(path: Path, chunks: Iterable[bytes]) -> None:
    """Write ``chunks`` one after the other; missing parent folders are made.

    An exception, from ``chunks`` too, leaves the target as it was.
    """
    with open_atomic(path) as file:
        for chunk in chunks:
            file.write(chunk)


@contextmanager
def open_atomic(path: Path) -> Generator[BinaryIO]:
    """A file to write to that takes the place of ``path`` where nothing is raised meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    write_chunks_atomic(path, (data,))


def write_json_atomic(path: Path, obj: Any) -> None:
    """Write ``obj`` as indented JSON with a final line feed, whole or not at all.

    Raises:
        ValueError: ``obj`` holds a NaN or an infinity, which JSON has no word for.
        TypeError: ``obj`` holds something that is not JSON.
    """
    write_bytes_atomic(path, encode_json(obj, indent=2) + b"\n")


def encode_json(obj: Any, *, indent: int | None = None) -> bytes:
    """UTF-8 JSON, readable in every script, one line where ``indent`` is None.

    Unlike plain ``json.dumps`` it is safe to print and survives lone surrogates.
    """
    text = json.dumps(obj, ensure_ascii=False, allow_nan=False, indent=indent)
    return HIDDEN.sub(_json_escape, text).encode("utf-8")


def _json_escape(found: re.Match[str]) -> str:
    """A character as JSON writes it in ASCII: one or two units of UTF-16."""
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def is_temporary(name: str) -> bool:
    """Whether ``name`` is that of a temporary file which a killed write may have left."""
    return name.startswith(_TEMPORARY_PREFIX) and name.endswith(PART_SUFFIX)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder``, and itself, to the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        fsync_folder(Path(parent))


def list_files(folder: Path) -> list[str]:
    """Every file below ``folder`` as a relative POSIX path, sorted."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def sha256_file(path: Path) -> str:
    """The hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """The same, without reading a file again that this process has read since it was changed."""
    state = os.stat(path)
    version = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    if time.time_ns() - state.st_ctime_ns < _UNSETTLED_NS:  # a second change could look the same
        return sha256_file(path)
    return _sha256_of_version(path, version)


@lru_cache(maxsize=4096)
def _sha256_of_version(path: Path, version: tuple[int, ...]) -> str:
    return sha256_file(path)
