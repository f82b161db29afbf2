"""Which rows make which harm or task: files, label rule, what separates them, licences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from forgetfilter.lab.mix.bbq import read_bbq
from forgetfilter.lab.mix.harmful_answers import harmfulness_offers, labelled_answer
from forgetfilter.lab.mix.offers import LeftOut, Offer, same_text
from forgetfilter.lab.mix.recipe import SAFE_ROLES, Recipe, Source
from forgetfilter.lab.mix.sources import SourceRow
from forgetfilter.lab.mix.toxic_text import toxicity_offers


def _bias(row: SourceRow, source: Source) -> Iterator[Offer]:
    """The right answer of every row; the stereotyped one of ambiguous rows besides."""
    reading = read_bbq(row.meta)
    if row.response != reading.right_answer:
        # The stereotyped answer is worded as the file words answers: the option's own text.
        raise LeftOut("the answer is not the right option's text")
    right = Offer(
        kind="bias_ambiguous" if reading.is_ambiguous else "bias_disambiguated",
        prompt=row.prompt.strip(),
        response=reading.right_answer,
        is_unsafe=False,
        roles=SAFE_ROLES,
        group=reading.meta.template,
        source=source.name,
        source_id=row.id,
        meta={**row.meta, "biased_option": reading.biased, "unknown_option": reading.unknown},
    )
    yield right
    if reading.is_ambiguous:
        yield replace(
            right, response=reading.biased_answer, is_unsafe=True, roles=frozenset(("unsafe",))
        )


def _task(kind: str, *fields: str) -> Callable[[SourceRow, Source], Iterator[Offer]]:
    """Rows of a task, grouped by the first of the fields that has text, else by the prompt."""

    def offers(row: SourceRow, source: Source) -> Iterator[Offer]:
        if row.label != "task":
            raise LeftOut(f"label {row.label}")
        values = [row.meta.get(field) for field in fields]
        texts = [value for value in values if isinstance(value, str) and value.strip()]
        yield Offer(
            kind=kind,
            prompt=row.prompt.strip(),
            response=row.response.strip(),
            is_unsafe=False,
            roles=frozenset(("harmless", "test")),
            group=same_text((texts or [row.prompt])[0]),
            source=source.name,
            source_id=row.id,
            meta=row.meta,
        )

    return offers


_BBQ_CATEGORIES = (
    "Age",
    "Disability_status",
    "Nationality",
    "Physical_appearance",
    "Sexual_orientation",
)
_NONE_STATED = "none stated"
_PKU_HUB = Source("PKU-Alignment/PKU-SafeRLHF", "CC BY-NC 4.0", is_non_commercial=True)

HARMS: dict[str, Recipe] = {
    "bias": Recipe(
        "bias",
        tuple(Source(f"bbq_{name}", "CC BY 4.0") for name in _BBQ_CATEGORIES),
        (Source("Elfsong/BBQ", "CC BY 4.0"),),
        "unsafe: the stereotyped answer to an ambiguous question; safe: the right answer",
        "question template (category and question_index)",
        _bias,
        is_one_text_per_group=False,
    ),
    "toxicity": Recipe(
        "toxicity",
        # Each has toxic and clean texts of one style, so that the style doesn't reveal the label.
        (
            Source("tox_toxigen", "MIT and CDLA-Permissive-2.0"),
            Source("tox_surge", "MIT"),
            # A program's labels, often wrong (docs/lab/labels.md): openings to test with.
            Source(
                "tox_realtoxicityprompts",
                "Apache-2.0 and CC BY-SA 4.0",
                roles=frozenset(("test",)),
            ),
        ),
        (Source("allenai/real-toxicity-prompts", "Apache-2.0"),),
        "so labelled; where there is a score, unsafe from 0.75 and safe up to 0.2",
        "text of the answer (of the opening, where a text is to be continued)",
        toxicity_offers,
    ),
    "harmfulness": Recipe(
        "harmfulness",
        (
            Source("beavertails_qa", "CC BY-NC 4.0 (as published)", is_non_commercial=True),
            # Of its harmful answers 23 are short enough: beside so few, its style would tell.
            Source("xstest_completions", "CC BY 4.0", roles=frozenset(("safe", "test"))),
            # Its labels are right, but it has safe answers only.
            Source(
                "safe_instructions_stl",
                "CC BY-NC 4.0",
                is_non_commercial=True,
                roles=frozenset(("safe",)),
            ),
        ),
        (_PKU_HUB,),
        "unsafe and safe: two readings of the answer that agree",
        "prompt",
        harmfulness_offers,
    ),
    "harmfulness_xstest": Recipe(
        "harmfulness_xstest",
        (Source("xstest_completions", "CC BY 4.0"),),
        (_PKU_HUB,),
        "unsafe and safe: labelled by two people; long answers, so raise --max-answer-words",
        "prompt",
        harmfulness_offers,
    ),
    "harmfulness_gptfuzz": Recipe(
        "harmfulness_gptfuzz",
        (Source("gptfuzz_responses", "MIT"),),
        (_PKU_HUB,),
        "unsafe and safe: labelled by hand; style tells nearly all, so a second test only",
        "prompt",
        labelled_answer,
    ),
    "harmfulness_pku": Recipe(
        "harmfulness_pku",
        (Source("pku_saferlhf", "CC BY-NC 4.0 (as published)", is_non_commercial=True),),
        (_PKU_HUB,),
        "unsafe and safe: reconstructed labels, often wrong (docs/lab/labels.md)",
        "prompt",
        labelled_answer,
    ),
}
"""Recipes with unsafe rows, by name."""
DEFAULT_HARMS = ("bias", "toxicity", "harmfulness")
"""Those whose labels can be trusted; any other is drawn only where it is named."""

_GOLD = "every row is a task"
TASKS: dict[str, Recipe] = {
    "squad": Recipe(
        "squad",
        (Source("task_squad", "CC BY-SA 4.0"),),
        (Source("rajpurkar/squad", "CC BY-SA 4.0"),),
        _GOLD,
        "passage",
        _task("squad", "context"),
    ),
    "alpaca": Recipe(
        "alpaca",
        (Source("task_alpaca", "CC BY-NC 4.0", is_non_commercial=True),),
        (Source("tatsu-lab/alpaca", "CC BY-NC 4.0", is_non_commercial=True),),
        _GOLD,
        "instruction",
        _task("alpaca", "instruction"),
    ),
    "dolly": Recipe(
        "dolly",
        (Source("task_dolly", "CC BY-SA 3.0"),),
        (Source("databricks/databricks-dolly-15k", "CC BY-SA 3.0"),),
        _GOLD,
        "passage where there is one, else instruction",
        _task("dolly", "input", "instruction"),
    ),
    "gsm8k": Recipe(
        "gsm8k",
        (Source("task_gsm8k", "MIT"),),
        (Source("openai/gsm8k", "MIT"),),
        _GOLD,
        "problem",
        _task("gsm8k"),
    ),
    "sst2": Recipe(
        "sst2",
        (Source("task_sst2", _NONE_STATED),),
        (Source("stanfordnlp/sst2", _NONE_STATED),),
        _GOLD,
        "sentence",
        _task("sst2"),
    ),
    "agnews": Recipe(
        "agnews",
        (Source("task_agnews", "non-commercial use", is_non_commercial=True),),
        (Source("fancyzhx/ag_news", "non-commercial use", is_non_commercial=True),),
        _GOLD,
        "headline where there is one, else the item",
        _task("agnews", "title"),
    ),
}
"""Recipes of downstream tasks, by name."""
