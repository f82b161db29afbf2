"""The lab's commands, a group a file; light to import."""

from __future__ import annotations

from typing import Any

from forgetfilter.lab.cli import attacking, demo, mixing, studies, testbed


def add(commands: Any) -> None:
    """Add all commands of the lab."""
    for part in (attacking, demo, mixing, studies, testbed):
        part.add(commands)
