"""Cells on several processes at once; those of one data set and seed stay in one, if they can."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

from forgetfilter.progress import Progress

if TYPE_CHECKING:
    from forgetfilter.lab.studies.grid import Job, Study

Attempt = Callable[["Study", "Job"], None]
"""Finishes one cell, or writes down why it can't be."""
Group = tuple[str, int]
"""A data set and a seed."""


def attempt_all(study: Study, jobs: Sequence[Job], num_proc: int, attempt: Attempt) -> None:
    """Attempt every job, on ``num_proc`` processes where that is more than one.

    Each process has an equal part of our threads, says lines and shows no bars, and ends with this
    process, however this one ends. What cells share is made once: a process stays with the cells
    of one data set and seed, which share the most, while there are any, and a stage is made under
    a lock.
    """
    import torch

    num_proc = min(num_proc, len(jobs))
    if num_proc <= 1:
        for job in jobs:
            attempt(study, job)
        return
    # A fork would copy the locks that threads of ours hold, and no thread to let go of them.
    context = multiprocessing.get_context("spawn")
    # Nothing is ever sent: the pipe ends when this process closes it or ends.
    lifeline, our_end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        num_proc,
        mp_context=context,
        initializer=_settle,
        initargs=(lifeline, max(1, torch.get_num_threads() // num_proc)),
    )
    left = list(jobs)
    busy: dict[Future[None], Job] = {}
    finished: Group | None = None
    is_lost = False
    try:
        while left or busy:
            while left and len(busy) < num_proc:
                job = _next(left, finished, [_group(other) for other in busy.values()])
                with _deaf_to_interrupts():
                    busy[pool.submit(_attempt_one, study, job, attempt)] = job
                left.remove(job)
            done, _ = wait(busy, return_when=FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: task.exception() is not None):
                task.result()
                finished = _group(busy.pop(task))
        pool.shutdown()
    except BrokenProcessPool:
        is_lost = True
    finally:
        # No process is left running, however this one ends.
        our_end.close()
        pool.shutdown(cancel_futures=True)
        lifeline.close()
    if is_lost:
        _tell_of_the_end(jobs)


def _group(job: Job) -> Group:
    return job.cell.dataset, job.cell.seed


def _next(left: Sequence[Job], finished: Group | None, busy: Sequence[Group]) -> Job:
    """The job for a free process: of the group just worked on, of one with no process, any."""
    same = (job for job in left if _group(job) == finished)
    fresh = (job for job in left if _group(job) not in busy)
    return next(same, None) or next(fresh, None) or left[0]


@contextmanager
def _deaf_to_interrupts() -> Generator[None]:
    """Processes that begin here hear neither Ctrl-C nor a closed terminal; this one does later."""
    if sys.platform == "win32":  # which has no such mask
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _settle(lifeline: Connection, threads: int) -> None:
    """Begin life as one of several processes."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    """End this process at once when its parent has ended: a killed run leaves no process behind."""
    lifeline.poll(None)
    os._exit(1)


def _attempt_one(study: Study, job: Job, attempt: Attempt) -> None:
    label = f"[{job.cell.dataset}, seed {job.cell.seed}] "
    progress = Progress(is_silent=job.progress.is_silent, has_bars=False, label=label)
    attempt(study, replace(job, progress=progress))


def _tell_of_the_end(jobs: Sequence[Job]) -> None:
    """Write into cells without a result or a reason, once a process is lost, why that is."""
    for job in jobs:
        if job.cell.result() is None and job.cell.error() is None:
            job.cell.fail(
                "A process of this study was ended from outside before it got here. Expected it "
                "to live; most often memory ran out. Repeat the same command, with a lower "
                "--num-proc where memory is short."
            )
