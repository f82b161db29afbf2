"""Libraries that only an adapter needs, imported when it is used."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from forgetfilter.errors import MissingExtraError


def foreign(module: str, extra: str, package: str) -> Any:
    """A module of another library.

    Args:
        module: its dotted name.
        extra: the extra of this package that installs the library.
        package: what the library itself is called in ``pip install``.

    Raises:
        MissingExtraError: the library isn't installed.
    """
    if not is_installed(module):
        raise MissingExtraError(
            f"{package} is not installed, which forgetfilter.integrations.{extra} works with. "
            f"Expected forgetfilter with its extra. Run: pip install 'forgetfilter[{extra}]' (or: "
            f"pip install {package})."
        )
    return importlib.import_module(module)


def is_installed(module: str) -> bool:
    """Whether the library that a module belongs to is installed."""
    return find_spec(module.partition(".")[0]) is not None
