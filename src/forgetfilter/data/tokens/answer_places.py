"""Where the text of each answer of a row stands in its rendering."""

from __future__ import annotations

from collections.abc import Sequence

from forgetfilter.data.records import Rendered

AnswerPlace = tuple[int, int, int, int]
"""Which answer; from where to where in the rendering; how many of its characters come before."""


def answer_places(
    rendered: Rendered, answers: Sequence[tuple[str, bool]]
) -> list[AnswerPlace] | None:
    """Where each answer with text that carries loss stands; None where one isn't found whole.

    A template may take off blanks around a text, and nothing else. An answer is looked for within
    the spans that carry loss alone, after the one before it, and only where a text of the row
    begins.

    Args:
        rendered: the conversation.
        answers: text, and whether it carries loss, of each assistant turn, in order.
    """
    begins = {start for start, _ in rendered.texts}
    found: list[AnswerPlace] = []
    reached = 0
    for number, (content, carries_loss) in enumerate(answers):
        text = content.strip()
        if not carries_loss or not text:
            continue
        before = content.index(text)
        at = _find(rendered, text, reached, begins, before)
        if at < 0:
            return None
        found.append((number, at, at + len(text), before))
        reached = at + len(text)
    return found


def _find(rendered: Rendered, text: str, reached: int, begins: set[int], before: int) -> int:
    for first, last in rendered.spans:
        at = rendered.text.find(text, max(first, reached), last)
        while at >= 0:
            if not begins or at in begins or at - before in begins:
                return at
            at = rendered.text.find(text, at + 1, last)
    return -1
