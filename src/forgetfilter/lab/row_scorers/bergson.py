"""Gradient cosine by the library bergson, which attributes with queries of the harm."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.errors import MissingExtraError
from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.lab.row_scorers.gradient_cosine import Over, pooled_cosine

if TYPE_CHECKING:
    from forgetfilter.data.records import EncodedRow

_MOST_TOKENS = 1024
"""Padded tokens of a pass."""


@ROW_SCORERS.add("bergson")
class Bergson:
    """Cosine of a row's gradient with those of bad exemplars, as the library bergson takes them.

    Its in-memory collector gives the gradient of every linear layer's weights of the base model,
    projected at random per layer (`EleutherAI/bergson`, MIT); the loss is the mean over the
    completion's tokens. Needs ``pip install bergson``, which is no part of this package.

    Args:
        budget: exemplars, the library's queries.
        projection: rows and columns that each layer's gradient is projected to.
        over: whether a row's cosines with the exemplars are averaged (``mean``) or the largest
            counts (``max``).
    """

    name = "bergson"

    def __init__(self, budget: int = 20, projection: int = 16, over: Over = "mean") -> None:
        self.needs, self.projection = Needs(exemplars=budget), projection
        self.over: Over = over

    def score(self, given: Given) -> RowScores:
        """The cosines.

        Raises:
            MissingExtraError: the library isn't installed.
        """
        exemplars = given.exemplars(self.needs.exemplars)
        rows, targets = (self._gradients(given, part) for part in (given.noisy, exemplars))
        return judged(pooled_cosine(rows, targets, self.over), self.name)

    def _gradients(self, given: Given, rows: Sequence[EncodedRow]) -> FloatArray:
        """The projected gradients of all layers side by side, shape (N, D)."""
        library = _library()
        from datasets import Dataset

        from forgetfilter.model.passes.batch_plan import batches_by_length

        model = given.bench.model.in_state(given.bench.base)
        # Whatever comes after the embedding then has a gradient.
        model.get_input_embeddings().weight.requires_grad_(True)
        labels = [np.where(row.is_target, row.input_ids, -100).tolist() for row in rows]
        ids = [row.input_ids.tolist() for row in rows]
        lengths = [len(own) for own in ids]
        data = Dataset.from_dict({"input_ids": ids, "labels": labels, "length": lengths})
        own = {"projection_dim": self.projection, "projection_seed": given.bench.seed}
        given.passes.differentiated(len(rows))
        with _scratch() as folder:
            settings = library.IndexConfig(run_path=folder, loss_reduction="mean", **own)
            collector = library.InMemoryCollector(
                model=model.base_model,
                cfg=settings,
                processor=library.GradientProcessor(**own),
                data=data,
            )
            library.CollectorComputer(
                model=model,
                data=data,
                collector=collector,
                batches=list(batches_by_length(lengths, _MOST_TOKENS)),
                cfg=settings,
            ).run_with_collector_hooks()
        parts = [own.double().numpy() for own in collector.gradients.values()]
        return np.concatenate(parts, axis=1)


@contextmanager
def _scratch() -> Generator[str]:
    """A folder for what the library writes, while it says nothing on the terminal."""
    with (
        tempfile.TemporaryDirectory(prefix="forgetfilter-") as folder,
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        Path(folder, "run.part").mkdir()
        before = logging.root.manager.disable
        logging.disable(logging.INFO)
        try:
            yield str(Path(folder, "run"))
        finally:
            logging.disable(before)


def _library() -> Any:
    try:
        import bergson  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError(
            "The row scorer 'bergson' needs the library bergson, which is not installed. Expected "
            "it beside this package. Run: pip install bergson"
        ) from None
    return bergson
