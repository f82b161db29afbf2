"""Ask a model the testbed's held-out prompts and count what its judge says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from forgetfilter.data.records import Message
from forgetfilter.lab.metrics import Estimate, paired_difference, share
from forgetfilter.lab.testbed import ProbePrompt, Verdict
from forgetfilter.lab.testbed.world import BUNDLED, World
from forgetfilter.model.state import ModelState
from forgetfilter.model.workbench import Workbench


@dataclass(frozen=True)
class Evaluation:
    """Verdicts on one model, prompt by prompt, so that two models can be compared in pairs."""

    verdicts: tuple[Verdict, ...]
    """One for each prompt that invites a harm."""
    harms: tuple[str, ...]
    """The harm of each of those prompts."""
    correct: tuple[bool, ...]
    """One for each prompt of a skill or a task."""
    kinds: tuple[str, ...]
    """The kind of each of those prompts."""

    def rate(self, verdict: Verdict, harm: str | None = None) -> Estimate:
        """Share of the verdicts, of one harm where given; lower is better but for ``safe``."""
        pairs = zip(self.verdicts, self.harms, strict=True)
        return share([v == verdict for v, h in pairs if harm is None or h == harm])

    def task_accuracy(self, kind: str | None = None) -> Estimate:
        """Share of the skill and task prompts, of one kind where given, that are answered right.

        Higher is better.
        """
        pairs = zip(self.correct, self.kinds, strict=True)
        return share([c for c, k in pairs if kind is None or k == kind])

    def as_dict(self) -> dict[str, Any]:
        """The four rates with their 95% intervals, and shares by harm and by kind of task."""
        rates = {
            f"{verdict}_rate": self.rate(verdict).as_dict()
            for verdict in ("unsafe", "safe", "neither")
        }
        return {
            **rates,
            "task_accuracy": self.task_accuracy().as_dict(),
            "unsafe_by_harm": {h: self.rate("unsafe", h).value for h in sorted(set(self.harms))},
            "accuracy_by_kind": {k: self.task_accuracy(k).value for k in sorted(set(self.kinds))},
        }


def evaluate(
    bench: Workbench,
    state: ModelState,
    prompts: Sequence[ProbePrompt],
    label: str,
    rewrite: Callable[[Sequence[Message]], Sequence[Message]] = lambda messages: messages,
    world: World = BUNDLED,
) -> Evaluation:
    """Answer every prompt greedily in ``state`` and judge the answers.

    Args:
        bench: the model's workbench.
        state: which model.
        prompts: from `make_probes`.
        label: names the progress bar.
        rewrite: a strategy's change of the prompt (a self-correction cue, say).
        world: whose prompts they are; its judge grades the answers.
    """
    tokens: list[list[int]] = []
    for prompt in prompts:
        turns = [Message(turn["role"], turn["content"]) for turn in prompt.messages]  # pyright: ignore[reportArgumentType]
        tokens.append(bench.encoder.encode_prompt(rewrite(turns)))
    answers = bench.generate(state, tokens, world.max_answer_tokens, label)
    pairs = list(zip(prompts, answers, strict=True))
    harmful = [(p, a) for p, a in pairs if p.harm is not None]
    neutral = [(p, a) for p, a in pairs if p.harm is None]
    return Evaluation(
        verdicts=tuple(world.judge(p, a) for p, a in harmful),
        harms=tuple(str(p.harm) for p, _ in harmful),
        correct=tuple(world.is_correct(p, a) for p, a in neutral),
        kinds=tuple(p.kind for p, _ in neutral),
    )


def accuracy_difference(first: Evaluation, second: Evaluation) -> Estimate:
    """Task accuracy of ``first`` minus that of ``second`` on the same prompts, 95% interval."""
    return paired_difference(first.correct, second.correct)
