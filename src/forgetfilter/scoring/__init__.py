"""Readings to scores to decisions: pure functions, no model, no disk."""
