"""What a run was made with: versions, platform, git revision."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "forgetfilter",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
)


def describe_environment() -> dict[str, Any]:
    """Versions by package (None where not installed), Python, platform and git revision."""
    return {
        "versions": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_revision": git_revision(),
    }


def git_revision(package: Path | None = None) -> str | None:
    """The commit that the package was imported from, with ``+changes`` if edited since.

    None where the package is installed, not checked out; a checkout that merely has the installed
    package somewhere inside (in a virtual environment, say) doesn't count.
    """
    package = package or Path(__file__).resolve().parent.parent
    checkout = package.parent.parent
    if not (checkout / ".git").exists() or package.parent.name != "src":
        return None
    revision = _git(checkout, "rev-parse", "HEAD")
    if not revision:
        return None
    return revision + ("+changes" if _git(checkout, "status", "--porcelain", "src") else "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(checkout: Path, *arguments: str) -> str | None:
    """What git prints, or None if there is no git or it fails."""
    # A git hook sets variables that would point at another repository.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
