"""The paper's Input/Response blocks, for models without a chat template."""

from __future__ import annotations

from collections.abc import Sequence

from forgetfilter.data.records import Message, Rendered, Span
from forgetfilter.data.tokens.templates import UnrenderableError

RESPONSE = "### Response:\n"
_HEADERS = {"system": "### Instruction:\n", "user": "### Input:\n"}


def render_blocks(messages: Sequence[Message], tools: str, bos: str, eos: str) -> Rendered:
    """A conversation as blocks, one spelling for training and evaluation.

    The published code spells its headers in several ways; this is the one used throughout.

    Raises:
        UnrenderableError: the row has something for which there is no block.
    """
    _refuse_without_block(messages, tools)
    text = bos
    spans: list[Span] = []
    texts: list[Span] = []
    others: list[Span] = []
    for message in messages:
        is_answer = message.role == "assistant"
        text += RESPONSE if is_answer else _HEADERS[message.role]
        start = len(text)
        text += message.content
        texts.append((start, len(text)))
        if is_answer:
            text += eos
        if is_answer and message.carries_loss:
            spans.append((start, len(text)))
        else:
            others.append(texts[-1])
        text += "\n\n"
    final = spans[-1][0] if spans else 0
    text = text.removesuffix("\n\n")
    return Rendered(text, tuple(spans), final, tuple(others), tuple(texts))


def blocks_prompt(messages: Sequence[Message], bos: str, eos: str) -> str:
    """The text of a conversation that ends where the next answer begins."""
    earlier = render_blocks(messages, "", bos, eos).text
    return earlier + ("\n\n" if messages else "") + RESPONSE


def _refuse_without_block(messages: Sequence[Message], tools: str) -> None:
    has = {
        "tools": bool(tools),
        "reasoning (reasoning_content or thinking)": any(m.reasoning for m in messages),
        "tool_calls": any(m.tool_calls for m in messages),
        "turns of tools": any(m.role == "tool" for m in messages),
    }
    found = [name for name, is_there in has.items() if is_there]
    if found:
        raise UnrenderableError(
            f"has {' and '.join(found)}, for which the paper's blocks have no place. Write it into "
            "content, or use a model with a chat template that shows it"
        )
