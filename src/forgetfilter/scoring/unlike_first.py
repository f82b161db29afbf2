"""The rows with the highest scores, each unlike those before it: what to read first of a run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import FloatArray, IntArray

MOST_UNLIKE = 200
"""So many rows are chosen to be unlike each other, more than anybody reads in a sitting."""
_LOOKED_AT = 2000
"""They are among so many of the highest rows."""
_SHARE = 1 / 48
"""Of the rows, which a row stands for: five of the 240 that this was tried on."""
_MOST_AROUND = 2000


def unlike_first(
    scores: FloatArray, neighbours: npt.NDArray[np.integer], most: int = MOST_UNLIKE
) -> IntArray:
    """Places of all rows, so ordered that the first ones score high and are unlike each other.

    A row that is taken stands for the rows around it: its most alike rows, theirs, and so on, until
    they are a forty-eighth of all. A row is like one that was taken before where it, or one of its
    own most alike rows, is among these. In a first round the row with the highest score is taken,
    then the next one that is like none before, and so on; then in a second round of what is left,
    until ``most`` rows are taken. All others follow by score. The highest rows of a file are often
    of one kind, and what is learned from reading them says nothing of the others.

    Args:
        scores: shape (N,), higher first.
        neighbours: places of each row's most alike rows, nearest first, shape (N, k).
        most: how many rows are so chosen, at most.
    """
    order = np.argsort(-scores, kind="stable")
    left = order[:_LOOKED_AT].tolist()
    size = int(np.clip(len(scores) * _SHARE, neighbours.shape[1] + 1, _MOST_AROUND))
    taken: list[int] = []
    while left and len(taken) < most:
        covered: set[int] = set()
        later: list[int] = []
        for place in left:
            if len(taken) == most or not covered.isdisjoint((place, *neighbours[place].tolist())):
                later.append(place)
                continue
            covered |= _around(place, neighbours, size)
            taken.append(place)
        left = later
    chosen = np.array(taken, dtype=np.int64)
    return np.concatenate([chosen, order[~np.isin(order, chosen)]])


def _around(place: int, neighbours: npt.NDArray[np.integer], size: int) -> set[int]:
    """A row, its neighbours, their neighbours and so on, nearest first, until they are ``size``."""
    found, reached = {place: None}, 0  # a dictionary keeps the order in which rows were met
    while reached < len(found) < size:
        for row in list(found)[reached:]:
            reached += 1
            found.update(dict.fromkeys(neighbours[row].tolist()))
            if len(found) >= size:
                break
    return set(list(found)[:size])
