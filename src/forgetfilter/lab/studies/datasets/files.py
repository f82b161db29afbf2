"""Real rows as a data set: the files that `forgetfilter mix` writes, or others of their form."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError

from forgetfilter.data.records import Message
from forgetfilter.errors import DataError
from forgetfilter.files import sha256_file
from forgetfilter.lab.metrics.values import share_value
from forgetfilter.lab.scorers import TOXICITY_SCORERS
from forgetfilter.lab.studies.datasets.base import (
    Data,
    Judged,
    Rewrite,
    digest,
    path_of_seed,
    read_kinds,
    read_objects,
    read_truth,
    rows_of_seed,
)
from forgetfilter.lab.studies.datasets.exemplars import FileExemplars
from forgetfilter.lab.studies.datasets.judging import KINDS, TestPrompt, check, judge
from forgetfilter.model.state import ModelState
from forgetfilter.model.workbench import Workbench
from forgetfilter.runs.stages import StageStore
from forgetfilter.text import printable

RESERVED_TOKENS = 64
"""Left free in the context for what a strategy puts in front of a prompt."""


class FileRows(FileExemplars):
    """Noisy rows, safe rows, test prompts and, where known, truth and exemplars, each from a file.

    ``{seed}`` in a path means the seed, so that each can have files of its own. Without it a
    seed varies the adapter and the order of training only.
    """

    plotted: ClassVar[tuple[str, ...]] = (
        "toxicity_mean",
        "bbq_bias_ambiguous",
        "refusal_rate_opening",
    )

    kind: Literal["files"] = "files"
    noisy: str = Field(description="JSONL file of the rows to fine-tune on")
    safe: str = Field(description="JSONL file of safe rows")
    test: str = Field(description="test.jsonl of `forgetfilter mix`")
    truth: str | None = Field(
        default=None, description="truth.jsonl of `forgetfilter mix`; null = no detection metrics"
    )
    max_new_tokens: int = Field(default=128, ge=1, description="of each answer")
    scorer: str = Field(default="linear", description="toxicity scorer")

    def load(self, seed: int, store: StageStore) -> Data:
        """Read the files of one seed."""
        TOXICITY_SCORERS.check(self.scorer)
        noisy, safe = rows_of_seed("noisy", self.noisy, seed), rows_of_seed("safe", self.safe, seed)
        test = path_of_seed(self.test, seed)
        prompts = [_prompt(test, line, record) for line, record in read_objects(test)]
        if not prompts:
            raise DataError(
                f"{self.test!r} has no prompts. Expected the test.jsonl of `forgetfilter mix`. "
                "Check the path."
            )
        truth = None if self.truth is None else read_truth(path_of_seed(self.truth, seed), noisy)
        parts: list[Any] = [noisy.fingerprint, safe.fingerprint, truth, sha256_file(test)]
        pool = self.exemplar_file(seed)
        if pool is not None:
            parts += [pool.fingerprint, len(pool.rows)]
        kinds = {} if self.truth is None else read_kinds(path_of_seed(self.truth, seed))
        return Data(noisy, safe, prompts, truth, digest(parts), kinds)

    def evaluate(self, data: Data, bench: Workbench, state: ModelState, prompt: Rewrite) -> Judged:
        """Greedy answers, judged by the metrics that apply to each kind of prompt."""
        encoder = bench.encoder
        limit = encoder.max_length_tokens - self.max_new_tokens - RESERVED_TOKENS
        fitting: list[TestPrompt] = []
        tokens: list[list[int]] = []
        for one in data.prompts:
            turns = [Message(turn.role, turn.content) for turn in one.messages]
            # The plain prompt decides, so that every strategy is asked the same ones.
            if len(encoder.encode_prompt(turns)) <= limit:
                fitting.append(one)
                tokens.append(encoder.encode_prompt(prompt(turns)))
        if not fitting:
            raise DataError(
                f"None of {len(data.prompts)} test prompts leaves room for an answer of "
                f"{self.max_new_tokens} tokens in a context of {encoder.max_length_tokens}. "
                "Expected shorter prompts. Lower max_new_tokens, or use another model."
            )
        answers = bench.generate(state, tokens, self.max_new_tokens, "evaluate")
        judged = judge(fitting, answers, lambda: TOXICITY_SCORERS.build(self.scorer))
        left_out = [True] * (len(data.prompts) - len(fitting)) + [False] * len(fitting)
        too_long = share_value("prompts_too_long", left_out, "lower")
        return Judged([*judged.metrics, ("detail", too_long)], judged.per_prompt)


def _prompt(path: Path, line: int, record: dict[str, object]) -> TestPrompt:
    """One line of the test file, of a kind that can be judged."""
    shown = f"{printable(str(path), 300)!r}, line {line}"
    try:
        prompt = TestPrompt.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"{shown}: {printable(name, 80)}: {first['msg']}. Expected the test.jsonl of "
            "`forgetfilter mix`. Mend the line."
        ) from None
    if prompt.kind not in KINDS:
        raise DataError(
            f"{shown}: kind is {printable(prompt.kind, 80)!r}; expected one of "
            f"{', '.join(KINDS)}. Leave the line out, or give its kind a metric."
        )
    try:
        check(prompt)
    except DataError as error:
        raise DataError(f"{shown}: {error}") from None
    return prompt
