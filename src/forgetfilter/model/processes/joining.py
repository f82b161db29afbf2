"""Several processes that compute together, as a launcher such as torchrun has started them.

Process 0 runs the command and is the only one that writes. The others wait for work (`team`), and
while all of them do the same work, `together` gives the group: rows are dealt out, what each has
found is added up, and every row is seen to be computed exactly once. In a process that is alone,
and outside such work, `together` is None and nothing here does anything.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from forgetfilter.errors import ModelError
from forgetfilter.text import printable

T = TypeVar("T")

PATIENCE = "FORGETFILTER_PROCESS_TIMEOUT"
"""Environment variable: after how many seconds a process that doesn't answer counts as lost."""
_PATIENCE_SECONDS = 7200.0
# What says to libraries that they are one of several processes. They must not know: each would cut
# the batches up once more.
_OF_LAUNCHERS = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "ACCELERATE_USE_FSDP",
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_MIXED_PRECISION",
)


class LostError(ModelError):
    """Another process that takes part has ended, or does not answer."""


@dataclass(frozen=True)
class Processes:
    """The group that this process is one of."""

    rank: int
    size: int
    store: Any
    """Keys and values that all processes can read, also when one of them is stuck."""
    patience: float
    """Seconds after which a process that doesn't answer counts as lost."""
    is_parted: bool = False
    """Whether each process keeps only a part of the base weights."""
    is_offloaded: bool = False
    """Whether that part stays in the memory of the machine until it is needed."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that runs the command and writes."""
        return self.rank == 0

    def share(self, lengths: Sequence[int], rank: int | None = None) -> list[int]:
        """Which of some rows are those of process ``rank`` (by default this one).

        All get about equally many, of similar length.
        """
        return longest_first(lengths)[self.rank if rank is None else rank :: self.size]

    def add_up(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The sum over all processes, of numbers or of booleans of which one at most is true."""
        kind = np.float64 if values.dtype.kind == "f" else np.int64
        total = torch.from_numpy(values.astype(kind))
        self.reduce(total)
        return total.numpy().astype(values.dtype)

    def add_up_tensors(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The sums over all processes of tensors of one device and number format."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self.reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [own.view(tensor.shape) for own, tensor in zip(parts, tensors, strict=True)]

    def reduce(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        with self.attended():
            dist.all_reduce(tensor)

    def gather(self, value: T) -> list[T]:
        """What each process gave, by rank; any object that can be pickled."""
        found: list[Any] = [None] * self.size
        with self.attended():
            dist.all_gather_object(found, value)
        return cast(list[T], found)

    def send(self, message: bytes | None = None) -> bytes:
        """What process 0 gave, in all processes."""
        size = torch.tensor([len(message or b"")])
        with self.attended():
            dist.broadcast(size, src=0)
            given = bytearray(message) if message is not None else bytearray(int(size))
            content = torch.frombuffer(given, dtype=torch.uint8)
            dist.broadcast(content, src=0)
        return bytes(given)

    def align(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give each process the tensors of process 0, so that all begin with the same numbers."""
        with self.attended(), torch.no_grad():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def check_once(self, counts: np.ndarray[Any, Any], what: str) -> None:
        """See that all processes together did each item once; ``counts`` are this one's, (N,).

        Raises:
            RuntimeError: an item was left out, or done twice.
        """
        found = self.add_up(counts)
        wrong = np.flatnonzero(found != 1)
        if len(wrong):
            raise RuntimeError(
                f"{len(wrong)} of {len(found)} {what} were computed {found[wrong[0]]:g} times by "
                f"{self.size} processes; once is expected. Nothing of it is kept."
            )

    @contextmanager
    def attended(self) -> Generator[None]:
        """Say in a sentence that a process was lost, where something is computed together.

        Raises:
            LostError: another process has ended or doesn't answer.
        """
        try:
            yield
        except RuntimeError as error:  # DistError, and what gloo raises by itself
            if not _is_of_group(error):
                raise
            raise self.lost(str(error)) from None

    def lost(self, said: str = "") -> LostError:
        """The error that all remaining processes end with."""
        told = self.failures()
        found = (
            f"{told} That was"
            if told
            else f"Another of the {self.size} processes has ended or does not answer "
            f"({_short(said)}), seen"
        )
        return LostError(
            f"{found} in process {self.rank} of {self.size}. Expected all of them to work until "
            "the command is done. Look for what ended it above, or in the log of its machine "
            "(memory, most often); the same command goes on after the last finished stage."
        )

    def fail(self, said: str) -> None:
        """Leave word for the other processes of what ended this one."""
        try:
            self.store.set(f"failed/{self.rank}", said)
            self.store.add("failures", 1)
        except RuntimeError:
            pass  # the store is gone with the process that kept it

    def failures(self) -> str:
        """What ended other processes, as far as they could say."""
        try:
            if not self.store.add("failures", 0):
                return ""
            names = [f"failed/{rank}" for rank in range(self.size) if rank != self.rank]
            known = [name for name in names if self.store.check([name])]
            return " ".join(
                f"Process {name.partition('/')[2]} of {self.size}: "
                f"{self.store.get(name).decode('utf-8', 'replace')}"
                for name in known
            )
        except RuntimeError:
            return ""


_joined: Processes | None = None
_is_together = False


def joined() -> Processes | None:
    """The group that this process is one of; None where it is alone."""
    return _joined


def together() -> Processes | None:
    """The group, while all of its processes do the same work; None otherwise."""
    return _joined if _is_together else None


@contextmanager
def working() -> Generator[None]:
    """All processes do the same work while this lasts."""
    global _is_together
    _is_together = True
    try:
        yield
    finally:
        _is_together = False


def join() -> Processes:
    """Take part in the group that the launcher's environment variables describe.

    Raises:
        ModelError: the others can't be reached.
    """
    global _joined
    patience = float(os.environ.get(PATIENCE, _PATIENCE_SECONDS))
    local = int(os.environ.get("LOCAL_RANK", 0))
    limit = timedelta(seconds=patience)
    try:
        see_one_card(local)
        store, rank, size = next(rendezvous("env://", timeout=limit))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"The processes can't find each other: {_short(str(error))}. Expected RANK, "
            "WORLD_SIZE, MASTER_ADDR and MASTER_PORT as torchrun or accelerate launch set them, "
            "and an open way between the machines. Check them, or start one process without these."
        ) from None
    is_parted, is_offloaded = asks_for_parts()
    # Its advice to launch otherwise: the trainer is not told of the others.
    logging.getLogger("transformers.training_args").setLevel(logging.ERROR)
    # Gone from here on, so that no library cuts anything up a second time.
    for name in _OF_LAUNCHERS:
        os.environ.pop(name, None)
    prefixed = dist.PrefixStore("forgetfilter", store)  # pyright: ignore[reportPrivateImportUsage]
    _joined = Processes(rank, size, prefixed, patience, is_parted, is_offloaded)
    return _joined


def leave() -> None:
    """End taking part, without waiting for the others."""
    global _joined
    _joined = None
    if dist.is_initialized():
        dist.destroy_process_group()


def see_one_card(local: int) -> None:
    """Let this process see the card of its place alone; libraries take the first that they see.

    It comes before anything asks for cards, and so doesn't ask for them either.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(local)
        return
    names = [name for name in visible.split(",") if name]
    if len(names) > 1:  # with one, a launcher has done so
        os.environ["CUDA_VISIBLE_DEVICES"] = names[local] if local < len(names) else ""


def asks_for_parts() -> tuple[bool, bool]:
    """Whether FSDP or ZeRO-3 was asked for, as `accelerate launch` says it; and with offloading.

    Raises:
        ModelError: a configuration of DeepSpeed that it names can't be read.
    """

    def says(name: str, wanted: str = "true") -> bool:
        return os.environ.get(name, "").lower() == wanted

    if says("ACCELERATE_USE_FSDP"):
        return True, says("FSDP_OFFLOAD_PARAMS")
    if not says("ACCELERATE_USE_DEEPSPEED"):
        return False, False
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if file.lower() in ("", "none"):
        is_parted = says("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
        return is_parted, is_parted and says("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "cpu")
    try:
        zero: Any = json.loads(Path(file).read_text(encoding="utf-8"))["zero_optimization"]
        is_parted = int(zero["stage"]) == 3
        return is_parted, is_parted and (zero.get("offload_param") or {}).get("device") == "cpu"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(
            f"The stage of ZeRO can't be read in {printable(file, 300)!r}. Expected JSON with "
            "zero_optimization and its stage. Mend the file, or start with a file of accelerate."
        ) from None


def refuse_parts() -> None:
    """See that one process alone, which computes now, has the whole weights.

    Raises:
        ModelError: each process has a part of them.
    """
    if _joined is not None and _joined.is_parted:
        raise ModelError(
            "One process alone was to compute with weights of which each has a part. Expected a "
            "command, signal and settings that all processes work on. Start it without FSDP or "
            "DeepSpeed."
        )


def longest_first(lengths: Sequence[int] | npt.NDArray[np.int32]) -> list[int]:
    """Indices by length; equal ones in their order."""
    return sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


def _is_of_group(error: RuntimeError) -> bool:
    """Whether an error comes from what the processes do together."""
    said = str(error).lower()
    words = ("gloo", "nccl", "connection", "timed out", "timeout", "socket", "peer", "broken pipe")
    return isinstance(error, dist.DistError) or any(word in said for word in words)


def _short(said: str) -> str:
    """What a library says of a failure, without the place in its own code and what it guesses."""
    text = re.sub(r"^(\[[^]]*\]\s*)+", "", " ".join(said.split()))
    return text.partition(". ")[0][:160] or "no answer"
