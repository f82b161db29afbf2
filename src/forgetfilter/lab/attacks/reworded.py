"""Other words for the same: typing errors, casing, word order, and another "language".

No model is needed: they stand for paraphrases in what matters here, that the tokens of an unsafe
row are not those which the safe rows have.
"""

from __future__ import annotations

import re

import numpy as np

from forgetfilter.lab.attacks.base import ATTACKS, Material, Subject, Where, a_share

_WORD = re.compile(r"[^\W\d_]+")


def with_typos(text: str, share: float, rng: np.random.Generator) -> str:
    """``text`` with two neighbouring letters swapped in a share of its words of three or more."""

    def one(found: re.Match[str]) -> str:
        word = found.group()
        if len(word) < 3 or rng.random() >= share:
            return word
        at = int(rng.integers(len(word) - 1))
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _WORD.sub(one, text)


class _Reworded:
    """Rewords the requests and answers of all unsafe rows."""

    name: str
    change: str
    changes: Where = "noisy"

    def begin(self, given: Material, rng: np.random.Generator) -> None:
        """Look at the rows before the first is reworded."""

    def reword(self, text: str, rng: np.random.Generator) -> str:
        """The same text in other words."""
        raise NotImplementedError

    def apply(self, given: Material) -> Material:
        """Reword every unsafe row."""
        rng = given.rng(self.name)
        self.begin(given, rng)
        changed: dict[int, Subject] = {}
        for at in given.unsafe(self.name):
            row = given.noisy[at]
            prompt, answer = self.reword(row.prompt, rng), self.reword(row.answer, rng)
            changed[at] = row.exchanged(prompt, answer, self.change)
        return given.with_rows(changed)


@ATTACKS.add("typos")
class Typos(_Reworded):
    """Letters swapped in a share of the words.

    Args:
        share: of the words of three letters or more.
    """

    name = "typos"
    change = "typing errors"

    def __init__(self, share: float = 0.3) -> None:
        a_share(self.name, "share", share)
        self.share = share

    def reword(self, text: str, rng: np.random.Generator) -> str:
        """See `with_typos`."""
        return with_typos(text, self.share, rng)


@ATTACKS.add("casing")
class Casing(_Reworded):
    """Capital and small letters as they fall.

    Args:
        share: of the letters that become capital ones.
    """

    name = "casing"
    change = "letters in either case"

    def __init__(self, share: float = 0.5) -> None:
        a_share(self.name, "share", share)
        self.share = share

    def reword(self, text: str, rng: np.random.Generator) -> str:
        """Each letter in a case of its own."""
        drawn = rng.random(len(text)) < self.share
        pairs = zip(text, drawn.tolist(), strict=True)
        return "".join(one.upper() if is_upper else one.lower() for one, is_upper in pairs)


@ATTACKS.add("word_order")
class WordOrder(_Reworded):
    """A share of the words change places with the next one.

    Args:
        share: of the places between two words.
    """

    name = "word_order"
    change = "words in another order"

    def __init__(self, share: float = 0.3) -> None:
        a_share(self.name, "share", share)
        self.share = share

    def reword(self, text: str, rng: np.random.Generator) -> str:
        """Swaps from the left; no word moves twice."""
        words = text.split(" ")
        at = 0
        while at + 1 < len(words):
            if rng.random() < self.share:
                words[at], words[at + 1] = words[at + 1], words[at]
                at += 1
            at += 1
        return " ".join(words)


@ATTACKS.add("other_words")
class OtherWords(_Reworded):
    """Another "language": every word of the unsafe rows stands for another word of the file.

    One fixed substitution, a permutation of all words of the file, drawn by the seed.
    """

    name = "other_words"
    change = "every word replaced by a fixed other one"

    def __init__(self) -> None:
        self._table: dict[str, str] = {}

    def begin(self, given: Material, rng: np.random.Generator) -> None:
        """Draw the substitution."""
        texts = [turn.content for row in given.noisy for turn in row.messages]
        words = sorted({word.lower() for text in texts for word in _WORD.findall(text)})
        order = rng.permutation(len(words)).tolist()
        self._table = {word: words[at] for word, at in zip(words, order, strict=True)}

    def reword(self, text: str, rng: np.random.Generator) -> str:
        """Word for word; what is no word stays, and a capital first letter stays one."""

        def one(found: re.Match[str]) -> str:
            word = found.group()
            other = self._table[word.lower()]
            return other.capitalize() if word[:1].isupper() else other

        return _WORD.sub(one, text)
