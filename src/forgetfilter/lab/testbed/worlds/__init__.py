"""Made-up worlds drawn from a number; light to import, only building a model needs torch."""

from __future__ import annotations

from .drawing import DrawnWorld, draw_world
from .split import CHOOSING, OPENED_BEFORE, REPORTING

__all__ = ["CHOOSING", "OPENED_BEFORE", "REPORTING", "DrawnWorld", "draw_world"]
