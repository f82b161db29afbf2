"""Which names of rows came up before, in little memory however many rows there are."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_RECENT = 50_000


class SeenIds:
    """Remembers names by 64 bits of a hash, 8 bytes each beside where they stood.

    Two different names among a million are taken for the same once in some 40 million files.
    """

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._keys: npt.NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)
        self._places: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def first(self, name: str, row: int) -> int | None:
        """The row that was called so first; None where this one is, which is then remembered."""
        key = int.from_bytes(hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest(), "big")
        found = self._recent.get(key)
        if found is not None:
            return found
        at = int(np.searchsorted(self._keys, np.uint64(key)))
        if at < len(self._keys) and int(self._keys[at]) == key:
            return int(self._places[at])
        self._recent[key] = row
        if len(self._recent) >= _RECENT:
            self._merge()
        return None

    def _merge(self) -> None:
        keys = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
        places = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        keys, places = np.concatenate([self._keys, keys]), np.concatenate([self._places, places])
        order = np.argsort(keys, kind="stable")
        self._keys, self._places = keys[order], places[order]
        self._recent.clear()
