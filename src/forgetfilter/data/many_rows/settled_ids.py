"""One name for each row, no two the same, in little memory however many rows there are."""

from __future__ import annotations

import hashlib
from array import array

import numpy as np

from forgetfilter.arrays import BoolArray

_TOGETHER = 2**16


class SettledIds:
    """What rows are called: by their file where no other row is called the same, else ``row-N``.

    Names are told apart by 64 bits of a hash, 8 bytes a row. Two different names among a million
    are taken for the same once in some 40 million files; both are then called ``row-N``.
    """

    def __init__(self) -> None:
        self._keys = array("Q")
        self._is_named = array("b")
        self._known = np.zeros(0, dtype=np.uint64)
        self._is_own: BoolArray = np.zeros(0, dtype=np.bool_)

    def add(self, own_id: str) -> None:
        """The next row, with what its file calls it; empty where it says nothing."""
        self._keys.append(_key(own_id) if own_id else 0)
        self._is_named.append(bool(own_id))

    def settle(self) -> None:
        """All rows are known."""
        keys = np.frombuffer(self._keys, dtype=np.uint64) if self._keys else self._known
        self._is_own = np.array(self._is_named, dtype=np.bool_)
        self._known = keys[self._is_own]
        self._known.sort()
        again = np.unique(self._known[1:][self._known[1:] == self._known[:-1]])
        for start in range(0, len(keys) if len(again) else 0, _TOGETHER):
            own = slice(start, start + _TOGETHER)
            self._is_own[own] &= ~np.isin(keys[own], again)
        del keys  # or the array can't be let go
        self._keys, self._is_named = array("Q"), array("b")

    def name(self, row: int, own_id: str) -> str:
        """What a row is called; ``own_id`` is what was added for it."""
        if self._is_own[row]:
            return own_id
        name, attempt = f"row-{row}", 1
        while self._is_taken(name):
            attempt += 1
            name = f"row-{row}-{attempt}"
        return name

    def _is_taken(self, name: str) -> bool:
        key = np.uint64(_key(name))
        at = int(np.searchsorted(self._known, key))
        return at < len(self._known) and self._known[at] == key


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest(), "big")
