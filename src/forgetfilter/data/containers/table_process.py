"""The process that weighs tables, seen from this one; `table_worker` is what it runs."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("table_worker.py")
_lock = threading.Lock()
_process: subprocess.Popen[bytes] | None = None
_owner = 0
"""Who started it: a forked process must not share its parent's."""


def ask(request: Mapping[str, Any], data: bytes) -> dict[str, Any] | None:
    """The reply of the worker to a request and a file; None where that has ended it."""
    with _lock:
        for _ in range(2):  # it ends by itself when nothing is asked for long, perhaps just now
            process = _running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(dict(request)).encode() + b"\n")
                process.stdin.flush()
                process.stdin.write(data)
                process.stdin.flush()
            except BrokenPipeError:
                _stop()
                continue
            except BaseException:  # it waits for the rest of the file
                _stop()
                raise
            try:
                line = process.stdout.readline()
            except BaseException:
                _stop()
                raise
            if line:
                return json.loads(line)
            _stop()
            return None
    return None


def _running() -> subprocess.Popen[bytes]:
    global _process, _owner
    if _process is None or _owner != os.getpid() or _process.poll() is not None:
        # -P: modules that lie beside the script must not stand in for those of the library.
        _process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        _owner = os.getpid()
    return _process


def _environment() -> dict[str, str]:
    """What the process has to know: where pyarrow is, and none of this one's secrets."""
    import pyarrow

    kept = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
    there = {name: os.environ[name] for name in kept if name in os.environ}
    return {**there, "PYTHONPATH": str(Path(pyarrow.__file__).parents[1])}


def _stop() -> None:
    global _process
    process, _process = _process, None
    if process is None or _owner != os.getpid():
        return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not read any more
                pipe.close()


def _forget() -> None:
    """Begin anew in a forked process: another thread of its parent may have been asking.

    What that thread had not sent yet must not be sent from here.
    """
    global _lock, _process
    _lock, process, _process = threading.Lock(), _process, None
    if process is not None:
        let_go(process)


def let_go(process: subprocess.Popen[bytes]) -> None:
    """In a forked process: close the pipes of its parent's, and send nothing through them."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, pipe.fileno(), inheritable=False)
                os.close(nowhere)


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
