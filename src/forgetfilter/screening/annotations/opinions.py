"""A second opinion on some rows, whoever gave it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from forgetfilter.arrays import FloatArray


@dataclass(frozen=True)
class SecondOpinion:
    """The second opinion on some rows, and what gave it."""

    scores: FloatArray
    """0 to 1, shape (N,), in the order of the rows; higher = suspected unsafe."""
    classifier: str
    """The setting that names what gave it."""
    label: str
    """Of what the scores are the probability; or what they are."""
    fingerprint: str
    kind: Literal["classifier", "known_unsafe"] = "classifier"

    def described(self) -> dict[str, Any]:
        """What gave it, for the record."""
        return {
            "classifier": self.classifier,
            "label": self.label,
            "fingerprint": self.fingerprint,
            **({} if self.kind == "classifier" else {"kind": self.kind}),
        }
