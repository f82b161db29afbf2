"""Attacks on the filter: they transform rows that the user has, and write no harmful text."""

from forgetfilter.lab.attacks.base import (
    ATTACKS,
    Attack,
    Material,
    Subject,
    build_attack,
    needs_model,
)

__all__ = ["ATTACKS", "Attack", "Material", "Subject", "build_attack", "needs_model"]
