"""The process that renders chat templates, seen from this one; `template_worker` is what it runs.

A template that takes too much costs that process, never this one, whatever thread or system this
one runs on: an alarm signal reaches only the main thread and no code that runs within a C function,
and a limit of memory set here would hold for the model too.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

CPU_SECONDS = 5
"""Processor time that a template may take for the renderings of one row."""
CLOCK_SECONDS = 300
"""The same by the clock, for systems that can't limit processor time."""
MEGABYTES = 1024
"""Memory of the process that renders."""


@dataclass
class TemplateWorker:
    """The process that renders, one for all templates of this process."""

    process: subprocess.Popen[bytes]
    pid: int
    limits: tuple[int, int]
    replies: queue.Queue[bytes] = field(default_factory=queue.Queue[bytes])
    loaded: set[str] = field(default_factory=set[str])
    lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def shared() -> TemplateWorker:
        """The running worker, or a new one where there is none (any more)."""
        global _worker
        with _starting:
            limits = (CPU_SECONDS, MEGABYTES)
            is_usable = (
                _worker is not None
                and _worker.pid == os.getpid()  # a forked process must not share its parent's
                and _worker.limits == limits
                and _worker.process.poll() is None
            )
            if _worker is None or not is_usable:
                _worker = TemplateWorker._start(limits)
            return _worker

    @staticmethod
    def _start(limits: tuple[int, int]) -> TemplateWorker:
        script = Path(__file__).with_name("template_worker.py")
        # -P: modules that lie beside the script must not stand in for those of the library.
        command = [sys.executable, "-P", str(script), *(str(limit) for limit in limits)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
        )
        worker = TemplateWorker(process, os.getpid(), limits)
        threading.Thread(target=worker._read, daemon=True).start()
        return worker

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.replies.put(line)
        self.replies.put(b"")

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to one request, or ``{"failure": WHAT}``.

        WHAT is ``time``, ``memory``, ``end`` where the process has ended by itself, or ``idle``
        where that was because nothing had been asked for long: then it may be asked again.
        """
        with self.lock:
            assert self.process.stdin is not None
            try:
                self.process.stdin.write(json.dumps(request).encode() + b"\n")
                self.process.stdin.flush()
                line = self.replies.get(timeout=CLOCK_SECONDS)
            except queue.Empty:
                line = None
            except BrokenPipeError:
                line = b""
            if line:
                return json.loads(line)
            try:
                # A process that was ended for its time has closed its output already.
                self.process.wait(timeout=0 if line is None else 10)
                is_late = self.process.returncode in (-_SIGXCPU, -_SIGKILL)
            except subprocess.TimeoutExpired:
                is_late = True
            is_idle = self.process.returncode == -_SIGALRM
            self.stop()
            return {"failure": "time" if is_late else "idle" if is_idle else "end"}

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not read any more
                    pipe.close()


def _environment() -> dict[str, str]:
    """What the process has to know: where jinja2 is, and none of this one's secrets."""
    kept = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
    there = {name: os.environ[name] for name in kept if name in os.environ}
    return {**there, "PYTHONPATH": str(Path(jinja2.__file__).parents[1])}


_SIGKILL, _SIGALRM, _SIGXCPU = 9, 14, 24
_starting = threading.Lock()
_worker: TemplateWorker | None = None


def stop_worker() -> None:
    """End the process that renders, if there is one; what is rendered next starts another."""
    if _worker is not None and _worker.pid == os.getpid() and _worker.process.poll() is None:
        _worker.stop()


atexit.register(stop_worker)
