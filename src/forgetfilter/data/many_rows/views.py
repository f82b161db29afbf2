"""Parts of sequences, and sequences put together, without a copy of what lies in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from forgetfilter.data.many_rows.spilled import HELD_ITEMS, Spilled
from forgetfilter.data.records import RejectedRow

T = TypeVar("T")
U = TypeVar("U")


def chosen(items: Sequence[T], places: Sequence[int] | npt.NDArray[Any]) -> Sequence[T]:
    """The items at some places, in the order of these; a list unless ``items`` lie in a file."""
    if is_held(items):
        return [items[int(at)] for at in places]
    # Four bytes a place as far as they reach: there is one of every row.
    numbers = np.asarray(places, np.int32 if len(items) < 2**31 else np.int64)
    return _View(len(numbers), lambda at: items[int(numbers[at])])


def joined(first: Sequence[T], second: Sequence[T]) -> Sequence[T]:
    """One after the other; a list unless one of them lies in a file."""
    if is_held(first) and is_held(second):
        return [*first, *second]
    size = len(first)
    return _View(size + len(second), lambda at: first[at] if at < size else second[at - size])


def mapped(items: Sequence[T], function: Callable[[T], U]) -> Sequence[U]:
    """What ``function`` makes of each; a list unless ``items`` lie in a file."""
    if is_held(items):
        return [function(item) for item in items]
    return _View(len(items), lambda at: function(items[at]))


def made(count: int, item: Callable[[int], T]) -> Sequence[T]:
    """Items by their places, made each time they are asked for where they are many."""
    return [item(at) for at in range(count)] if count <= HELD_ITEMS else _View(count, item)


def by_position(
    first: Sequence[RejectedRow], second: Sequence[RejectedRow]
) -> Sequence[RejectedRow]:
    """Rows of two sequences that are sorted by ``row``, as one that is."""
    numbers = [np.fromiter((row.row for row in rows), np.int64) for rows in (first, second)]
    return chosen(joined(first, second), np.argsort(np.concatenate(numbers), kind="stable"))


def is_held(items: Sequence[Any]) -> bool:
    """Whether the items are in memory."""
    return not isinstance(items, Spilled | _View)


class _View(Sequence[T], Generic[T]):
    """Items that are made when they are asked for."""

    def __init__(self, size: int, item: Callable[[int], T]) -> None:
        self._size, self._item = size, item

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._item(at) for at in range(*index.indices(self._size))]
        return self._item(range(self._size)[index])

    def __reduce__(self) -> tuple[type[list[T]], tuple[list[T]]]:
        """Another process is given the items themselves."""
        return list, (list(self),)

    def __iter__(self) -> Iterator[T]:
        return (self._item(at) for at in range(self._size))
