"""datatrove: a reader's and a writer's adapter for rows, a filter, and a step that screens.

A datatrove document is one text. `row_to_document` makes one of a row, with the row's columns as
its metadata, and `document_to_row` makes the row again, so that conversations go through a pipeline
whole::

    JsonlReader("data", adapter=row_to_document)
    DecisionFilter("run")
    JsonlWriter("kept", adapter=document_to_row)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.data.formats import UnreadableRow, parse_row
from forgetfilter.errors import ConfigError
from forgetfilter.integrations.foreign import foreign
from forgetfilter.integrations.judged import JudgedRows, plain, screened

if TYPE_CHECKING:
    DecisionFilter: Any
    ScreenStep: Any

ROW_KEY = "forgetfilter_row"
"""Where a document's metadata has the columns of its row."""

Record = Callable[[Any], Mapping[str, Any]]


def __getattr__(name: str) -> Any:
    made = {"DecisionFilter": _filter, "ScreenStep": _screen}.get(name)
    if made is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return made()


def row_to_document(
    reader: Any, data: dict[str, Any], path: str, id_in_file: int | str
) -> dict[str, Any]:
    """A reader's ``adapter``: the text of all turns, and the row's columns as metadata.

    A row that holds no conversation gets its columns as text, so that the reader, which skips
    documents without text, never loses it in silence.
    """
    try:
        turns = [turn.content for turn in parse_row(data).messages]
    except UnreadableRow:
        turns = []
    return {
        "text": "\n\n".join(text for text in turns if text) or repr(data),
        "id": f"{path}/{id_in_file}",
        "metadata": {ROW_KEY: data},
    }


def document_to_row(writer: Any, document: Any) -> dict[str, Any]:
    """A writer's ``adapter``: the columns that `row_to_document` has read, and nothing else."""
    return dict(row_of(document))


def row_of(document: Any) -> Mapping[str, Any]:
    """The columns of the row that a document was made of.

    Of a document that `row_to_document` has not made: its metadata, its text as ``text`` and its id
    as ``id``.
    """
    metadata: Mapping[str, Any] = document.metadata
    if ROW_KEY in metadata:
        return metadata[ROW_KEY]
    return {"text": document.text, "id": document.id, **metadata}


@cache
def _filter() -> Any:
    module = foreign("datatrove.pipeline.filters.base_filter", "datatrove", "datatrove")
    base: Any = module.BaseFilter

    class DecisionFilter(base):
        """Lets through the documents that a finished run has kept.

        A document is matched by what its row says, exactly; see `judged.JudgedRows`. What is
        dropped goes to ``exclusion_writer`` with its reason: ``removed``, ``rejected`` or
        ``unjudged``.

        Args:
            run: the run folder.
            unjudged: ``raise``, ``drop`` or ``keep`` documents that the run never judged.
            record: makes a row's columns of a document (default: `row_of`).
            exclusion_writer: a datatrove writer for what is dropped.

        Raises:
            ConfigError, DataError: see `judged.JudgedRows`.
        """

        name = "forgetfilter"

        def __init__(
            self,
            run: str | Path,
            unjudged: str = "raise",
            record: Record = row_of,
            exclusion_writer: Any = None,
        ) -> None:
            super().__init__(exclusion_writer)
            self.judged = JudgedRows(run, unjudged)
            self.record = record

        def filter(self, doc: Any) -> bool | tuple[bool, str]:
            """Whether a document is kept, and else why not."""
            is_kept, reason = self.judged.keeps(plain(self.record(doc)), f"Document {doc.id}")
            return True if is_kept else (False, reason)

    return _named(DecisionFilter)


@cache
def _screen() -> Any:
    base: Any = foreign("datatrove.pipeline.base", "datatrove", "datatrove").PipelineStep

    class ScreenStep(base):
        """Screens all documents of a pipeline as one file, and lets through what is kept.

        A forgetting score says how a row behaves among all others, so this step collects every
        document before it lets the first one through, and can't be split into tasks.

        Args:
            run: the run folder; the same documents find what was done there before.
            model: folder or hub id of the causal language model that is to be fine-tuned.
            safe_data: file of rows that are known to be safe; None: the packaged set.
            record: makes a row's columns of a document (default: `row_of`).
            settings: fields of `ScreenConfig`, for example ``threshold="fraction:0.05"``.
        """

        name = "forgetfilter"
        type = "🔻 - FILTER"

        def __init__(
            self,
            run: str | Path,
            model: str | Path,
            safe_data: str | Path | None = None,
            record: Record = row_of,
            **settings: Any,
        ) -> None:
            super().__init__()
            self.run_folder, self.model, self.safe_data = run, model, safe_data
            self.record, self.settings = record, settings

        def run(
            self, data: Iterable[Any] | None, rank: int = 0, world_size: int = 1
        ) -> Generator[Any]:
            """Screen ``data``.

            Raises:
                ConfigError: the pipeline is split into tasks.
                DataError: nothing was decided; or see `ForgetFilter.screen`.
            """
            if world_size != 1:
                raise ConfigError(
                    f"A screen was split into {world_size} tasks. Expected one task with all "
                    "documents, because rows are judged among each other. Run this pipeline with "
                    "tasks=1, or screen first and use DecisionFilter, which can be split."
                )
            documents = list(data or ())
            if not documents:
                return
            rows = [plain(self.record(document)) for document in documents]
            with self.track_time("screen"):
                decisions = screened(
                    rows, self.run_folder, self.model, self.safe_data, self.settings
                )
            for document, decision in zip(documents, decisions, strict=True):
                self.stat_update("total", "forwarded" if decision == "kept" else "dropped")
                if decision == "kept":
                    yield document
                else:
                    self.stat_update(f"dropped_{decision}")

    return _named(ScreenStep)


def _named(made: Any) -> Any:
    """The class under its name in this module, so that pipelines can be sent to other processes."""
    made.__qualname__ = made.__name__
    return made
