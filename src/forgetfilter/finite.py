"""NaN and infinity stop the work where they first appear, instead of being averaged or written."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forgetfilter.errors import ModelError


def check_finite(values: npt.ArrayLike, quantity: str, place: str) -> None:
    """See that no value is NaN or infinite.

    Args:
        values: one value per row, shape (N,), or a single one.
        quantity: what the values are.
        place: the model state or step that they were read in.

    Raises:
        ModelError: some value is; names how many of how many, and the first.
    """
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    is_bad = ~np.isfinite(array)
    if is_bad.any():
        count, first = np.count_nonzero(is_bad), int(np.argmax(is_bad))
        raise ModelError(
            f"The {quantity} is NaN or infinite for {count} of {len(array)} values in {place} (the "
            f"first at position {first}). Finite numbers are expected, so nothing is decided. If "
            "this is the base model, its weights are damaged or overflow: give sound weights, or "
            "--dtype float32. Otherwise training has moved the model too far: lower "
            "learn.learning_rate, or learn for fewer epochs."
        )
