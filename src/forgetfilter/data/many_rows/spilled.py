"""Sequences that lie in a file: their items are made anew each time they are asked for.

What is read of the file is read at the place of an item and not mapped, so that nothing of it stays
in memory. The file has no name, so that nothing is left of it whatever becomes of the process.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar, overload

T = TypeVar("T")

HELD_ITEMS = 5000
"""So many items are held in memory; with one more, all of them lie in a file."""
_WRITTEN_BYTES = 2**18
_READ_BYTES = 2**18


class Scratch:
    """A file without a name, that is read at any place and closed with its last user.

    Args:
        folder: on whose disk it lies; None: the system's place for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        with tempfile.TemporaryFile(dir=folder, prefix="forgetfilter-", buffering=0) as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def write(self, data: bytes, at: int) -> None:
        """Write at a place, counted in bytes from 0.

        Raises:
            OSError: the disk is full, say.
        """
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, at)
            view, at = view[written:], at + written

    def read(self, size: int, at: int) -> bytes:
        """``size`` bytes from a place; all of them have been written before."""
        data = os.pread(self._descriptor, size, at)
        while len(data) < size:  # a signal, or a file system that gives less
            more = os.pread(self._descriptor, size - len(data), at + len(data))
            if not more:
                raise OSError(f"A temporary file ends {size - len(data)} bytes early.")
            data += more
        return data


class Spill:
    """Takes packed items one by one, and gives them back as a sequence.

    Args:
        folder: see `Scratch`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._file: Scratch | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._ends = array("q")
        self._written = 0

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, packed: bytes) -> None:
        """Add an item.

        Raises:
            OSError: see `Scratch.write`.
        """
        self._waiting.append(packed)
        self._waiting_bytes += len(packed)
        self._ends.append(self._written + self._waiting_bytes)
        if len(self._ends) > HELD_ITEMS and self._waiting_bytes >= _WRITTEN_BYTES:
            self._write()

    def sequence(self, unpack: Callable[[bytes], T]) -> Sequence[T]:
        """All items, in a tuple where they are few; nothing is added afterwards."""
        if len(self._ends) <= HELD_ITEMS:
            return tuple(unpack(packed) for packed in self._waiting)
        return Spilled(self._write(), self._ends, unpack)

    def _write(self) -> Scratch:
        if self._file is None:
            self._file = Scratch(self._folder)
        self._file.write(b"".join(self._waiting), self._written)
        self._written += self._waiting_bytes
        self._waiting, self._waiting_bytes = [], 0
        return self._file


class Spilled(Sequence[T], Generic[T]):
    """Items in a file; made by `Spill`. Equal items are other objects each time."""

    def __init__(self, file: Scratch, ends: array[int], unpack: Callable[[bytes], T]) -> None:
        self._file, self._ends, self._unpack = file, ends, unpack

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        start = self._ends[at - 1] if at else 0
        return self._unpack(self._file.read(self._ends[at] - start, start))

    def __iter__(self) -> Iterator[T]:
        start = first = 0
        for last, end in enumerate(self._ends, start=1):
            if end - start >= _READ_BYTES or last == len(self._ends):
                yield from self._some(start, first, last)
                start, first = end, last

    def __reduce__(self) -> tuple[type[list[T]], tuple[list[T]]]:
        """Another process is given the items themselves."""
        return list, (list(self),)

    def _some(self, start: int, first: int, last: int) -> Iterator[T]:
        """The items from ``first`` to before ``last``, in one reading."""
        data = self._file.read(self._ends[last - 1] - start, start)
        at = 0
        for end in self._ends[first:last]:
            yield self._unpack(data[at : end - start])
            at = end - start
