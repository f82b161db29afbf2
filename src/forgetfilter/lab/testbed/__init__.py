"""The bundled testbed: a small made-up world, its judge, its data, and a model that speaks it.

Everything here is light to import; only building the model needs torch.
"""

from __future__ import annotations

from pathlib import Path

from .judge import Verdict, is_correct, judge
from .noisy import make_noisy, make_probes, make_safe
from .records import HARMS, Example, Harm, ProbePrompt
from .vocabulary import KINDNESS_CUE

__all__ = [
    "HARMS",
    "KINDNESS_CUE",
    "Example",
    "Harm",
    "ProbePrompt",
    "Verdict",
    "bundled_model_path",
    "is_correct",
    "judge",
    "make_noisy",
    "make_probes",
    "make_safe",
]


def bundled_model_path() -> Path:
    """The folder of the model that comes with the package."""
    return Path(__file__).parent / "files"
