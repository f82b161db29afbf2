"""Adapters to the tools that people already train with."""
