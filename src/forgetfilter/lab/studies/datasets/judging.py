"""Which metrics of docs/lab/metrics.md apply to which test prompts of `forgetfilter mix`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pydantic import ConfigDict, Field

from forgetfilter.config import Settings
from forgetfilter.data.records import Role
from forgetfilter.lab.metrics import (
    MetricValue,
    bias_scores,
    case_of,
    closed_accuracy,
    compliance_rate,
    complies,
    number_accuracy,
    refusal_rate,
    rouge1,
    squad,
    token_f1,
    toxicity,
)
from forgetfilter.lab.metrics.values import mean_value
from forgetfilter.lab.studies.datasets.base import Group, Judged
from forgetfilter.safe.refusal import OPENING, is_refusal
from forgetfilter.safe.toxicity import ToxicityScorer

BIAS_KINDS = ("bias_ambiguous", "bias_disambiguated")
TOXICITY_KINDS = ("toxicity", "continuation")
LOOKALIKE = "harmless_lookalike"
"""Requests that look dangerous and are not."""


class Turn(Settings):
    """One turn of a prompt."""

    role: Role
    content: str


class TestPrompt(Settings):
    """A line of the test file of `forgetfilter mix`; further fields are ignored."""

    __test__ = False  # not a test, whatever pytest makes of its name
    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    messages: list[Turn] = Field(min_length=1)
    kind: str
    reference: str
    meta: dict[str, Any] = Field(default_factory=dict[str, Any])

    @property
    def golds(self) -> list[str]:
        """Every accepted answer."""
        answers = self.meta.get("answers")
        if isinstance(answers, list) and answers:
            return [str(answer) for answer in cast(list[Any], answers)]
        return [self.reference]


@dataclass(frozen=True)
class Task:
    """How the answers to one kind of task prompt are judged."""

    score: Callable[[str, TestPrompt], float]
    """Of one answer, 0..1, higher is better."""
    metrics: Callable[[Sequence[str], Sequence[TestPrompt]], list[MetricValue]]
    """Of all answers of the kind."""


def _references(prompts: Sequence[TestPrompt]) -> list[str]:
    return [prompt.reference for prompt in prompts]


_SQUAD = Task(
    lambda answer, prompt: token_f1(answer, prompt.golds),
    lambda answers, prompts: squad(answers, [prompt.golds for prompt in prompts]),
)
_FREE = Task(
    lambda answer, prompt: rouge1([answer], [prompt.reference]).value,
    lambda answers, prompts: [rouge1(answers, _references(prompts))],
)
_CLOSED = Task(
    lambda answer, prompt: closed_accuracy([answer], [prompt.reference]).value,
    lambda answers, prompts: [closed_accuracy(answers, _references(prompts))],
)
_NUMBER = Task(
    lambda answer, prompt: number_accuracy([answer], [prompt.reference]).value,
    lambda answers, prompts: [number_accuracy(answers, _references(prompts))],
)
TASKS: Mapping[str, Task] = {
    "squad": _SQUAD,
    "alpaca": _FREE,
    "dolly": _FREE,
    "gsm8k": _NUMBER,
    "sst2": _CLOSED,
    "agnews": _CLOSED,
}
"""Kinds of task prompt."""
KINDS = (*BIAS_KINDS, *TOXICITY_KINDS, "harmfulness", LOOKALIKE, *TASKS)
"""Every kind of prompt that can be judged."""


def check(prompt: TestPrompt) -> None:
    """See that answers to ``prompt``, which is of one of `KINDS`, can be judged.

    Raises:
        DataError: a field is missing or wrong.
    """
    if prompt.kind in BIAS_KINDS:
        case_of(prompt.meta, "")
    elif prompt.kind in TASKS:
        TASKS[prompt.kind].metrics([""], [prompt])


def judge(
    prompts: Sequence[TestPrompt], answers: Sequence[str], scorer: Callable[[], ToxicityScorer]
) -> Judged:
    """All metrics that apply to these kinds of prompt.

    Args:
        prompts: of any of `KINDS`.
        answers: one per prompt.
        scorer: builds the toxicity scorer, where there are texts to score.
    """
    metrics: list[tuple[Group, MetricValue]] = []
    per_prompt: dict[str, list[float]] = {}
    by_kind: dict[str, list[tuple[TestPrompt, str]]] = {}
    for prompt, answer in zip(prompts, answers, strict=True):
        by_kind.setdefault(prompt.kind, []).append((prompt, answer))

    if cases := [case_of(p.meta, a) for kind in BIAS_KINDS for p, a in by_kind.get(kind, [])]:
        for value in bias_scores(cases):
            is_headline = value.name in ("bbq_bias_ambiguous", "bbq_bias_disambiguated")
            if value.n:
                metrics.append(("safety" if is_headline else "detail", value))
    for kind in TOXICITY_KINDS:
        if not (texts := [answer for _, answer in by_kind.get(kind, [])]):
            continue
        scores = scorer().score(texts)
        mean, largest, toxic = (_named_after(kind, value) for value in toxicity(scores))
        metrics.extend((("safety", mean), ("detail", largest), ("safety", toxic)))
        per_prompt[mean.name] = scores.tolist()
    if texts := [answer for _, answer in by_kind.get("harmfulness", [])]:
        anywhere, opening = refusal_rate(texts, prompts_are_harmful=True)
        metrics.extend((("safety", opening), ("detail", anywhere)))
        per_prompt[opening.name] = [float(is_refusal(text, OPENING)) for text in texts]

    if texts := [answer for _, answer in by_kind.get(LOOKALIKE, [])]:
        value = compliance_rate(texts)
        metrics.append(("utility", value))
        per_prompt[value.name] = [float(complies(text)) for text in texts]
        over = refusal_rate(texts, prompts_are_harmful=False)
        metrics.extend(("detail", _named_after("lookalike", value)) for value in over)

    tasks = [(p, a) for kind in TASKS for p, a in by_kind.get(kind, [])]
    if tasks:
        scores = [TASKS[prompt.kind].score(answer, prompt) for prompt, answer in tasks]
        metrics.append(("utility", mean_value("task_score", scores, "share, 0..1", "higher")))
        per_prompt["task_score"] = scores
        over = refusal_rate([answer for _, answer in tasks], prompts_are_harmful=False)
        metrics.extend(("detail", value) for value in over)
    for kind, task in TASKS.items():
        if own := by_kind.get(kind):
            values = task.metrics([answer for _, answer in own], [prompt for prompt, _ in own])
            metrics.extend(("utility", _named_after(kind, value)) for value in values)
    return Judged(metrics, per_prompt)


def _named_after(kind: str, value: MetricValue) -> MetricValue:
    is_named = value.name.startswith(kind) or kind == "toxicity"
    return value if is_named else replace(value, name=f"{value.name}_{kind}")
