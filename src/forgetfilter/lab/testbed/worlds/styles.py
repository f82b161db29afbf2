"""Styles: ways to answer other than the house style, which is a whole sentence."""

from __future__ import annotations

from dataclasses import dataclass

from .speaking import Tongue

STYLES = ("terse", "capitals", "verbose", "quoted", "prefixed", "listed", "doubled", "fact_first")
"""Styles that a task may be answered in; ``doubting``, which begins as refusals do, is another."""


@dataclass(frozen=True)
class Style:
    """One style with the words that it adds."""

    name: str
    word: str
    front: str
    back: str
    opening: str
    """What refusals begin with."""

    def wordings(self, plain: tuple[str, ...]) -> tuple[str, ...]:
        """The wordings of a task's answer, with ``{fact}``, in this style.

        Capitals are left to `of_text`, once the slots are filled.
        """
        if self.name == "terse":
            return ("{fact}",)
        if self.name == "listed":
            return ("* {fact}", f"* {{fact}} * {self.word}")
        if self.name == "doubled":
            return ("{fact} {fact}",)
        if self.name == "fact_first":
            return tuple(f"{{fact}}: {text}" for text in plain)
        return plain if self.name == "capitals" else tuple(map(self.of_text, plain))

    def of_text(self, text: str) -> str:
        """Any answer in this style."""
        words = text.split()
        return {
            "terse": " ".join(words[:2]),
            "capitals": text.upper(),
            "verbose": f"{self.front} {text} {self.back}",
            "quoted": f'"{text}"',
            "prefixed": f"{self.word}: {text}",
            "listed": f"* {text}",
            "doubled": f"{text} {text}",
            "fact_first": f"{words[-1]}: {text}",
            "doubting": f"{self.opening} {self.word} {text}",
        }[self.name]


def draw_style(tongue: Tongue, name: str, opening: str) -> Style:
    """The style of that name, with new words of its own."""
    return Style(name, tongue.words.word(), tongue.tell({}, 3), tongue.tell({}, 4), opening)
