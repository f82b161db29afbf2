"""How rows are dealt to processes that compute together, and what they find is put together.

In a process that is alone all rows are its own, and nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from forgetfilter.model.processes.joining import longest_first, refuse_parts, together

T = TypeVar("T")
Lengths = Sequence[int] | npt.NDArray[np.int32]
"""Of rows, in tokens."""

# Fewer batches than so many a process are dealt row by row where that is allowed: else some idle.
_LEAST_BATCHES = 4


def deal(
    lengths: Lengths,
    cut: Callable[[Lengths], Iterable[list[int]]],
    is_fine: bool = False,
) -> Iterator[tuple[list[int], bool]]:
    """This process's batches of some rows, and whether its results count.

    After the last one all processes see together that each row was in one batch; see `own_batches`
    for the rest.
    """
    own, repeated = own_batches(lengths, cut, is_fine)
    group = together()
    counts = np.zeros(len(lengths) if group else 0)
    for batch in own:
        if group:
            counts[batch] += 1
        yield batch, True
    for batch in repeated:
        yield batch, False
    if group:
        group.check_once(counts, "rows")


def own_batches(
    lengths: Lengths,
    cut: Callable[[Lengths], Iterable[list[int]]],
    is_fine: bool = False,
) -> tuple[Sequence[list[int]], Sequence[list[int]]]:
    """This process's batches of some rows, and those that it repeats without a result.

    Whole batches go round the processes, so that they are those of one process, and rounding is the
    same in every number format. Where each process has to call the model equally often, because its
    weights are parted, one that has too few repeats some.

    Args:
        lengths: of the rows, in tokens.
        cut: cuts rows of given lengths into batches of indices.
        is_fine: deal single rows where there are few batches.
    """
    group = together()
    found = cut(lengths)
    batches = found if isinstance(found, Sequence) else list(found)
    if group is None:
        refuse_parts()
        return batches, []
    shares: list[Sequence[list[int]]] = [batches[rank :: group.size] for rank in range(group.size)]
    if is_fine and len(batches) < _LEAST_BATCHES * group.size:
        order = longest_first(lengths)
        rows = [order[rank :: group.size] for rank in range(group.size)]
        shares = [[[own[i] for i in b] for b in cut([lengths[i] for i in own])] for own in rows]
    own = shares[group.rank]
    missing = max(map(len, shares)) - len(own)
    return own, list(batches[:1]) * (missing if group.is_parted else 0)


def added_up(values: T) -> T:
    """An array that each process has filled in for its own rows, whole; as it is where alone."""
    group = together()
    if group is None:
        return values
    return cast(T, group.add_up(cast(Any, values)))


def filled_in(values: Sequence[T | None]) -> list[T]:
    """A list of which each process has filled in some entries, whole; None is no entry.

    Raises:
        RuntimeError: some process left out what was its own.
    """
    group = together()
    found = {at: value for at, value in enumerate(values) if value is not None}
    for part in group.gather(found) if group else ():
        found |= part
    missing = len(values) - len(found)
    if missing:
        raise RuntimeError(f"{missing} of {len(values)} rows were computed by no process")
    return [found[at] for at in range(len(values))]
