"""Scorers of free text, one file each; the registry finds them by itself."""

from forgetfilter.lab.scorers.base import TOXICITY_SCORERS

__all__ = ["TOXICITY_SCORERS"]
