"""SIGTERM and SIGHUP end a command as Ctrl-C does: in order, with a sentence, and it resumes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGTERM", "SIGHUP")  # the second is unknown on some systems


class Ended(KeyboardInterrupt):
    """The command was told to end by the signal ``number``."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__()


@contextmanager
def signals_interrupt() -> Generator[None]:
    """While this lasts, those signals raise `Ended` where Ctrl-C would raise its own.

    One that is ignored stays so (``nohup``), and processes that are forked keep the default.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what signals do
        return
    own = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Ended(number)

    known = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in known}
    mine = [number for number in known if before[number] is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])
