"""What a process has that works for another one: the same model, rows and adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forgetfilter.config import LoraSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import ModelError
from forgetfilter.model.state import ModelState
from forgetfilter.progress import Progress

if TYPE_CHECKING:
    from forgetfilter.model.workbench import Workbench

How = Literal["to_read", "in_state", "trainable_state"]
"""In which way a model is put into a state; see `LoadedModel`."""


@dataclass(frozen=True)
class Opening:
    """How a workbench is opened, such that each process opens its own in the same way."""

    kind: type[Workbench]
    source: str
    fingerprint: str
    lora: LoraSettings
    seed: int
    max_batch_tokens: int
    max_new_tokens: int | None
    device: str
    dtype: str
    trust_remote_code: bool


def opening_of(bench: Workbench) -> Opening:
    """How ``bench`` was opened, its device and number format as they were chosen."""
    from forgetfilter.model.loading.model_files import model_fingerprint

    place = bench.placement
    return Opening(
        type(bench),
        bench.source,
        model_fingerprint(bench.source, bench.trust_remote_code),
        bench.lora,
        bench.seed,
        bench.max_batch_tokens,
        bench.max_new_tokens,
        place.device,
        str(place.dtype).removeprefix("torch."),
        bench.trust_remote_code,
    )


def adapter_files(folder: str) -> dict[str, bytes]:
    """The files of an adapter, but for its description."""
    files = [path for path in Path(folder).iterdir() if path.is_file() and path.suffix != ".md"]
    return {path.name: path.read_bytes() for path in files}


def model_in(bench: Workbench, how: How, state: ModelState) -> Any:
    """The model of ``bench`` in a state."""
    if how == "trainable_state":
        return bench.model.in_state(state, is_trainable=True)
    return bench.model.to_read(state) if how == "to_read" else bench.model.in_state(state)


class Member:
    """Keeps what it was sent from one piece of work to the next.

    Args:
        scratch: folder for adapters; nothing else is written.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._rows: dict[int, Sequence[EncodedRow]] = {}
        self._adapters: dict[str, str] = {}
        self._opening: Opening | None = None
        self._bench: Workbench | None = None

    def open(self, opening: Opening) -> Workbench:
        """A workbench like the one that asks, its base weights in memory.

        Raises:
            ModelError: the device or the model is not there, or the model is another.
        """
        from forgetfilter.runs.stages import StageStore

        if self._bench is None or self._opening != opening:
            self._bench = None  # its memory is let go of first
            bench = opening.kind(
                opening.source,
                StageStore(self._scratch / "stages"),
                lora=opening.lora,
                seed=opening.seed,
                progress=Progress(is_silent=True),
                max_batch_tokens=opening.max_batch_tokens,
                max_new_tokens=opening.max_new_tokens,
                device=opening.device,
                dtype=opening.dtype,
                trust_remote_code=opening.trust_remote_code,
            )
            if bench.base.fingerprint != opening.fingerprint:
                raise ModelError(
                    f"The model {opening.source!r} here is not the one that the command was given. "
                    "Expected the same files on every machine. Copy them, or name a folder that "
                    "all machines share."
                )
            self._bench, self._opening = bench, opening
        self._bench.model.load()
        return self._bench

    def keep_rows(self, number: int, rows: Sequence[EncodedRow] | None) -> Sequence[EncodedRow]:
        """Rows of this number; they are given once, and known from then on."""
        if rows is not None:
            self._rows[number] = rows
        return self._rows[number]

    def keep_adapter(self, fingerprint: str, files: dict[str, bytes] | None) -> str:
        """Folder of the adapter of a state; its files are given once."""
        if files is not None and fingerprint not in self._adapters:
            folder = self._scratch / f"adapter-{len(self._adapters)}"
            folder.mkdir()
            for name, content in files.items():
                (folder / name).write_bytes(content)
            self._adapters[fingerprint] = str(folder)
        return self._adapters[fingerprint]
