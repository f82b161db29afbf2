"""The order of training rows, such that two fine-tunes can be compared in pairs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from forgetfilter.data.records import EncodedRow


class RowOrder(Sampler[int]):
    """A new random order for each epoch, in which every row's place is drawn for itself.

    A permutation drawn for all rows at once is another one as soon as a single row is missing. Here
    each row's place hangs on the seed, the epoch and the row's own tokens, so that two fine-tunes
    whose rows are nearly the same see them in nearly the same order. What then differs between them
    is due to the rows, not to the luck of the order (common random numbers).
    """

    def __init__(self, rows: Sequence[EncodedRow], seed: int) -> None:
        seen: Counter[str] = Counter()
        self._keys: list[str] = []
        for row in rows:
            # The text of two tuples: another spelling would be another order of the same rows.
            tokens = tuple(row.input_ids.tolist()), tuple(row.is_target.tolist())
            content = hashlib.sha256(repr(tokens).encode()).hexdigest()
            self._keys.append(f"{content}:{seen[content]}")  # of equal rows each is one of its own
            seen[content] += 1
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._keys)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next order is that of; a resumed training begins with a later one."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """The indices of the next epoch."""
        prefix = f"{self._seed}:{self._epoch}:"
        self._epoch += 1
        places = [hashlib.sha256((prefix + key).encode()).digest() for key in self._keys]
        return iter(sorted(range(len(places)), key=places.__getitem__))
