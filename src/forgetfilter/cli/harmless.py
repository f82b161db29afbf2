"""What other libraries print, which may quote files and models, made harmless for a terminal."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from forgetfilter.text import steady


@contextmanager
def harmless_messages() -> Generator[None]:
    """Within it log records and warnings of any library have no character that hides or steers."""
    make, write = logging.getLogRecordFactory(), warnings.formatwarning

    def make_harmless(*parts: Any, **named: Any) -> logging.LogRecord:
        record = make(*parts, **named)
        try:
            said = record.getMessage()
        except (TypeError, ValueError):  # logging itself reports wrong arguments
            return record
        if steady(said) != said:
            record.msg, record.args = steady(said), ()
        return record

    def write_harmless(*parts: Any, **named: Any) -> str:
        return steady(write(*parts, **named))

    logging.setLogRecordFactory(make_harmless)
    warnings.formatwarning = write_harmless
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)
        warnings.formatwarning = write


def show_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print the traceback of a mistake of ours; a ``sys.excepthook``."""
    sys.stderr.write(steady("".join(traceback.format_exception(kind, error, trace))))
