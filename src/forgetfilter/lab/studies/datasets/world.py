"""A made-up world as a data set, the bundled one or a drawn one: each seed draws all of it anew."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from forgetfilter.data import read_rows, write_records
from forgetfilter.data.records import Row
from forgetfilter.lab.metrics.values import Direction, MetricValue, share_value
from forgetfilter.lab.studies.datasets.base import (
    Data,
    DataSet,
    Group,
    Judged,
    Rewrite,
    digest,
    read_kinds,
    read_truth,
)
from forgetfilter.lab.testbed import Verdict
from forgetfilter.lab.testbed.evaluate import evaluate
from forgetfilter.lab.testbed.world import known_harms, open_world
from forgetfilter.model.state import ModelState
from forgetfilter.model.workbench import Workbench
from forgetfilter.runs.stages import StageStore

# As in the demonstration: prompts come from seeds that no noisy or safe set is made with.
_PROMPT_SEED = 1_000_000
_EXEMPLAR_SEED = 2_000_000
_EXEMPLARS_A_DRAW = 20
_VERDICTS: tuple[tuple[Verdict, Direction], ...] = (
    ("unsafe", "lower"),
    ("safe", "higher"),
    ("neither", "lower"),
)


class WorldRows(DataSet):
    """Rows, safe rows and held-out prompts of a made-up world."""

    plotted: ClassVar[tuple[str, ...]] = ("unsafe_rate",)

    kind: Literal["testbed"] = "testbed"
    world: int | None = Field(
        default=None,
        ge=0,
        description="the world drawn from this number, whose model is world:NUMBER; null = the "
        "bundled world",
    )
    rows: int = Field(default=1500, ge=1, description="noisy rows")
    unsafe_fraction: float = Field(default=0.3, ge=0, le=1, description="of the noisy rows")
    safe_rows: int = Field(default=400, ge=1, description="safe rows")
    left_out: str | None = Field(
        default=None, description="a harm of which there are no safe rows; null = none"
    )
    prompts: int = Field(
        default=2000, ge=8, description="held-out prompts; half invite a harm, half are tasks"
    )

    @model_serializer(mode="wrap")
    def _without_null(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Results are named as they were before these settings were there."""
        plain = handler(self)
        return {
            name: value
            for name, value in plain.items()
            if name not in ("world", "left_out") or value is not None
        }

    def load(self, seed: int, store: StageStore) -> Data:
        """Draw the rows (kept as files in a stage) and the prompts."""

        def build(folder: Path) -> None:
            noisy, truth = world.make_noisy(self.rows, self.unsafe_fraction, seed)
            write_records(folder / "noisy.jsonl", noisy)
            write_records(folder / "truth.jsonl", truth)
            write_records(folder / "safe.jsonl", world.make_safe(self.safe_rows, seed, harms))

        world = open_world(self.world)
        harms = None
        if self.left_out is not None:
            known_harms(world, [self.left_out])
            harms = [harm for harm in world.harms if harm != self.left_out]
        key = {"settings": self.model_dump(exclude={"name", "prompts"}), "seed": seed}
        folder = store.stage("data", key, build)
        noisy, safe = read_rows(folder / "noisy.jsonl"), read_rows(folder / "safe.jsonl")
        prompts = world.make_probes(self.prompts, _PROMPT_SEED + seed)
        truth = read_truth(folder / "truth.jsonl", noisy)
        parts = [noisy.fingerprint, safe.fingerprint, truth, [asdict(one) for one in prompts]]
        kinds = read_kinds(folder / "truth.jsonl")
        return Data(noisy, safe, prompts, truth, digest(parts), kinds)

    @property
    def has_exemplars(self) -> bool:
        """They are drawn from the world."""
        return True

    def exemplars_of(self, seed: int, count: int) -> Sequence[Row]:
        """Unsafe rows of seeds that no noisy set is made with, some of every harm in each draw."""
        world, found = open_world(self.world), list[dict[str, Any]]()
        for start in range(0, max(count, 1), _EXEMPLARS_A_DRAW):
            number = start // _EXEMPLARS_A_DRAW
            own = _EXEMPLAR_SEED + seed + number * 2**32  # beyond any seed that can be given
            found += world.make_noisy(_EXEMPLARS_A_DRAW, 1.0, own)[0]
        with tempfile.TemporaryDirectory(prefix="forgetfilter-") as scratch:
            path = Path(scratch, "exemplars.jsonl")
            write_records(path, found)
            return read_rows(path).rows

    def evaluate(self, data: Data, bench: Workbench, state: ModelState, prompt: Rewrite) -> Judged:
        """The world's judge: unsafe, safe or neither by harm; skills and tasks right or wrong."""
        answers = evaluate(bench, state, data.prompts, "evaluate", prompt, open_world(self.world))
        metrics: list[tuple[Group, MetricValue]] = []
        per_prompt: dict[str, list[float]] = {}
        for verdict, direction in _VERDICTS:
            name, hits = f"{verdict}_rate", [found == verdict for found in answers.verdicts]
            metrics.append(("safety", share_value(name, hits, direction)))
            per_prompt[name] = [float(hit) for hit in hits]
        for harm in sorted(set(answers.harms)):
            pairs = zip(answers.verdicts, answers.harms, strict=True)
            hits = [found == "unsafe" for found, own in pairs if own == harm]
            metrics.append(("safety", share_value(f"unsafe_rate_{harm}", hits, "lower")))
        metrics.append(("utility", share_value("task_accuracy", answers.correct, "higher")))
        per_prompt["task_accuracy"] = [float(hit) for hit in answers.correct]
        for kind in sorted(set(answers.kinds)):
            pairs = zip(answers.correct, answers.kinds, strict=True)
            hits = [hit for hit, own in pairs if own == kind]
            metrics.append(("detail", share_value(f"task_accuracy_{kind}", hits, "higher")))
        return Judged(metrics, per_prompt)
