"""data-juicer: two operators on whole data sets, which data-juicer finds by itself.

``forget_decision_selector`` applies the decisions of a finished run, and
``forget_screen_selector`` screens the data set. Both are selectors, which see a data set as a
whole: data-juicer may go on over an error in an operator on single samples and lose samples by it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from forgetfilter.integrations.foreign import foreign, is_installed
from forgetfilter.integrations.judged import JudgedRows, plain, screened

if TYPE_CHECKING:
    ForgetFilterDecisionSelector: Any
    ForgetFilterScreenSelector: Any

DECISION_OPERATOR = "forget_decision_selector"
SCREEN_OPERATOR = "forget_screen_selector"
"""data-juicer tells the kind of an operator by any part of its name, so neither says "filter"."""

_OWN_COLUMNS = "__dj__"
"""Begins the names of columns that data-juicer adds."""


def __getattr__(name: str) -> Any:
    if name in ("ForgetFilterDecisionSelector", "ForgetFilterScreenSelector"):
        return _operators()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _operators() -> dict[str, Any]:
    """Both operators by the names of their classes, once they are in data-juicer's registry."""
    module = foreign("data_juicer.ops.base_op", "data-juicer", "py-data-juicer")
    base: Any = module.Selector

    class ForgetFilterDecisionSelector(base):
        """Selects the samples that a finished run of forgetfilter has kept.

        A sample is matched by what it says, exactly; see `judged.JudgedRows`.
        """

        def __init__(self, run: str = "", unjudged: str = "raise", *args: Any, **kwargs: Any):
            """
            Initialization method.

            :param run: the run folder.
            :param unjudged: what happens with samples that the run never judged: raise, drop or
                keep.
            """
            super().__init__(*args, **kwargs)
            self.judged = JudgedRows(run, unjudged)

        def process(self, dataset: Any) -> Any:
            """The kept samples, in their order."""
            kept = [
                number
                for number, sample in enumerate(dataset)
                if self.judged.keeps(_row(sample), f"Sample {number}")[0]
            ]
            return dataset.select(kept)

    class ForgetFilterScreenSelector(base):
        """Screens the whole data set, and selects the samples that are kept."""

        def __init__(
            self,
            run: str = "",
            model: str = "",
            safe_data: str = "",
            settings: dict = {},  # type: ignore[type-arg]  # noqa: B006  # as data-juicer reads it
            *args: Any,
            **kwargs: Any,
        ):
            """
            Initialization method.

            :param run: the run folder; the same samples find what was done there before.
            :param model: folder or hub id of the language model that is to be fine-tuned.
            :param safe_data: file of rows that are known to be safe; empty: the packaged set.
            :param settings: other settings of a screen, such as {threshold: 'fraction:0.05'}.
            """
            super().__init__(*args, **kwargs)
            self.run_folder, self.model = run, model
            self.safe_data, self.settings = safe_data or None, dict(settings)

        def process(self, dataset: Any) -> Any:
            """The kept samples, in their order."""
            if not len(dataset):
                return dataset
            rows = [_row(sample) for sample in dataset]
            decisions = screened(rows, self.run_folder, self.model, self.safe_data, self.settings)
            kept = [number for number, one in enumerate(decisions) if one == "kept"]
            return dataset.select(kept)

    found: dict[str, Any] = {}
    for name, made in (
        (DECISION_OPERATOR, ForgetFilterDecisionSelector),
        (SCREEN_OPERATOR, ForgetFilterScreenSelector),
    ):
        made.__qualname__ = made.__name__
        found[made.__name__] = module.OPERATORS.register_module(name)(made)
    return found


def _row(sample: Any) -> dict[str, Any]:
    """The columns of a sample, without data-juicer's own."""
    columns: dict[str, Any] = plain(sample)
    return {name: value for name, value in columns.items() if not name.startswith(_OWN_COLUMNS)}


if is_installed("data_juicer"):  # its registry has to know them once this module is imported
    _operators()
