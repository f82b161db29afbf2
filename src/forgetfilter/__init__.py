"""Screen fine-tuning data for unsafe rows by how much a language model forgets them.

>>> from forgetfilter import ForgetFilter
>>> result = ForgetFilter(model="path-or-id").screen(
...     "custom.jsonl", output_dir="run"
... )  # doctest: +SKIP
>>> result.kept, result.removed, result.scores  # doctest: +SKIP
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Dependencies read these once, when they are imported, so they are set before any of them is.
for _switch in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_switch, "1")

from forgetfilter.errors import ForgetFilterError  # noqa: E402

if TYPE_CHECKING:
    from forgetfilter.api import ForgetFilter, check_safe, filter, report, screen
    from forgetfilter.screening.deciding.overruling import Overruling
    from forgetfilter.screening.screen import ScreenResult

__version__ = "0.1.0"
__all__ = [
    "ForgetFilter",
    "ForgetFilterError",
    "Overruling",
    "ScreenResult",
    "__version__",
    "check_safe",
    "filter",
    "report",
    "screen",
]


def __getattr__(name: str) -> Any:
    """Import the heavy parts when they are first asked for."""
    if name in ("ForgetFilter", "screen", "filter", "report", "check_safe"):
        from forgetfilter import api

        return getattr(api, name)
    if name == "Overruling":
        from forgetfilter.screening.deciding.overruling import Overruling

        return Overruling
    if name == "ScreenResult":
        from forgetfilter.screening.screen import ScreenResult

        return ScreenResult
    raise AttributeError(f"module 'forgetfilter' has no attribute {name!r}")
