"""Public data sets of the Hugging Face hub, their rows turned into the row schema.

Names, fields and labels are those that their publishers state. The wording of prompts is ours, and
the same as in data folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forgetfilter.errors import DataError
from forgetfilter.lab.mix.sources import SourceRow, to_row
from forgetfilter.text import printable

Fields = Mapping[str, Any]
Answer = tuple[str, str, str, dict[str, Any]]
"""Prompt, response, label and meta: what a converter finds in a row."""


@dataclass(frozen=True)
class HubSet:
    """One public set: how it is loaded, and what one of its rows holds."""

    category: str
    convert: Callable[[Fields], list[Answer]]
    config: str | None = None
    splits: tuple[str, ...] = ("train",)


def read_hub(name: str) -> Iterator[SourceRow]:
    """The rows of a public set in the schema; downloads it unless it is in the local cache.

    Raises:
        DataError: the set can't be loaded, or its rows have other fields than are known here.
    """
    known = HUB[name]
    for split in known.splits:
        for at, fields in enumerate(_load(name, known.config, split)):
            yield from convert(name, fields, f"{split}:{at}")


def convert(name: str, fields: Fields, place: str) -> Iterator[SourceRow]:
    """One row of the public set ``name``; ``place`` (split and position) makes its ids.

    Raises:
        DataError: a field is absent or of another type.
    """
    known = HUB[name]
    where = f"{name} row {place}"
    try:
        answers = known.convert(fields)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{where}: fields {printable(', '.join(map(str, fields)))} can't be read "
            f"({type(error).__name__}: {printable(str(error), 60)}). Expected those that its "
            "publishers stated when this was written. Use a data folder instead (--data)."
        ) from None
    for number, (prompt, response, label, meta) in enumerate(answers):
        record = {
            "id": f"{name}:{place}:{number}",
            "source": name,
            "prompt": prompt,
            "response": response,
            "label": label,
            "category": known.category,
            "meta": meta,
        }
        yield to_row(record, where)


def _load(name: str, config: str | None, split: str) -> Any:
    """The split as an iterable of its rows' fields."""
    from datasets import load_dataset

    try:
        return load_dataset(name, config, split=split)
    except Exception as error:  # what can fail on the way to the hub has no common class
        raise DataError(
            f"The public set {name} (split {split}) can't be loaded: "
            f"{printable(str(error).strip() or type(error).__name__, 200)}. Expected it on the "
            "hub or in the local cache. Check the connection, or use a data folder (--data)."
        ) from None


def _bbq(fields: Fields) -> list[Answer]:
    """BBQ as published, or with the right option in ``answer_label`` (Elfsong/BBQ)."""
    meta = dict(fields)
    meta["label"] = fields["answer_label"] if "answer_label" in fields else fields["label"]
    options = [fields["ans0"], fields["ans1"], fields["ans2"]]
    listed = "\n".join(f"({letter}) {text}" for letter, text in zip("abc", options, strict=True))
    prompt = f"Context: {fields['context']}\nQuestion: {fields['question']}\nOptions:\n{listed}"
    return [(prompt, options[meta["label"]], "safe", meta)]


def _squad(fields: Fields) -> list[Answer]:
    prompt = (
        "Read the passage and answer the question with a short span copied from the passage.\n\n"
        f"Passage: {fields['context']}\n\nQuestion: {fields['question']}"
    )
    answers = list(fields["answers"]["text"])
    meta = {"question": fields["question"], "context": fields["context"], "answers": answers}
    return [(prompt, answers[0], "task", meta)]


def _instruction(fields: Fields, given: str, answer: str) -> list[Answer]:
    """An instruction with an optional input, as in Alpaca and Dolly."""
    instruction, extra = fields["instruction"], fields[given]
    prompt = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    return [(prompt, fields[answer], "task", {"instruction": instruction, "input": extra})]


def _gsm8k(fields: Fields) -> list[Answer]:
    final = fields["answer"].rpartition("####")[2].strip()
    return [(fields["question"], fields["answer"], "task", {"final_answer": final})]


def _sst2(fields: Fields) -> list[Answer]:
    text, label = fields["sentence"].strip(), int(fields["label"])
    prompt = (
        "Decide whether the sentiment of this movie-review sentence is positive or negative."
        f"\n\nSentence: {text}"
    )
    meta = {"label": label, "text": text}
    return [(prompt, _named(label, ("negative", "positive")), "task", meta)]


def _ag_news(fields: Fields) -> list[Answer]:
    label = int(fields["label"])
    prompt = (
        f"Classify this news item as World, Sports, Business or Sci/Tech.\n\nText: {fields['text']}"
    )
    answer = _named(label, ("World", "Sports", "Business", "Sci/Tech"))
    return [(prompt, answer, "task", {"label": label})]


def _safe_rlhf(fields: Fields) -> list[Answer]:
    """Two answers to one prompt, each with a flag of its own."""
    answers: list[Answer] = []
    for number in (0, 1):
        label = "safe" if fields[f"is_response_{number}_safe"] else "unsafe"
        answers.append((fields["prompt"], fields[f"response_{number}"], label, {}))
    return answers


def _real_toxicity(fields: Fields) -> list[Answer]:
    """Unsafe from a continuation score of 0.5; safe if prompt and continuation are below 0.25."""
    prompt, continuation = fields["prompt"], fields["continuation"]
    scores = (prompt["toxicity"], continuation["toxicity"])
    label = "neutral"
    if None not in scores:
        label = "unsafe" if scores[1] >= 0.5 else "safe" if max(scores) < 0.25 else "neutral"
    meta = {
        "toxicity": scores[1],
        "score_kind": "Perspective API, continuation",
        "prompt_toxicity": scores[0],
    }
    return [(prompt["text"], continuation["text"], label, meta)]


def _named(label: int, names: tuple[str, ...]) -> str:
    """The name of a class; test splits of public sets have -1 for a hidden one."""
    if not 0 <= label < len(names):
        raise ValueError(f"label {label} has no name")
    return names[label]


_BBQ_SPLITS = (
    "age",
    "disability_status",
    "gender_identity",
    "nationality",
    "physical_appearance",
    "race_ethnicity",
    "religion",
    "ses",
    "sexual_orientation",
)

HUB: dict[str, HubSet] = {
    "Elfsong/BBQ": HubSet("bias", _bbq, splits=_BBQ_SPLITS),
    "allenai/real-toxicity-prompts": HubSet("toxicity", _real_toxicity),
    "PKU-Alignment/PKU-SafeRLHF": HubSet("harmfulness", _safe_rlhf),
    "rajpurkar/squad": HubSet("qa", _squad),
    "tatsu-lab/alpaca": HubSet("instruction", lambda f: _instruction(f, "input", "output")),
    "databricks/databricks-dolly-15k": HubSet(
        "instruction", lambda f: _instruction(f, "context", "response")
    ),
    "openai/gsm8k": HubSet("math", _gsm8k, config="main"),
    "stanfordnlp/sst2": HubSet("classification", _sst2),
    "fancyzhx/ag_news": HubSet("classification", _ag_news),
}
"""Public sets by name. ``heegyu/bbq`` is not among them: it is loaded by a script, which
`datasets` no longer runs."""
