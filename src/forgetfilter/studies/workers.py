"""Cells on several processes at once; those of one data set and seed stay in one of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from forgetfilter.progress import Progress

if TYPE_CHECKING:
    from forgetfilter.studies.grid import Job, Study

Attempt = Callable[["Study", "Job"], None]
"""Finishes one cell, or writes down why it can't be."""

_SECONDS_BETWEEN_LOOKS = 0.5


def attempt_all(study: Study, jobs: Sequence[Job], num_proc: int, attempt: Attempt) -> None:
    """Attempt every job, on ``num_proc`` processes where that is more than one.

    Each process has an equal part of our threads, says lines and shows no bars, and ends with this
    process, however this one ends. What cells share is made once: the cells of one data set and
    seed, which share the most, follow each other in one process, and a stage is made under a lock.
    """
    groups = [
        list(group) for _, group in groupby(jobs, key=lambda job: (job.cell.dataset, job.cell.seed))
    ]
    num_proc = min(num_proc, len(groups))
    if num_proc <= 1:
        for job in jobs:
            attempt(study, job)
        return
    threads = max(1, torch.get_num_threads() // num_proc)
    pool = ProcessPoolExecutor(
        num_proc,
        # A fork would copy the locks that threads of ours hold, and no thread to let go of them.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_settle,
        initargs=(os.getpid(), threads),
    )
    try:
        tasks = [pool.submit(_attempt_group, study, group, attempt) for group in groups]
        for group, task in zip(groups, tasks, strict=True):
            try:
                task.result()
            except BrokenProcessPool:
                _tell_of_the_end(group)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _settle(parent: int, threads: int) -> None:
    """Begin life as one of several processes."""
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: the parent says what there is to say
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process at once when its parent is gone: a killed run leaves nobody at work."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _attempt_group(study: Study, jobs: Sequence[Job], attempt: Attempt) -> None:
    first = jobs[0]
    label = f"[{first.cell.dataset}, seed {first.cell.seed}] "
    progress = Progress(is_silent=first.progress.is_silent, has_bars=False, label=label)
    for job in jobs:
        attempt(study, replace(job, progress=progress))


def _tell_of_the_end(jobs: Sequence[Job]) -> None:
    """Write into the unfinished cells of a lost process why they have no result."""
    for job in jobs:
        if job.cell.result() is None:
            job.cell.fail(
                "A process of this study was ended from outside before it got here. Expected it "
                "to live; most often memory ran out. Repeat the same command, with a lower "
                "--num-proc where memory is short."
            )
