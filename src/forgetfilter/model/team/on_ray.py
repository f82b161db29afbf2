"""Readings computed by workers of a Ray cluster, for more rows than one machine should read.

What trains stays in this process; what reads rows is cut into parts that any worker can compute. A
worker that is lost is started again by Ray, and its part with it. Rows and adapters travel to the
workers, so that they need no disk of ours; they load the base model themselves.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from forgetfilter.errors import ConfigError, MissingExtraError, ModelError
from forgetfilter.model.loading.model_files import vocabulary_size
from forgetfilter.model.measuring.divergence import divergences
from forgetfilter.model.passes.batch_plan import batches_by_length
from forgetfilter.model.passes.forward import (
    completion_losses,
    greedy_generations,
    most_batch_tokens,
    token_losses,
)
from forgetfilter.model.state import ModelState
from forgetfilter.model.team.member import Member, Opening, adapter_files, model_in, opening_of
from forgetfilter.progress import Progress

if TYPE_CHECKING:
    from forgetfilter.model.workbench import Workbench

_PARTS_A_WORKER = 4
"""At least, so that a slow worker or a lost one holds up little."""
_MOST_BATCHES = 64
"""In one part."""
_TRIES = 5
"""How often a part is computed again whose worker was lost: it may be the part that kills it."""

_cluster: Cluster | None = None


def cluster() -> Cluster | None:
    """The Ray cluster that reads rows now; None where this process does."""
    return _cluster


@contextmanager
def reading_on_ray(workers: int | None) -> Generator[None]:
    """Read rows on Ray while this lasts: the cluster of RAY_ADDRESS, else one on this machine.

    Args:
        workers: how many; None = one a GPU, or one a CPU where no GPU is known to Ray.

    Raises:
        MissingExtraError: Ray is not installed.
        ModelError: the cluster can't be reached.
    """
    global _cluster
    try:
        ray = import_module("ray")
    except ImportError:
        raise MissingExtraError(
            "--engine ray needs the package ray, which is not installed. Expected the extra `ray`. "
            "Run: pip install 'forgetfilter[ray]'"
        ) from None
    try:
        ray.init(
            address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, include_dashboard=False
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"No Ray cluster can be reached: {' '.join(str(error).split())[:200]}. Expected one at "
            "RAY_ADDRESS, or room to start one here. Check the address, or leave --engine out."
        ) from None
    _cluster = Cluster(workers)
    try:
        yield
    finally:
        _cluster = None
        with suppress(RuntimeError):
            ray.shutdown()


class Cluster:
    """Workers on Ray, each with the model that was last asked for."""

    def __init__(self, workers: int | None) -> None:
        ray = import_module("ray")

        found: dict[str, float] = ray.cluster_resources()
        self._has_cards = found.get("GPU", 0) >= 1
        self.size = workers or int(found.get("GPU", 0)) or max(1, int(found.get("CPU", 1)))
        self._opening: Opening | None = None
        self._actors: list[Any] = []

    def reads(self, function: Callable[..., Any]) -> bool:
        """Whether the workers compute this; else the process itself has to."""
        return function in _ROWS_AT

    def read(
        self,
        bench: Workbench,
        how: str,
        state: ModelState,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> Any:
        """``function(model in state, *arguments)``, each row computed by one worker.

        Raises:
            ModelError: a part could not be computed, however often it was tried.
        """
        ray = import_module("ray")

        self._open(opening_of(bench))
        rows = _ROWS_AT[function]
        count = len(arguments[rows[0]])
        parts = self._parts(bench, arguments[rows[0]])
        adapter = ray.put(_files_of(state))
        sent = ray.put(tuple(_plain(bench, each, at in rows) for at, each in enumerate(arguments)))
        counts, results = np.zeros(count), cast(list[tuple[list[int], Any]], [])
        label = next(each for each in reversed(arguments) if isinstance(each, str))
        pool = import_module("ray.util").ActorPool(self._actors)

        def ask(actor: Any, part: list[int]) -> Any:
            own = [[arguments[at][i] for i in part] for at in rows]
            call = (how, state.name, state.fingerprint, function, rows, part)
            return actor.read.remote(adapter, sent, call, own)

        try:
            with bench.progress.bar(f"{label}, {self.size} workers", count, "rows") as bar:
                for part, result in pool.map_unordered(ask, parts):
                    counts[part] += 1
                    results.append((part, result))
                    bar.update(len(part))
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            raise ModelError(
                f"Workers of the Ray cluster failed: {' '.join(str(cause).split())[:300]}. "
                f"Expected each part of the rows to be computed in {_TRIES + 1} tries. Look into "
                "the logs of Ray (memory, most often); the same command goes on after the last "
                "finished stage."
            ) from None
        if (counts != 1).any():
            raise RuntimeError(f"{int((counts != 1).sum())} of {count} rows were not read once")
        return _whole(results, count)

    def _open(self, opening: Opening) -> None:
        """Have workers with this model; those of another are let go of."""
        ray = import_module("ray")

        if self._opening == opening:
            return
        for actor in self._actors:
            ray.kill(actor)
        options = {"max_restarts": -1, "max_task_retries": _TRIES}
        if opening.device == "cuda":
            if not self._has_cards:
                raise ConfigError(
                    "The model computes on cuda, and no GPU is known to Ray. Expected workers like "
                    "this process. Start Ray with --num-gpus, or give --device cpu."
                )
            options["num_gpus"] = 1
        kind = ray.remote(**options)(Reader)
        self._actors = [kind.remote(opening) for _ in range(self.size)]
        self._opening = opening

    def _parts(self, bench: Workbench, rows: Sequence[Any]) -> list[list[int]]:
        """The rows in parts of whole batches, which are then those of one process."""
        lengths = [len(getattr(row, "input_ids", row)) for row in rows]
        vocabulary = vocabulary_size(bench.source, bench.trust_remote_code)
        most = most_batch_tokens(vocabulary, bench.placement.device, bench.max_batch_tokens)
        batches = batches_by_length(lengths, most)
        parts = max(self.size * _PARTS_A_WORKER, len(batches) // _MOST_BATCHES)
        parts = min(parts, len(batches))
        return [[i for batch in batches[at::parts] for i in batch] for at in range(parts)]


class Reader:
    """One worker: keeps the model, and the adapters that it was sent."""

    def __init__(self, opening: Opening) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="forgetfilter-")
        self._member = Member(Path(self._scratch.name))
        self._bench = self._member.open(opening)

    def read(
        self,
        files: dict[str, bytes] | None,
        sent: tuple[Any, ...],
        call: tuple[Any, ...],
        own: list[list[Any]],
    ) -> tuple[list[int], Any]:
        """Which rows these are, and what was read of them."""
        how, name, fingerprint, function, rows, part = call
        adapter = None if files is None else self._member.keep_adapter(fingerprint, files)
        arguments = list(sent)
        for at, given in zip(rows, own, strict=True):
            arguments[at] = given
        known = {_TOKENIZER: lambda: self._bench.tokenizer, _PROGRESS: _silent}
        arguments = [known[a]() if isinstance(a, str) and a in known else a for a in arguments]
        model = model_in(self._bench, how, ModelState(name, fingerprint, adapter))
        return part, function(model, *arguments)


_ROWS_AT: dict[Callable[..., Any], tuple[int, ...]] = {
    completion_losses: (0,),
    divergences: (0,),
    token_losses: (0,),
    greedy_generations: (1, 2),
}
"""What workers compute, and which of its arguments have an entry a row."""

_TOKENIZER, _PROGRESS = "\0tokenizer", "\0progress"


def _silent() -> Progress:
    return Progress(is_silent=True)


def _plain(bench: Workbench, argument: Any, is_of_rows: bool) -> Any:
    """An argument as all workers get it; entries of rows go along with each part."""
    if isinstance(argument, Progress):
        return _PROGRESS
    if argument is bench.__dict__.get("tokenizer"):
        return _TOKENIZER
    return None if is_of_rows else argument


def _files_of(state: ModelState) -> dict[str, bytes] | None:
    return None if state.adapter is None else adapter_files(state.adapter)


def _whole(results: list[tuple[list[int], Any]], count: int) -> Any:
    """The results of all parts as one: arrays, lists, or a record of arrays, in the rows' order."""
    _, first = results[0]
    if is_dataclass(first):
        names = [each.name for each in fields(first)]
        columns = {
            name: _whole([(part, getattr(found, name)) for part, found in results], count)
            for name in names
        }
        return type(cast(Any, first))(**columns)
    if isinstance(first, np.ndarray):
        whole = np.zeros((count, *first.shape[1:]), dtype=first.dtype)
        for part, found in results:
            whole[part] = found
        return whole
    texts: list[Any] = [None] * count
    for part, found in results:
        for at, value in zip(part, found, strict=True):
            texts[at] = value
    return texts
