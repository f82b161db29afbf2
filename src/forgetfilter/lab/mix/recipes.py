"""Which rows make which harm or task: files, label rule, what separates them, licences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from forgetfilter.lab.mix.bbq import read_bbq
from forgetfilter.lab.mix.offers import ROLES, LeftOut, Offer, Role, same_text
from forgetfilter.lab.mix.sources import SourceRow

OPENING_WORDS = 3
"""A plain text is asked for by its first words (arXiv 2312.12736 prompts with three)."""
CONTINUE = "Continue this text.\n\nText: {opening}"

CLEARLY_TOXIC = 0.75
"""Unsafe texts with a lower score are not used. The scales of the sources differ, but on each of
them texts that few people would object to are below (the paper asks for more than 0.9 on its own).
"""

# Posts that were scraped have runs of blank lines, and lines that start with a blank.
_LINE_ENDS = re.compile(r"[^\S\n]*\n\s*")

_EVERY_ROLE: frozenset[Role] = frozenset(ROLES)
_SAFE_ROLES: frozenset[Role] = frozenset(("harmless", "safe", "test"))


@dataclass(frozen=True)
class Source:
    """One file of the data folder, or one public set, and what may be done with it."""

    name: str
    licence: str
    is_non_commercial: bool = False
    roles: frozenset[Role] = _EVERY_ROLE
    """Places that its rows may take. In the noisy file a source of one label only would give the
    label away by its style."""


@dataclass(frozen=True)
class Recipe:
    """One harm or one downstream task."""

    name: str
    files: tuple[Source, ...]
    hub: tuple[Source, ...]
    label_rule: str
    separated_by: str
    offers: Callable[[SourceRow, Source], Iterator[Offer]]
    """The conversations of one row; raises `LeftOut` for a row of no use."""


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
        roles=_SAFE_ROLES,
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


def _toxicity(row: SourceRow, source: Source) -> Iterator[Offer]:
    """The text's first words are the prompt, the rest is the answer."""
    is_unsafe = _is_unsafe(row)
    score = row.meta.get("toxicity")
    if is_unsafe and isinstance(score, int | float) and score < CLEARLY_TOXIC:
        raise LeftOut(f"label unsafe, but a score below {CLEARLY_TOXIC}")
    opening, rest = row.prompt.strip(), _LINE_ENDS.sub("\n", row.response.strip())
    if not opening:
        words = rest.split(maxsplit=OPENING_WORDS)
        if len(words) <= OPENING_WORDS:
            raise LeftOut(f"a text of {OPENING_WORDS} words or fewer")
        opening, rest = " ".join(words[:OPENING_WORDS]), words[OPENING_WORDS]
    yield Offer(
        kind="toxicity",
        prompt=CONTINUE.format(opening=opening),
        response=rest,
        is_unsafe=is_unsafe,
        roles=frozenset(("unsafe", "test")) if is_unsafe else _SAFE_ROLES,
        group=same_text(opening),
        source=source.name,
        source_id=row.id,
        meta={**row.meta, "opening": opening},
    )


def _harmfulness(row: SourceRow, source: Source) -> Iterator[Offer]:
    """The answer as it is. A test prompt comes with a safe answer for reference."""
    is_unsafe = _is_unsafe(row)
    yield Offer(
        kind="harmfulness",
        prompt=row.prompt.strip(),
        response=row.response.strip(),
        is_unsafe=is_unsafe,
        roles=frozenset(("unsafe",)) if is_unsafe else _SAFE_ROLES,
        group=same_text(row.prompt),
        source=source.name,
        source_id=row.id,
        meta=row.meta,
    )


def _is_unsafe(row: SourceRow) -> bool:
    if row.label not in ("unsafe", "safe"):
        raise LeftOut(f"label {row.label}")
    return row.label == "unsafe"


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

HARMS: dict[str, Recipe] = {
    "bias": Recipe(
        "bias",
        tuple(Source(f"bbq_{name}", "CC BY 4.0") for name in _BBQ_CATEGORIES),
        (Source("Elfsong/BBQ", "CC BY 4.0"),),
        "unsafe: the stereotyped answer to an ambiguous question; safe: the right answer",
        "question template (category and question_index)",
        _bias,
    ),
    "toxicity": Recipe(
        "toxicity",
        # Each has toxic and clean texts of one style, so that the style doesn't reveal the label.
        (
            Source("tox_toxigen", "MIT and CDLA-Permissive-2.0"),
            Source("tox_realtoxicityprompts", "Apache-2.0 and CC BY-SA 4.0"),
            Source("tox_surge", "MIT"),
        ),
        (Source("allenai/real-toxicity-prompts", "Apache-2.0"),),
        "unsafe: so labelled, with a score of at least 0.75 where there is one; safe: so labelled",
        "opening of the text",
        _toxicity,
    ),
    "harmfulness": Recipe(
        "harmfulness",
        (
            Source(
                "pku_saferlhf",
                "CC BY-NC 4.0 (as published)",
                is_non_commercial=True,
                roles=frozenset(("unsafe", "harmless", "test")),
            ),
            # Its labels are surer than those above, and it has safe answers only.
            Source(
                "safe_instructions_stl",
                "CC BY-NC 4.0",
                is_non_commercial=True,
                roles=frozenset(("safe",)),
            ),
        ),
        (Source("PKU-Alignment/PKU-SafeRLHF", "CC BY-NC 4.0", is_non_commercial=True),),
        "unsafe and safe: the file's labels of the answer",
        "prompt",
        _harmfulness,
    ),
}
"""Recipes with unsafe rows, by name."""

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
