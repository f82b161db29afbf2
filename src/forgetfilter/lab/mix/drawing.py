"""Draw rows from a recipe's offers: a number for each file, and no group in two files.

Groups are dealt out to the places first; then each place takes rows from its sources and groups in
turn, so that no large one fills it, and so that safe and unsafe rows of one harm come from its
sources in like shares: which source a row is from shall not say what it is.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from forgetfilter.errors import DataError
from forgetfilter.lab.mix.offers import ROLES, LeftOut, Offer, Role, same_text
from forgetfilter.lab.mix.recipe import Recipe, Source
from forgetfilter.lab.mix.sources import SourceRow

_PLACES: dict[Role, str] = {
    "unsafe": "unsafe rows of the noisy file",
    "harmless": "harmless rows of the noisy file",
    "safe": "rows of the safe file",
    "test": "test prompts",
}


@dataclass
class SourceCount:
    """What became of one source's rows."""

    source: Source
    rows: int = 0
    """Rows read."""
    left_out: Counter[str] = field(default_factory=Counter[str])
    """Rows that no recipe could use, by reason."""
    drawn: Counter[Role] = field(default_factory=Counter[Role])
    """Rows drawn, by place; what is left was not needed."""


def collect(recipe: Recipe, rows: Iterable[SourceRow], count: SourceCount) -> list[Offer]:
    """All that a source offers; a row that offers nothing is counted with its reason."""
    offers: list[Offer] = []
    for row in rows:
        count.rows += 1
        try:
            found = list(recipe.offers(row, count.source))
            if not all(offer.prompt and offer.response for offer in found):
                raise LeftOut("no prompt or no answer")
        except LeftOut as reason:
            count.left_out[str(reason)] += 1
            continue
        for offer in found:
            if offer.roles <= count.source.roles:
                offers.append(offer)
            elif roles := offer.roles & count.source.roles:
                offers.append(replace(offer, roles=roles))
    return offers


def short_enough(
    offers: Sequence[Offer],
    counts: Mapping[str, SourceCount],
    max_characters: int,
    max_answer_words: int | None = None,
) -> list[Offer]:
    """The offers within the limits; the others are counted.

    Args:
        offers: of the sources in ``counts``.
        counts: by the source's name.
        max_characters: of prompt and answer.
        max_answer_words: of the answer. A row with a longer one may still be a test prompt, of
            which a model is shown no answer.
    """
    kept: list[Offer] = []
    reasons: dict[tuple[str, str], str] = {}
    for offer in offers:
        row = (offer.source, offer.source_id)
        if len(offer.prompt) + len(offer.response) > max_characters:
            reasons[row] = f"longer than {max_characters} characters"
        elif max_answer_words is None or len(offer.response.split()) <= max_answer_words:
            kept.append(offer)
        elif "test" in offer.roles:
            kept.append(replace(offer, roles=frozenset[Role](("test",))))
        else:
            reasons[row] = f"an answer of more than {max_answer_words} words"
    for (source, _), reason in reasons.items():
        counts[source].left_out[reason] += 1
    return kept


def without_repeats(offers: Sequence[Offer], counts: Mapping[str, SourceCount]) -> list[Offer]:
    """One offer of each prompt and answer, and none of those labelled both safe and unsafe."""
    labels: dict[tuple[str, str], set[bool]] = {}
    for offer in offers:
        labels.setdefault((offer.prompt, offer.response), set()).add(offer.is_unsafe)
    kept: dict[tuple[str, str], Offer] = {}
    reasons: dict[tuple[str, str], str] = {}
    for offer in offers:
        key, row = (offer.prompt, offer.response), (offer.source, offer.source_id)
        if len(labels[key]) > 1:
            reasons[row] = "labelled both safe and unsafe"
        elif key in kept:
            reasons[row] = "repeats another row"
        else:
            kept[key] = offer
    for (source, _), reason in reasons.items():
        counts[source].left_out[reason] += 1
    return list(kept.values())


class Drawer:
    """Draws for one recipe after the other; remembers which group and prompt went where."""

    def __init__(self) -> None:
        self._home: dict[str, Role] = {}

    def draw(
        self,
        recipe: Recipe,
        offers: Sequence[Offer],
        wanted: Mapping[Role, int],
        rng: random.Random,
    ) -> dict[Role, list[Offer]]:
        """``wanted[role]`` offers for each role, exactly.

        Raises:
            DataError: there are too few; the message says how many there are.
        """
        roles: list[Role] = [role for role in ROLES if wanted.get(role, 0) > 0]
        dealt = self._deal(offers, {role: wanted[role] for role in roles}, rng)
        short: list[Role] = [r for r in roles if sum(map(len, dealt[r])) < wanted[r]]
        if short:
            raise DataError(_shortage(recipe, offers, wanted, short))
        return {role: _in_turn(dealt[role], wanted[role], role, rng) for role in roles}

    def _deal(
        self, offers: Sequence[Offer], wanted: Mapping[Role, int], rng: random.Random
    ) -> dict[Role, list[list[Offer]]]:
        """Each group to one place: the neediest, and once none is short the one with fewest."""
        groups: dict[str, list[Offer]] = {}
        for offer in offers:
            groups.setdefault(offer.group, []).append(offer)
        names = list(groups)
        rng.shuffle(names)
        dealt: dict[Role, list[list[Offer]]] = {role: [] for role in wanted}
        supply: Counter[Role] = Counter()
        held: Counter[tuple[Role, str]] = Counter()
        for name in names:
            group = groups[name]
            # The prompts too: another recipe may have the same one in a group of another name.
            keys = set[str]().union(*(offer.keys for offer in group))
            homes = {self._home[key] for key in keys if key in self._home}
            useful: list[Role] = [
                role
                for role in wanted
                if homes <= {role} and any(role in offer.roles for offer in group)
            ]
            if not useful:
                continue
            source = group[0].source
            order: dict[Role, tuple[float, int, int]] = {
                role: (min(supply[role] / wanted[role], 1), held[role, source], len(dealt[role]))
                for role in useful
            }
            role = min(useful, key=lambda role: order[role])
            fitting = [offer for offer in group if role in offer.roles]
            if role == "test":
                fitting = _each_prompt_once(fitting)
            dealt[role].append(fitting)
            supply[role] += len(fitting)
            held[role, source] += 1
            self._home.update(dict.fromkeys(keys, role))
        return dealt


def _each_prompt_once(offers: Sequence[Offer]) -> list[Offer]:
    """The first offer of each prompt: a second answer of the source asks nothing new."""
    return list({same_text(offer.prompt): offer for offer in reversed(offers)}.values())[::-1]


def _in_turn(
    groups: Sequence[list[Offer]], count: int, role: Role, rng: random.Random
) -> list[Offer]:
    """``count`` offers: each source in turn, and of a source each group in turn.

    Of test prompts the kinds take turns too: harmful requests and those that only look so.
    """
    queues: dict[tuple[str, str], list[list[Offer]]] = {}
    for group in groups:
        rng.shuffle(group)
        kind = group[0].asks if role == "test" else ""
        queues.setdefault((group[0].source, kind), []).append(group)
    return _one_of_each([_one_of_each(queues[key]) for key in sorted(queues)])[:count]


def _one_of_each(lists: Sequence[list[Offer]]) -> list[Offer]:
    """The first of each list, then the second of each, until all are empty."""
    longest = max(map(len, lists), default=0)
    return [entry[at] for at in range(longest) for entry in lists if at < len(entry)]


def _shortage(
    recipe: Recipe, offers: Sequence[Offer], wanted: Mapping[Role, int], short: Sequence[Role]
) -> str:
    """What there is, what was asked for, and what to change."""
    names = ", ".join(dict.fromkeys(offer.source for offer in offers)) or "its sources"
    has = Counter(role for offer in offers for role in offer.roles)
    groups = len({offer.group for offer in offers})
    there = ", ".join(f"{has[role]:,} could be {_PLACES[role]}" for role in wanted if wanted[role])
    asked = ", ".join(f"{n:,} {_PLACES[role]}" for role, n in wanted.items() if n)
    return (
        f"Too few {recipe.name} rows for the {' and the '.join(_PLACES[r] for r in short)}: of "
        f"those in {names}, {there}; but they form {groups:,} groups (by "
        f"{recipe.separated_by}), and a group goes to one place only. Wanted: {asked}. Ask for "
        "fewer rows, another unsafe fraction, or more harms or tasks to share them."
    )
