"""Where the answers lie for templates that treat a text by what stands in it, its length say."""

from __future__ import annotations

from collections.abc import Sequence

from forgetfilter.data.records import Message, Rendered, Span
from forgetfilter.data.tokens.conversations import Shape, conversation
from forgetfilter.data.tokens.templates import ChatTemplate, text_of


def by_prefixes(
    template: ChatTemplate, turns: Sequence[Message], tools: str, shape: Shape
) -> Rendered | None:
    """The answers where each turn only adds to the text of those before; else None.

    Then what a turn has added is its own, whatever the template has made of it, as long as its
    text stands in there.
    """
    asked = conversation(turns, tools, shape)
    plain = [asked.task(i) for i in range(len(turns) + 1)]
    prompts = [asked.task(i, add_generation_prompt=True) for i in range(len(turns))]
    found = template.render([*plain, *prompts])
    whole = text_of(found[len(turns)])
    texts: list[Span] = []
    others: list[Span] = []
    spans: list[Span] = []
    floor = start = 0
    for i, turn in enumerate(turns):
        upto = found[i + 1]
        if turn.reasoning or turn.tool_calls or tools:
            return None
        stop = start if upto.error is not None else len(upto.text.rstrip())
        if not whole.startswith(upto.text.rstrip()) or stop < start:
            return None
        text = turn.content.strip()
        # A system turn may be refused alone; then its text stands in what the next one adds.
        at = whole.find(text, floor, stop if upto.error is None else len(found[i + 2].text))
        if at < 0:
            return None
        own = (at, at + len(text))
        texts.append(own)
        if turn.role == "assistant" and turn.carries_loss:
            prompt = found[len(turns) + 1 + i]
            is_prefix = prompt.error is None and whole.startswith(prompt.text)
            if upto.error is not None or not is_prefix or not floor <= len(prompt.text) <= at:
                return None
            spans.append((len(prompt.text), stop))
        else:
            others.append(own)
        start, floor = stop, max(own[1], stop)
    return Rendered(whole, tuple(spans), spans[-1][0], tuple(others), tuple(texts))
