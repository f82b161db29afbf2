"""``query`` and ``response``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import OneTurn


class QueryResponse(OneTurn):
    """One query and one response, as ms-swift has them."""

    name = "query_response"
    needs = ("query", "response")
    priority = 42
    example: ClassVar[Mapping[str, Any]] = {"query": "What is two and two?", "response": "Four."}


FORMAT = QueryResponse()
