"""Errors that a user can mend. Each message has three beats: found, expected, what to do."""

from __future__ import annotations

from forgetfilter.text import steady


class ForgetFilterError(Exception):
    """The setup or the input is wrong; the command line shows it without a traceback.

    Messages quote files and models that others made. Their text never has characters that hide
    or that steer a terminal, whatever was quoted.
    """

    def __str__(self) -> str:
        return steady(super().__str__())


class ConfigError(ForgetFilterError):
    """A setting is unknown, has the wrong type, or clashes with another."""


class DataError(ForgetFilterError):
    """An input file as a whole can't be used (single bad rows are rejected, never raised)."""


class ModelError(ForgetFilterError):
    """A model or tokenizer can't be loaded or can't do what a stage needs."""


class RunExistsError(ForgetFilterError):
    """The run folder belongs to another configuration or input, or another process holds it."""


class UnfitError(ForgetFilterError):
    """The scores can't be trusted, so nothing was decided; exit status 3 of the command line."""


class MissingExtraError(ForgetFilterError):
    """A feature needs a package that is not installed; the message names the pip line."""
