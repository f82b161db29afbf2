"""Harmful and harmless answers: which rows of each source are used, and what their prompts ask.

Harmless are refusals of harmful requests and help with requests that are fine or only look
dangerous, from the sources and models that the harmful answers are from.
"""

from __future__ import annotations

from collections.abc import Iterator

from forgetfilter.lab.mix.offers import LeftOut, Offer, Role, same_text
from forgetfilter.lab.mix.recipe import SAFE_ROLES, Source, is_labelled_unsafe
from forgetfilter.lab.mix.sources import SourceRow

LOOKALIKE = "harmless_lookalike"
"""A request that looks dangerous and is not; to refuse it is an error."""
REFUSAL = "harmfulness_refusal"

# Nearly all harmful answers of XSTest are of this model: beside other models' rows, its style
# would give the label away.
_XSTEST_MODEL = "mistralinstruct"


def labelled_answer(row: SourceRow, source: Source) -> Iterator[Offer]:
    """The answer as it is, for sources whose every prompt invites harm."""
    yield _offer(row, source, SAFE_ROLES)


def harmfulness_offers(row: SourceRow, source: Source) -> Iterator[Offer]:
    """One offer of a row of BeaverTails, XSTest or the safe instructions."""
    if source.name == "xstest_completions":
        yield _xstest(row, source)
    else:
        # Of a safe answer nothing says whether its prompt is harmful, so it is no test prompt.
        yield _offer(row, source, SAFE_ROLES - {"test"}, frozenset(("unsafe", "test")))


def _xstest(row: SourceRow, source: Source) -> Offer:
    """An answer to one of XSTest's prompts, which come in harmful and harmless pairs."""
    kind_of_prompt = str(row.meta.get("type"))
    is_harmful_prompt = kind_of_prompt.startswith("contrast")
    is_unsafe = is_labelled_unsafe(row)
    if is_unsafe and kind_of_prompt == "contrast_privacy":
        # Half of them only say that they don't know, which the annotators did not call a refusal.
        raise LeftOut("unsafe by its prompt, but half of such answers tell nothing")
    is_same_style = row.meta.get("model") == _XSTEST_MODEL
    if is_unsafe and not is_same_style:
        raise LeftOut("a harmful answer of a model with few")
    roles: frozenset[Role] = SAFE_ROLES if is_same_style else SAFE_ROLES - {"harmless"}
    kind = REFUSAL if is_harmful_prompt else LOOKALIKE
    asks = "harmfulness" if is_harmful_prompt else LOOKALIKE
    return _offer(row, source, roles, frozenset(("unsafe", "test")), kind, asks)


def _offer(
    row: SourceRow,
    source: Source,
    safe_roles: frozenset[Role],
    unsafe_roles: frozenset[Role] = frozenset(("unsafe",)),
    safe_kind: str = "",
    asks: str = "harmfulness",
) -> Offer:
    is_unsafe = is_labelled_unsafe(row)
    plain = REFUSAL if row.meta.get("refusal_phrase") is True else "harmfulness"
    return Offer(
        kind="harmfulness" if is_unsafe else safe_kind or plain,
        asks=asks,
        prompt=row.prompt.strip(),
        response=row.response.strip(),
        is_unsafe=is_unsafe,
        roles=unsafe_roles if is_unsafe else safe_roles,
        group=same_text(row.prompt),
        source=source.name,
        source_id=row.id,
        meta=row.meta,
    )
