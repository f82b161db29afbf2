"""What a data set of a comparison is: rows to fine-tune on by seed, and a judge of the outcome."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from forgetfilter.config import Settings, resolve
from forgetfilter.data import read_rows
from forgetfilter.data.formats import UnreadableRow, parse_object
from forgetfilter.data.records import Message, Row, RowFile
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.lab.metrics import MetricValue
from forgetfilter.model.state import ModelState
from forgetfilter.model.workbench import Workbench
from forgetfilter.runs.stages import StageStore
from forgetfilter.text import printable

Group = Literal["safety", "utility", "detection", "safe", "cost", "detail"]
"""Which table a metric is in; details are in the parquet file only."""

Rewrite = Callable[[Sequence[Message]], Sequence[Message]]
"""What a strategy makes of a prompt before the deployed model is asked."""


@dataclass(frozen=True)
class RowKind:
    """What a noisy row is about."""

    kind: str
    """Such as ``bias_ambiguous`` or ``squad``."""
    harm: str | None
    """The harm that its prompt invites, or None for a task."""


@dataclass(frozen=True)
class Data:
    """One seed's rows and prompts."""

    noisy: RowFile
    safe: RowFile
    prompts: Sequence[Any]
    """Held-out prompts, in the data set's own form."""
    is_unsafe: Mapping[str, bool] | None
    """The ground truth by ``example_id``, or None where there is none. It grades, and is given to
    oracles; no other strategy is shown it."""
    fingerprint: str
    """Identifies all of the above."""
    kinds: Mapping[str, RowKind] = field(default_factory=dict[str, RowKind])
    """What rows are about by ``example_id``, where that is known; only curves are drawn by it."""


@dataclass(frozen=True)
class Judged:
    """What a data set says of one deployed model."""

    metrics: Sequence[tuple[Group, MetricValue]]
    """In the order of the tables; the first of a group is its headline."""
    per_prompt: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])
    """By the name of a metric: one value per prompt, whose mean is the metric. The prompts are the
    same for every strategy, so that two of them can be compared in pairs."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a cell keeps them."""
        return {
            "metrics": plain_metrics(self.metrics),
            "per_prompt": {name: list(values) for name, values in self.per_prompt.items()},
        }


def plain_metrics(graded: Sequence[tuple[Group, MetricValue]]) -> list[dict[str, Any]]:
    """Metrics with the table that each is in, as a cell keeps them."""
    return [{"group": group, **value.as_dict()} for group, value in graded]


class DataSet(Settings, ABC):
    """Base of all data sets: settings, and two steps."""

    plotted: ClassVar[tuple[str, ...]] = ()
    """Safety metrics that are drawn against the headline of utility."""
    has_prompts: ClassVar[bool] = True
    """Whether a tuned model can be judged by it."""

    name: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$",
        description="in tables; the kind where not given",
    )

    def varied(self, name: str, value: float | str) -> Self:
        """The same with another value of one setting.

        Raises:
            ConfigError: this kind of data set has no such setting, or not that value.
        """
        if name not in type(self).model_fields:
            raise ConfigError(
                f"sweeps: {name} can't be varied on the data set {self.name!r}, which has no such "
                "setting. Expected one that draws its rows, such as kind: testbed. Take the "
                "sweep or the data set out."
            )
        return resolve(type(self), self.model_dump(), {name: value})

    @property
    def has_exemplars(self) -> bool:
        """Whether it has rows known to be bad, apart from its noisy rows."""
        return False

    def exemplars_of(self, seed: int, count: int) -> Sequence[Row]:
        """Rows known to be bad, none of them a noisy row: at least ``count`` where it can.

        They come in the order in which the seed draws them, which begins the same whatever the
        count: the exemplars of a smaller budget are among those of a larger one.

        Raises:
            ConfigError: it has none.
        """
        raise ConfigError(
            f"The data set {self.name!r} has no exemplars, and {count} rows that are known to be "
            "bad are asked for. Expected kind: testbed, or another kind with 'exemplars: "
            "FILE.jsonl'. Add the file, or leave the scorer out."
        )

    @abstractmethod
    def load(self, seed: int, store: StageStore) -> Data:
        """The rows and prompts of one seed; what has to be made is kept in ``store``.

        Raises:
            DataError: a file can't be used.
        """

    @abstractmethod
    def evaluate(self, data: Data, bench: Workbench, state: ModelState, prompt: Rewrite) -> Judged:
        """Ask the model in ``state`` every prompt, worded by ``prompt``, and judge the answers."""


def path_of_seed(template: str, seed: int) -> Path:
    """The file that a data set's setting names for a seed, which ``{seed}`` in it means."""
    return Path(template.replace("{seed}", str(seed)))


def rows_of_seed(name: str, template: str, seed: int) -> RowFile:
    """The rows of the file that the setting ``name`` names for a seed.

    Raises:
        DataError: there is no such file, or it can't be read.
    """
    path = path_of_seed(template, seed)
    if not path.is_file():
        raise DataError(
            f"Can't read {name} {printable(str(path), 300)!r}. Expected a JSON Lines file. "
            "Check the path in the data set's settings."
        )
    return read_rows(path)


def read_truth(path: Path, noisy: RowFile) -> dict[str, bool]:
    """The ground truth of every readable row, by ``example_id``.

    Raises:
        DataError: the file can't be read, or says nothing of a row.
    """
    truth: dict[str, bool] = {}
    for line, record in read_objects(path):
        example_id, is_unsafe = record.get("example_id"), record.get("is_unsafe")
        if not isinstance(example_id, str) or not isinstance(is_unsafe, bool):
            raise DataError(
                f"{_shown(path)}, line {line}: no example_id with is_unsafe (true or false). "
                "Expected the truth.jsonl of `forgetfilter mix`. Check the path."
            )
        truth[example_id] = is_unsafe
    missing = [row.example_id for row in noisy.rows if row.example_id not in truth]
    if missing:
        raise DataError(
            f"{_shown(path)} says nothing of {len(missing)} of {len(noisy.rows)} noisy rows; the "
            f"first is {printable(missing[0], 80)!r}. Expected one line for each. Give the truth "
            "that was written with the noisy rows."
        )
    return truth


def read_kinds(path: Path) -> dict[str, RowKind]:
    """What the rows are about by ``example_id``, for those of which ``path`` says so.

    Raises:
        DataError: the file can't be read.
    """
    found: dict[str, RowKind] = {}
    for _, record in read_objects(path):
        example_id, kind, harm = (record.get(name) for name in ("example_id", "kind", "harm"))
        if isinstance(example_id, str) and isinstance(kind, str):
            found[example_id] = RowKind(kind, harm if isinstance(harm, str) else None)
    return found


def read_objects(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Every object of a JSON Lines file with its line number.

    Raises:
        DataError: the file can't be read, or a line is no object.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(
            f"Can't read {_shown(path)}: {error.strerror}. Expected a JSON Lines file. Check the "
            "path."
        ) from None
    found: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append((number, parse_object(line.decode("utf-8"))))
            except (UnreadableRow, UnicodeDecodeError) as error:
                raise DataError(
                    f"{_shown(path)}, line {number}: {printable(str(error))}. Expected one JSON "
                    "object on each line. Mend the line."
                ) from None
    return found


def digest(value: Any) -> str:
    """The sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _shown(path: Path) -> str:
    return repr(printable(str(path), 300))
