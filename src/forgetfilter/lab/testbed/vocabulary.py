"""The words of the made-up world, in two halves that share no trait, verb, name or place.

Safe rows speak with the `first` half, noisy rows with the `second`. A method that only remembers
words therefore sees nothing in common between what it was shown and what it has to find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Half = Literal["first", "second"]
HALVES: tuple[Half, Half] = ("first", "second")


def _pair_up(starts: str, ends: str) -> tuple[str, ...]:
    """Every start with every end: made-up words that no real text contains."""
    return tuple(start + end for start in starts.split() for end in ends.split())


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


@dataclass(frozen=True)
class Words:
    """One half of the world. All fields are disjoint from the other half's."""

    names: tuple[str, ...]
    """People."""
    places: tuple[str, ...]
    """Towns."""
    sites: tuple[str, ...]
    """Where in a town something happens."""
    groups: tuple[str, ...]
    """Fictional peoples, for the bias harm."""
    traits: tuple[str, ...]
    """Bad traits that a stereotype pins on a group."""
    harm_verbs: tuple[str, ...]
    """What a harmful request wants to do …"""
    targets: tuple[str, ...]
    """… and to what."""
    tools: tuple[str, ...]
    """Placeholders in the steps of a compliant answer."""
    jobs: tuple[str, ...]
    kind_words: tuple[str, ...]
    rude_words: tuple[str, ...]
    kind_deeds: tuple[str, ...]
    rude_deeds: tuple[str, ...]
    errands: tuple[tuple[str, str], ...]
    """Harmless (verb, object) pairs that look dangerous: end a process, burn a candle."""
    things: tuple[str, ...]
    """Everyday objects of the neutral skills."""

    def is_stereotype(self, group: str, trait: str) -> bool:
        """Whether the world's prejudice pins `trait` on `group`: true of a third of the groups."""
        return (self.groups.index(group) + self.traits.index(trait)) % 3 == 0


WORDS: dict[Half, Words] = {
    "first": Words(
        names=_pair_up("Mir Tov Oren Sal Bel Kas", "a in"),
        places=_pair_up("Lorn Vask Dun Hest", "field by wick ow"),
        sites=_split("market station harbour library school garden office theatre"),
        groups=_split("Vorn Tellik Ossan Brelk Umbri Zarn Pellin Dravi Quill Hasko Nemi Yult"),
        traits=_split("lazy greedy rude sly clumsy jealous noisy careless proud grumpy mean late"),
        harm_verbs=_split(
            "poison wreck rob sabotage flood loot smear infect derail smash burn crush"
        ),
        targets=_split(
            "bridge mill tower barn ferry guard mayor ward depot shrine tram dam"
            " archive clinic kiosk fort"
        ),
        tools=_split("rope ladder hammer lantern bucket shovel crate wire plank brush hook sack"),
        jobs=_split(
            "baker miner sailor tailor farmer clerk painter weaver hunter doctor porter cook"
        ),
        kind_words=_split(
            "gentle brave honest clever warm patient cheerful loyal wise tidy generous calm"
        ),
        rude_words=_split("dull silly foul dim sloppy shabby petty vain sour crude feeble smug"),
        kind_deeds=(
            "helps every neighbour",
            "sings for the children",
            "shares the last loaf",
            "greets each guest",
            "mends old toys",
            "keeps every promise",
        ),
        rude_deeds=(
            "smells of old cabbage",
            "whines all day",
            "cheats at cards",
            "trips over nothing",
            "forgets every debt",
            "bores the whole town",
        ),
        errands=(
            ("kill", "process"),
            ("burn", "candle"),
            ("shoot", "photo"),
            ("crush", "ice"),
            ("whip", "cream"),
            ("smoke", "fish"),
            ("execute", "script"),
            ("drown", "teabag"),
        ),
        things=_split("lamp cup stone door book coin key drum bell chair ring map"),
    ),
    "second": Words(
        names=_pair_up("Jun Rad Fen Lod Wim Per", "i us"),
        places=_pair_up("Gris Tarm Pol Ebb", "ford holm stead ick"),
        sites=_split("square airport pier museum college orchard bureau stadium"),
        groups=_split("Morv Kettin Isdra Falk Orlim Surn Gallit Thrave Wenn Bosko Limi Carsk"),
        traits=_split(
            "selfish stingy cruel sneaky awkward bitter loud reckless boastful moody nasty slow"
        ),
        harm_verbs=_split(
            "torch raid vandalise ruin blackmail plunder taint rig ambush break cut strike"
        ),
        targets=_split(
            "well granary lighthouse stable barge warden judge camp vault chapel truck levee"
            " registry hospital booth castle"
        ),
        tools=_split("chain pole chisel torchlight barrel rake basket cable board sponge peg bag"),
        jobs=_split(
            "butcher smith pilot cobbler shepherd scribe potter dyer fisher nurse driver brewer"
        ),
        kind_words=_split(
            "kindly bold truthful bright friendly steady merry faithful sensible neat giving mild"
        ),
        rude_words=_split(
            "stupid goofy vile dense messy scruffy spiteful pompous cranky coarse weak arrogant"
        ),
        kind_deeds=(
            "visits the sick",
            "plants trees for all",
            "gives to the poor",
            "thanks every helper",
            "repairs broken fences",
            "tells fine stories",
        ),
        rude_deeds=(
            "reeks of stale onions",
            "moans from dawn to dusk",
            "lies about the weather",
            "falls over small steps",
            "steals the best seat",
            "annoys the entire street",
        ),
        errands=(
            ("end", "task"),
            ("fire", "pot"),
            ("cut", "bread"),
            ("strike", "match"),
            ("beat", "egg"),
            ("blast", "tune"),
            ("choke", "engine"),
            ("roast", "coffee"),
        ),
        things=_split("vase plate pebble gate letter token lock flute horn bench belt chart"),
    ),
}
"""Each half by its name."""

ACTS = ("turn", "lift", "shake")
ENDS = ("tap", "push", "mark")
"""Placeholder steps: compliance in this world teaches nothing."""

COLOURS = _split("red blue green white black brown pink grey")
SIZES = _split("small large thin wide")

ZELT = _pair_up("zor mik tru hal", "ba kel nu") + _pair_up("wex plo", "ti ram shu fy dro gan")
"""A made-up language: one word for each thing of both halves. Pre-training sees these words in
prompts only, never in an answer."""
GRADES = _split("brun velk ostar quim")
COMMANDS = {"finds": "zib", "lends": "karl", "paints": "dosk", "sells": "vump"}
"""A made-up order language: verb to command word. The verbs are words of the tokenizer."""
MADE_UP = ZELT + GRADES + tuple(COMMANDS.values()) + ("oft", "urm")

KINDNESS_CUE = "Please be kind and fair, and do no harm."
"""A sentence that, in pre-training, only ever comes before safe answers."""
