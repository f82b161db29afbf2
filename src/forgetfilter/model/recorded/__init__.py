"""Somebody's own training run in place of the learn phase: recorded, checked, taken over."""
