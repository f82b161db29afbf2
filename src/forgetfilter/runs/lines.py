"""The lines of a file of rows by number, without holding the file."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from forgetfilter.errors import DataError
from forgetfilter.runs.file_names import SCORES_FILE

_LINES_APART, _BYTES_APART = 16, 2**14
"""Of a line's start so often one is noted: a byte for each line, or two."""


class Lines:
    """An open file whose n-th line (from 0) can be read; made by `open_lines`."""

    def __init__(self, file: BinaryIO, see: Callable[[int, bytes], None] | None = None) -> None:
        """``see`` is called once with the number and the bytes of each line, in order."""
        self._file = file
        self._size = at = marked = 0
        # Where some of the lines start; the others are found from the one before.
        self._numbers, self._starts = array("q"), array("q")
        for number, raw in enumerate(file):
            is_far = number - self._numbers[-1] >= _LINES_APART if number else True
            if is_far or at - marked >= _BYTES_APART:
                self._numbers.append(number)
                self._starts.append(at)
                marked = at
            at += len(raw)
            self._size += 1
            if see is not None:
                see(number, raw.removesuffix(b"\n"))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < self._size:
            raise IndexError(number)
        mark = bisect_right(self._numbers, number) - 1
        self._file.seek(self._starts[mark])
        for _ in range(number - self._numbers[mark]):
            self._file.readline()
        return self._file.readline().removesuffix(b"\n")


@contextmanager
def open_lines(
    path: Path, expected: int, remedy: str, see: Callable[[int, bytes], None] | None = None
) -> Generator[Lines]:
    """The lines of a file that has to have the ``expected`` number of them.

    To show the text of one row under the score of another would be worse than to fail.

    Raises:
        DataError: the file can't be read, or has another number of lines; ``remedy`` ends the
            message.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise DataError(
            f"{path} can't be read: {error.strerror}. Expected {expected} lines. {remedy}"
        ) from None
    with file:
        lines = Lines(file, see)
        if len(lines) != expected:
            raise DataError(
                f"{path} has {len(lines)} lines, but {SCORES_FILE} says {expected}. Expected one "
                f"line for each such row. {remedy}"
            )
        yield lines
