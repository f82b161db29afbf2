"""Array types that every room uses: numbers, and texts of which few differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast, overload

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

BoolArray = npt.NDArray[np.bool_]

IntArray = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]

_TOGETHER = 2**16

Places = int | slice | npt.NDArray[Any]


class SharedTexts(Sequence[str]):
    """N texts, of which only their codes are held and once each text that differs.

    Comparing with a text gives an array of shape (N,), as it does with an array of texts.

    Args:
        codes: of each row, shape (N,): a place in ``texts``.
        texts: the texts, no two the same.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, codes: npt.NDArray[Any], texts: Iterable[str]) -> None:
        self._codes = {text: code for code, text in enumerate(texts)}
        self.texts = list(self._codes)
        """The different texts; not all of them need stand anywhere."""
        self.codes: npt.NDArray[Any] = codes.astype(_dtype_of(len(self.texts)), copy=False)
        """Where in ``texts`` each row's is, shape (N,)."""

    @classmethod
    def full(cls, size: int, text: str = "") -> SharedTexts:
        """The same text for each of ``size`` rows."""
        return cls(np.zeros(size, dtype=np.uint8), [text])

    @classmethod
    def of(cls, values: Sequence[str]) -> SharedTexts:
        """Texts that are held as such, or a copy of others."""
        if isinstance(values, SharedTexts):
            return cls(values.codes.copy(), values.texts)
        made = cls(np.zeros(len(values), dtype=np.uint8), [])
        for at, value in enumerate(values):
            made.put(at, value)
        return made

    def put(self, at: Places, text: str) -> None:
        """Let some rows have this text.

        Args:
            at: a place, a slice, places of shape (M,) or a mask of shape (N,).
            text: what they have.
        """
        code = self._codes.setdefault(text, len(self.texts))
        if code == len(self.texts):
            self.texts.append(text)
            self.codes = self.codes.astype(_dtype_of(len(self.texts)), copy=False)
        self.codes[at] = code

    def put_all(self, at: slice | npt.NDArray[Any], others: SharedTexts) -> None:
        """Let some rows have these texts, one each; ``at`` is a slice or places, shape (M,)."""
        code_of = [self._code(text) for text in others.texts]
        self.codes[at] = np.array(code_of, dtype=self.codes.dtype)[others.codes]

    def counts(self) -> Counter[str]:
        """How many rows have each text, in the order in which they come up."""
        found: Counter[str] = Counter()
        for start in range(0, len(self.codes), _TOGETHER):
            part = self.codes[start : start + _TOGETHER]
            codes, first, count = np.unique(part, return_index=True, return_counts=True)
            for at in np.argsort(first).tolist():
                found[self.texts[int(codes[at])]] += int(count[at])
        return found

    def tolist(self) -> list[str]:
        """All texts, one by one."""
        return list(self)

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    @overload
    def __getitem__(self, at: npt.NDArray[Any]) -> SharedTexts: ...
    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self.texts[code] for code in self.codes[at].tolist()]
        found = self.codes[at]
        return SharedTexts(found, self.texts) if np.ndim(found) else self.texts[int(found)]

    def __contains__(self, text: object) -> bool:
        code = self._codes.get(cast(str, text))
        return code is not None and bool((self.codes == code).any())

    def __iter__(self) -> Iterator[str]:
        return (self.texts[int(code)] for code in self.codes)

    def __eq__(self, text: object) -> BoolArray:  # type: ignore[override]
        code = self._codes.get(cast(str, text))
        if code is None:
            return np.zeros(len(self.codes), dtype=np.bool_)
        return self.codes == code

    def __ne__(self, text: object) -> BoolArray:  # type: ignore[override]
        return ~(self == text)

    def _code(self, text: str) -> int:
        """The code of a text, which becomes one of the texts."""
        self.put(np.zeros(0, dtype=np.int64), text)
        return self._codes[text]


def _dtype_of(different: int) -> npt.DTypeLike:
    """The smallest type that codes of so many texts fit."""
    return np.uint8 if different <= 2**8 else np.uint16 if different <= 2**16 else np.uint32
