"""What a training sees of each row on its way, kept so that it need not be read again.

In its first pass over a row a training computes the row's loss in a model that has not seen the row
yet, and in its last pass that in a model that is all but finished. They stand in for the losses in
the base model and in the learned one, and cost nothing. The model moves between two rows, so they
are near those losses and not equal to them (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from forgetfilter.arrays import BoolArray, FloatArray, IntArray
from forgetfilter.data.records import EncodedRow
from forgetfilter.finite import check_finite
from forgetfilter.model.passes.answer_head import nats_and_choices
from forgetfilter.model.passes.forward import RowBatch
from forgetfilter.model.passes.row_losses import CompletionLosses, row_losses
from forgetfilter.model.training.step_method import pass_of

_FILE = "seen.npz"
_NEVER = -1


@dataclass
class _Pass:
    """The losses of one pass over each row, and the step in which it was made, shape (N,)."""

    losses: CompletionLosses
    step: IntArray

    @classmethod
    def over(cls, rows: int) -> _Pass:
        match = np.zeros(rows, dtype=np.bool_)
        losses = CompletionLosses(np.full(rows, np.nan), match, np.full(rows, np.nan))
        return cls(losses, np.full(rows, _NEVER))

    def columns(self) -> dict[str, np.ndarray[Any, Any]]:
        return {**vars(self.losses), "step": self.step}

    def note(self, places: IntArray, found: CompletionLosses, step: int) -> None:
        own = self.columns()
        for name, values in vars(found).items():
            own[name][places] = values
        self.step[places] = step


@dataclass
class SeenLosses:
    """The losses of each row in the first pass that trains on it and in the last."""

    rows: Sequence[EncodedRow]
    first: _Pass = field(init=False)
    last: _Pass = field(init=False)

    def __post_init__(self) -> None:
        self.first, self.last = _Pass.over(len(self.rows)), _Pass.over(len(self.rows))
        self._waiting: list[tuple[IntArray, RowBatch, Tensor, Tensor]] = []

    def loss(self, model: Any, inputs: Mapping[str, Tensor], tokens: Any, places: Tensor) -> Tensor:
        """`answer_loss` of a pass over the rows at ``places``, (B,), whose parts are noted."""
        batch = pass_of(inputs)
        nats, is_choice = nats_and_choices(model, batch)
        self._waiting.append((places.cpu().numpy(), batch, nats.detach(), is_choice))
        return nats.sum() / tokens

    def end_step(self, step: int) -> None:
        """Take note of all passes since the last step; on a GPU it waits for them."""
        for places, batch, nats, is_choice in self._waiting:
            found = row_losses([self.rows[at] for at in places], batch, nats, is_choice)
            is_new = np.isin(self.first.step[places], (_NEVER, step))
            new = CompletionLosses(**{name: own[is_new] for name, own in vars(found).items()})
            self.first.note(places[is_new], new, step)
            self.last.note(places, found, step)
        self._waiting.clear()

    @property
    def is_whole(self) -> bool:
        """Whether every row was trained on twice, so that there is a first pass and a later one."""
        return bool((self.last.step > self.first.step).all())

    def columns(self, phase: str) -> dict[str, FloatArray | BoolArray]:
        """The columns of the readings ``loss`` in ``base`` and in ``learned``.

        Raises:
            ModelError: a row's loss was NaN or infinite; names ``phase``.
        """
        columns: dict[str, FloatArray | BoolArray] = {}
        for state, own in (("base", self.first.losses), ("learned", self.last.losses)):
            check_finite(own.loss_sum, "completion loss", phase)
            columns |= own.columns(state)
        return columns

    def save(self, folder: Path) -> None:
        """Write all that it remembers."""
        passes = {"first": self.first, "last": self.last}
        parts = {
            f"{name}_{column}": values
            for name, own in passes.items()
            for column, values in own.columns().items()
        }
        np.savez(folder / _FILE, **parts)  # pyright: ignore[reportArgumentType]

    def resume(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        with np.load(folder / _FILE, allow_pickle=False) as found:
            for name, own in (("first", self.first), ("last", self.last)):
                for column, values in own.columns().items():
                    values[:] = found[f"{name}_{column}"]
