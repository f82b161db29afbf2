"""Processes forked while a thread of their parent asks a worker: they don't wait for it."""

from __future__ import annotations

import json
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest

from forgetfilter.data.containers import table_bounds, table_process
from forgetfilter.data.containers.tables import stream_of
from forgetfilter.data.tokens import template_process
from forgetfilter.data.tokens.template_process import TemplateWorker

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def weigh(text: str) -> None:
    assert table_bounds.check_table(stream_of(pa.table({"text": [text]})), "stream") > 0


def render(text: str) -> None:
    asked = {"key": text, "source": "{{ 1 }}", "date": "2024-01-01"}
    assert "constants" in TemplateWorker.shared().ask(asked)


@contextmanager
def held_by_another_thread(lock: Any) -> Iterator[None]:
    is_held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            is_held.set()
            is_over.wait()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    is_held.wait()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def status_of_forked(work: Callable[[], None]) -> int:
    """The exit status of a forked process that does some work; it is ended after thirty seconds."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
        work()
        status = 0
    finally:
        os._exit(status)


LOCKS: dict[str, tuple[Callable[[str], None], Callable[[], Any]]] = {
    "tables": (weigh, lambda: table_process._lock),
    "the start of templates": (render, lambda: template_process._starting),
    "templates": (render, lambda: TemplateWorker.shared().lock),
}


@pytest.mark.parametrize("name", LOCKS)
def test_a_forked_process_waits_for_no_thread_of_its_parent(name: str):
    work, lock = LOCKS[name]
    work(f"{name}, before")
    with held_by_another_thread(lock()):
        assert status_of_forked(lambda: work(f"{name}, forked")) == 0
    work(f"{name}, after")  # and the parent's own worker is as it was


def test_what_the_parent_has_not_sent_yet_is_sent_by_nobody_else():
    """The buffer of a pipe is there twice after a fork, and sends what it holds when it goes."""
    weigh("before")
    data = stream_of(pa.table({"text": ["a"]}))
    request = {"kind": "stream", "size": len(data), "most": 10**6, "depth": 9, "seconds": 9}

    def pipes() -> tuple[Any, Any]:  # not held here, so that the forked process lets go of them
        process = table_process._running()
        return process.stdin, process.stdout

    pipes()[0].write(json.dumps(request).encode() + b"\n" + data)
    assert status_of_forked(lambda: weigh("in the child")) == 0
    to_worker, from_worker = pipes()
    to_worker.flush()
    assert b"weight" in from_worker.readline()
    assert not select.select([from_worker], [], [], 0.3)[0]  # no second reply


@pytest.mark.parametrize("end", ["one that renders", "one that weighs"])
def test_a_worker_that_fails_says_nothing_on_the_terminal(
    capfd: pytest.CaptureFixture[str], end: str
):
    """A traceback may quote a template or a table."""
    (weigh if end == "one that weighs" else render)(f"before {end}")
    process = (
        table_process._running() if end == "one that weighs" else TemplateWorker.shared().process
    )
    assert process.stdin is not None
    process.stdin.write(b'{"no": "request"}\n')
    process.stdin.flush()
    assert process.wait(timeout=60) == 1
    assert capfd.readouterr().err == ""
